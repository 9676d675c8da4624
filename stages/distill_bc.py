"""Distill a student by behaviour cloning: supervised learning on collected pairs, with no env in the loop.

Epochs over windows of the recorded episodes (Pomerleau 1989; distilling a policy's distribution: Rusu et al. 2016).
Some episodes are held out; learning stops when the loss on them has not fallen for a while. Every so often the greedy
student is measured in the env on seeds of its own; the best one is kept, and reported on other seeds at the end.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field

from tscli import streams
from tscli.config import StudentConfig, WindowsConfig
from tscli.diagnose.diagnosis import before_distillation
from tscli.learning import imitation
from tscli.learning.augment import Augmentation
from tscli.learning.optim import FlatAdam
from tscli.learning.replay import Replay
from tscli.networks import Policy, PolicySpec
from tscli.pairs import Pairs
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, setup
from tscli.training.teachers import find_pairs_and_teachers

COMMAND = "distill"
METHOD = "bc"
ORDER = 30
CURVES = (
    curves.Panel("loss/imitation", "loss by gradient step", "updates"),
    curves.Panel("loss/validation", "loss on held-out episodes", "updates"),
    curves.Panel("eval/return", "return, greedy student", "updates"),
)


class Config(StudentConfig, WindowsConfig):
    """Behaviour cloning's settings; the defaults suit small control tasks."""

    pairs: str = Field("", description="Run of collected pairs; empty takes those of the newest run and its parents.")
    num_epochs: int = Field(50, ge=1, description="Passes over the pairs at the most.")
    max_updates: int | None = Field(None, ge=1, description="Gradient steps at the most; none: only num_epochs counts.")
    patience: int = Field(10, ge=1, description="Epochs without a better loss on held-out episodes until it stops.")


def main(config: Config, session: Session) -> Run:
    """Draw, learn, measure; keep the best."""
    device = setup.prepare(config)
    pairs_run, teachers = find_pairs_and_teachers(session, config.pairs, config.teacher)
    session.say(f"pairs: {pairs_run.name}, labelled by {teachers.name or 'no teacher of ours'}")
    task = load_task(teachers.task)
    student_view, action = setup.resolve_for_evaluation(task, config.obs or task.student, device)
    setup.check_pairs_view([pairs_run.path / "pairs"], student_view)
    pairs = Pairs(pairs_run.path / "pairs")

    spec = PolicySpec(student_view, action, config.student)
    imitation.check_labels(config.loss, pairs.schema, pairs_run.name)
    imitation.check_loss(config.loss, spec, pairs.schema.head_kind)
    before_distillation(session, config, teachers, task, student_view, pairs_run)

    with streams.seeded_init(config.seed, "student"):
        student = Policy(spec).to(device)
    pairs.show_features(student.encoder, session.say)
    imitation.fit_normalizer(student, pairs)
    imitation.match_std(student, pairs)
    optimizer = FlatAdam(student.parameters(), config.lr, config.max_grad_norm)
    shuffle_stream = streams.generator(config.seed, "bc/shuffle")
    noise_stream = streams.generator(config.seed, "bc/noise", device)
    augment = Augmentation(config.augment, student, streams.generator(config.seed, "bc/augment", device))
    train, held_out = pairs.split_episodes(config.validation_fraction, config.seed)
    index = pairs.windows(1, episodes=train)
    # Batches of one size; the few steps that are left over are others in each epoch.
    window = config.window if student.is_recurrent else 1
    per_epoch = -(-len(index) // window)
    num_batches = max(1, round(per_epoch / config.batch_size))
    batch_size = per_epoch // num_batches
    replay = Replay(student, window, batch_size, shuffle_stream)
    if student.is_recurrent:
        replay.choose(pairs, train)

    at = State(updates=0, stale=0, best_loss=float("inf"))
    parts = {"student": student, "optimizer": optimizer, "replay": replay, "at": at}
    parts |= {"shuffle": shuffle_stream, "noise": noise_stream, "augment": augment.stream}
    frame = (parts, {"policy": student}, "student", config.num_epochs)
    epoch = {"unit": "epoch", "unit_steps": num_batches * batch_size * window}
    options = {**epoch, "parents": {"pairs": pairs_run, **teachers.parents}, "details": teachers.details}

    with Training(session, config, task, *frame, **options) as training:
        for _ in training.iterations():
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * training.left

            losses = []
            if student.is_recurrent:
                batches = replay.batches(num_batches, noise_stream)
            else:
                order = torch.randperm(len(index), generator=shuffle_stream)[: num_batches * batch_size].numpy()
                drawn = index[np.sort(order.reshape(num_batches, batch_size)).ravel()]
                reading = (student_view, noise_stream, device, True)
                batches = imitation.read_batches(pairs, drawn, batch_size, *reading)
            for batch in batches:
                loss = replay.loss(batch._replace(obs=augment(batch.obs)), config.loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                at.updates += 1
                if at.updates == config.max_updates:
                    break

            metrics = {"updates": at.updates, "lr": float(optimizer.lr)}
            metrics["loss/imitation"] = float(torch.stack(losses).mean())
            samples = training.done * num_batches * batch_size * window
            metrics["samples_per_second"] = samples / training.clock.seconds
            if len(held_out):
                loss = imitation.mean_loss(student, pairs, held_out, config.loss)
                metrics["loss/validation"] = loss
                at.stale = 0 if loss < at.best_loss else at.stale + 1
                at.best_loss = min(at.best_loss, loss)
            is_last = at.stale >= config.patience or at.updates == config.max_updates
            training.log(metrics, show=("loss/imitation", "loss/validation"), last=is_last)
        figures = {"updates": at.updates, "best_validation_loss": at.best_loss}
        return training.report(CURVES, f"{task.name}: behaviour cloning", **figures)


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

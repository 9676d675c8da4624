"""Distill a student by behaviour cloning: supervised learning on collected pairs, with no env in the loop.

Epochs over windows of the recorded episodes (Pomerleau 1989; distilling a policy's distribution: Rusu et al. 2016).
Some episodes are held out; learning stops when the loss on them has not fallen for a while. Every so often the greedy
student is measured in the env on seeds of its own; the best one is kept, and reported on other seeds at the end.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from pydantic import Field

from tscli import streams
from tscli.config import Network, NetworkConfig, StageConfig
from tscli.diagnose.diagnosis import before_distillation
from tscli.learning.episodes import run_episodes
from tscli.learning.imitation import (
    batch_loss,
    check_labels,
    check_loss,
    fit_normalizer,
    match_std,
    mean_loss,
    read_batches,
    window_lengths,
)
from tscli.learning.optim import FlatAdam
from tscli.networks import Policy, PolicySpec
from tscli.networks.files import load_policy_file
from tscli.pairs import Pairs
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import evaluation, frame, setup
from tscli.training.teachers import find_pairs_and_teachers

COMMAND = "distill"
METHOD = "bc"
ORDER = 30
CURVES = (
    curves.Panel("loss/imitation", "loss by gradient step", "updates"),
    curves.Panel("loss/validation", "loss on held-out episodes", "updates"),
    curves.Panel("eval/return", "return, greedy student", "updates"),
)


class Config(StageConfig):
    """Behaviour cloning's settings; the defaults suit small control tasks."""

    teacher: str = Field(
        "", description="Run of the teacher: number, name or path, or several as in 1,2; empty takes the newest."
    )
    pairs: str = Field("", description="Run of collected pairs; empty takes the newest of the teacher.")
    obs: str = Field("", description="View of the student; empty takes the task's student view.")
    student: Network = Field(NetworkConfig(), description="Body of the student.")
    diagnose: bool = Field(True, description="Say first what may keep the student from learning; costs a second.")

    num_epochs: int = Field(50, ge=1, description="Passes over the pairs at the most.")
    max_updates: int | None = Field(None, ge=1, description="Gradient steps at the most; none: only num_epochs counts.")
    loss: Literal["kl", "cross_entropy", "mse", "huber"] = Field(
        "kl", description="KL(teacher || student), cross-entropy to its greedy action, or distance of greedy actions."
    )
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate at the start.")
    lr_schedule: Literal["constant", "linear"] = Field("constant", description="Whether it falls to 0 over num_epochs.")
    batch_size: int = Field(128, ge=1, description="Windows per gradient step.")
    window: int = Field(16, ge=1, description="Steps of a window for a student with memory; without memory it is 1.")
    burn_in: int = Field(
        0,
        ge=0,
        description="Steps before a window that build up memory and carry no loss; 0: memory starts empty. A history "
        "network has one less than its length at the least.",
    )
    window_start: Literal["anywhere", "episode"] = Field(
        "anywhere", description="Where windows begin: anywhere in an episode, or at its first step alone."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which gradients are clipped.")
    validation_fraction: float = Field(0.1, ge=0, lt=1, description="Share of episodes held out; 0 holds out none.")
    patience: int = Field(10, ge=1, description="Epochs without a better loss on held-out episodes until it stops.")

    eval_every: int = Field(5, ge=1, description="Epochs between greedy evaluations that choose the best student.")
    eval_episodes: int = Field(100, ge=1, description="Episodes of such an evaluation, and of the final one.")
    stop_return: float | None = Field(None, description="Stop once greedy evaluations reach this return.")
    stop_patience: int = Field(2, ge=1, description="That many times in a row.")


def main(config: Config, session: Session) -> Run:
    """Draw, learn, measure; keep the best."""
    device = setup.prepare(config)
    pairs_run, teachers = find_pairs_and_teachers(session, config.pairs, config.teacher)
    session.say(f"pairs: {pairs_run.name}, labelled by {teachers.name or 'no teacher of ours'}")
    task = load_task(teachers.task)
    eval_env, report_env = setup.eval_envs(task, config.eval_episodes, device)
    student_view = setup.resolve(task, config.obs or task.student, eval_env)
    setup.check_pairs_view([pairs_run.path / "pairs"], student_view)
    pairs = Pairs(pairs_run.path / "pairs")

    spec = PolicySpec(student_view, eval_env.action, config.student)
    check_labels(config.loss, pairs.schema, pairs_run.name)
    check_loss(config.loss, spec, pairs.schema.head_kind)
    if config.diagnose:
        before_distillation(session, teachers, task, student_view, config.student, pairs_run)

    with streams.seeded_init(config.seed, "student"):
        student = Policy(spec).to(device)
    fit_normalizer(student, pairs)
    match_std(student, pairs)
    optimizer = FlatAdam(student.parameters(), config.lr, config.max_grad_norm)
    shuffle_stream = streams.generator(config.seed, "bc/shuffle")
    noise_stream = streams.generator(config.seed, "bc/noise", device)
    window, burn_in = window_lengths(config.student, config.window, config.burn_in)
    train, held_out = pairs.split_episodes(config.validation_fraction, config.seed)
    index = pairs.windows(window, start=config.window_start, episodes=train)
    # Overlapping windows show every step several times: an epoch is as many as show each step once.
    per_epoch = -(-len(index) // window) if config.window_start == "anywhere" else len(index)
    # Batches of one size; the few windows that are left over are others in each epoch.
    num_batches = max(1, round(per_epoch / config.batch_size))
    batch_size = per_epoch // num_batches

    per_slot = config.eval_episodes // eval_env.num_envs
    best_return, best_loss, streak, stale, updates, start, seconds = -float("inf"), float("inf"), 0, 0, 0, 0, 0.0
    parts = {"student": student, "optimizer": optimizer, "shuffle": shuffle_stream, "noise": noise_stream}
    parents = {"pairs": pairs_run, **teachers.parents}

    with (
        session.start(config, COMMAND, teachers.task, method=METHOD, role="student", parents=parents) as run,
        session.progress(config.num_epochs, "epochs") as progress,
    ):
        if run.state is not None:
            saved = frame.restore(run.state, parts, device)
            start, updates, streak, stale = (saved[k] for k in ("epoch", "updates", "streak", "stale"))
            best_return, best_loss, seconds = saved["best_return"], saved["best_loss"], saved["seconds"]
            session.say(frame.resume_note(run.name, f"epoch {start} of {config.num_epochs}"))
        clock = frame.Clock(seconds)
        for epoch in range(start, config.num_epochs):
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * (1 - epoch / config.num_epochs)

            # --- learn ----------------------------------------------------------------------------------------------
            losses = []
            order = torch.randperm(len(index), generator=shuffle_stream)[: num_batches * batch_size].numpy()
            drawn = index[np.sort(order.reshape(num_batches, batch_size)).ravel()]
            reading = (student_view, burn_in, noise_stream, device)
            for batch in read_batches(pairs, drawn, batch_size, *reading, flat=not student.is_recurrent):
                loss = batch_loss(student, batch, config.loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
                updates += 1
                if config.max_updates is not None and updates >= config.max_updates:
                    break

            # --- log, evaluate, save --------------------------------------------------------------------------------
            metrics = {"epoch": epoch + 1, "updates": updates, "lr": optimizer.lr, "loop_seconds": clock.seconds}
            metrics["loss/imitation"] = float(torch.stack(losses).mean())
            metrics["samples_per_second"] = (epoch + 1) * num_batches * batch_size * window / clock.seconds
            if len(held_out):
                metrics["loss/validation"] = mean_loss(student, pairs, held_out, window, burn_in, config.loss)
                stale = 0 if metrics["loss/validation"] < best_loss else stale + 1
                best_loss = min(best_loss, metrics["loss/validation"])
            frame.check_divergence(metrics, f"update {updates}")
            out_of_updates = config.max_updates is not None and updates >= config.max_updates
            is_last = epoch + 1 == config.num_epochs or stale >= config.patience or out_of_updates
            if is_last or (epoch + 1) % config.eval_every == 0:
                with clock:
                    found = run_episodes(student, eval_env, streams.derive(config.seed, "select"), per_slot)
                metrics |= evaluation.summary(found)
                if metrics["eval/return"] >= best_return:  # among equals the later one has seen more
                    best_return = metrics["eval/return"]
                    run.save_policy(student)
                reached = config.stop_return is not None and metrics["eval/return"] >= config.stop_return
                streak = streak + 1 if reached else 0
            run.log(metrics)
            shown = {"loss": metrics["loss/imitation"], "held out": best_loss, "best greedy": best_return}
            progress.update(epoch + 1, shown)
            if is_last or streak >= config.stop_patience:
                break
            values = {"epoch": epoch + 1, "updates": updates, "streak": streak, "stale": stale}
            values |= {"best_return": best_return, "best_loss": best_loss, "seconds": clock.seconds}
            run.save_if_due(lambda v=values: frame.snapshot(parts, **v), config.checkpoint_every)
        loop_seconds = clock.seconds

        # --- report: the best student, on episodes that did not choose it -------------------------------------------
        run.save_policy(student, "last")
        best = load_policy_file(run.path / "policy.safetensors", device)
        final = evaluation.summary(run_episodes(best, report_env, streams.derive(config.seed, "report"), per_slot))
        curves.draw_curves(run.path / "curves.png", run.read_metrics(), CURVES, f"{task.name}: behaviour cloning")
        final |= {"epoch": epoch + 1, "updates": updates, "loop_seconds": loop_seconds}
        final |= {"best_selection_return": best_return, "best_validation_loss": best_loss}
        result = run.finish(final, **teachers.details)
    eval_env.close()
    report_env.close()
    return result


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

"""Distill a student by DAgger: the student acts, the teacher labels, and everything labelled so far is learnt from.

Dataset aggregation (Ross et al. 2011). A round lets the mixture of teacher and student act for some steps in every env,
appends what was seen and what the teacher would have done to the pairs on disk, and takes gradient steps on what is
drawn from all of it: single steps, or for a student with memory stretches of episodes, with the memory that it has
there. It starts from collected pairs of the same teacher, or from episodes of the teacher itself.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from tscli import streams
from tscli.config import DistillConfig, NumEnvs, Share, Steps, WindowsConfig
from tscli.diagnose.diagnosis import before_distillation
from tscli.learning import imitation
from tscli.learning.augment import Augmentation
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.record import Recorder
from tscli.learning.replay import Replay
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy, PolicySpec
from tscli.pairs import Pairs, PairsWriter
from tscli.pairs.features import field_of
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, setup
from tscli.training.teachers import find_pairs, find_teachers

COMMAND = "distill"
METHOD = "dagger"
DEFAULT_METHOD = True
ORDER = 30
CURVES = (
    curves.Panel("rollout/return", "return by episode", "episodes"),
    curves.Panel("loss/imitation", "loss by episode", "episodes"),
    curves.Panel("loss/imitation", "loss by gradient step", "updates"),
    curves.Panel("eval/return", "return, greedy student", "step"),
    curves.Panel("loss/validation", "loss on held-out episodes", "step"),
    curves.Panel("beta", "beta: share of the teacher's actions", "step"),
)


class Config(DistillConfig, WindowsConfig):
    """DAgger's settings; the defaults suit small control tasks."""

    pairs: str | None = Field(
        "",
        description="Run of collected pairs to start from; empty takes this teacher's newest, none starts without.",
    )
    groups: tuple[str, ...] = Field(
        (), description="Groups to record beside the student's where no pairs were collected; empty records all."
    )
    total_steps: Steps = 200_000
    total_episodes: int | None = Field(None, ge=1, description="Stop after that many episodes; none: only total_steps.")
    num_envs: NumEnvs = 64
    round_steps: int = Field(32, ge=1, le=65_536, description="Steps per env and round.")
    updates_per_round: int = Field(16, ge=1, description="Gradient steps after each round.")
    teacher_episodes: int = Field(
        50, ge=1, description="Episodes of the teacher to begin with where there are no collected pairs."
    )
    beta: float = Field(
        0.0, ge=0, le=1, description="Probability that the teacher acts, in the first round that it shares; 0: never."
    )
    beta_schedule: Literal["constant", "linear", "exponential"] = Field(
        "exponential", description="How beta falls: not at all, to 0 over beta_rounds, or by beta_decay each round."
    )
    beta_rounds: int = Field(20, ge=1, description="Rounds until a linear beta is 0.")
    beta_decay: float = Field(0.7, gt=0, lt=1, description="Factor of an exponential beta.")
    act: Literal["sample", "greedy"] = Field("sample", description="How the acting policy picks from its distribution.")
    memory: int | None = Field(None, ge=1, description="Transitions that are learnt from, the newest; none: all.")
    clear_every: int | None = Field(
        None, ge=1, description="Forget all transitions every that many episodes; none: never."
    )
    validation_fraction: Share = 0.05
    shard_mb: float = Field(64.0, gt=0, description="Size of a file of the aggregated dataset, in MiB, at the most.")


def main(config: Config, session: Session) -> Run:
    """Act, label, append, learn; keep the best."""
    device, num_envs = setup.prepare(config), config.num_envs
    teachers = find_teachers(session, config.teacher, config.teacher_by, config.task, config.pairs)
    task = load_task(teachers.task)
    env = setup.task_env(task, config.num_envs, device)
    teacher = teachers.open(env, device)
    student_view = setup.resolve(task, config.obs or task.student, env)
    pairs_run = find_pairs(session, config.pairs, teachers)
    session.say(f"teacher: {teachers.name}; pairs: {pairs_run.name if pairs_run else 'none, the teacher begins'}")
    collected = [pairs_run.path / "pairs"] if pairs_run else []
    setup.check_pairs_view(collected, student_view)
    # What is added has the groups of what is there. Opening it now finds damage before a run is begun.
    groups = Pairs(collected).schema.groups if collected else setup.recorded(task, env, config.groups, student_view)
    spec = PolicySpec(student_view, env.action, config.student)
    imitation.check_loss(config.loss, spec, teacher.spec.network.head_kind)
    before_distillation(session, config, teachers, task, student_view, pairs_run, env)
    with streams.seeded_init(config.seed, "student"):
        student = Policy(spec).to(device)
    optimizer = FlatAdam(student.parameters(), config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "student/act", device)
    mix_stream = streams.generator(config.seed, "dagger/mix", device)
    draw_stream = streams.generator(config.seed, "dagger/draw")
    noise_stream = streams.generator(config.seed, "dagger/noise", device)
    augment = Augmentation(config.augment, student, streams.generator(config.seed, "dagger/augment", device))
    replay = Replay(student, config.window, config.batch_size, draw_stream)

    viewed = ViewedEnv(env, {"teacher": teacher.spec.view, "student": student_view}, config.seed)
    episodes = EpisodeStats(num_envs)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        teacher_hidden=teacher.initial_hidden(num_envs),
        student_hidden=student.initial_hidden(num_envs),
        updates=0,
        mixed_rounds=0,
        cleared_at=0,  # episode at which transitions were forgotten last
        forgotten=0,  # transitions
    )
    parts = {"student": student, "optimizer": optimizer, "viewed": viewed, "episodes": episodes, "at": at}
    parts["augment"] = augment.stream
    parts |= {"act": act_stream, "mix": mix_stream, "draw": draw_stream, "noise": noise_stream, "replay": replay}
    parents = teachers.parents | ({"pairs": pairs_run} if pairs_run else {})
    frame = (parts, {"policy": student}, "student", config.total_steps, num_envs * config.round_steps)

    with Training(session, config, task, *frame, parents=parents, details=teachers.details, count="round") as training:
        if training.run.state is None:
            schema = teachers.schema(env, groups, teacher, config.seed)
            shard_bytes, expected = int(config.shard_mb * 2**20), training.num_iterations * config.round_steps
            sizes = {field_of(name, one.sha256): one.features for name, one in student.encoder.frozen.items()}
            writer = PairsWriter(training.run.fresh_folder("pairs"), schema, num_envs, shard_bytes, expected, sizes)
        else:
            writer = PairsWriter.resume(training.run.path / "pairs", training.run.state["parts"]["writer"])
        training.add("writer", writer)
        pairs = Pairs(collected, "size", live=writer)
        pairs.show_features(student.encoder, session.say)
        if collected and not training.resumed:
            imitation.fit_normalizer(student, pairs)

        for iteration in training.iterations():
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * training.left
            begins = not collected and episodes.episodes < config.teacher_episodes
            beta = 1.0 if begins else scheduled_beta(config, at.mixed_rounds)
            at.mixed_rounds += not begins
            rows_before = pairs.num_steps

            # --- act and label --------------------------------------------------------------------------------------
            record = Recorder()
            with torch.no_grad():
                for _ in range(config.round_steps):
                    label, at.teacher_hidden = teacher.step(viewed.observe("teacher"), at.teacher_hidden, at.reset)
                    seen = student.encoder.features_of(viewed.observe("student"))
                    # The student's memory goes on also where the teacher acts.
                    own, at.student_hidden = student.step(seen, at.student_hidden, at.reset)
                    action = own.sample(act_stream) if config.act == "sample" else own.mode()
                    teacher_action, acts = label.mode(), torch.zeros_like(at.reset)
                    if beta > 0:
                        acts = torch.empty(num_envs, device=device).uniform_(generator=mix_stream) < beta
                        by_teacher = label.sample(act_stream) if config.act == "sample" else teacher_action
                        action = torch.where(acts.reshape(-1, *[1] * (action.dim() - 1)), by_teacher, action)
                    obs = viewed.record(groups)
                    step = viewed.step(action)
                    params = {k: v.cpu() for k, v in label.params().items()}
                    ends = (step.reward.cpu(), step.terminated.cpu(), step.truncated.cpu(), acts.to(torch.uint8).cpu())
                    success = step.success.cpu() if env.has_success else None
                    obs |= {field: seen[name].cpu() for name, field in pairs.features.items()}
                    writer.append(obs, step.action.cpu(), teacher_action.cpu(), params, *ends, success)
                    vector = {name: value for name, value in seen.items() if name == "vector"}  # no pictures
                    record.add(obs=vector, reward=step.reward, done=step.done)
                    at.reset = step.done
            rollout = record.stack()
            metrics = episodes.update(rollout.reward, rollout.done) | {"episodes": episodes.episodes}
            student.encoder.update_normalizer(rollout.obs)  # frozen while acting and learning, moved in between
            if config.clear_every and episodes.episodes // config.clear_every > at.cleared_at // config.clear_every:
                at.cleared_at, at.forgotten = episodes.episodes, rows_before  # what this round has added is kept

            # --- learn ----------------------------------------------------------------------------------------------
            losses = []
            pairs.refresh()
            if iteration == 0:
                imitation.match_std(student, pairs)
            kept = min(config.memory or pairs.num_steps, pairs.num_steps - at.forgotten)
            train, held_out = pairs.split_episodes(config.validation_fraction, config.seed)
            # A small memory may hold nothing but episodes that are held out; then the round only adds to it.
            num_updates = config.updates_per_round if replay.choose(pairs, train, kept) else 0
            for batch in replay.batches(num_updates, noise_stream):
                loss = replay.loss(batch._replace(obs=augment(batch.obs)), config.loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            at.updates += num_updates

            metrics |= {"updates": at.updates, "beta": beta, "lr": float(optimizer.lr)}
            metrics["loss/imitation"] = float(torch.stack(losses).mean()) if losses else None
            out_of_episodes = config.total_episodes is not None and episodes.episodes >= config.total_episodes
            if training.is_due(out_of_episodes) and len(held_out):
                with training.clock:
                    metrics["loss/validation"] = imitation.mean_loss(student, pairs, held_out, config.loss)
            # An episode takes as many of all envs' steps as it is long.
            length, end = metrics["rollout/length"], None
            if config.total_episodes is not None and length is not None:
                end = training.done + (config.total_episodes - episodes.episodes) * length
            training.log(metrics, show=("loss/imitation",), last=out_of_episodes, end=end)
        writer.close()
        figures = {"episodes": episodes.episodes, "updates": at.updates}
        return training.report(CURVES, f"{task.name}: DAgger student", holds=("pairs",), **figures)


def scheduled_beta(config: Config, index: int) -> float:
    """Probability that the teacher acts in round `index`, those in which it acts alone not counted."""
    if config.beta_schedule == "constant":
        return config.beta
    if config.beta_schedule == "linear":
        return config.beta * max(0.0, 1 - index / config.beta_rounds)
    return config.beta * config.beta_decay**index


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

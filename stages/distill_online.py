"""Distill a student online: it acts with noise, the frozen teacher labels, and only the last rollout is learnt from.

The loop of rsl_rl's distillation (Schwarke et al. 2025), which is DAgger (Ross et al. 2011) without a dataset: nothing
is stored, so it suits simulators that make data faster than a disk takes it. A rollout is learnt from in windows of
`gradient_length` steps of all envs, in their order; hidden states go on from window to window, gradients do not
(truncated BPTT). Beyond rsl_rl: the rollout's last, shorter window trains as well, actions may be discrete, gradients
are clipped with the recurrent weights among them, and the best student is kept; and episodes may be cut short for the
first `short_steps`, so that a student with memory learns early what to make of its own actions since the start.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator

from tscli import streams
from tscli.config import (
    Augment,
    AugmentConfig,
    DistillConfig,
    Falling,
    LearningRate,
    NumEnvs,
    Patience,
    RandomStart,
    RolloutSteps,
    Steps,
    UserError,
)
from tscli.diagnose.diagnosis import before_distillation
from tscli.learning import imitation
from tscli.learning.augment import Augmentation
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import make_optimizer
from tscli.learning.record import Recorder
from tscli.learning.rollout import ViewedEnv, perturb, take
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import from_params
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, setup
from tscli.training.teachers import find_teachers

COMMAND = "distill"
METHOD = "online"
ORDER = 31
CURVES = (
    curves.Panel("rollout/return", "return of training episodes"),
    curves.Panel("eval/return", "return, greedy student"),
    curves.Panel("loss/imitation", "imitation loss"),
    curves.Panel("lr", "learning rate"),
    curves.Panel("steps_per_second", "env steps/s"),
)


class Config(DistillConfig):
    """Settings of online distillation; the defaults are those of rsl_rl, besides the network."""

    total_steps: Steps = 1_000_000
    num_envs: NumEnvs = 256
    rollout_steps: RolloutSteps = 24
    random_start: RandomStart = False
    short_steps: int = Field(
        0, ge=0, description="Env steps, the first of total_steps, in which episodes are cut to short_length."
    )
    short_length: int = Field(40, ge=1, description="Length of those episodes: what follows a start is learnt first.")
    gradient_length: int = Field(15, ge=1, description="Steps of a window, through which a student's memory learns.")
    num_epochs: int = Field(1, ge=1, description="Passes over each rollout.")
    act: Literal["sample", "greedy"] = Field("greedy", description="How the student picks actions while acting.")
    noise: float = Field(
        0.1, ge=0, description="Noise on those actions: share of random ones, or deviation in half action ranges."
    )
    loss: Literal["mse", "huber", "kl", "cross_entropy"] = Field(
        "mse", description="Distance of greedy actions, KL(teacher || student), or cross-entropy to the greedy action."
    )
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = Field("adam", description="How the gradient is used.")
    lr: LearningRate = 1e-3
    lr_schedule: Falling = "constant"
    max_grad_norm: float | None = Field(1.0, gt=0, description="Norm to which gradients are clipped; none: not.")
    augment: Augment = AugmentConfig()
    stop_patience: Patience = 2

    @model_validator(mode="after")
    def _some_steps_are_of_whole_episodes(self) -> Config:
        if self.short_steps >= self.total_steps:
            raise ValueError(
                f"--short-steps {self.short_steps} leaves none of --total-steps {self.total_steps}: choose fewer"
            )
        return self


def main(config: Config, session: Session) -> Run:
    """Act, label, learn, forget; keep the best."""
    device, num_envs = setup.join(config, config.num_envs)
    teachers = find_teachers(session, config.teacher, config.teacher_by, config.task)
    task = load_task(teachers.task)
    env = setup.task_env(task, num_envs, device)
    short_env = setup.task_env(task, num_envs, device, short=config.short_length) if config.short_steps else None
    if short_env and env.max_episode_steps and config.short_length >= env.max_episode_steps:
        raise UserError(
            f"--short-length {config.short_length}: whole episodes of {task.name} have {env.max_episode_steps} steps: "
            "choose fewer"
        )
    teacher = teachers.open(env, device)
    student_view = setup.resolve(task, config.obs or task.student, env)
    spec = PolicySpec(student_view, env.action, config.student)
    imitation.check_loss(config.loss, spec, teacher.spec.network.head_kind)
    session.say(f"teacher: {teachers.name}")
    before_distillation(session, config, teachers, task, student_view, None, env)

    with streams.seeded_init(config.seed, "student"):
        student = Policy(spec).to(device)
    optimizer = make_optimizer(config.optimizer, student.parameters(), config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "student/act", device)
    start_stream = streams.generator(config.seed, "student/start", device) if config.random_start else None
    augment = Augmentation(config.augment, student, streams.generator(config.seed, "online/augment", device))

    steps = config.rollout_steps
    views = {"teacher": teacher.spec.view, "student": student_view}
    full = ViewedEnv(env, views, config.seed, start=start_stream)
    short = ViewedEnv(short_env, views, streams.derive(config.seed, "short")) if short_env else None
    episodes = EpisodeStats(num_envs)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        teacher_hidden=teacher.initial_hidden(num_envs),
        hidden=student.initial_hidden(num_envs),
    )
    parts = {"student": student, "optimizer": optimizer, "viewed": full, "short": short, "episodes": episodes}
    parts |= {"act": act_stream, "augment": augment.stream, "at": at}
    frame = (parts, {"policy": student}, "student", config.total_steps, num_envs * steps)

    with Training(session, config, task, *frame, parents=teachers.parents, details=teachers.details) as training:
        short_iterations = min(-(-config.short_steps // training.per_iteration), training.num_iterations - 1)
        for iteration in training.iterations():
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * training.left
            viewed = short if short is not None and iteration < short_iterations else full
            if short is not None and iteration == short_iterations:
                at.restart()
                episodes.restart()

            # --- act and label --------------------------------------------------------------------------------------
            record, first_hidden = Recorder(), at.hidden
            with torch.no_grad():
                for _ in range(steps):
                    obs = student.encoder.features_of(viewed.observe("student"))
                    record.add(obs=obs, teacher_obs=viewed.observe("teacher"), reset=at.reset)
                    dist, at.hidden = student.step(obs, at.hidden, at.reset)
                    action = dist.sample(act_stream) if config.act == "sample" else dist.mode()
                    step = viewed.step(perturb(action, env.action, config.noise, act_stream))
                    record.add(reward=step.reward, done=step.done)
                    at.reset = step.done
                rollout = record.stack()
                # Labels are not needed for acting, so they are made all at once.
                label, at.teacher_hidden = teacher(rollout.teacher_obs, at.teacher_hidden, rollout.reset)
                labels, wanted = label.params(), label.mode()

            # --- learn ----------------------------------------------------------------------------------------------
            losses = []
            for _ in range(config.num_epochs):
                carried = first_hidden
                for begin in range(0, steps, config.gradient_length):
                    window = slice(begin, min(begin + config.gradient_length, steps))
                    dist, carried = student(augment(take(rollout.obs, window)), carried, rollout.reset[window])
                    target = from_params(take(labels, window), env.action, teacher.spec.network.squash)
                    loss = imitation.imitation_loss(dist, target, wanted[window], config.loss).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    carried = carried.detach()
                    losses.append(loss.detach())
            if config.num_epochs == 1 and augment.stream is None:
                at.hidden = carried  # of the weights as they are now, rather than of those that acted
            student.encoder.update_normalizer(rollout.obs)
            metrics = episodes.update(rollout.reward, rollout.done) | {"lr": float(optimizer.lr)}
            training.log(metrics | {"loss/imitation": float(torch.stack(losses).mean())}, show=("loss/imitation",))
        return training.report(CURVES, f"{task.name}: online student")


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

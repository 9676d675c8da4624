"""Distil a student that infers the latent of its teacher from what it has sensed.

The teacher acts by `actor(own, latent(privileged))` (`train-teacher --latent-size 8`). The student acts, on its own
roll-outs, and its history encoder learns the latents that the teacher's encoder gives there. With `--actor shared` that
is all that learns, and the student keeps the teacher's actor as it is (RMA, Kumar et al. 2021). With `--actor own` the
actor learns too, from the teacher's weights on: latents and actions are imitated (Lee et al. 2020, whose loss is
|a - a_T|^2 + |l - l_T|^2).
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field

from tscli import streams
from tscli.config import DistillConfig, Falling, History, LearningRate, NetworkConfig, RolloutConfig, Steps, UserError
from tscli.diagnose.diagnosis import before_distillation
from tscli.learning import imitation
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.record import Averages, Minibatches, Recorder
from tscli.learning.rollout import ViewedEnv, perturb
from tscli.networks import Policy
from tscli.networks.distributions import from_params
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, latents, setup
from tscli.training.teachers import find_teachers

COMMAND = "distill"
METHOD = "latent"
ORDER = 33
CURVES = (
    curves.Panel("rollout/return", "return of training episodes"),
    curves.Panel("eval/return", "return, greedy"),
    curves.Panel("loss/latent", "mse of the latent"),
    curves.Panel("loss/action", "loss of the action"),
)


class Config(RolloutConfig, DistillConfig):
    """Settings of latent distillation."""

    student: History = NetworkConfig(kind="history", hidden=(128, 64), history=20)
    actor: Literal["shared", "own"] = Field(
        "shared", description="The teacher's actor as it is (RMA), or a copy that learns as well (Lee et al.)."
    )
    action_coef: float = Field(1.0, ge=0, description="Weight of the action's loss beside the latent's; 0: none.")
    loss: Literal["kl", "mse", "huber"] = Field(
        "kl", description="That loss: KL(teacher || student), or the distance of greedy actions, in their own units."
    )
    noise: float = Field(
        0.0, ge=0, description="Noise on the student's actions: share of random ones, or deviation in half ranges."
    )
    lr: LearningRate = 1e-3
    lr_schedule: Falling = "linear"
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which gradients are clipped.")
    total_steps: Steps = 500_000


def main(config: Config, session: Session) -> Run:
    """Act, label latents, learn them; keep the best."""
    device, num_envs = setup.join(config, config.num_envs)
    teachers = find_teachers(session, config.teacher, config.teacher_by, config.task)
    task = load_task(teachers.task)
    env = setup.task_env(task, num_envs, device)
    teacher = teachers.open(env, device)
    if not isinstance(teacher, Policy):
        raise UserError(f"--teacher {config.teacher}: a latent is inferred from one teacher: name one")
    session.say(f"teacher: {teachers.name}")
    own_view = setup.resolve(task, config.obs or task.student, env)
    actor = teacher if config.actor == "shared" else teachers.open(env, device)
    assert isinstance(actor, Policy)
    student = latents.inferring_policy(actor, own_view, config.student, config.seed)
    before_distillation(session, config, teachers, task, own_view, None, env)
    imitation.check_loss(config.loss, student.spec, teacher.spec.network.head_kind)
    learning = [student.encoder.inner, student.encoder.to_latent]
    if config.actor == "own":
        learning += [student.encoder.images, student.encoder.body, student.head]
        actor.requires_grad_(True)
    parameters = [parameter for module in learning for parameter in module.parameters()]
    optimizer = FlatAdam(parameters, config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "student/act", device)
    shuffle_stream = streams.generator(config.seed, "student/shuffle")

    steps, length = config.rollout_steps, setup.sequence_length(config, student.is_recurrent)
    viewed = ViewedEnv(env, {"teacher": teacher.spec.view, "student": own_view}, config.seed)
    episodes = EpisodeStats(num_envs)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        teacher_hidden=teacher.initial_hidden(num_envs),
        hidden=student.initial_hidden(num_envs),
    )
    parts = {"student": student, "optimizer": optimizer, "viewed": viewed, "episodes": episodes, "at": at}
    parts |= {"act": act_stream, "shuffle": shuffle_stream}
    frame = (parts, {"policy": student}, "student", config.total_steps, steps * num_envs)

    with Training(session, config, task, *frame, parents=teachers.parents, details=teachers.details) as training:
        for _ in training.iterations():
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * training.left

            # --- act and label --------------------------------------------------------------------------------------
            record = Recorder()
            with torch.no_grad():
                for t in range(steps):
                    obs = viewed.observe("student")
                    record.add(obs=obs, teacher_obs=viewed.observe("teacher"), reset=at.reset)
                    if t % length == 0:
                        record.add(hidden=at.hidden)
                    dist, at.hidden = student.step(obs, at.hidden, at.reset)
                    step = viewed.step(perturb(dist.mode(), env.action, config.noise, act_stream))
                    record.add(reward=step.reward, done=step.done)
                    at.reset = step.done
                rollout = record.stack()
                goal, _ = teacher.encoder.latent(rollout.teacher_obs, at.teacher_hidden, rollout.reset)
                made: dict[str, Any] = {"goal": goal}
                if config.actor == "own":
                    label, at.teacher_hidden = teacher(rollout.teacher_obs, at.teacher_hidden, rollout.reset)
                    made |= {"wanted": label.mode(), "label": label.params()}

            # --- learn ----------------------------------------------------------------------------------------------
            batch, averages = Minibatches(length, {"hidden": rollout.hidden}, rollout, **made), Averages()
            for _ in range(config.num_epochs):
                for part in batch.shuffled(config.num_minibatches, shuffle_stream):
                    guess, _ = student.encoder.latent(part.obs, part.hidden, part.reset)
                    loss = (guess - part.goal).square().mean()
                    averages.add({"loss/latent": loss})
                    if config.actor == "own":
                        outer = part.hidden[:, student.encoder.inner_size :]
                        features, _ = student.encoder.behind(guess, part.obs, outer, part.reset)
                        target = from_params(part.label, env.action, teacher.spec.network.squash)
                        dist = student.head(features)
                        action_loss = imitation.imitation_loss(dist, target, part.wanted, config.loss).mean()
                        loss = loss + config.action_coef * action_loss
                        averages.add({"loss/action": action_loss})
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
            metrics = episodes.update(rollout.reward, rollout.done) | averages.read() | {"lr": float(optimizer.lr)}
            training.log(metrics, show=("loss/latent",))
        return training.report(CURVES, f"{task.name}: latent student", also={"teacher": teacher})


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

"""Train a teacher through a privileged encoder and, in the same loop, the history encoder that takes its place.

One-stage teacher-student learning (RLvRL): the teacher acts by `actor(own, latent(privileged))` and learns by PPO
(Schulman et al. 2017); in each iteration a second encoder, which reads what the robot itself has sensed, learns by
supervision to give the same latent. The student is the same actor with that encoder.

    tscli run examples/one_stage.py task.yaml
"""

from __future__ import annotations

import torch
from pydantic import Field

from tscli import ranks, streams
from tscli.config import JointConfig, LearningRate, Network, NetworkConfig
from tscli.envs.views import entries_of
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.record import Averages, Minibatches, Recorder
from tscli.learning.rollout import ViewedEnv, rollout_values, take
from tscli.networks import Critic, LatentSpec, Policy, PolicySpec
from tscli.pictures.curves import Panel
from tscli.runs import Run, Session
from tscli.tasks import load_task
from tscli.training import State, Training, setup


class Config(JointConfig):
    """PPO's settings, and those of the latent."""

    encoder: Network = Field(
        NetworkConfig(hidden=(64,)), description="Body that makes the latent of what is privileged."
    )
    history: Network = Field(NetworkConfig(kind="history"), description="Body that makes it of what the robot senses.")
    latent_size: int = Field(8, ge=1, description="Length of the latent.")
    encoder_lr: LearningRate = 1e-3


def main(config: Config, session: Session) -> Run:
    """Roll out by the teacher, update it by PPO, let the history encoder follow; keep the best student."""
    device, num_envs = setup.prepare(config, processes=True), ranks.share(config.num_envs, "--num-envs")
    task = load_task(config.task)
    env = setup.task_env(task, num_envs, device)
    view = setup.resolve(task, config.obs or task.teacher, env)
    own_view = setup.resolve(task, config.student_obs or task.student, env)

    # The teacher's view is the student's and more: what is more makes its latent.
    own = entries_of(view, own_view)
    privileged = tuple(sorted(set(range(view.vector_size)) - set(own)))
    by_encoder = LatentSpec(own, privileged, config.encoder, config.latent_size)
    everything = tuple(range(own_view.vector_size))
    by_history = LatentSpec(everything, everything, config.history, config.latent_size)
    with streams.seeded_init(config.seed, "teacher"):
        teacher = Policy(PolicySpec(view, env.action, config.network, by_encoder)).to(device)
        student = Policy(PolicySpec(own_view, env.action, config.network, by_history)).to(device)
    student.encoder.body, student.head = teacher.encoder.body, teacher.head  # one actor, two ways to its latent
    with streams.seeded_init(config.seed, "critic"):
        critic = Critic(view, config.network).to(device)
    optimizer = FlatAdam([*teacher.parameters(), *critic.parameters()], config.lr, config.max_grad_norm)
    inferring = [*student.encoder.inner.parameters(), *student.encoder.to_latent.parameters()]
    student_optimizer = FlatAdam(inferring, config.encoder_lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "one-stage/act", device)
    shuffle_stream = streams.generator(config.seed, "one-stage/shuffle")

    steps, episodes = config.rollout_steps, EpisodeStats(num_envs)
    length = setup.sequence_length(config, teacher.is_recurrent or critic.is_recurrent)
    viewed = ViewedEnv(env, {"teacher": view, "student": own_view}, config.seed, ("teacher",))
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        hidden=teacher.initial_hidden(num_envs),
        critic_hidden=critic.initial_hidden(num_envs),
        student_hidden=student.initial_hidden(num_envs)[:, : student.encoder.inner_size],
    )
    parts = {"teacher": teacher, "student": student, "critic": critic, "viewed": viewed, "episodes": episodes, "at": at}
    parts |= {"optimizer": optimizer, "student_optimizer": student_optimizer}
    parts |= {"act": act_stream, "shuffle": shuffle_stream}
    frame = (parts, {"policy": student, "teacher": teacher}, "student", config.total_steps, steps * num_envs)

    with Training(session, config, task, *frame) as training:
        for _ in training.iterations():
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * training.left

            # --- roll-out -------------------------------------------------------------------------------------------
            record = Recorder()
            with torch.no_grad():
                for t in range(steps):
                    obs = viewed.observe("teacher")
                    record.add(obs=obs, student_obs=viewed.observe("student"), reset=at.reset)
                    if t % length == 0:
                        record.add(hidden=at.hidden)
                    dist, at.hidden = teacher.step(obs, at.hidden, at.reset)
                    action = dist.sample(act_stream)
                    step = viewed.step(action)
                    record.add(action=action, log_prob=dist.log_prob(action))  # as drawn: the env clips it
                    record.add(reward=step.reward, terminated=step.terminated, done=step.done)
                    record.add(last_seen=viewed.final("teacher"))
                    at.reset = step.done
                record.add(obs=viewed.observe("teacher"), reset=at.reset)
            rollout = record.stack()
            teacher_obs, resets = take(rollout.obs, slice(0, steps)), rollout.reset[:-1]
            values = rollout_values(critic, rollout.obs, rollout.reset, at.critic_hidden, rollout.last_seen, length)
            at.critic_hidden = values.hidden
            ends = rollout.terminated, rollout.done
            advantage, returns = ppo.compute_gae(rollout.reward, *values[:2], *ends, config.gamma, config.gae_lambda)

            # --- the teacher: PPO -----------------------------------------------------------------------------------
            starts = {"hidden": rollout.hidden, "critic_hidden": values.hiddens}
            batch = Minibatches(length, starts, rollout, value=values.value, advantage=advantage, returns=returns)
            averages = Averages()
            for _ in range(config.num_epochs):
                for part in batch.shuffled(config.num_minibatches, shuffle_stream):
                    dist, _ = teacher(part.obs, part.hidden, part.reset)
                    value, _ = critic(part.obs, part.critic_hidden, part.reset)
                    advantage, log_prob = ppo.standardize(part.advantage), dist.log_prob(part.action)
                    surrogate = ppo.policy_loss(log_prob, part.log_prob, advantage, config.clip_coef)
                    value_loss = ppo.value_loss(value, part.returns, part.value, config.value_clip)
                    entropy = dist.entropy().mean()
                    loss = surrogate.loss + config.value_coef * value_loss - config.entropy_coef * entropy
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    averages.add({"loss/policy": surrogate.loss, "loss/value": value_loss, "entropy": entropy})

            # --- the history encoder follows the privileged one -----------------------------------------------------
            with torch.no_grad():
                goal, _ = teacher.encoder.latent(teacher_obs, rollout.hidden[0], resets)
            hidden = at.student_hidden
            for _ in range(config.num_epochs):
                guess, hidden = student.encoder.latent(rollout.student_obs, at.student_hidden, resets)
                latent_loss = (guess - goal).square().mean()
                student_optimizer.zero_grad()
                latent_loss.backward()
                student_optimizer.step()
                averages.add({"loss/latent": latent_loss})
            at.student_hidden = hidden.detach()
            for module in (teacher, critic):
                module.encoder.update_normalizer(teacher_obs)
            student.encoder.update_normalizer(rollout.student_obs)
            training.log(episodes.update(rollout.reward, rollout.done) | averages.read(), show=("loss/latent",))
        panels = (Panel("eval/return", "return, student"), Panel("eval_teacher/return", "return, teacher"))
        return training.report((*panels, Panel("loss/latent", "loss of the latent")), f"{task.name}: one stage")


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

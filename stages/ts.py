"""Train a teacher through a privileged encoder and, in the same loop, the history encoder that takes its place.

One-stage teacher-student learning (Margolis et al. 2022, "Rapid Locomotion via Reinforcement Learning"): the teacher
acts by `actor(own, latent(privileged))` and learns by PPO (Schulman et al. 2017); in each iteration a second encoder,
which reads what the robot itself has sensed, learns by supervision to give the same latent. The student is the same
actor with that encoder. The critic may see what neither does, and without noise (Pinto et al. 2018).
"""

from __future__ import annotations

import torch

from tscli.config import LatentConfig
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats
from tscli.learning.record import Averages, Minibatches, Recorder
from tscli.learning.rollout import rollout_values, states_before, take
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, latents, setup

ORDER = 60
CURVES = (
    curves.Panel("rollout/return", "return of training episodes, teacher"),
    curves.Panel("eval/return", "return, greedy student"),
    curves.Panel("eval_teacher/return", "return, greedy teacher"),
    curves.Panel("loss/latent", "mse of the student's latent"),
    curves.Panel("loss/value", "value loss"),
    curves.Panel("entropy", "entropy [nats]"),
)


class Config(LatentConfig):
    """PPO's settings, and those of the latent."""


def main(config: Config, session: Session) -> Run:
    """Roll out by the teacher, update it by PPO, let the history encoder follow; keep the best student."""
    device, num_envs = setup.join(config, config.num_envs)
    task = load_task(config.task)
    env = setup.task_env(task, num_envs, device)
    made = latents.one_stage(config, task, env)
    teacher, student, critic, viewed = made.teacher, made.student, made.critic, made.viewed
    optimizer, student_optimizer = made.optimizer, made.student_optimizer

    steps, episodes = config.rollout_steps, EpisodeStats(num_envs)
    length = setup.sequence_length(config, made.are_recurrent)
    student_length = setup.sequence_length(config, student.is_recurrent)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        hidden=teacher.initial_hidden(num_envs),
        critic_hidden=critic.initial_hidden(num_envs),
        student_hidden=student.initial_hidden(num_envs)[:, : student.encoder.inner_size],
    )
    parts = made.parts() | {"episodes": episodes, "at": at}
    frame = (parts, {"policy": student, "teacher": teacher}, "student", config.total_steps, steps * num_envs)

    with Training(session, config, task, *frame, blame="--lr or --encoder-lr") as training:
        for _ in training.iterations():
            if config.lr_schedule == "linear":
                optimizer.lr, student_optimizer.lr = config.lr * training.left, config.encoder_lr * training.left

            # --- roll-out -------------------------------------------------------------------------------------------
            record = Recorder()
            with torch.no_grad():
                for t in range(steps):
                    obs = viewed.observe("teacher")
                    record.add(obs=obs, student_obs=viewed.observe("student"), reset=at.reset)
                    record.add(value_obs=viewed.observe("critic"))
                    if t % length == 0:
                        record.add(hidden=at.hidden)
                    dist, at.hidden = teacher.step(obs, at.hidden, at.reset)
                    action = dist.sample(made.act_stream)
                    step = viewed.step(action)
                    record.add(action=action, log_prob=dist.log_prob(action))  # as drawn: the env clips it
                    record.add(reward=step.reward, terminated=step.terminated, done=step.done)
                    record.add(last_seen=viewed.final("critic"))
                    at.reset = step.done
                record.add(value_obs=viewed.observe("critic"), reset=at.reset)
            rollout = record.stack()
            reward = rollout.reward if made.reward_scale is None else made.reward_scale(rollout.reward, rollout.done)
            values = rollout_values(critic, rollout.value_obs, rollout, at.critic_hidden, length)
            at.critic_hidden = values.hidden
            ends = rollout.terminated, rollout.done
            advantage, returns = ppo.compute_gae(reward, *values[:2], *ends, config.gamma, config.gae_lambda)

            # --- the teacher: PPO -----------------------------------------------------------------------------------
            starts = {"hidden": rollout.hidden, "critic_hidden": values.hiddens}
            batch = Minibatches(length, starts, rollout, value=values.value, advantage=advantage, returns=returns)
            averages = Averages()
            for _ in range(config.num_epochs):
                for part in batch.shuffled(config.num_minibatches, made.shuffle_stream):
                    dist, _ = teacher(part.obs, part.hidden, part.reset)
                    value, _ = critic(part.value_obs, part.critic_hidden, part.reset)
                    advantage, log_prob = ppo.standardize(part.advantage), dist.log_prob(part.action)
                    surrogate = ppo.policy_loss(log_prob, part.log_prob, advantage, config.clip_coef)
                    value_loss = ppo.value_loss(value, part.returns, part.value, config.value_clip)
                    entropy = dist.entropy().mean()
                    loss = surrogate.loss + config.value_coef * value_loss - config.entropy_coef * entropy
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    averages.add({"loss/policy": surrogate.loss, "loss/value": value_loss, "entropy": entropy})
                    averages.add({"approx_kl": surrogate.approx_kl, "clip_fraction": surrogate.clip_fraction})

            # --- the history encoder follows the privileged one -----------------------------------------------------
            resets = rollout.reset[:-1]
            with torch.no_grad():
                goal, _ = teacher.encoder.latent(rollout.obs, rollout.hidden[0], resets)
            before = at.student_hidden
            hiddens, at.student_hidden = states_before(
                student.encoder.latent, rollout.student_obs, before, resets, student_length
            )
            batch = Minibatches(student_length, {"hidden": hiddens}, rollout, goal=goal)
            for _ in range(config.encoder_epochs):
                for part in batch.shuffled(config.num_minibatches, made.shuffle_stream):
                    guess, _ = student.encoder.latent(part.student_obs, part.hidden, part.reset)
                    latent_loss = (guess - part.goal).square().mean()
                    student_optimizer.zero_grad()
                    latent_loss.backward()
                    student_optimizer.step()
                    averages.add({"loss/latent": latent_loss})
            # Normalisers move between updates only, so that the first minibatch's ratio is exactly 1.
            teacher.encoder.update_normalizer(rollout.obs)
            critic.encoder.update_normalizer(take(rollout.value_obs, slice(0, steps)))
            latents.take_normalizer(student, teacher)
            training.log(episodes.update(rollout.reward, rollout.done) | averages.read(), show=("loss/latent",))
        return training.report(CURVES, f"{task.name}: one-stage teacher-student")


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

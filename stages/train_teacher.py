"""Train a teacher with PPO on what it is allowed to see.

Proximal policy optimisation (Schulman et al. 2017) with generalised advantages: discrete, multi-discrete and continuous
actions, memoryless or recurrent policies (truncated BPTT), and a critic that may see more than the actor (asymmetric
actor-critic, Pinto et al. 2018). With noise on the actions that the env is given, the teacher gets smoother (Song et
al. 2025, "To Distill or Decide?"). With a latent, what is privileged passes through an encoder of its own (RMA, Kumar
et al. 2021), which a student can learn to do without. Every so often the greedy policy is measured on episodes of its
own seeds; the best one is kept, and reported on other seeds at the end.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from tscli import ranks, streams
from tscli.config import Encoder, Network, NetworkConfig, PPOConfig, RandomStart, positional
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.record import Averages, Minibatches, Recorder
from tscli.learning.rollout import ViewedEnv, perturb, rollout_values, take
from tscli.networks import Critic, Policy, PolicySpec
from tscli.networks.distributions import from_params, kl
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, latents, setup

ORDER = 10
CURVES = (
    curves.Panel("rollout/return", "return of training episodes"),
    curves.Panel("eval/return", "return, greedy"),
    curves.Panel("lr", "learning rate"),
    curves.Panel("loss/policy", "policy loss"),
    curves.Panel("loss/value", "value loss"),
    curves.Panel("entropy", "entropy [nats]"),
    curves.Panel("approx_kl", "approximate KL"),
    curves.Panel("clip_fraction", "clip fraction"),
    curves.Panel("explained_variance", "explained variance"),
    curves.Panel("steps_per_second", "env steps/s"),
)


class Config(PPOConfig):
    """PPO's settings; the defaults suit small control tasks."""

    task: str = positional(description="A task's name, a task's YAML file, or any Gymnasium id.")
    obs: str = Field("", description="View of the actor; empty takes the task's teacher view.")
    critic_obs: str = Field("", description="View of the critic; empty takes the actor's. One that sees more helps.")
    train_in: Literal["teacher_env", "env"] = Field(
        "teacher_env",
        description="Section of the task to train in: teacher_env, which may be easier, or env, where students train.",
    )
    network: Network = Field(NetworkConfig(), description="Body of the policy.")
    critic: Network | None = Field(None, description="Body of the critic; none makes it like the policy's.")
    latent_size: int = Field(
        0, ge=0, description="Length of a latent made of what the student's view lacks, for latent students; 0: none."
    )
    encoder: Encoder = NetworkConfig(hidden=(64,))
    random_start: RandomStart = False
    action_noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Noise on the actions that the env is given: share of random ones, or deviation in half ranges; 0: "
        "none. A teacher that puts up with it is smoother, and easier to imitate.",
    )
    lr_schedule: Literal["constant", "linear", "adaptive"] = Field(
        "linear", description="Linear falls to 0 over total_steps; adaptive keeps each update near desired_kl."
    )
    desired_kl: float = Field(
        0.01,
        gt=0,
        description="KL(old || new) that adaptive aims at: above twice this lr falls, below half of it lr rises.",
    )
    target_kl: float | None = Field(None, gt=0, description="End an update early when approx_kl passes 1.5 x this.")
    normalize_advantage: bool = Field(True, description="Give each minibatch's advantages zero mean, unit deviation.")


def main(config: Config, session: Session) -> Run:
    """Roll out, update, repeat; keep the best."""
    device, num_envs = setup.join(config, config.num_envs)
    task = load_task(config.task)
    env = setup.task_env(task, num_envs, device, "teacher" if config.train_in == "teacher_env" else "train")
    actor_view = setup.resolve(task, config.obs or task.teacher, env)
    critic_view = setup.resolve(task, config.critic_obs, env) if config.critic_obs else actor_view

    latent = None
    if config.latent_size:
        own_view = setup.resolve(task, task.student, env)
        latent = latents.privileged_latent(actor_view, own_view, config.encoder, config.latent_size)

    with streams.seeded_init(config.seed, "teacher"):
        policy = Policy(PolicySpec(actor_view, env.action, config.network, latent)).to(device)
    with streams.seeded_init(config.seed, "critic"):
        critic = Critic(critic_view, config.critic or config.network).to(device)
    optimizer = FlatAdam([*policy.parameters(), *critic.parameters()], config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "teacher/act", device)
    shuffle_stream = streams.generator(config.seed, "teacher/shuffle")
    noise_stream = streams.generator(config.seed, "teacher/noise", device)
    start_stream = streams.generator(config.seed, "teacher/start", device) if config.random_start else None
    reward_scale = ReturnScale(num_envs, config.gamma, device) if config.normalize_reward else None

    steps = config.rollout_steps
    length = setup.sequence_length(config, policy.is_recurrent or critic.is_recurrent)
    viewed = ViewedEnv(env, {"actor": actor_view, "critic": critic_view}, config.seed, ("critic",), start_stream)
    episodes = EpisodeStats(num_envs)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        hidden=policy.initial_hidden(num_envs),
        critic_hidden=critic.initial_hidden(num_envs),
    )
    parts = {"policy": policy, "critic": critic, "optimizer": optimizer, "viewed": viewed, "episodes": episodes}
    parts |= {"act": act_stream, "shuffle": shuffle_stream, "noise": noise_stream, "scale": reward_scale, "at": at}
    keep, batch_size = {"policy": policy}, steps * num_envs

    with Training(session, config, task, parts, keep, "teacher", config.total_steps, batch_size) as training:
        for _ in training.iterations():
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * training.left

            # --- roll-out -------------------------------------------------------------------------------------------
            record = Recorder()
            with torch.no_grad():
                for t in range(steps):
                    obs = viewed.observe("actor")
                    record.add(obs=obs, value_obs=viewed.observe("critic"), reset=at.reset)
                    if t % length == 0:
                        record.add(hidden=at.hidden)
                    dist, at.hidden = policy.step(obs, at.hidden, at.reset)
                    action = dist.sample(act_stream)
                    record.add(action=action, log_prob=dist.log_prob(action))  # as drawn: the env clips it
                    if config.lr_schedule == "adaptive":
                        record.add(old=dist.params())
                    # The noise belongs to the env: the policy learns from what it meant to do, whose probability it
                    # knows, and is paid for what came of it.
                    if config.action_noise:
                        action = perturb(action, env.action, config.action_noise, noise_stream)
                    step = viewed.step(action)
                    record.add(reward=step.reward, terminated=step.terminated, done=step.done)
                    record.add(last_seen=viewed.final("critic"))
                    at.reset = step.done
                record.add(value_obs=viewed.observe("critic"), reset=at.reset)
            rollout = record.stack()

            # --- advantages -----------------------------------------------------------------------------------------
            reward = rollout.reward if reward_scale is None else reward_scale(rollout.reward, rollout.done)
            values = rollout_values(critic, rollout.value_obs, rollout, at.critic_hidden, length)
            at.critic_hidden = values.hidden
            ends = rollout.terminated, rollout.done
            advantage, returns = ppo.compute_gae(reward, *values[:2], *ends, config.gamma, config.gae_lambda)

            # --- update ---------------------------------------------------------------------------------------------
            starts = {"hidden": rollout.hidden, "critic_hidden": values.hiddens}
            batch = Minibatches(length, starts, rollout, value=values.value, advantage=advantage, returns=returns)
            averages, divergences, approx_kl = Averages(), [], torch.zeros(())
            for _ in range(config.num_epochs):
                for part in batch.shuffled(config.num_minibatches, shuffle_stream):
                    dist, _ = policy(part.obs, part.hidden, part.reset)
                    value, _ = critic(part.value_obs, part.critic_hidden, part.reset)
                    advantage = ppo.standardize(part.advantage) if config.normalize_advantage else part.advantage
                    log_prob = dist.log_prob(part.action)
                    surrogate = ppo.policy_loss(log_prob, part.log_prob, advantage, config.clip_coef)
                    value_loss = ppo.value_loss(value, part.returns, part.value, config.value_clip)
                    entropy = dist.entropy().mean()
                    loss = surrogate.loss + config.value_coef * value_loss - config.entropy_coef * entropy
                    optimizer.zero_grad()
                    loss.backward()
                    if config.lr_schedule == "adaptive":
                        with torch.no_grad():
                            old = from_params(part.old, env.action, config.network.squash)
                            divergences.append(ranks.mean(kl(old, dist).mean()))
                        optimizer.lr = ppo.adaptive_lr(optimizer.lr, divergences[-1], config.desired_kl)
                    optimizer.step()
                    approx_kl = surrogate.approx_kl
                    averages.add({"loss/policy": surrogate.loss, "loss/value": value_loss, "entropy": entropy})
                    averages.add({"approx_kl": approx_kl, "clip_fraction": surrogate.clip_fraction})
                if config.target_kl is not None and float(ranks.mean(approx_kl)) > 1.5 * config.target_kl:
                    break
            # The normaliser moves between updates only, so that the first minibatch's ratio is exactly 1.
            policy.encoder.update_normalizer(rollout.obs)
            critic.encoder.update_normalizer(take(rollout.value_obs, slice(0, steps)))
            metrics = episodes.update(rollout.reward, rollout.done) | averages.read() | {"lr": float(optimizer.lr)}
            metrics["explained_variance"] = float(ppo.explained_variance(values.value, returns))
            if divergences:
                metrics["kl"] = sum(torch.stack(divergences).tolist()) / len(divergences)
            training.log(metrics)
        return training.report(CURVES, f"{task.name}: PPO teacher")


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

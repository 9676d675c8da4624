"""Train a guider that sees everything together with a learner that does not, the guider held where the learner is.

Guided policy optimisation (Li et al. 2025, "Guided Policy Optimization under Partial Observability"). The guider acts
and learns by PPO; the learner imitates it; and the guider is pulled back to the learner, so that it never does for long
what the learner cannot follow, and looks for information where the learner needs it.

Two ways to pull, and what the learner learns from:

    penalty  guider: PPO + beta KL(guider || learner), beta raised where that KL is above `target_kl`, lowered below
    clip     guider: PPO whose ratio to the learner is clipped as well, by `delta`; KL where the ratio has left it
    learner: KL(guider || learner), and PPO on the guider's actions with weight beta (penalty) or `learner_rl_coef`

KL is the mean over the action's dimensions, as the authors have it: beta and `target_kl` mean the same for any number.

Where SITT lowers the reward of states in which the student cannot follow, this lowers the freedom to act there.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tscli import ranks, streams
from tscli.config import JointConfig, Steps
from tscli.envs import ActionSpec
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.record import Averages, Minibatches, Recorder
from tscli.learning.rollout import ViewedEnv, rollout_values, states_before, take
from tscli.networks.distributions import Distribution, from_params, kl
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, joint, setup

ORDER = 51
CURVES = (
    curves.Panel("rollout/return", "return of training episodes, guider"),
    curves.Panel("eval/return", "return, greedy learner"),
    curves.Panel("eval_teacher/return", "return, greedy guider"),
    curves.Panel("kl_guider_learner", "KL(guider || learner)"),
    curves.Panel("beta", "beta"),
    curves.Panel("loss/value", "value loss"),
    curves.Panel("entropy", "entropy of the guider [nats]"),
    curves.Panel("approx_kl", "approximate KL"),
)


class Config(JointConfig):
    """PPO's settings, and those of the pull; the guider is the teacher, the learner the student."""

    pull: Literal["penalty", "clip"] = Field("penalty", description="How the guider is held near the learner.")
    target_kl: float = Field(0.01, gt=0, description="KL(guider || learner) that beta steers to (penalty).")
    max_beta: float = Field(10.0, gt=0, description="The largest beta (penalty).")
    delta: float = Field(0.3, gt=0, lt=1, description="How far the ratio of guider to learner may move (clip).")
    learner_rl_coef: float = Field(2.0, ge=0, description="Weight of PPO in the learner's loss (clip).")
    total_steps: Steps = 1_000_000


def main(config: Config, session: Session) -> Run:
    """Roll out by the guider, update both, evaluate both; keep the best learner and its guider."""
    device, num_envs = setup.join(config, config.num_envs)
    task = load_task(config.task)
    env = setup.task_env(task, num_envs, device)
    guider_view = setup.resolve(task, config.obs or task.teacher, env)
    learner_view = setup.resolve(task, config.student_obs or task.student, env)

    guider, critic, learner, _ = joint.networks(config, guider_view, learner_view, env, shared_head=False)
    optimizer = FlatAdam([*guider.parameters(), *critic.parameters()], config.lr, config.max_grad_norm)
    learner_optimizer = FlatAdam(learner.parameters(), config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "gpo/act", device)
    shuffle_stream = streams.generator(config.seed, "gpo/shuffle")
    reward_scale = ReturnScale(num_envs, config.gamma, device) if config.normalize_reward else None

    steps = config.rollout_steps
    length = setup.sequence_length(config, guider.is_recurrent or learner.is_recurrent)
    viewed = ViewedEnv(env, {"teacher": guider_view, "student": learner_view}, config.seed, ("teacher",))
    episodes = EpisodeStats(num_envs)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        hidden=guider.initial_hidden(num_envs),
        critic_hidden=critic.initial_hidden(num_envs),
        learner_hidden=learner.initial_hidden(num_envs),
        beta=0.0,
    )
    parts = {"guider": guider, "learner": learner, "critic": critic, "viewed": viewed, "episodes": episodes, "at": at}
    parts |= {"optimizer": optimizer, "learner_optimizer": learner_optimizer, "scale": reward_scale}
    parts |= {"act": act_stream, "shuffle": shuffle_stream}
    keep, batch_size = {"policy": learner, "teacher": guider}, steps * num_envs

    with Training(session, config, task, parts, keep, "student", config.total_steps, batch_size) as training:
        for _ in training.iterations():
            if config.lr_schedule == "linear":
                optimizer.lr = learner_optimizer.lr = config.lr * training.left

            # --- roll-out -------------------------------------------------------------------------------------------
            record = Recorder()
            with torch.no_grad():
                for t in range(steps):
                    obs = viewed.observe("teacher")
                    seen = learner.encoder.features_of(viewed.observe("student"))
                    record.add(obs=obs, student_obs=seen, reset=at.reset)
                    if t % length == 0:
                        record.add(hidden=at.hidden)
                    dist, at.hidden = guider.step(obs, at.hidden, at.reset)
                    action = dist.sample(act_stream)
                    step = viewed.step(action)
                    record.add(action=action, log_prob=dist.log_prob(action))  # as drawn: the env clips it
                    record.add(reward=step.reward, terminated=step.terminated, done=step.done)
                    record.add(last_seen=viewed.final("teacher"))
                    at.reset = step.done
                record.add(obs=viewed.observe("teacher"), reset=at.reset)
            rollout = record.stack()

            # --- advantages -----------------------------------------------------------------------------------------
            reward = rollout.reward if reward_scale is None else reward_scale(rollout.reward, rollout.done)
            values = rollout_values(critic, rollout.obs, rollout, at.critic_hidden, length)
            at.critic_hidden = values.hidden
            ends = rollout.terminated, rollout.done
            advantage, returns = ppo.compute_gae(reward, *values[:2], *ends, config.gamma, config.gae_lambda)
            # The learner's memory is carried through what the guider did.
            learner_hiddens, at.learner_hidden = states_before(
                learner.encoder, rollout.student_obs, at.learner_hidden, rollout.reset[:-1], length
            )

            # --- update ---------------------------------------------------------------------------------------------
            starts = {"hidden": rollout.hidden, "critic_hidden": values.hiddens, "learner_hidden": learner_hiddens}
            batch = Minibatches(length, starts, rollout, value=values.value, advantage=advantage, returns=returns)
            averages = Averages()
            for _ in range(config.num_epochs):
                distances = []
                for part in batch.shuffled(config.num_minibatches, shuffle_stream):
                    advantage = ppo.standardize(part.advantage)
                    dist, _ = guider(part.obs, part.hidden, part.reset)
                    value, _ = critic(part.obs, part.critic_hidden, part.reset)
                    told, _ = learner(part.student_obs, part.learner_hidden, part.reset)
                    follows, leads = (detached(one, env.action, config.network.squash) for one in (told, dist))
                    log_prob, learner_log_prob = dist.log_prob(part.action), told.log_prob(part.action)

                    # The guider: PPO, pulled back to where the learner is.
                    away = divergence(dist, follows, env.action)
                    if config.pull == "penalty":
                        surrogate = ppo.policy_loss(log_prob, part.log_prob, advantage, config.clip_coef)
                        loss = surrogate.loss + at.beta * away.mean()
                    else:
                        surrogate, left = double_clip(
                            log_prob, part.log_prob, learner_log_prob.detach(), advantage, config
                        )
                        loss = surrogate.loss + (away * left).mean()
                    value_loss = ppo.value_loss(value, part.returns, part.value, config.value_clip)
                    entropy = dist.entropy().mean()
                    loss = loss + config.value_coef * value_loss - config.entropy_coef * entropy
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()

                    # The learner: imitation, and PPO on the guider's actions.
                    own = ppo.policy_loss(learner_log_prob, part.log_prob, advantage, config.clip_coef)
                    weight = at.beta if config.pull == "penalty" else config.learner_rl_coef
                    imitation = divergence(leads, told, env.action).mean()
                    loss = imitation + weight * own.loss
                    learner_optimizer.zero_grad()
                    loss.backward()
                    learner_optimizer.step()
                    distances.append(imitation.detach())
                    averages.add({"loss/value": value_loss, "loss/policy": surrogate.loss, "entropy": entropy})
                    averages.add({"approx_kl": surrogate.approx_kl, "kl_guider_learner": imitation})
                at.beta = steered(at.beta, float(ranks.mean(torch.stack(distances).mean())), config)
            for module in (guider, critic):
                module.encoder.update_normalizer(take(rollout.obs, slice(0, steps)))
            learner.encoder.update_normalizer(rollout.student_obs)
            metrics = episodes.update(rollout.reward, rollout.done) | averages.read() | {"lr": float(optimizer.lr)}
            metrics["explained_variance"] = float(ppo.explained_variance(values.value, returns))
            training.log(metrics | {"beta": at.beta}, show=("kl_guider_learner",))
        return training.report(CURVES, f"{task.name}: GPO")


def detached(dist: Distribution, action: ActionSpec, squash: bool) -> Distribution:
    """The same distribution, through which no gradient flows."""
    return from_params({name: value.detach() for name, value in dist.params().items()}, action, squash)


def divergence(p: Distribution, q: Distribution, action: ActionSpec) -> Tensor:
    """KL(p || q) [nats], the mean over the action's dimensions: [...]."""
    return kl(p, q) / math.prod(action.shape)


def double_clip(
    log_prob: Tensor, old_log_prob: Tensor, learner_log_prob: Tensor, advantage: Tensor, config: Config
) -> tuple[ppo.PolicyLoss, Tensor]:
    """The surrogate whose ratio is clipped to the learner's first, by delta, and then to the old policy's, by epsilon.

    Returns:
        the loss, and where the guider has left the learner's neighbourhood: [...] bool.
    """
    low, high = math.log(1 - config.delta), math.log(1 + config.delta)
    to_learner = log_prob - learner_log_prob
    near = to_learner.clamp(low, high) + learner_log_prob - old_log_prob
    left = (to_learner < low) | (to_learner > high)
    return ppo.policy_loss(log_prob, old_log_prob, advantage, config.clip_coef, near=near), left


def steered(beta: float, distance: float, config: Config) -> float:
    """The next beta: up by a fifth where the KL is above its target, down where below; 0 until it first is above."""
    if beta < 1e-5 and distance > config.target_kl:
        beta = 0.1
    if distance > 1.2 * config.target_kl:
        beta *= 1.2
    if distance < config.target_kl / 1.2:
        beta /= 1.2
    return min(beta, config.max_beta)


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

"""Distill where the teacher knows more than the student ever can: imitate where that is possible, explore elsewhere.

ADVISOR (Weihs et al. 2021, "Bridging the Imitation Gap by Adaptive Insubordination"): an auxiliary head on the
student's encoder imitates the teacher and nothing else. How far it stays from the teacher tells what the student's view
cannot know, so each state's loss is (their eq. 3)

    w(s) * imitation(teacher, student) + (1 - w(s)) * PPO(student),   w(s) = exp(-alpha * D(teacher || auxiliary))

where PPO's part is the clipped surrogate with its entropy bonus; the critic learns everywhere. The student acts; both
losses are taken on its own rollouts, in every pass over them.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from tscli import streams
from tscli.config import DistillConfig, Network, PPOConfig, UserError
from tscli.diagnose.diagnosis import before_distillation
from tscli.learning import imitation, ppo
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.record import Averages, Minibatches, Recorder
from tscli.learning.rollout import ViewedEnv, rollout_values, take
from tscli.networks import Critic, Head, Policy, PolicySpec
from tscli.networks.distributions import from_params
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, setup
from tscli.training.teachers import find_teachers

COMMAND = "distill"
METHOD = "advisor"
ORDER = 32
CURVES = (
    curves.Panel("rollout/return", "return of training episodes"),
    curves.Panel("eval/return", "return, greedy"),
    curves.Panel("weight", "weight of imitation"),
    curves.Panel("loss/imitation", "imitation loss of the student"),
    curves.Panel("loss/auxiliary", "imitation loss of the auxiliary head"),
    curves.Panel("loss/policy", "policy loss"),
    curves.Panel("loss/value", "value loss"),
    curves.Panel("entropy", "entropy [nats]"),
)


class Config(DistillConfig, PPOConfig):
    """PPO's settings, and those of the imitation."""

    critic_obs: str = Field("", description="View of the critic; empty takes the student's. One that sees more helps.")
    critic: Network | None = Field(None, description="Body of the critic; none makes it like the student's.")
    alpha: float = Field(20.0, ge=0, description="How fast the weight falls with the auxiliary head's distance.")
    loss: Literal["kl", "cross_entropy", "mse", "huber"] | None = Field(
        None,
        description="Imitation loss, and distance D; none: cross-entropy to the teacher's greedy action, or mse where "
        "actions are continuous.",
    )
    warmup: int = Field(0, ge=0, description="Env steps in which the student imitates everywhere.")


def main(config: Config, session: Session) -> Run:
    """Roll out, weigh, update, repeat; keep the best."""
    device, num_envs = setup.join(config, config.num_envs)
    teachers = find_teachers(session, config.teacher, config.teacher_by, config.task)
    task = load_task(teachers.task)
    env = setup.task_env(task, num_envs, device)
    teacher = teachers.open(env, device)
    student_view = setup.resolve(task, config.obs or task.student, env)
    critic_view = setup.resolve(task, config.critic_obs, env) if config.critic_obs else student_view
    spec = PolicySpec(student_view, env.action, config.student)
    loss_kind = config.loss or ("mse" if env.action.is_continuous else "cross_entropy")
    if loss_kind == "cross_entropy" and env.action.is_continuous:  # minus a log density, which goes below 0
        raise UserError("--loss cross_entropy is no distance where actions are continuous: use --loss mse, kl or huber")
    imitation.check_loss(loss_kind, spec, teacher.spec.network.head_kind)
    session.say(f"teacher: {teachers.name}")
    before_distillation(session, config, teachers, task, student_view, None, env, rewards_teach=True)

    with streams.seeded_init(config.seed, "student"):
        policy = Policy(spec).to(device)
        auxiliary = Head(policy.encoder.output_size, env.action, config.student).to(device)
    with streams.seeded_init(config.seed, "critic"):
        critic = Critic(critic_view, config.critic or config.student).to(device)
    learnt = [*policy.parameters(), *auxiliary.parameters(), *critic.parameters()]
    optimizer = FlatAdam(learnt, config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "advisor/act", device)
    shuffle_stream = streams.generator(config.seed, "advisor/shuffle")
    reward_scale = ReturnScale(num_envs, config.gamma, device) if config.normalize_reward else None

    steps = config.rollout_steps
    length = setup.sequence_length(config, policy.is_recurrent or critic.is_recurrent)
    views = {"actor": student_view, "critic": critic_view, "teacher": teacher.spec.view}
    viewed = ViewedEnv(env, views, config.seed, ("critic",))
    episodes = EpisodeStats(num_envs)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        hidden=policy.initial_hidden(num_envs),
        critic_hidden=critic.initial_hidden(num_envs),
        teacher_hidden=teacher.initial_hidden(num_envs),
    )
    parts = {"policy": policy, "auxiliary": auxiliary, "critic": critic, "optimizer": optimizer, "viewed": viewed}
    parts |= {"episodes": episodes, "act": act_stream, "shuffle": shuffle_stream, "scale": reward_scale, "at": at}
    frame = (parts, {"policy": policy}, "student", config.total_steps, steps * num_envs)

    with Training(session, config, task, *frame, parents=teachers.parents, details=teachers.details) as training:
        for _ in training.iterations():
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * training.left

            # --- roll-out, and what the teacher would have done ------------------------------------------------------
            record = Recorder()
            with torch.no_grad():
                for t in range(steps):
                    obs = viewed.observe("actor")
                    record.add(obs=obs, value_obs=viewed.observe("critic"), teacher_obs=viewed.observe("teacher"))
                    if t % length == 0:
                        record.add(hidden=at.hidden)
                    dist, at.hidden = policy.step(obs, at.hidden, at.reset)
                    action = dist.sample(act_stream)
                    step = viewed.step(action)
                    record.add(reset=at.reset, action=action, log_prob=dist.log_prob(action))  # as drawn: the env clips
                    record.add(reward=step.reward, terminated=step.terminated, done=step.done)
                    record.add(last_seen=viewed.final("critic"))
                    at.reset = step.done
                record.add(value_obs=viewed.observe("critic"), reset=at.reset)
                rollout = record.stack()
                label, at.teacher_hidden = teacher(rollout.teacher_obs, at.teacher_hidden, rollout.reset[:-1])

            # --- advantages -----------------------------------------------------------------------------------------
            reward = rollout.reward if reward_scale is None else reward_scale(rollout.reward, rollout.done)
            values = rollout_values(critic, rollout.value_obs, rollout, at.critic_hidden, length)
            at.critic_hidden = values.hidden
            ends = rollout.terminated, rollout.done
            advantage, returns = ppo.compute_gae(reward, *values[:2], *ends, config.gamma, config.gae_lambda)

            # --- update ---------------------------------------------------------------------------------------------
            starts = {"hidden": rollout.hidden, "critic_hidden": values.hiddens}
            made = {"value": values.value, "advantage": advantage, "returns": returns}
            made |= {"labels": label.params(), "label": label.mode()}
            batch, averages = Minibatches(length, starts, rollout, **made), Averages()
            for _ in range(config.num_epochs):
                for part in batch.shuffled(config.num_minibatches, shuffle_stream):
                    wanted = from_params(part.labels, env.action, teacher.spec.network.squash)
                    latent, _ = policy.encoder(part.obs, part.hidden, part.reset)
                    dist, guess = policy.head(latent), auxiliary(latent)
                    value, _ = critic(part.value_obs, part.critic_hidden, part.reset)
                    imitates = imitation.imitation_loss(dist, wanted, part.label, loss_kind)
                    distance = imitation.imitation_loss(guess, wanted, part.label, loss_kind)
                    weight = torch.ones_like(distance)
                    if training.done > config.warmup:
                        weight = (-config.alpha * distance.detach()).exp()
                    advantage, log_prob = ppo.standardize(part.advantage), dist.log_prob(part.action)
                    surrogate = ppo.policy_loss(log_prob, part.log_prob, advantage, config.clip_coef, 1 - weight)
                    value_loss = ppo.value_loss(value, part.returns, part.value, config.value_clip)
                    entropy = dist.entropy()
                    loss = (weight * imitates).mean() + distance.mean() + surrogate.loss
                    loss = loss + config.value_coef * value_loss - config.entropy_coef * ((1 - weight) * entropy).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    averages.add({"loss/value": value_loss, "loss/policy": surrogate.loss, "entropy": entropy.mean()})
                    averages.add({"approx_kl": surrogate.approx_kl, "loss/imitation": imitates.mean()})
                    averages.add({"loss/auxiliary": distance.mean(), "weight": weight.mean()})
            policy.encoder.update_normalizer(rollout.obs)
            critic.encoder.update_normalizer(take(rollout.value_obs, slice(0, steps)))
            metrics = episodes.update(rollout.reward, rollout.done) | averages.read() | {"lr": float(optimizer.lr)}
            metrics["explained_variance"] = float(ppo.explained_variance(values.value, returns))
            training.log(metrics, show=("weight",))
        return training.report(CURVES, f"{task.name}: ADVISOR")


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

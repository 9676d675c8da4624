"""Train teacher and student together, by PPO on one actor that both act through.

Concurrent teacher-student learning (Wang et al. 2024, "CTS: Concurrent Teacher-Student Reinforcement Learning for
Legged Locomotion"): in one part of the envs the teacher acts, with a latent that a privileged encoder makes; in the
rest the student, with the latent that its history encoder infers. One actor and one critic learn by PPO (Schulman et
al. 2017) from both groups, whose advantages are normalised apart, and so does the privileged encoder. The history
encoder learns by reconstruction on the student's own group; with `--student-rl-gradient` the policy gradient of that
group reaches it too.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field

from tscli.config import LatentConfig, UserError
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats
from tscli.learning.record import Averages, Fields, Minibatches, Recorder
from tscli.learning.rollout import rollout_values, take
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, latents, setup

ORDER = 61
CURVES = (
    curves.Panel("rollout/return", "return of training episodes, student"),
    curves.Panel("rollout_teacher/return", "return of training episodes, teacher"),
    curves.Panel("eval/return", "return, greedy student"),
    curves.Panel("eval_teacher/return", "return, greedy teacher"),
    curves.Panel("loss/latent", "mse of the student's latent"),
    curves.Panel("loss/value", "value loss"),
)


class Config(LatentConfig):
    """PPO's settings, and those of the latent."""

    student_fraction: float = Field(0.25, gt=0, lt=1, description="Share of the envs in which the student acts.")
    student_rl_gradient: bool = Field(False, description="Let the policy gradient through to the student's encoder.")


def main(config: Config, session: Session) -> Run:
    """Roll out both groups, update the actor by both, let the history encoder follow; keep the best student."""
    device, num_envs = setup.join(config, config.num_envs)
    task = load_task(config.task)
    env = setup.task_env(task, num_envs, device)
    made = latents.one_stage(config, task, env)
    teacher, student, critic, viewed = made.teacher, made.student, made.critic, made.viewed
    optimizer, student_optimizer = made.optimizer, made.student_optimizer

    # The student's envs come first. Every env is cut into sequences that suit both groups.
    steps, num_own = config.rollout_steps, round(config.student_fraction * num_envs)
    ours, theirs = slice(0, num_own), slice(num_own, num_envs)
    groups = ((student, ours, num_own / num_envs), (teacher, theirs, 1 - num_own / num_envs))
    length = setup.sequence_length(config, student.is_recurrent or made.are_recurrent)
    check_groups(config, num_own, num_envs, length)
    episodes, teacher_episodes = EpisodeStats(num_own), EpisodeStats(num_envs - num_own)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        student_hidden=student.initial_hidden(num_own),
        hidden=teacher.initial_hidden(num_envs - num_own),
        critic_hidden=critic.initial_hidden(num_envs),
    )
    parts = made.parts() | {"episodes": episodes, "teacher_episodes": teacher_episodes, "at": at}
    frame = (parts, {"policy": student, "teacher": teacher}, "student", config.total_steps, steps * num_envs)

    with Training(session, config, task, *frame, blame="--lr or --encoder-lr") as training:
        for _ in training.iterations():
            if config.lr_schedule == "linear":
                optimizer.lr, student_optimizer.lr = config.lr * training.left, config.encoder_lr * training.left

            # --- roll-out: each acts in its own envs ----------------------------------------------------------------
            record = Recorder()
            with torch.no_grad():
                for t in range(steps):
                    obs, student_obs = viewed.observe("teacher"), viewed.observe("student")
                    record.add(obs=obs, student_obs=student_obs, value_obs=viewed.observe("critic"), reset=at.reset)
                    if t % length == 0:
                        record.add(student_hidden=at.student_hidden, hidden=at.hidden)
                    inferred, at.student_hidden = student.step(
                        take(student_obs, ours), at.student_hidden, at.reset[ours]
                    )
                    dist, at.hidden = teacher.step(take(obs, theirs), at.hidden, at.reset[theirs])
                    actions = inferred.sample(made.act_stream), dist.sample(made.act_stream)
                    log_probs = inferred.log_prob(actions[0]), dist.log_prob(actions[1])
                    action = torch.cat(actions)
                    step = viewed.step(action)
                    record.add(action=action, log_prob=torch.cat(log_probs))  # as drawn: the env clips it
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

            # --- update: one surrogate of both groups ---------------------------------------------------------------
            fields = {"obs": rollout.obs, "student_obs": rollout.student_obs, "value_obs": rollout.value_obs}
            fields |= {"reset": rollout.reset, "action": rollout.action, "log_prob": rollout.log_prob}
            fields |= {"value": values.value, "advantage": advantage, "returns": returns}
            batches = []
            for policy, rows, _ in groups:
                hidden = rollout.student_hidden if policy is student else rollout.hidden
                starts = {"hidden": hidden, "critic_hidden": values.hiddens[:, rows]}
                batches.append(Minibatches(length, starts, of_envs(fields, rows)))
            averages = Averages()
            for _ in range(config.num_epochs):
                drawn = (batch.shuffled(config.num_minibatches, made.shuffle_stream) for batch in batches)
                for pair in zip(*drawn, strict=True):
                    loss = torch.zeros((), device=device)
                    for (policy, _, share), part in zip(groups, pair, strict=True):
                        seen = part.student_obs if policy is student else part.obs
                        # Without the option the inferred latent is an input: its encoder does not learn from rewards.
                        with torch.set_grad_enabled(policy is teacher or config.student_rl_gradient):
                            code, _ = policy.encoder.latent(seen, part.hidden, part.reset)
                        outer = part.hidden[:, policy.encoder.inner_size :]
                        dist = policy.head(policy.encoder.behind(code, seen, outer, part.reset)[0])
                        value, _ = critic(part.value_obs, part.critic_hidden, part.reset)
                        advantage, log_prob = ppo.standardize(part.advantage), dist.log_prob(part.action)
                        surrogate = ppo.policy_loss(log_prob, part.log_prob, advantage, config.clip_coef)
                        value_loss = ppo.value_loss(value, part.returns, part.value, config.value_clip)
                        entropy = dist.entropy().mean()
                        one = surrogate.loss + config.value_coef * value_loss - config.entropy_coef * entropy
                        loss = loss + share * one
                        averages.add({"loss/policy": surrogate.loss, "loss/value": value_loss, "entropy": entropy})
                    optimizer.zero_grad()
                    student_optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    if config.student_rl_gradient:
                        student_optimizer.step()

            # --- the history encoder follows the privileged one, in its own envs ------------------------------------
            with torch.no_grad():
                seen, resets = take(rollout.obs, (slice(None), ours)), rollout.reset[:-1, ours]
                goal, _ = teacher.encoder.latent(seen, teacher.initial_hidden(num_own), resets)
            batch = Minibatches(length, {"hidden": rollout.student_hidden}, of_envs(fields, ours), goal=goal)
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
            metrics = episodes.update(rollout.reward[:, ours], rollout.done[:, ours]) | averages.read()
            others = teacher_episodes.update(rollout.reward[:, theirs], rollout.done[:, theirs])
            metrics |= {name.replace("rollout/", "rollout_teacher/"): value for name, value in others.items()}
            training.log(metrics, show=("loss/latent",))
        return training.report(CURVES, f"{task.name}: concurrent teacher-student")


def check_groups(config: Config, num_own: int, num_envs: int, length: int) -> None:
    """Refuse groups that cannot learn side by side.

    Args:
        config: of the run.
        num_own, num_envs: the student's envs, and all, of one process.
        length: of a sequence.

    Raises:
        UserError: one is without an env, or of minibatches that nothing can be made of.
    """
    share = f"--student-fraction {config.student_fraction}"
    if not 0 < num_own < num_envs:
        raise UserError(f"{share} of {num_envs} envs leaves one of the two without an env: choose more envs")
    for who, envs in (("student", num_own), ("teacher", num_envs - num_own)):
        sequences = config.rollout_steps // length * envs
        if sequences % config.num_minibatches:
            raise UserError(
                f"{share}: --num-minibatches {config.num_minibatches} does not divide the {who}'s {sequences} "
                f"sequences of {length} steps: choose one that does"
            )
        if sequences * length == config.num_minibatches:
            raise UserError(
                f"{share}: --num-minibatches {config.num_minibatches} leaves the {who} minibatches of one step, which "
                "have no deviation to normalize their advantage by: choose fewer"
            )


def of_envs(fields: dict[str, Any], rows: slice) -> Fields:
    """Fields [T, N, ...] of some envs alone."""
    cut = (slice(None), rows)
    return Fields({k: take(v, cut) if isinstance(v, dict) else v[cut] for k, v in fields.items()})


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

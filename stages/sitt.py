"""Train a teacher that acts so that its student can follow: student-informed teacher training.

SITT (Messikommer, Xing et al., ICLR 2025; the equations' numbers are those of its workshop version). The teacher
maximises E[sum_t r_t - KL(pi_T || pi_S)] (eq. 1 to 3), whose gradient (eq. 4 to 6) has two parts: the policy gradient
of a reward that is lowered where teacher and student differ, and the gradient of the KL itself. Three encoders share
one action head A: the teacher's F_T(o_T), the student's F_S(o_S), and a proxy student F^_S(o_T), which guesses from the
teacher's view what the student would do, so that student observations are made for a part of the steps alone.

An iteration has three phases: a roll-out, a PPO update with both gradients, and an alignment of student to teacher and
of proxy to student. With all weights at 0 the teacher is that of `train-teacher`, bit for bit. What is not in the paper
is off unless it is asked for: the published code's pull between features (`feature_coef`); a penalty that begins late
(`penalty_start`) and, as the gradient, grows (`penalty_warmup`, `gradient_warmup`), in fixed units (`penalty_std`),
bounded (`penalty_cap`), made up for where an episode fails (`penalty_failure`); pairs of the student's own states
(`student_envs`) and of earlier rollouts (`memory`); an adaptive rate, and a teacher to start from.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tscli import ranks, streams
from tscli.config import (
    Augment,
    AugmentConfig,
    EvalEvery,
    NumEnvs,
    NumMinibatches,
    Patience,
    PenaltyConfig,
    RandomStart,
    RolloutSteps,
    Steps,
    UserError,
)
from tscli.envs.views import Obs
from tscli.learning import alignment, ppo
from tscli.learning.augment import Augmentation
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.record import Averages, Minibatches, Recorder
from tscli.learning.rollout import ViewedEnv, rollout_values, take
from tscli.networks import Head, Policy
from tscli.networks.distributions import from_params, kl
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, joint, setup

ORDER = 50
SCORE = ("eval/success_rate", "eval/return")  # the first that the env tells
CURVES = (
    curves.Panel("rollout/return", "task return of training episodes"),
    curves.Panel("eval/return", "return, greedy student"),
    curves.Panel("eval_teacher/return", "return, greedy teacher"),
    curves.Panel("penalty", "penalty per step"),
    curves.Panel("kl_teacher_proxy", "KL(teacher || proxy)"),
    curves.Panel("kl_proxy_student", "KL(proxy || student), held-out pairs"),
    curves.Panel("kl_teacher_student", "KL(teacher || student), held-out pairs"),
    curves.Panel("loss/align", "alignment loss of the student"),
    curves.Panel("entropy", "entropy [nats]"),
)


class Config(PenaltyConfig):
    """PPO's settings, those of the penalty, and those of the joint loop."""

    teacher: str = Field(
        "", description="Run of a teacher to start from: number, name, path, task or best; empty: from scratch."
    )
    critic_warmup: int = Field(
        0, ge=0, description="Env steps at the start in which the teacher waits for its critic, which is always new."
    )
    shared_head: bool = Field(True, description="One action head for teacher, proxy and student, trained by PPO alone.")
    feature_coef: float = Field(0.0, ge=0, description="Weight of |F_T - F^_S|, as in the published code; 0: none.")
    paired_fraction: float = Field(0.25, gt=0, le=1, description="Share of the steps for which the student observes.")
    paired: Literal["steps", "envs"] = Field(
        "steps", description="What the student sees: random rows at each step, or envs throughout (if it has memory)."
    )
    student_envs: int = Field(
        0, ge=0, description="Envs beside the others in which the student acts, so that its own mistakes are paired."
    )
    memory: int = Field(
        0, ge=0, description="Pairs of earlier rollouts to keep: half of each alignment batch is then of them; 0: none."
    )
    align_every: int = Field(1, ge=1, description="Iterations between alignments.")
    align_updates: int = Field(10, ge=0, description="Gradient steps of an alignment; 0 aligns nothing.")
    align_batch: int = Field(4096, ge=1, description="Pairs per gradient step of the alignment, of all processes.")
    align_lr: float = Field(
        1e-3, gt=0, description="Adam's learning rate in the alignment; it falls to 0 unless lr is constant."
    )
    augment: Augment = AugmentConfig()
    latent_coef: float = Field(
        1.0, ge=0, description="Weight of the distance of latents in the alignment, beside that of actions."
    )
    holdout_fraction: float = Field(0.05, ge=0, le=0.5, description="Share of pairs held out to measure; 0: none.")
    total_steps: Steps = 6_000_000
    num_envs: NumEnvs = 1024
    rollout_steps: RolloutSteps = 64
    random_start: RandomStart = False
    num_minibatches: NumMinibatches = 8
    eval_every: EvalEvery = 5
    stop_patience: Patience = 2

    @model_validator(mode="after")
    def _networks_fit(self) -> Config:
        student = self.student or self.network
        if student.std != self.network.std:
            raise ValueError("--student.std must equal --network.std: the KL compares like with like")
        if self.student_envs and (self.align_every > 1 or not self.align_updates):
            raise ValueError("--student-envs act where every iteration aligns: give --align-every 1 and some updates")
        if self.critic_warmup >= self.total_steps:
            raise ValueError("--critic-warmup takes all of --total-steps, and nobody else would learn: give less")
        return self


def main(config: Config, session: Session) -> Run:
    """Roll out, update, align, repeat; keep the best student and its teacher."""
    device, num_envs = setup.join(config, config.num_envs)
    task = load_task(config.task)
    env = setup.task_env(task, num_envs, device)
    teacher_view = setup.resolve(task, config.obs or task.teacher, env)
    student_view = setup.resolve(task, config.student_obs or task.student, env)
    teacher, critic, student, proxy = joint.networks(config, teacher_view, student_view, env, config.shared_head)
    check_memory(config, teacher, student)
    parents = joint.begin_from(teacher, config.teacher, session, env)
    if config.penalty_coef and config.penalty_start >= config.total_steps:
        session.say("no step is charged a penalty: --total-steps ends before --penalty-start")
    aligned = [p.encoder if config.shared_head else p for p in (student, proxy)]  # A is trained by the teacher's PPO
    optimizer = FlatAdam([*teacher.parameters(), *critic.parameters()], config.lr, config.max_grad_norm)
    align_optimizers = [FlatAdam(module.parameters(), config.align_lr, config.max_grad_norm) for module in aligned]
    act_stream = streams.generator(config.seed, "teacher/act", device)
    shuffle_stream = streams.generator(config.seed, "teacher/shuffle")
    pair_stream = streams.generator(config.seed, "sitt/pair", device)
    align_stream = streams.generator(config.seed, "sitt/align", device)
    augment = Augmentation(config.augment, student, streams.generator(config.seed, "sitt/augment", device))
    reward_scale = ReturnScale(num_envs, config.gamma, device) if config.normalize_reward else None
    std = alignment.reference_std(config.penalty_std, env.action, config.network, device)
    memory = alignment.PairMemory(ranks.share(config.memory, "--memory"), device) if config.memory else None

    steps = config.rollout_steps
    length = setup.sequence_length(config, teacher.is_recurrent or critic.is_recurrent)
    span = steps if teacher.is_recurrent or proxy.is_recurrent or student.is_recurrent else 1  # of a pair of sequences
    num_rows = max(1, round(config.paired_fraction * num_envs))  # that are paired in a step
    fixed_rows = torch.arange(num_rows, device=device)  # where they are not drawn anew each time
    views = {"teacher": teacher_view, "student": student_view}
    start_stream = streams.generator(config.seed, "teacher/start", device) if config.random_start else None
    viewed = ViewedEnv(env, views, config.seed, ("teacher",), start_stream)
    practice = joint.practice(task, config.student_envs, views, config.seed, device, start_stream)
    episodes = EpisodeStats(num_envs)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        hidden=teacher.initial_hidden(num_envs),
        critic_hidden=critic.initial_hidden(num_envs),
        proxy_hidden=proxy.initial_hidden(num_envs),
        student_hidden=student.initial_hidden(num_rows),
    )
    parts = {"teacher": teacher, "critic": critic, "student": student, "proxy": proxy, "viewed": viewed, "at": at}
    parts |= {"optimizer": optimizer, "student_optimizer": align_optimizers[0], "proxy_optimizer": align_optimizers[1]}
    parts |= {"act": act_stream, "shuffle": shuffle_stream, "pair": pair_stream, "align": align_stream}
    parts |= {"augment": augment.stream, "practice": practice, "memory": memory}
    parts |= {"episodes": episodes, "scale": reward_scale}
    per_iteration = steps * (num_envs + (practice.env.num_envs if practice else 0))
    frame = (parts, {"policy": student, "teacher": teacher}, "student", config.total_steps, per_iteration)

    with Training(session, config, task, *frame, parents=parents, score=SCORE, blame="--lr or --align-lr") as training:
        for iteration in training.iterations():
            begun = alignment.grown(training.done, config.penalty_warmup, config.penalty_start)
            penalty_coef = config.penalty_coef * begun
            gradient_coef = config.gradient_coef * alignment.grown(training.done, config.gradient_warmup)
            aligns = (iteration + 1) % config.align_every == 0 and config.align_updates > 0
            pairs_up = aligns or student.is_recurrent  # its hidden state must follow the envs
            teacher_learns = training.done > config.critic_warmup
            if teacher_learns and training.done - training.per_iteration <= config.critic_warmup:
                optimizer.forget()
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * training.left
            for one in align_optimizers if config.lr_schedule != "constant" else ():
                one.lr = config.align_lr * training.left

            # --- phase 1: roll-out ----------------------------------------------------------------------------------
            record = Recorder()
            with torch.no_grad():
                for t in range(steps):
                    obs = viewed.observe("teacher")
                    record.add(obs=obs, reset=at.reset)
                    if pairs_up:  # observed for these rows alone
                        rows = fixed_rows
                        if config.paired == "steps" and num_rows < num_envs:
                            rows = torch.randperm(num_envs, generator=pair_stream, device=device)[:num_rows]
                        seen = student.encoder.features_of(viewed.observe("student", rows))
                        record.add(rows=rows, student_obs=seen)
                        record.add(paired_obs=take(obs, rows), paired_reset=at.reset[rows])
                    if t % length == 0:
                        record.add(hidden=at.hidden)
                    dist, at.hidden = teacher.step(obs, at.hidden, at.reset)
                    action = dist.sample(act_stream)
                    step = viewed.step(action)
                    record.add(action=action, log_prob=dist.log_prob(action), params=dist.params())  # as drawn
                    record.add(reward=step.reward, terminated=step.terminated, done=step.done)
                    record.add(failed=step.terminated & ~step.success, last_seen=viewed.final("teacher"))
                    at.reset = step.done
                record.add(obs=viewed.observe("teacher"), reset=at.reset)
                rollout = record.stack()
                teacher_obs, resets = take(rollout.obs, slice(0, steps)), rollout.reset[:-1]

                # Eq. 2: the reward r - lambda1 KL(pi_T || pi_S), with the proxy in the student's place.
                teacher_dist = from_params(rollout.params, env.action, config.network.squash)
                first_proxy_hidden = at.proxy_hidden
                proxy_latent, at.proxy_hidden = proxy.encoder(teacher_obs, at.proxy_hidden, resets)
                proxy_dist = proxy.head(proxy_latent)
                ends = rollout.terminated, rollout.done
                divergence = alignment.charge(config, teacher_dist, proxy_dist, rollout.failed, std)
            reward = rollout.reward - penalty_coef * divergence if penalty_coef else rollout.reward
            reward = reward if reward_scale is None else reward_scale(reward, rollout.done)
            values = rollout_values(critic, rollout.obs, rollout, at.critic_hidden, length)
            at.critic_hidden = values.hidden
            advantage, returns = ppo.compute_gae(reward, *values[:2], *ends, config.gamma, config.gae_lambda)

            # --- phase 2: policy update -----------------------------------------------------------------------------
            starts = {"hidden": rollout.hidden, "critic_hidden": values.hiddens}
            made = {"value": values.value, "advantage": advantage, "returns": returns, "proxy_latent": proxy_latent}
            batch, averages = Minibatches(length, starts, rollout, **made), Averages()
            for _ in range(config.num_epochs):
                for part in batch.shuffled(config.num_minibatches, shuffle_stream):
                    latent, _ = teacher.encoder(part.obs, part.hidden, part.reset)
                    dist = teacher.head(latent)
                    value, _ = critic(part.obs, part.critic_hidden, part.reset)
                    advantage, log_prob = ppo.standardize(part.advantage), dist.log_prob(part.action)
                    surrogate = ppo.policy_loss(log_prob, part.log_prob, advantage, config.clip_coef)
                    value_loss = ppo.value_loss(value, part.returns, part.value, config.value_clip)
                    entropy = dist.entropy().mean()
                    loss = surrogate.loss + config.value_coef * value_loss - config.entropy_coef * entropy
                    if gradient_coef:
                        # Eq. 6, second part: lambda2 KL(pi_T || pi_proxy), into F_T alone, since through a free head
                        # it would flatten A instead.
                        guess = proxy.head(part.proxy_latent, frozen=True)
                        said = teacher.head(latent, frozen=True)
                        pull = alignment.directed_kl(said, guess, config.kl_direction, std)
                        loss = loss + gradient_coef * pull.mean()
                    if config.feature_coef:
                        loss = loss + config.feature_coef * (latent - part.proxy_latent).abs().mean()
                    loss = loss if teacher_learns else config.value_coef * value_loss
                    optimizer.zero_grad()
                    loss.backward()
                    if config.lr_schedule == "adaptive" and teacher_learns:
                        with torch.no_grad():
                            old = from_params(part.params, env.action, config.network.squash)
                            moved = ranks.mean(kl(old, dist).mean())
                        optimizer.lr = ppo.adaptive_lr(optimizer.lr, moved, config.desired_kl)
                    optimizer.step()
                    averages.add({"loss/policy": surrogate.loss, "loss/value": value_loss, "entropy": entropy})
                    averages.add({"approx_kl": surrogate.approx_kl, "clip_fraction": surrogate.clip_fraction})
            # Normalisers move between updates only, so that the first minibatch's ratio is exactly 1.
            for module in (teacher, critic, proxy) if teacher_learns else (critic, proxy):
                module.encoder.update_normalizer(teacher_obs)

            # --- phase 3: alignment ---------------------------------------------------------------------------------
            metrics = episodes.update(rollout.reward, rollout.done) | averages.read()
            if pairs_up:
                if practice is not None:
                    rollout = alignment.with_own(rollout, alignment.practise(practice, student, steps))
                student.encoder.update_normalizer(rollout.student_obs)
                first = rollout.rows[0]
                starts = {"hidden": rollout.hidden[0][first], "proxy_hidden": first_proxy_hidden[first]}
                starts["student_hidden"] = at.student_hidden
                if practice is not None:  # no network has memory
                    starts = {k: v.new_zeros(rollout.paired_reset.shape[1], 0) for k, v in starts.items()}
                starts = {k: v.expand(steps // span, *v.shape) for k, v in starts.items()}
                if aligns:
                    pairs, policies = Minibatches(span, starts, rollout), [teacher, student, proxy]
                    metrics |= align(config, pairs, policies, align_optimizers, align_stream, augment, memory)
                if student.is_recurrent:
                    with torch.no_grad():
                        seen = rollout.student_obs, at.student_hidden, rollout.paired_reset
                        at.student_hidden = student.encoder(*seen)[1]
            metrics["kl_teacher_proxy"] = float(kl(teacher_dist, proxy_dist).mean())
            metrics["penalty"] = penalty_coef * float(divergence.mean())
            metrics |= {"lr": float(optimizer.lr), "align_lr": float(align_optimizers[0].lr)}
            training.log(metrics, show=("kl_teacher_proxy",))
        return training.report(CURVES, f"{task.name}: SITT")


def check_memory(config: Config, teacher: Policy, student: Policy) -> None:
    """Refuse, with a `UserError`, a memory that cannot follow where a part of the steps is observed, and drawn from."""
    if student.spec.view.has_memory:
        raise UserError(
            f'the view "{student.spec.view.name}" has a delay, but the student observes only a part of the steps: take '
            "a view without one"
        )
    apart = config.paired == "steps" or config.student_envs or config.memory or config.teacher
    if (teacher.is_recurrent or student.is_recurrent) and apart:
        raise UserError(
            "a network with memory learns from whole sequences: give --paired envs, and leave out --student-envs, "
            "--memory and --teacher"
        )


def align(
    config: Config,
    pairs: Minibatches,
    policies: list[Policy],
    optimizers: list[FlatAdam],
    generator: torch.Generator,
    augment: Augmentation,
    memory: alignment.PairMemory | None = None,
) -> dict[str, float]:
    """Phase 3: the student follows the teacher, the proxy follows the student, each by its own gradient, A frozen.

    Where there is a memory, its pairs join those of the rollout, which join it in the end.

    Returns:
        The last losses, and how far the three are apart on held-out pairs.
    """
    (teacher, student, proxy), count = policies, pairs.count
    device = teacher.head.linear.weight.device
    with torch.no_grad():
        part = pairs.part(torch.arange(count, device=device))
        teacher_latent, _ = teacher.encoder(part.paired_obs, part.hidden, part.paired_reset)
    # Evenly spaced, so that every env and step has its share.
    num_held_out = min(count - 1, math.ceil(config.holdout_fraction * count))
    held_out = torch.arange(num_held_out, device=device) * count // max(1, num_held_out)
    train = torch.ones(count, dtype=torch.bool, device=device)
    train[held_out] = False
    train = train.nonzero().squeeze(1)
    size = min(len(train), max(1, config.align_batch // (len(teacher_latent) * ranks.size())))
    losses = torch.zeros(2)
    for _ in range(config.align_updates):
        index = train[torch.randint(len(train), (size,), generator=generator, device=device)]
        part, goal = pairs.part(index), teacher_latent.index_select(1, index)
        seen = part.student_obs, part.student_hidden, part.paired_reset
        proxy_seen = part.paired_obs, part.proxy_hidden, part.paired_reset
        if memory is not None and memory.count:
            old = memory.draw(size, generator)
            none = part.student_hidden.new_zeros(2 * size, 0), None
            with torch.no_grad():
                goal = torch.cat([goal, teacher.encoder(old["teacher"], none[0], None)[0][None]], 1)
            seen, proxy_seen = (
                (alignment.join(now, {k: v[None] for k, v in old[who].items()}), *none)
                for who, now in (("student", part.student_obs), ("teacher", part.paired_obs))
            )
        seen = augment(seen[0]), seen[1], seen[2]
        latent, loss = follow(config, student, optimizers[0], seen, goal, teacher.head)
        _, proxy_loss = follow(config, proxy, optimizers[1], proxy_seen, latent, student.head)
        losses = torch.stack([loss, proxy_loss])
    if memory is not None:
        part = pairs.part(train)
        memory.add(student=take(part.student_obs, 0), teacher=take(part.paired_obs, 0))
    out = {"loss/align": float(losses[0]), "loss/align_proxy": float(losses[1])}
    if num_held_out:
        part = pairs.part(held_out)
        with torch.no_grad():
            says_student, _ = student(part.student_obs, part.student_hidden, part.paired_reset)
            says_proxy, _ = proxy(part.paired_obs, part.proxy_hidden, part.paired_reset)
            says_teacher = teacher.head(teacher_latent[:, held_out])
            out["kl_proxy_student"] = float(kl(says_proxy, says_student).mean())
            out["kl_teacher_student"] = float(kl(says_teacher, says_student).mean())
    return out


def follow(
    config: Config,
    policy: Policy,
    optimizer: FlatAdam,
    seen: tuple[Obs, Tensor, Tensor | None],
    goal: Tensor,
    head: Head,
) -> tuple[Tensor, Tensor]:
    """A gradient step on latent_coef |F - sg F'| + |A F - sg A F'|, in the mean; A is frozen where it is shared.

    Args:
        config, policy, optimizer: who learns.
        seen: its observations, hidden state and resets.
        goal, head: F' and the head that reads it.

    Returns:
        F before the step, and the loss.
    """
    latent, _ = policy.encoder(*seen)
    loss, wanted = config.latent_coef * (latent - goal).abs().mean(), head(goal, frozen=True).params()
    for name, value in policy.head(latent, frozen=config.shared_head).params().items():
        # Deviations in logarithms: their ratio is what the KL sees.
        value, aim = (x.log() if name == "std" else x for x in (value, wanted[name].detach()))
        loss = loss + (value - aim).abs().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return latent.detach(), loss.detach()


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

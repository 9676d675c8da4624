"""Train a teacher that acts so that its student can follow: student-informed teacher training.

SITT (Messikommer, Xing et al., ICLR 2025; the equations' numbers are those of its workshop version). The teacher
maximises E[sum_t r_t - KL(pi_T || pi_S)] (eq. 1 to 3), whose gradient (eq. 4 to 6) has two parts: the policy gradient
of a reward that is lowered where teacher and student differ, and the gradient of the KL itself. Three encoders share
one action head A: the teacher's F_T(o_T), the student's F_S(o_S), and a proxy student F^_S(o_T), which guesses from the
teacher's view what the student would do, so that student observations are made for a part of the steps alone.

An iteration has three phases: a roll-out, a PPO update with both gradients, and an alignment of student to teacher and
of proxy to student. With all weights at 0 the teacher is that of `train-teacher`, bit for bit. Two things are not in
the paper: the penalty may grow over the first steps (`penalty_warmup`), and the published code's pull between features
(`feature_coef`) is there for comparison.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tscli import streams
from tscli.config import EvalEvery, JointConfig, NumEnvs, Patience, RolloutSteps, Steps, UserError
from tscli.config import Minibatches as NumMinibatches
from tscli.envs.views import Obs
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.record import Averages, Fields, Minibatches, Recorder, sequences
from tscli.learning.rollout import ViewedEnv, columns, rollout_values, take
from tscli.networks import Critic, Policy, PolicySpec
from tscli.networks.distributions import Distribution, from_params, kl
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, setup

ORDER = 50
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


class Config(JointConfig):
    """PPO's settings, and those of the joint loop."""

    shared_head: bool = Field(True, description="One action head for teacher, proxy and student, trained by PPO alone.")

    penalty_coef: float = Field(
        0.2, description="lambda1, weight of the KL that is taken off the reward; 0: none, below 0 adds it instead."
    )
    penalty_warmup: int = Field(
        0, ge=0, description="Env steps in which the penalty grows to its full weight; 0: full from the start."
    )
    gradient_coef: float = Field(0.1, ge=0, description="lambda2, weight of the KL in the teacher's loss; 0: none.")
    feature_coef: float = Field(
        0.0, ge=0, description="Weight of |F_T - F^_S| in the teacher's loss, which the published code has; 0: none."
    )
    kl_direction: Literal["teacher_proxy", "proxy_teacher"] = Field(
        "teacher_proxy", description="KL(teacher || proxy), or the other way round, in penalty and gradient."
    )
    paired_fraction: float = Field(0.25, gt=0, le=1, description="Share of the steps for which the student observes.")
    paired: Literal["steps", "envs"] = Field(
        "steps", description="Random rows at every step, or all steps of a fixed set of envs (students with memory)."
    )
    align_every: int = Field(1, ge=1, description="Iterations between alignments.")
    align_updates: int = Field(10, ge=0, description="Gradient steps of an alignment; 0 aligns nothing.")
    align_batch: int = Field(4096, ge=1, description="Pairs per gradient step of the alignment.")
    align_lr: float = Field(1e-3, gt=0, description="Adam's learning rate in the alignment; it falls as lr does.")
    holdout_fraction: float = Field(0.05, ge=0, le=0.5, description="Share of pairs held out to measure; 0: none.")

    total_steps: Steps = 6_000_000
    num_envs: NumEnvs = 1024
    rollout_steps: RolloutSteps = 64
    num_minibatches: NumMinibatches = 8
    eval_every: EvalEvery = 5
    stop_patience: Patience = 2

    @model_validator(mode="after")
    def _networks_fit(self) -> Config:
        student = self.student or self.network
        if student.std != self.network.std:
            raise ValueError("--student.std must equal --network.std: the KL compares like with like")
        kinds = {student.kind, self.network.kind} - {"mlp"}
        if kinds and self.paired == "steps":
            raise ValueError(
                f"a network with memory ({kinds.pop()}) learns from whole sequences, which random steps are not: "
                "give --paired envs"
            )
        return self


def main(config: Config, session: Session) -> Run:
    """Roll out, update, align, repeat; keep the best student and its teacher."""
    device = setup.prepare(config)
    task = load_task(config.task)
    env = setup.task_env(task, config.num_envs, device)
    teacher_view = setup.resolve(task, config.obs or task.teacher, env)
    student_view = setup.resolve(task, config.student_obs or task.student, env)
    if student_view.has_memory:
        raise UserError(
            f'the view "{student_view.name}" has a delay, but the student observes only a part of the steps: '
            "take a view without one"
        )

    with streams.seeded_init(config.seed, "teacher"):
        teacher = Policy(PolicySpec(teacher_view, env.action, config.network)).to(device)  # F_T and A
    with streams.seeded_init(config.seed, "critic"):
        critic = Critic(teacher_view, config.network).to(device)
    with streams.seeded_init(config.seed, "student"):
        student = Policy(PolicySpec(student_view, env.action, config.student or config.network)).to(device)  # F_S
        proxy = Policy(PolicySpec(teacher_view, env.action, config.network)).to(device)  # F^_S
    if config.shared_head:
        share_head(teacher, student, proxy)
    aligned = [p.encoder if config.shared_head else p for p in (student, proxy)]  # A is trained by the teacher's PPO
    optimizer = FlatAdam([*teacher.parameters(), *critic.parameters()], config.lr, config.max_grad_norm)
    student_optimizer, proxy_optimizer = (
        FlatAdam(module.parameters(), config.align_lr, config.max_grad_norm) for module in aligned
    )
    act_stream = streams.generator(config.seed, "teacher/act", device)
    shuffle_stream = streams.generator(config.seed, "teacher/shuffle")
    pair_stream = streams.generator(config.seed, "sitt/pair", device)
    align_stream = streams.generator(config.seed, "sitt/align", device)
    reward_scale = ReturnScale(config.num_envs, config.gamma, device) if config.normalize_reward else None

    steps, num_envs = config.rollout_steps, config.num_envs
    length = setup.sequence_length(config, teacher.is_recurrent or critic.is_recurrent)
    # Rows that are paired in a step: drawn anew each time, or the first envs for good.
    num_rows = max(1, round(config.paired_fraction * num_envs))
    fixed_rows = torch.arange(num_rows, device=device)
    viewed = ViewedEnv(env, {"teacher": teacher_view, "student": student_view}, config.seed, ("teacher",))
    episodes = EpisodeStats(num_envs)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        hidden=teacher.initial_hidden(num_envs),
        critic_hidden=critic.initial_hidden(num_envs),
        proxy_hidden=proxy.initial_hidden(num_envs),
        student_hidden=student.initial_hidden(num_rows),
    )
    parts = {"teacher": teacher, "critic": critic, "student": student, "proxy": proxy, "viewed": viewed}
    parts |= {"optimizer": optimizer, "student_optimizer": student_optimizer, "proxy_optimizer": proxy_optimizer}
    parts |= {"act": act_stream, "shuffle": shuffle_stream, "pair": pair_stream, "align": align_stream}
    parts |= {"episodes": episodes, "scale": reward_scale, "at": at}
    frame = (parts, {"policy": student, "teacher": teacher}, "student", config.total_steps, steps * num_envs)
    score = ("eval/success_rate", "eval/return")

    with Training(session, config, task, *frame, score=score, blame="--lr or --align-lr") as training:
        for iteration in training.iterations():
            penalty_coef = config.penalty_coef
            if training.done < config.penalty_warmup:
                penalty_coef *= training.done / config.penalty_warmup
            aligns = (iteration + 1) % config.align_every == 0 and config.align_updates > 0
            pairs_up = aligns or student.is_recurrent  # its hidden state must follow the envs
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * training.left
                student_optimizer.lr = proxy_optimizer.lr = config.align_lr * training.left

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
                        record.add(rows=rows, student_obs=viewed.observe("student", rows))
                    if t % length == 0:
                        record.add(hidden=at.hidden)
                    dist, at.hidden = teacher.step(obs, at.hidden, at.reset)
                    action = dist.sample(act_stream)
                    step = viewed.step(action)
                    record.add(action=action, log_prob=dist.log_prob(action), params=dist.params())  # as drawn
                    record.add(reward=step.reward, terminated=step.terminated, done=step.done)
                    record.add(last_seen=viewed.final("teacher"))
                    at.reset = step.done
                record.add(obs=viewed.observe("teacher"), reset=at.reset)
                rollout = record.stack()
                teacher_obs, resets = take(rollout.obs, slice(0, steps)), rollout.reset[:-1]

                # Eq. 2: the reward r - lambda1 KL(pi_T || pi_S), with the proxy in the student's place.
                teacher_dist = from_params(rollout.params, env.action, config.network.squash)
                first_proxy_hidden = at.proxy_hidden
                proxy_latent, at.proxy_hidden = proxy.encoder(teacher_obs, at.proxy_hidden, resets)
                proxy_dist = proxy.head(proxy_latent)
                divergence = directed_kl(teacher_dist, proxy_dist, config.kl_direction)
            reward = rollout.reward
            if penalty_coef:
                reward = reward - penalty_coef * divergence
            if reward_scale is not None:
                reward = reward_scale(reward, rollout.done)
            values = rollout_values(critic, rollout.obs, rollout.reset, at.critic_hidden, rollout.last_seen, length)
            at.critic_hidden = values.hidden
            ends = rollout.terminated, rollout.done
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
                    if config.gradient_coef:
                        # Eq. 6, second part: lambda2 KL(pi_T || pi_proxy), into F_T alone, since through a free head
                        # it would flatten A instead.
                        says, guessed = (
                            p.head(f, frozen=True) for p, f in ((teacher, latent), (proxy, part.proxy_latent))
                        )
                        pull = directed_kl(says, guessed, config.kl_direction)
                        loss = loss + config.gradient_coef * pull.mean()
                    if config.feature_coef:
                        loss = loss + config.feature_coef * (latent - part.proxy_latent).abs().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    averages.add({"loss/policy": surrogate.loss, "loss/value": value_loss, "entropy": entropy})
                    averages.add({"approx_kl": surrogate.approx_kl, "clip_fraction": surrogate.clip_fraction})
            # Normalisers move between updates only, so that the first minibatch's ratio is exactly 1.
            for module in (teacher, critic, proxy):
                module.encoder.update_normalizer(teacher_obs)

            # --- phase 3: alignment ---------------------------------------------------------------------------------
            metrics = episodes.update(rollout.reward, rollout.done) | averages.read()
            if pairs_up:
                student.encoder.update_normalizer(rollout.student_obs)
                hiddens = rollout.hidden[0], first_proxy_hidden, at.student_hidden
                has_memory = teacher.is_recurrent or proxy.is_recurrent or student.is_recurrent
                pairs = pair_up(rollout, teacher_obs, resets, hiddens, has_memory)
                if aligns:
                    optimizers = student_optimizer, proxy_optimizer
                    metrics |= align(config, pairs, teacher, student, proxy, optimizers, align_stream)
                if student.is_recurrent:
                    with torch.no_grad():
                        at.student_hidden = student.encoder(pairs.student_obs, at.student_hidden, pairs.reset)[1]

            metrics["kl_teacher_proxy"] = float(kl(teacher_dist, proxy_dist).mean())
            metrics["penalty"] = penalty_coef * float(divergence.mean())
            metrics |= {"lr": float(optimizer.lr), "align_lr": float(student_optimizer.lr)}
            training.log(metrics, show=("kl_teacher_proxy",))
        return training.report(CURVES, f"{task.name}: SITT")


def share_head(teacher: Policy, *others: Policy) -> None:
    """Give all the teacher's action head A.

    Raises:
        UserError: their latents are not of one size.
    """
    for other in others:
        if other.encoder.output_size != teacher.encoder.output_size:
            raise UserError(
                f"a shared head needs latents of one size: the teacher's is {teacher.encoder.output_size}, the "
                f"student's {other.encoder.output_size}: make them equal, or give --no-shared-head"
            )
        other.head = teacher.head


class Paired(NamedTuple):
    """Paired observations of an iteration as sequences [L, P, ...]; L is 1 without memory. Hidden states are [P, S]."""

    student_obs: Obs
    teacher_obs: Obs
    reset: Tensor
    teacher_hidden: Tensor
    proxy_hidden: Tensor
    student_hidden: Tensor


def pair_up(
    rollout: Fields, teacher_obs: Obs, resets: Tensor, hiddens: tuple[Tensor, Tensor, Tensor], has_memory: bool
) -> Paired:
    """What student and teacher saw in the same rows of the same steps.

    Args:
        rollout: with `rows` [T, P] and `student_obs` [T, P, ...].
        teacher_obs, resets: of all rows, [T, N, ...].
        hiddens: at the rollout's start, the teacher's and the proxy's of all rows, the student's of the paired ones.
        has_memory: else each step is a sequence of its own.
    """
    times = torch.arange(len(resets), device=resets.device).unsqueeze(1)
    obs, pair_obs, reset = rollout.student_obs, take(teacher_obs, (times, rollout.rows)), resets[times, rollout.rows]
    first = rollout.rows[0]
    starts = [hiddens[0][first], hiddens[1][first], hiddens[2]]
    if not has_memory:
        obs, pair_obs = ({k: sequences(v, 1) for k, v in seen.items()} for seen in (obs, pair_obs))
        reset = sequences(reset, 1)
        starts = [h.new_zeros(reset.shape[1], 0) for h in starts]
    return Paired(obs, pair_obs, reset, *starts)


def directed_kl(teacher: Distribution, proxy: Distribution, direction: str) -> Tensor:
    """KL(pi_T || pi_proxy), or KL(pi_proxy || pi_T)."""
    return kl(teacher, proxy) if direction == "teacher_proxy" else kl(proxy, teacher)


def align(
    config: Config,
    pairs: Paired,
    teacher: Policy,
    student: Policy,
    proxy: Policy,
    optimizers: tuple[FlatAdam, FlatAdam],
    generator: torch.Generator,
) -> dict[str, float]:
    """Phase 3: the student follows the teacher, the proxy follows the student, each by its own gradient, A frozen.

    Returns:
        The last losses, and how far the three are apart on held-out pairs.
    """
    with torch.no_grad():
        teacher_latent, _ = teacher.encoder(pairs.teacher_obs, pairs.teacher_hidden, pairs.reset)
    count = pairs.reset.shape[1]
    # Evenly spaced, so that every env and step has its share.
    num_held_out = min(count - 1, math.ceil(config.holdout_fraction * count))
    held_out = torch.arange(num_held_out, device=pairs.reset.device) * count // max(1, num_held_out)
    train = torch.ones(count, dtype=torch.bool, device=pairs.reset.device)
    train[held_out] = False
    train = train.nonzero().squeeze(1)
    size = min(len(train), max(1, config.align_batch // len(pairs.reset)))
    student_optimizer, proxy_optimizer = optimizers
    losses = torch.zeros(2)
    for _ in range(config.align_updates):
        index = train[torch.randint(len(train), (size,), generator=generator, device=train.device)]
        reset, goal = pairs.reset.index_select(1, index), teacher_latent.index_select(1, index)
        latent, _ = student.encoder(columns(pairs.student_obs, index), pairs.student_hidden[index], reset)
        student_loss = distance(config, student, latent, teacher.head(goal, frozen=True), goal)
        student_optimizer.zero_grad()
        student_loss.backward()
        student_optimizer.step()
        goal = latent.detach()
        latent, _ = proxy.encoder(columns(pairs.teacher_obs, index), pairs.proxy_hidden[index], reset)
        proxy_loss = distance(config, proxy, latent, student.head(goal, frozen=True), goal)
        proxy_optimizer.zero_grad()
        proxy_loss.backward()
        proxy_optimizer.step()
        losses = torch.stack([student_loss.detach(), proxy_loss.detach()])
    out = {"loss/align": float(losses[0]), "loss/align_proxy": float(losses[1])}
    if len(held_out):
        reset = pairs.reset[:, held_out]
        with torch.no_grad():
            says_student, _ = student(columns(pairs.student_obs, held_out), pairs.student_hidden[held_out], reset)
            says_proxy, _ = proxy(columns(pairs.teacher_obs, held_out), pairs.proxy_hidden[held_out], reset)
            says_teacher = teacher.head(teacher_latent[:, held_out])
            out["kl_proxy_student"] = float(kl(says_proxy, says_student).mean())
            out["kl_teacher_student"] = float(kl(says_teacher, says_student).mean())
    return out


def distance(config: Config, policy: Policy, latent: Tensor, goal: Distribution, goal_latent: Tensor) -> Tensor:
    """|F - sg F'| + |A F - sg A F'|, in the mean; A is frozen where it is shared."""
    says, wanted = policy.head(latent, frozen=config.shared_head).params(), goal.params()
    loss = (latent - goal_latent).abs().mean()
    for name, value in says.items():
        # Deviations in logarithms: their ratio is what the KL sees.
        value, aim = (x.log() if name == "std" else x for x in (value, wanted[name].detach()))
        loss = loss + (value - aim).abs().mean()
    return loss


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

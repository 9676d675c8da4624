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
from tscli.config import Network, NetworkConfig, PPOConfig, UserError, positional
from tscli.envs.views import Obs
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.rollout import Final, ViewedEnv, columns, rollout_values, sequences, take
from tscli.networks import Critic, Policy, PolicySpec
from tscli.networks.distributions import Distribution, from_params, kl
from tscli.networks.files import load_policy_file
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import evaluation, frame, setup

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


class Config(PPOConfig):
    """PPO's settings, and those of the joint loop."""

    task: str = positional(description="A task's name, or a task's YAML file.")
    obs: str = Field("", description="View of the teacher; empty takes the task's.")
    student_obs: str = Field("", description="View of the student; empty takes the task's.")
    network: Network = Field(NetworkConfig(), description="Body of the teacher and of the proxy student.")
    student: Network | None = Field(None, description="Body of the student; none makes it like the teacher's.")
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

    total_steps: int = Field(6_000_000, ge=1, description="Env steps over all envs, rounded up to whole iterations.")
    num_envs: int = Field(1024, ge=1, description="Envs that step together.")
    rollout_steps: int = Field(64, ge=1, description="Steps per env between updates.")
    num_minibatches: int = Field(8, ge=1, description="Minibatches per epoch.")
    clip_value: bool = Field(False, description="Clip the value's movement as well, by clip_coef.")
    eval_every: int = Field(5, ge=1, description="Iterations between greedy evaluations that choose the best student.")
    stop_success: float | None = Field(
        None, gt=0, le=1, description="Stop once the greedy student succeeds this often."
    )
    stop_patience: int = Field(2, ge=1, description="That many evaluations in a row.")

    @model_validator(mode="after")
    def _networks_fit(self) -> Config:
        student = self.student or self.network
        if any(getattr(student, name) != getattr(self.network, name) for name in ("distribution", "squash", "std")):
            raise ValueError(
                "--student.distribution, .squash and .std must equal those of --network: the KL compares like with like"
            )
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
    eval_env, report_env = setup.eval_envs(task, config.eval_episodes, device)
    per_slot = config.eval_episodes // eval_env.num_envs
    if config.stop_success is not None and not eval_env.has_success:
        raise UserError(f"--stop-success: task {task.name} does not tell success, give --stop-return instead")
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
        if student.encoder.output_size != teacher.encoder.output_size:
            raise UserError(
                f"a shared head needs latents of one size: the teacher's is {teacher.encoder.output_size}, the "
                f"student's {student.encoder.output_size}: make them equal, or give --no-shared-head"
            )
        student.head = proxy.head = teacher.head
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

    # Sequences of memoryless policies are single steps; those of recurrent ones are what their gradient flows through.
    steps, num_envs = config.rollout_steps, config.num_envs
    length = setup.sequence_length(config.bptt, steps, teacher.is_recurrent or critic.is_recurrent)
    num_sequences = num_envs * steps // length
    minibatch = setup.minibatch_size(num_sequences, config.num_minibatches, length)
    iterations = -(-config.total_steps // (steps * num_envs))
    # Rows that are paired in a step: drawn anew each time, or the first envs for good.
    num_rows = max(1, round(config.paired_fraction * num_envs))
    fixed_rows = torch.arange(num_rows, device=device)

    viewed = ViewedEnv(env, {"teacher": teacher_view, "student": student_view}, config.seed, final_for=("teacher",))
    reset = torch.ones(num_envs, dtype=torch.bool, device=device)
    hidden, critic_hidden = teacher.initial_hidden(num_envs), critic.initial_hidden(num_envs)
    proxy_hidden, student_hidden = proxy.initial_hidden(num_envs), student.initial_hidden(num_rows)
    episodes = EpisodeStats(num_envs)
    best_score, streak, start, seconds = -float("inf"), 0, 0, 0.0
    parts = {"teacher": teacher, "critic": critic, "student": student, "proxy": proxy, "viewed": viewed}
    parts |= {"optimizer": optimizer, "student_optimizer": student_optimizer, "proxy_optimizer": proxy_optimizer}
    parts |= {"act": act_stream, "shuffle": shuffle_stream, "pair": pair_stream, "align": align_stream}
    parts |= {"episodes": episodes, "reward_scale": reward_scale}

    with (
        session.start(config, "sitt", config.task, role="student") as run,
        session.progress(config.total_steps) as progress,
    ):
        if run.state is not None:
            saved = frame.restore(run.state, parts, device)
            start, best_score, streak = saved["iteration"], saved["best_score"], saved["streak"]
            seconds = saved["seconds"]
            reset, hidden, critic_hidden = saved["reset"], saved["hidden"], saved["critic_hidden"]
            proxy_hidden, student_hidden = saved["proxy_hidden"], saved["student_hidden"]
            if not env.exact_resume:
                reset = torch.ones_like(reset)
                episodes.restart()
                if reward_scale is not None:
                    reward_scale.restart()
            session.say(frame.resume_note(run.name, f"iteration {start} of {iterations}", env))
        clock = frame.Clock(seconds)
        for iteration in range(start, iterations):
            global_step = (iteration + 1) * steps * num_envs
            penalty_coef = config.penalty_coef
            if global_step < config.penalty_warmup:
                penalty_coef *= global_step / config.penalty_warmup
            aligns = (iteration + 1) % config.align_every == 0 and config.align_updates > 0
            pairs_up = aligns or student.is_recurrent  # its hidden state must follow the envs
            if config.lr_schedule == "linear":
                left = 1 - iteration / iterations
                optimizer.lr = config.lr * left
                student_optimizer.lr = proxy_optimizer.lr = config.align_lr * left

            # --- phase 1: roll-out ----------------------------------------------------------------------------------
            names = ("action", "log_prob", "reward", "terminated", "done")
            data: dict[str, list[Tensor]] = {k: [] for k in names}
            teacher_obs: list[Obs] = []
            paired_obs: list[Obs] = []
            paired_rows, resets, hiddens, finals = [], [], [], list[tuple[int, Final]]()
            teacher_params: list[dict[str, Tensor]] = []
            with torch.no_grad():
                for t in range(steps):
                    if t % length == 0:
                        hiddens.append(hidden)
                    teacher_obs.append(viewed.observe("teacher"))
                    if pairs_up:  # observed for these rows alone
                        rows = fixed_rows
                        if config.paired == "steps" and num_rows < num_envs:
                            rows = torch.randperm(num_envs, generator=pair_stream, device=device)[:num_rows]
                        paired_rows.append(rows)
                        paired_obs.append(viewed.observe("student", rows))
                    resets.append(reset)
                    dist, hidden = teacher.step(teacher_obs[-1], hidden, reset)
                    teacher_params.append(dist.params())
                    action = dist.sample(act_stream)
                    step = viewed.step(action)
                    data["action"].append(action)  # as drawn: the env clips it, the ratio must not
                    data["log_prob"].append(dist.log_prob(action))
                    data["reward"].append(step.reward)
                    data["terminated"].append(step.terminated)
                    data["done"].append(step.done)
                    if viewed.finals:
                        finals.append((t, viewed.finals["teacher"]))
                    reset = step.done
                teacher_obs.append(viewed.observe("teacher"))
                resets.append(reset)

                rollout = {k: torch.stack(v) for k, v in data.items()}
                value_obs = {k: torch.stack([o[k] for o in teacher_obs]) for k in teacher_obs[0]}
                obs = take(value_obs, slice(0, steps))
                all_resets = torch.stack(resets)
                episode_metrics = episodes.update(rollout["reward"], rollout["done"])

                # Eq. 2: the reward r - lambda1 KL(pi_T || pi_S), with the proxy in the student's place.
                stacked = {k: torch.stack([p[k] for p in teacher_params]) for k in teacher_params[0]}
                teacher_dist = from_params(stacked, env.action, config.network.squash)
                first_proxy_hidden = proxy_hidden
                proxy_latent, proxy_hidden = proxy.encoder(obs, proxy_hidden, all_resets[:-1])
                proxy_dist = proxy.head(proxy_latent)
                divergence = directed_kl(teacher_dist, proxy_dist, config.kl_direction)
                reward = rollout["reward"]
                if penalty_coef:
                    reward = reward - penalty_coef * divergence
                if reward_scale is not None:
                    reward = reward_scale(reward, rollout["done"])
                values = rollout_values(critic, value_obs, all_resets, critic_hidden, finals, length)
                critic_hidden = values.hidden
                advantage, returns = ppo.compute_gae(
                    reward,
                    values.value,
                    values.next_value,
                    rollout["terminated"],
                    rollout["done"],
                    config.gamma,
                    config.gae_lambda,
                )

            # --- phase 2: policy update -----------------------------------------------------------------------------
            batch_obs = {k: sequences(v, length) for k, v in obs.items()}
            batch_hidden, batch_critic_hidden = torch.stack(hiddens).flatten(0, 1), values.hiddens.flatten(0, 1)
            batch = {"action": rollout["action"], "log_prob": rollout["log_prob"], "reset": all_resets[:-1]}
            batch |= {"value": values.value, "advantage": advantage, "returns": returns, "proxy_latent": proxy_latent}
            batch = {k: sequences(v, length) for k, v in batch.items()}
            losses: list[Tensor] = []
            for _ in range(config.num_epochs):
                order = torch.randperm(num_sequences, generator=shuffle_stream).to(device)
                for index in order.split(minibatch):
                    part, part_obs = columns(batch, index), columns(batch_obs, index)
                    latent, _ = teacher.encoder(part_obs, batch_hidden[index], part["reset"])
                    dist = teacher.head(latent)
                    value, _ = critic(part_obs, batch_critic_hidden[index], part["reset"])
                    surrogate = ppo.policy_loss(
                        dist.log_prob(part["action"]),
                        part["log_prob"],
                        ppo.standardize(part["advantage"]),
                        config.clip_coef,
                    )
                    clip = config.clip_coef if config.clip_value else None
                    value_loss = ppo.value_loss(value, part["returns"], part["value"], clip)
                    entropy = dist.entropy().mean()
                    loss = surrogate.loss + config.value_coef * value_loss - config.entropy_coef * entropy
                    if config.gradient_coef:
                        # Eq. 6, second part: lambda2 KL(pi_T || pi_proxy), into F_T alone, since through a free head
                        # it would flatten A instead.
                        pull = directed_kl(
                            teacher.head(latent, frozen=True),
                            proxy.head(part["proxy_latent"], frozen=True),
                            config.kl_direction,
                        )
                        loss = loss + config.gradient_coef * pull.mean()
                    if config.feature_coef:
                        loss = loss + config.feature_coef * (latent - part["proxy_latent"]).abs().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    scalars = (surrogate.loss, value_loss, entropy, surrogate.approx_kl, surrogate.clip_fraction)
                    losses.append(torch.stack([s.detach() for s in scalars]))

            # Normalisers move between updates only, so that the first minibatch's ratio is exactly 1.
            for module in (teacher, critic, proxy):
                module.encoder.update_normalizer(obs)

            # --- phase 3: alignment ---------------------------------------------------------------------------------
            align_metrics: dict[str, float] = {}
            if pairs_up:
                times, rows = torch.arange(steps, device=device).unsqueeze(1), torch.stack(paired_rows)
                pair_obs = {k: torch.stack([o[k] for o in paired_obs]) for k in paired_obs[0]}  # o_S
                pair_teacher_obs = take(obs, (times, rows))  # o_T of the same steps
                pair_reset = all_resets[times, rows]
                student.encoder.update_normalizer(pair_obs)
                starts = [hiddens[0][rows[0]], first_proxy_hidden[rows[0]], student_hidden]
                if not (teacher.is_recurrent or proxy.is_recurrent or student.is_recurrent):
                    pair_obs = {k: sequences(v, 1) for k, v in pair_obs.items()}
                    pair_teacher_obs = {k: sequences(v, 1) for k, v in pair_teacher_obs.items()}
                    pair_reset = sequences(pair_reset, 1)
                    starts = [h.new_zeros(pair_reset.shape[1], 0) for h in starts]
                pairs = Paired(pair_obs, pair_teacher_obs, pair_reset, *starts)
                if aligns:
                    optimizers = student_optimizer, proxy_optimizer
                    align_metrics = align(config, pairs, teacher, student, proxy, optimizers, align_stream)
                if student.is_recurrent:
                    with torch.no_grad():
                        student_hidden = student.encoder(pairs.student_obs, student_hidden, pairs.reset)[1]

            # --- log, evaluate, save --------------------------------------------------------------------------------
            names = ("loss/policy", "loss/value", "entropy", "approx_kl", "clip_fraction")
            metrics = {"step": global_step, "iteration": iteration + 1, **episode_metrics, **align_metrics}
            metrics |= dict(zip(names, torch.stack(losses).mean(0).tolist(), strict=True))
            metrics["kl_teacher_proxy"] = float(kl(teacher_dist, proxy_dist).mean())
            metrics["penalty"] = penalty_coef * float(divergence.mean())
            metrics |= {"lr": optimizer.lr, "align_lr": student_optimizer.lr, "loop_seconds": clock.seconds}
            metrics["steps_per_second"] = global_step / clock.seconds
            frame.check_divergence(metrics, f"step {global_step}", "--lr or --align-lr")
            is_last = iteration + 1 == iterations
            if is_last or (iteration + 1) % config.eval_every == 0:
                with clock:
                    select = streams.derive(config.seed, "select")
                    found = evaluation.measure({"eval": student, "eval_teacher": teacher}, eval_env, select, per_slot)
                metrics |= found
                score = found.get("eval/success_rate", found["eval/return"])
                if score >= best_score:  # among equals the later one has seen more
                    best_score = score
                    run.save_policy(teacher, "teacher")
                    run.save_policy(student)
                goals = (config.stop_success, "eval/success_rate"), (config.stop_return, "eval/return")
                reached = any(goal is not None and found[name] >= goal for goal, name in goals)
                streak = streak + 1 if reached else 0
            run.log(metrics)
            shown = {"return": metrics["rollout/return"], "KL": metrics["kl_teacher_proxy"], "best student": best_score}
            progress.update(global_step, shown)
            if is_last or streak >= config.stop_patience:
                break
            kept = {"iteration": iteration + 1, "best_score": best_score, "streak": streak, "reset": reset}
            kept |= {"seconds": clock.seconds}
            kept |= {"hidden": hidden, "critic_hidden": critic_hidden}
            kept |= {"proxy_hidden": proxy_hidden, "student_hidden": student_hidden}
            run.save_if_due(lambda v=kept: frame.snapshot(parts, **v), config.checkpoint_every, env.exact_resume)
        loop_seconds = clock.seconds

        # --- report: the best student and its teacher, on episodes that did not choose them -------------------------
        run.save_policy(student, "last")
        names = {"eval": "policy", "eval_teacher": "teacher"}
        kept = {role: load_policy_file(run.path / f"{name}.safetensors", device) for role, name in names.items()}
        final = evaluation.measure(kept, report_env, streams.derive(config.seed, "report"), per_slot)
        curves.draw_curves(run.path / "curves.png", run.read_metrics(), CURVES, f"{task.name}: SITT")
        final |= {"step": global_step, "loop_seconds": loop_seconds, "best_selection_score": best_score}
        result = run.finish(final)
    env.close()
    eval_env.close()
    report_env.close()
    return result


class Paired(NamedTuple):
    """Paired observations of an iteration as sequences [L, P, ...]; L is 1 without memory. Hidden states are [P, S]."""

    student_obs: Obs
    teacher_obs: Obs
    reset: Tensor
    teacher_hidden: Tensor
    proxy_hidden: Tensor
    student_hidden: Tensor


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

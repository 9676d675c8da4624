"""Fine-tune a distilled student by PPO on what it sees: distillation loses a little, reinforcement learning regains it.

The student of a finished run goes on as the actor of proximal policy optimisation (Schulman et al. 2017); the critic is
new, and may see what the teacher sees (Pinto et al. 2018). While the critic knows nothing, its advantages would only
undo what the student has learnt, so the actor stands still for `critic_warmup` env steps. An optional KL(teacher ||
student) in the loss holds the student near its teacher on the states that it visits. The student as it was is measured
first and kept until a later one does better on the same episodes.
"""

from __future__ import annotations

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tscli import streams
from tscli.config import Network, NetworkConfig, PPOConfig, UserError, positional
from tscli.envs.spaces import action_scale
from tscli.envs.views import Obs
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats, run_episodes
from tscli.learning.optim import FlatAdam
from tscli.learning.rollout import Final, ViewedEnv, columns, rollout_values, sequences, take
from tscli.networks import Critic
from tscli.networks.distributions import from_params, kl
from tscli.networks.files import load_policy_file
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run, newest_run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import evaluation, frame, setup
from tscli.training.teachers import teachers_of

ORDER = 35
CURVES = (
    curves.Panel("rollout/return", "return of training episodes"),
    curves.Panel("eval/return", "return, greedy"),
    curves.Panel("loss/policy", "policy loss"),
    curves.Panel("loss/value", "value loss"),
    curves.Panel("explained_variance", "explained variance"),
    curves.Panel("kl_teacher", "KL(teacher || student)"),
    curves.Panel("entropy", "entropy [nats]"),
    curves.Panel("approx_kl", "approximate KL"),
)


class Config(PPOConfig):
    """PPO's settings, gentler than a teacher's, and those of the start."""

    run: str = positional("", description="Run of the student: number, name or path; empty: the newest.")
    critic_obs: str = Field("", description="View of the critic; empty takes the task's teacher view.")
    critic: Network = Field(NetworkConfig(), description="Body of the critic.")
    critic_lr: float = Field(1e-3, gt=0, description="Adam's learning rate of the critic.")
    critic_warmup: int = Field(40_000, ge=0, description="Env steps in which the critic alone learns.")
    teacher_kl_coef: float = Field(
        0.0, ge=0, description="Weight of KL(teacher || student) in the loss; 0: no teacher."
    )
    init_std: float | None = Field(
        None,
        gt=0,
        description="Deviation of continuous actions to begin with, 1 = half the range; none: as it is.",
    )
    update_normalizer: bool = Field(False, description="Let the student's normaliser go on; else it stays as it was.")
    lr: float = Field(3e-4, gt=0, description="Adam's learning rate of the actor at the start.")

    @model_validator(mode="after")
    def _actor_learns(self) -> Config:
        if self.critic_warmup >= self.total_steps:
            raise ValueError(
                f"critic_warmup ({self.critic_warmup}) takes all of total_steps ({self.total_steps}), and the student "
                "would never learn: give fewer of the one or more of the other"
            )
        return self


def main(config: Config, session: Session) -> Run:
    """Measure, warm the critic up, then roll out and update; keep the best."""
    device = setup.prepare(config)
    student_run = newest_run(session.runs_dir, config.run, "policy", "", role="student")
    task = load_task(student_run.task)
    env = setup.task_env(task, config.num_envs, device)
    eval_env, report_env = setup.eval_envs(task, config.eval_episodes, device)
    policy = setup.open_policy(student_run, env, device).train().requires_grad_(True)
    critic_view = setup.resolve(task, config.critic_obs or task.teacher, env)
    teacher, teachers, parents = None, None, {"student": student_run}
    try:  # named so that `eval` finds it, but needed for its KL alone
        teachers = teachers_of(student_run)
        parents |= teachers.parents
    except UserError:
        if config.teacher_kl_coef:
            raise
    if config.teacher_kl_coef and teachers is not None:
        teacher = teachers.open(env, device)
        if env.action.is_continuous and teacher.spec.network.head_kind != policy.spec.network.head_kind:
            raise UserError("--teacher-kl-coef: student and teacher have distributions of two kinds: give 0")
    session.say(f"student: {student_run.name}" + (f"; teacher: {teachers.name}" if teachers and teacher else ""))
    if config.init_std is not None:
        network = policy.spec.network
        if not env.action.is_continuous or network.std == "network" or network.distribution == "beta":
            raise UserError(f"--init-std {config.init_std}: {student_run.name} has no deviation to set: leave it out")
        _, half = action_scale(env.action, device)
        policy.head.start_from_std(config.init_std * (torch.ones_like(half) if network.squash else half))

    with streams.seeded_init(config.seed, "critic"):
        critic = Critic(critic_view, config.critic).to(device)
    optimizer = FlatAdam(policy.parameters(), config.lr, config.max_grad_norm)
    critic_optimizer = FlatAdam(critic.parameters(), config.critic_lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "finetune/act", device)
    shuffle_stream = streams.generator(config.seed, "finetune/shuffle")
    reward_scale = ReturnScale(config.num_envs, config.gamma, device) if config.normalize_reward else None

    steps, num_envs = config.rollout_steps, config.num_envs
    length = setup.sequence_length(config.bptt, steps, policy.is_recurrent or critic.is_recurrent)
    num_sequences = num_envs * steps // length
    minibatch = setup.minibatch_size(num_sequences, config.num_minibatches, length)
    iterations = -(-config.total_steps // (steps * num_envs))

    views = {"actor": policy.spec.view, "critic": critic_view} | ({"teacher": teacher.spec.view} if teacher else {})
    viewed = ViewedEnv(env, views, config.seed, final_for=("critic",))
    reset = torch.ones(num_envs, dtype=torch.bool, device=device)
    hidden, critic_hidden = policy.initial_hidden(num_envs), critic.initial_hidden(num_envs)
    teacher_hidden = teacher.initial_hidden(num_envs) if teacher else hidden
    episodes = EpisodeStats(num_envs)
    per_slot = config.eval_episodes // eval_env.num_envs
    streak, start, seconds = 0, 0, 0.0
    parts = {"policy": policy, "critic": critic, "optimizer": optimizer, "critic_optimizer": critic_optimizer}
    parts |= {"viewed": viewed, "episodes": episodes, "act": act_stream, "shuffle": shuffle_stream}
    parts |= {"reward_scale": reward_scale}

    with (
        session.start(config, "finetune", student_run.task, role="student", parents=parents) as run,
        session.progress(config.total_steps) as progress,
    ):
        if run.state is not None:
            saved = frame.restore(run.state, parts, device)
            start, best_return, streak, seconds = (saved[k] for k in ("iteration", "best_return", "streak", "seconds"))
            first_return = saved["first_return"]
            reset, hidden, critic_hidden = saved["reset"], saved["hidden"], saved["critic_hidden"]
            teacher_hidden = saved["teacher_hidden"]
            if not env.exact_resume:
                reset = torch.ones_like(reset)
                episodes.restart()
                if reward_scale is not None:
                    reward_scale.restart()
            session.say(frame.resume_note(run.name, f"iteration {start} of {iterations}", env))
        else:
            # The student as it came is the one to beat.
            found = run_episodes(policy, eval_env, streams.derive(config.seed, "select"), per_slot)
            first_return = best_return = evaluation.summary(found)["eval/return"]
            run.save_policy(policy)
            session.say(f"the student as it is: return {first_return:.1f}")
        clock = frame.Clock(seconds)
        for iteration in range(start, iterations):
            global_step = (iteration + 1) * steps * num_envs
            actor_learns = global_step > config.critic_warmup
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * (1 - iteration / iterations)
                critic_optimizer.lr = config.critic_lr * (1 - iteration / iterations)

            # --- roll-out -------------------------------------------------------------------------------------------
            names = ("action", "log_prob", "reward", "terminated", "done")
            data: dict[str, list[Tensor]] = {k: [] for k in names}
            seen: dict[str, list[Obs]] = {role: [] for role in views}
            resets, hiddens, finals = [], [], list[tuple[int, Final]]()
            with torch.no_grad():
                for t in range(steps):
                    if t % length == 0:
                        hiddens.append(hidden)
                    for role, obs in seen.items():
                        obs.append(viewed.observe(role))
                    resets.append(reset)
                    dist, hidden = policy.step(seen["actor"][-1], hidden, reset)
                    action = dist.sample(act_stream)
                    step = viewed.step(action)
                    data["action"].append(action)  # as drawn: the env clips it, the ratio must not
                    data["log_prob"].append(dist.log_prob(action))
                    data["reward"].append(step.reward)
                    data["terminated"].append(step.terminated)
                    data["done"].append(step.done)
                    if viewed.finals:
                        finals.append((t, viewed.finals["critic"]))
                    reset = step.done
                seen["critic"].append(viewed.observe("critic"))
                resets.append(reset)
                rollout = {k: torch.stack(v) for k, v in data.items()}
                stacked = {role: {k: torch.stack([o[k] for o in obs]) for k in obs[0]} for role, obs in seen.items()}
                all_resets = torch.stack(resets)
                episode_metrics = episodes.update(rollout["reward"], rollout["done"])

                # --- advantages, and what the teacher would have done ----------------------------------------------
                reward = rollout["reward"]
                if reward_scale is not None:
                    reward = reward_scale(reward, rollout["done"])
                values = rollout_values(critic, stacked["critic"], all_resets, critic_hidden, finals, length)
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
                labels: dict[str, Tensor] = {}
                if teacher is not None:
                    label, teacher_hidden = teacher(stacked["teacher"], teacher_hidden, all_resets[:-1])
                    labels = {k: sequences(v, length) for k, v in label.params().items()}

            # --- update ---------------------------------------------------------------------------------------------
            batch_obs = {k: sequences(v, length) for k, v in stacked["actor"].items()}
            batch_value_obs = {k: sequences(v[:-1], length) for k, v in stacked["critic"].items()}
            batch_hidden, batch_critic_hidden = torch.stack(hiddens).flatten(0, 1), values.hiddens.flatten(0, 1)
            batch = {"action": rollout["action"], "log_prob": rollout["log_prob"], "reset": all_resets[:-1]}
            batch |= {"value": values.value, "advantage": advantage, "returns": returns}
            batch = {k: sequences(v, length) for k, v in batch.items()}
            losses: list[Tensor] = []
            for _ in range(config.num_epochs):
                order = torch.randperm(num_sequences, generator=shuffle_stream).to(device)
                for index in order.split(minibatch):
                    part = columns(batch, index)
                    value, _ = critic(columns(batch_value_obs, index), batch_critic_hidden[index], part["reset"])
                    value_loss = ppo.value_loss(value, part["returns"], part["value"], None)
                    critic_optimizer.zero_grad()
                    (config.value_coef * value_loss).backward()
                    critic_optimizer.step()
                    if not actor_learns:
                        losses.append(torch.stack([value_loss.detach()]))
                        continue
                    dist, _ = policy(columns(batch_obs, index), batch_hidden[index], part["reset"])
                    surrogate = ppo.policy_loss(
                        dist.log_prob(part["action"]),
                        part["log_prob"],
                        ppo.standardize(part["advantage"]),
                        config.clip_coef,
                    )
                    entropy = dist.entropy().mean()
                    loss = surrogate.loss - config.entropy_coef * entropy
                    distance = torch.zeros((), device=device)
                    if teacher is not None:
                        wanted = from_params(columns(labels, index), env.action, teacher.spec.network.squash)
                        distance = kl(wanted, dist).mean()
                        loss = loss + config.teacher_kl_coef * distance
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    scalars = (value_loss, surrogate.loss, entropy, surrogate.approx_kl, distance)
                    losses.append(torch.stack([s.detach() for s in scalars]))
            if config.update_normalizer and actor_learns:
                policy.encoder.update_normalizer(stacked["actor"])
            critic.encoder.update_normalizer(take(stacked["critic"], slice(0, steps)))

            # --- log, evaluate, save --------------------------------------------------------------------------------
            names = ("loss/value", "loss/policy", "entropy", "approx_kl", "kl_teacher")
            metrics = {"step": global_step, "iteration": iteration + 1, **episode_metrics}
            metrics |= dict(zip(names, torch.stack(losses).mean(0).tolist(), strict=False))
            if teacher is None:
                metrics.pop("kl_teacher", None)
            metrics["explained_variance"] = float(ppo.explained_variance(values.value, returns))
            metrics |= {"lr": optimizer.lr, "loop_seconds": clock.seconds}
            metrics["steps_per_second"] = global_step / clock.seconds
            frame.check_divergence(metrics, f"step {global_step}")
            is_last = iteration + 1 == iterations
            if is_last or (actor_learns and (iteration + 1) % config.eval_every == 0):
                with clock:
                    found = run_episodes(policy, eval_env, streams.derive(config.seed, "select"), per_slot)
                metrics |= evaluation.summary(found)
                if metrics["eval/return"] > best_return:  # an equal one is no reason to leave what was distilled
                    best_return = metrics["eval/return"]
                    run.save_policy(policy)
                reached = config.stop_return is not None and metrics["eval/return"] >= config.stop_return
                streak = streak + 1 if reached else 0
            run.log(metrics)
            progress.update(global_step, {"return": metrics["rollout/return"], "best greedy": best_return})
            if is_last or streak >= config.stop_patience:
                break
            kept = {"iteration": iteration + 1, "best_return": best_return, "first_return": first_return}
            kept |= {"streak": streak, "seconds": clock.seconds}
            kept |= {"reset": reset, "hidden": hidden, "critic_hidden": critic_hidden, "teacher_hidden": teacher_hidden}
            run.save_if_due(lambda v=kept: frame.snapshot(parts, **v), config.checkpoint_every, env.exact_resume)
        loop_seconds = clock.seconds

        # --- report: the student as it was and as it is, on episodes that chose neither -----------------------------
        run.save_policy(policy, "last")
        best = load_policy_file(run.path / "policy.safetensors", device)
        before = setup.open_policy(student_run, report_env, device)
        report = streams.derive(config.seed, "report")
        final = evaluation.measure({"eval": best, "eval_before": before}, report_env, report, per_slot)
        curves.draw_curves(run.path / "curves.png", run.read_metrics(), CURVES, f"{task.name}: fine-tuning", columns=4)
        final |= {"step": global_step, "loop_seconds": loop_seconds}
        final |= {"best_selection_return": best_return, "first_selection_return": first_return}
        result = run.finish(final, **(teachers.details if teachers else {}))
    env.close()
    eval_env.close()
    report_env.close()
    return result


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

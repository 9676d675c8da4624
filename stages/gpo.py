"""Train a guider that sees everything together with a learner that does not, the guider held where the learner is.

Guided policy optimisation (Li et al. 2025, "Guided Policy Optimization under Partial Observability"). The guider acts
and learns by PPO; the learner imitates it; and the guider is pulled back to the learner, so that it never does for long
what the learner cannot follow, and looks for information where the learner needs it. Two ways to pull, and two losses:

    penalty  guider: PPO + beta KL(guider || learner), beta raised where that KL is above `target_kl`, lowered below
    clip     guider: PPO whose ratio to the learner is clipped as well, by `delta`; KL where the ratio has left it
    learner: KL(guider || learner), and PPO on the guider's actions with weight beta (penalty) or `learner_rl_coef`

Where SITT lowers the reward of states in which the student cannot follow, this lowers the freedom to act there.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tscli import streams
from tscli.config import Network, NetworkConfig, PPOConfig, positional
from tscli.envs.views import Obs
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.rollout import Final, ViewedEnv, columns, rollout_values, sequences, take
from tscli.networks import Critic, Policy, PolicySpec
from tscli.networks.distributions import from_params, kl
from tscli.networks.files import load_policy_file
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import evaluation, frame, setup

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


class Config(PPOConfig):
    """PPO's settings, and those of the pull."""

    task: str = positional(description="A task's name, or a task's YAML file.")
    obs: str = Field("", description="View of the guider and of the critic; empty takes the task's teacher view.")
    student_obs: str = Field("", description="View of the learner; empty takes the task's student view.")
    network: Network = Field(NetworkConfig(), description="Body of the guider and of the critic.")
    student: Network | None = Field(None, description="Body of the learner; none makes it like the guider's.")
    pull: Literal["penalty", "clip"] = Field("penalty", description="How the guider is held near the learner.")
    target_kl: float = Field(0.01, gt=0, description="KL(guider || learner) that beta steers to (penalty).")
    max_beta: float = Field(10.0, gt=0, description="The largest beta (penalty).")
    delta: float = Field(0.3, gt=0, lt=1, description="How far the ratio of guider to learner may move (clip).")
    learner_rl_coef: float = Field(2.0, ge=0, description="Weight of PPO in the learner's loss (clip).")
    total_steps: int = Field(1_000_000, ge=1, description="Env steps over all envs, rounded up to whole iterations.")

    @model_validator(mode="after")
    def _both_act_alike(self) -> Config:
        student = self.student or self.network
        if student.head_kind != self.network.head_kind:
            raise ValueError(
                "--student.distribution and .squash must equal those of --network: the KL compares like with like"
            )
        return self


def main(config: Config, session: Session) -> Run:
    """Roll out by the guider, update both, evaluate both; keep the best learner and its guider."""
    device = setup.prepare(config)
    task = load_task(config.task)
    env = setup.task_env(task, config.num_envs, device)
    eval_env, report_env = setup.eval_envs(task, config.eval_episodes, device)
    guider_view = setup.resolve(task, config.obs or task.teacher, env)
    learner_view = setup.resolve(task, config.student_obs or task.student, env)

    with streams.seeded_init(config.seed, "teacher"):
        guider = Policy(PolicySpec(guider_view, env.action, config.network)).to(device)
    with streams.seeded_init(config.seed, "student"):
        learner = Policy(PolicySpec(learner_view, env.action, config.student or config.network)).to(device)
    with streams.seeded_init(config.seed, "critic"):
        critic = Critic(guider_view, config.network).to(device)
    optimizer = FlatAdam([*guider.parameters(), *critic.parameters()], config.lr, config.max_grad_norm)
    learner_optimizer = FlatAdam(learner.parameters(), config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "gpo/act", device)
    shuffle_stream = streams.generator(config.seed, "gpo/shuffle")
    reward_scale = ReturnScale(config.num_envs, config.gamma, device) if config.normalize_reward else None

    steps, num_envs = config.rollout_steps, config.num_envs
    length = setup.sequence_length(config.bptt, steps, guider.is_recurrent or learner.is_recurrent)
    num_sequences = num_envs * steps // length
    minibatch = setup.minibatch_size(num_sequences, config.num_minibatches, length)
    iterations = -(-config.total_steps // (steps * num_envs))

    views = {"teacher": guider_view, "student": learner_view}
    viewed = ViewedEnv(env, views, config.seed, final_for=("teacher",))
    reset = torch.ones(num_envs, dtype=torch.bool, device=device)
    hidden, critic_hidden = guider.initial_hidden(num_envs), critic.initial_hidden(num_envs)
    learner_hidden = learner.initial_hidden(num_envs)
    episodes = EpisodeStats(num_envs)
    per_slot = config.eval_episodes // eval_env.num_envs
    best_score, streak, start, seconds, beta = -float("inf"), 0, 0, 0.0, 0.0
    parts = {"guider": guider, "learner": learner, "critic": critic}
    parts |= {"optimizer": optimizer, "learner_optimizer": learner_optimizer}
    parts |= {"viewed": viewed, "episodes": episodes, "act": act_stream, "shuffle": shuffle_stream}
    parts |= {"reward_scale": reward_scale}

    with (
        session.start(config, "gpo", config.task, role="student") as run,
        session.progress(config.total_steps) as progress,
    ):
        if run.state is not None:
            saved = frame.restore(run.state, parts, device)
            start, best_score, streak, seconds = (saved[k] for k in ("iteration", "best_score", "streak", "seconds"))
            beta, learner_hidden = saved["beta"], saved["learner_hidden"]
            reset, hidden, critic_hidden = saved["reset"], saved["hidden"], saved["critic_hidden"]
            if not env.exact_resume:
                reset = torch.ones_like(reset)
                episodes.restart()
                if reward_scale is not None:
                    reward_scale.restart()
            session.say(frame.resume_note(run.name, f"iteration {start} of {iterations}", env))
        clock = frame.Clock(seconds)
        for iteration in range(start, iterations):
            global_step = (iteration + 1) * steps * num_envs
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * (1 - iteration / iterations)
                learner_optimizer.lr = optimizer.lr

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
                    dist, hidden = guider.step(seen["teacher"][-1], hidden, reset)
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
                seen["teacher"].append(viewed.observe("teacher"))
                resets.append(reset)
                rollout = {k: torch.stack(v) for k, v in data.items()}
                stacked = {role: {k: torch.stack([o[k] for o in obs]) for k in obs[0]} for role, obs in seen.items()}
                all_resets = torch.stack(resets)
                episode_metrics = episodes.update(rollout["reward"], rollout["done"])

                # --- advantages -------------------------------------------------------------------------------------
                reward = rollout["reward"]
                if reward_scale is not None:
                    reward = reward_scale(reward, rollout["done"])
                values = rollout_values(critic, stacked["teacher"], all_resets, critic_hidden, finals, length)
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
                # The learner's memory is carried through what the guider did.
                learner_hiddens, learner_hidden = hidden_at_starts(
                    learner, stacked["student"], learner_hidden, all_resets, length
                )

            # --- update ---------------------------------------------------------------------------------------------
            teacher_obs = take(stacked["teacher"], slice(0, steps))
            batch_obs = {k: sequences(v, length) for k, v in teacher_obs.items()}
            batch_student_obs = {k: sequences(v, length) for k, v in stacked["student"].items()}
            batch_hidden, batch_critic_hidden = torch.stack(hiddens).flatten(0, 1), values.hiddens.flatten(0, 1)
            batch = {"action": rollout["action"], "log_prob": rollout["log_prob"], "reset": all_resets[:-1]}
            batch |= {"value": values.value, "advantage": advantage, "returns": returns}
            batch = {k: sequences(v, length) for k, v in batch.items()}
            losses: list[Tensor] = []
            for _ in range(config.num_epochs):
                order = torch.randperm(num_sequences, generator=shuffle_stream).to(device)
                distances = []
                for index in order.split(minibatch):
                    part, part_obs = columns(batch, index), columns(batch_obs, index)
                    part["advantage"] = ppo.standardize(part["advantage"])
                    dist, _ = guider(part_obs, batch_hidden[index], part["reset"])
                    value, _ = critic(part_obs, batch_critic_hidden[index], part["reset"])
                    told, _ = learner(columns(batch_student_obs, index), learner_hiddens[index], part["reset"])
                    follows = from_params(
                        {k: v.detach() for k, v in told.params().items()}, env.action, config.network.squash
                    )
                    leads = from_params(
                        {k: v.detach() for k, v in dist.params().items()}, env.action, config.network.squash
                    )
                    log_prob, learner_log_prob = dist.log_prob(part["action"]), told.log_prob(part["action"])

                    # The guider: PPO, pulled back to where the learner is.
                    away = kl(dist, follows)
                    if config.pull == "penalty":
                        surrogate = ppo.policy_loss(log_prob, part["log_prob"], part["advantage"], config.clip_coef)
                        loss = surrogate.loss + beta * away.mean()
                    else:
                        surrogate, left = double_clip(
                            log_prob, part["log_prob"], learner_log_prob.detach(), part["advantage"], config
                        )
                        loss = surrogate.loss + (away * left).mean()
                    value_loss = ppo.value_loss(value, part["returns"], part["value"], None)
                    entropy = dist.entropy().mean()
                    loss = loss + config.value_coef * value_loss - config.entropy_coef * entropy
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()

                    # The learner: imitation, and PPO on the guider's actions.
                    own = ppo.policy_loss(learner_log_prob, part["log_prob"], part["advantage"], config.clip_coef)
                    weight = beta if config.pull == "penalty" else config.learner_rl_coef
                    imitation = kl(leads, told).mean()
                    loss = imitation + weight * own.loss
                    learner_optimizer.zero_grad()
                    loss.backward()
                    learner_optimizer.step()
                    distances.append(imitation.detach())
                    scalars = (value_loss, surrogate.loss, entropy, surrogate.approx_kl, imitation)
                    losses.append(torch.stack([s.detach() for s in scalars]))
                beta = steered(beta, float(torch.stack(distances).mean()), config)
            guider.encoder.update_normalizer(teacher_obs)
            critic.encoder.update_normalizer(teacher_obs)
            learner.encoder.update_normalizer(stacked["student"])

            # --- log, evaluate, save --------------------------------------------------------------------------------
            names = ("loss/value", "loss/policy", "entropy", "approx_kl", "kl_guider_learner")
            metrics = {"step": global_step, "iteration": iteration + 1, **episode_metrics}
            metrics |= dict(zip(names, torch.stack(losses).mean(0).tolist(), strict=True))
            metrics["beta"] = beta
            metrics["explained_variance"] = float(ppo.explained_variance(values.value, returns))
            metrics |= {"lr": optimizer.lr, "loop_seconds": clock.seconds}
            metrics["steps_per_second"] = global_step / clock.seconds
            frame.check_divergence(metrics, f"step {global_step}")
            is_last = iteration + 1 == iterations
            if is_last or (iteration + 1) % config.eval_every == 0:
                with clock:
                    select = streams.derive(config.seed, "select")
                    found = evaluation.measure({"eval": learner, "eval_teacher": guider}, eval_env, select, per_slot)
                metrics |= found
                if metrics["eval/return"] >= best_score:  # among equals the later one has seen more
                    best_score = metrics["eval/return"]
                    run.save_policy(guider, "teacher")
                    run.save_policy(learner)
                reached = config.stop_return is not None and metrics["eval/return"] >= config.stop_return
                streak = streak + 1 if reached else 0
            run.log(metrics)
            progress.update(global_step, {"return": metrics["rollout/return"], "best learner": best_score})
            if is_last or streak >= config.stop_patience:
                break
            kept = {"iteration": iteration + 1, "best_score": best_score, "streak": streak, "seconds": clock.seconds}
            kept |= {"beta": beta, "reset": reset, "hidden": hidden, "critic_hidden": critic_hidden}
            kept |= {"learner_hidden": learner_hidden}
            run.save_if_due(lambda v=kept: frame.snapshot(parts, **v), config.checkpoint_every, env.exact_resume)
        loop_seconds = clock.seconds

        # --- report: the best learner and its guider, on episodes that did not choose them --------------------------
        run.save_policy(learner, "last")
        names = {"eval": "policy", "eval_teacher": "teacher"}
        best = {role: load_policy_file(run.path / f"{name}.safetensors", device) for role, name in names.items()}
        final = evaluation.measure(best, report_env, streams.derive(config.seed, "report"), per_slot)
        curves.draw_curves(run.path / "curves.png", run.read_metrics(), CURVES, f"{task.name}: GPO", columns=4)
        final |= {"step": global_step, "loop_seconds": loop_seconds, "best_selection_return": best_score}
        result = run.finish(final)
    env.close()
    eval_env.close()
    report_env.close()
    return result


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


@torch.no_grad()
def hidden_at_starts(learner: Policy, obs: Obs, hidden: Tensor, resets: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The learner's hidden states where the training sequences begin, [T / length * N, S], and after the last step."""
    starts = []
    for begin in range(0, len(resets) - 1, length):
        starts.append(hidden)
        if learner.is_recurrent:
            window = slice(begin, begin + length)
            hidden = learner.encoder(take(obs, window), hidden, resets[window])[1]
    return torch.cat(starts), hidden


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

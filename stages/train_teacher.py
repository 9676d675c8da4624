"""Train a teacher with PPO on what it is allowed to see.

Proximal policy optimisation (Schulman et al. 2017) with generalised advantages: discrete, multi-discrete and continuous
actions, memoryless or recurrent policies (truncated BPTT), and a critic that may see more than the actor (asymmetric
actor-critic, Pinto et al. 2018). With noise on the actions that the env is given, the teacher gets smoother (Song et
al. 2025, "To Distill or Decide?"). Every so often the greedy policy is measured on episodes of its own seeds; the best
one is kept, and reported on other seeds at the end.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator

from tscli import streams
from tscli.config import Network, NetworkConfig, StageConfig, positional
from tscli.envs.views import Obs
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats, run_episodes
from tscli.learning.optim import FlatAdam
from tscli.learning.rollout import Final, ViewedEnv, columns, perturb, rollout_values, sequences, take
from tscli.networks import Critic, Policy, PolicySpec
from tscli.networks.distributions import from_params, kl
from tscli.networks.files import load_policy_file
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import evaluation, frame, setup

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


class Config(StageConfig):
    """PPO's settings; the defaults suit small control tasks."""

    task: str = positional(description="A task's name, a task's YAML file, or any Gymnasium id.")
    obs: str = Field("", description="View of the actor; empty takes the task's teacher view.")
    critic_obs: str = Field("", description="View of the critic; empty takes the actor's. One that sees more helps.")
    network: Network = Field(NetworkConfig(), description="Body of the policy.")
    critic: Network | None = Field(None, description="Body of the critic; none makes it like the policy's.")

    total_steps: int = Field(500_000, ge=1, description="Env steps over all envs, rounded up to whole iterations.")
    num_envs: int = Field(64, ge=1, description="Envs that step together.")
    rollout_steps: int = Field(32, ge=1, description="Steps per env between updates.")
    random_start: bool = Field(
        False, description="Let first episodes count as begun some steps ago, so that time limits are spread out."
    )
    action_noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Noise on the actions that the env is given: share of random ones, or deviation in half ranges; 0: "
        "none. A teacher that puts up with it is smoother, and easier to imitate.",
    )
    bptt: int = Field(16, ge=1, description="Steps through which a recurrent policy's gradient flows.")
    num_minibatches: int = Field(4, ge=1, description="Minibatches per epoch.")
    num_epochs: int = Field(4, ge=1, description="Passes over each rollout.")

    lr: float = Field(1e-3, gt=0, description="Adam's learning rate at the start.")
    lr_schedule: Literal["constant", "linear", "adaptive"] = Field(
        "linear", description="Linear falls to 0 over total_steps; adaptive keeps each update near desired_kl."
    )
    desired_kl: float = Field(
        0.01, gt=0, description="KL(old || new) from which adaptive keeps its distance: above twice this lr falls."
    )
    gamma: float = Field(0.99, ge=0, le=1, description="Discount.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Weight of longer returns in the advantage.")
    clip_coef: float = Field(0.2, gt=0, description="How far the probability ratio may move.")
    clip_value: bool = Field(False, description="Clip the value's movement as well, by clip_coef.")
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the entropy bonus; 0 gives none.")
    value_coef: float = Field(0.5, ge=0, description="Weight of the value loss; 0 leaves the critic untrained.")
    max_grad_norm: float = Field(0.5, gt=0, description="Norm to which gradients are clipped.")
    target_kl: float | None = Field(None, gt=0, description="End an update early when approx_kl passes 1.5 x this.")
    normalize_advantage: bool = Field(True, description="Give each minibatch's advantages zero mean, unit deviation.")
    normalize_reward: bool = Field(False, description="Divide rewards by the running deviation of the return.")

    eval_every: int = Field(
        10, ge=0, description="Iterations between greedy evaluations that choose the best; 0: never."
    )
    eval_episodes: int = Field(100, ge=1, description="Episodes of such an evaluation, and of the final one.")
    stop_return: float | None = Field(None, description="Stop once greedy evaluations reach this return.")
    stop_patience: int = Field(1, ge=1, description="That many times in a row.")

    @model_validator(mode="after")
    def _batch_divides(self) -> Config:
        batch = self.num_envs * self.rollout_steps
        if batch % self.num_minibatches:
            raise ValueError(
                f"--num-minibatches {self.num_minibatches} does not divide --num-envs x --rollout-steps "
                f"({self.num_envs} x {self.rollout_steps} = {batch}): choose one that does"
            )
        if batch == self.num_minibatches and self.normalize_advantage:
            raise ValueError(
                f"--num-minibatches {self.num_minibatches} leaves a minibatch of one step, which has no deviation to "
                "normalize its advantage by: choose fewer, or --no-normalize-advantage"
            )
        return self


def main(config: Config, session: Session) -> Run:
    """Roll out, update, repeat; keep the best."""
    device = setup.prepare(config)
    task = load_task(config.task)
    env = setup.task_env(task, config.num_envs, device, "teacher")
    eval_env, report_env = setup.eval_envs(task, config.eval_episodes, device)
    actor_view = setup.resolve(task, config.obs or task.teacher, env)
    critic_view = setup.resolve(task, config.critic_obs, env) if config.critic_obs else actor_view

    with streams.seeded_init(config.seed, "teacher"):
        policy = Policy(PolicySpec(actor_view, env.action, config.network)).to(device)
    with streams.seeded_init(config.seed, "critic"):
        critic = Critic(critic_view, config.critic or config.network).to(device)
    optimizer = FlatAdam([*policy.parameters(), *critic.parameters()], config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "teacher/act", device)
    shuffle_stream = streams.generator(config.seed, "teacher/shuffle")
    noise_stream = streams.generator(config.seed, "teacher/noise", device)
    reward_scale = ReturnScale(config.num_envs, config.gamma, device) if config.normalize_reward else None

    # Sequences of a memoryless policy are single steps; those of a recurrent one are what its gradient flows through.
    steps, num_envs = config.rollout_steps, config.num_envs
    length = setup.sequence_length(config.bptt, steps, policy.is_recurrent or critic.is_recurrent)
    num_sequences = num_envs * steps // length
    minibatch = setup.minibatch_size(num_sequences, config.num_minibatches, length)
    iterations = -(-config.total_steps // (steps * num_envs))
    adaptive, is_noisy = config.lr_schedule == "adaptive", config.action_noise > 0

    viewed = ViewedEnv(env, {"actor": actor_view, "critic": critic_view}, config.seed, final_for=("critic",))
    reset = torch.ones(num_envs, dtype=torch.bool, device=device)
    start_stream = streams.generator(config.seed, "teacher/start", device)
    if config.random_start:
        env.start_part_way(start_stream)
    hidden, critic_hidden = policy.initial_hidden(num_envs), critic.initial_hidden(num_envs)
    episodes = EpisodeStats(num_envs)
    per_slot = config.eval_episodes // eval_env.num_envs
    best_return, streak, start, seconds = -float("inf"), 0, 0, 0.0
    parts = {"policy": policy, "critic": critic, "optimizer": optimizer, "viewed": viewed, "episodes": episodes}
    parts |= {"act": act_stream, "shuffle": shuffle_stream, "noise": noise_stream, "reward_scale": reward_scale}

    with (
        session.start(config, "train-teacher", config.task, role="teacher") as run,
        session.progress(config.total_steps) as progress,
    ):
        if run.state is not None:
            saved = frame.restore(run.state, parts, device)
            start, best_return, streak, seconds = (saved[k] for k in ("iteration", "best_return", "streak", "seconds"))
            reset, hidden, critic_hidden = saved["reset"], saved["hidden"], saved["critic_hidden"]
            if not env.exact_resume:
                reset = torch.ones_like(reset)
                episodes.restart()
                if config.random_start:
                    env.start_part_way(start_stream)
                if reward_scale is not None:
                    reward_scale.restart()
            session.say(frame.resume_note(run.name, f"iteration {start} of {iterations}", env))
        clock = frame.Clock(seconds)
        for iteration in range(start, iterations):
            global_step = (iteration + 1) * steps * num_envs
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * (1 - iteration / iterations)

            # --- roll-out -------------------------------------------------------------------------------------------
            data: dict[str, list[torch.Tensor]] = {
                k: [] for k in ("action", "log_prob", "reward", "terminated", "done")
            }
            actor_obs: list[Obs] = []
            critic_obs: list[Obs] = []
            resets, hiddens, finals = [], [], list[tuple[int, Final]]()
            old_params: list[dict[str, torch.Tensor]] = []
            with torch.no_grad():
                for t in range(steps):
                    if t % length == 0:
                        hiddens.append(hidden)
                    actor_obs.append(viewed.observe("actor"))
                    critic_obs.append(viewed.observe("critic"))
                    resets.append(reset)
                    dist, hidden = policy.step(actor_obs[-1], hidden, reset)
                    action = dist.sample(act_stream)
                    # The noise belongs to the env: the policy learns from what it meant to do, whose probability it
                    # knows, and is paid for what came of it.
                    noisy = perturb(action, env.action, config.action_noise, noise_stream) if is_noisy else action
                    step = viewed.step(noisy)
                    data["action"].append(action)  # as drawn: the env clips it, the ratio must not
                    data["log_prob"].append(dist.log_prob(action))
                    if adaptive:
                        old_params.append(dist.params())
                    data["reward"].append(step.reward)
                    data["terminated"].append(step.terminated)
                    data["done"].append(step.done)
                    if viewed.finals:
                        finals.append((t, viewed.finals["critic"]))
                    reset = step.done
                critic_obs.append(viewed.observe("critic"))
                resets.append(reset)

                rollout = {k: torch.stack(v) for k, v in data.items()}
                obs = {k: torch.stack([o[k] for o in actor_obs]) for k in actor_obs[0]}
                value_obs = {k: torch.stack([o[k] for o in critic_obs]) for k in critic_obs[0]}
                all_resets = torch.stack(resets)
                episode_metrics = episodes.update(rollout["reward"], rollout["done"])

                # --- advantages -------------------------------------------------------------------------------------
                reward = rollout["reward"]
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

            # --- update ---------------------------------------------------------------------------------------------
            batch_obs = {k: sequences(v, length) for k, v in obs.items()}
            batch_value_obs = {k: sequences(v[:-1], length) for k, v in value_obs.items()}
            batch_hidden, batch_critic_hidden = torch.stack(hiddens).flatten(0, 1), values.hiddens.flatten(0, 1)
            batch = {"action": rollout["action"], "log_prob": rollout["log_prob"], "reset": all_resets[:-1]}
            batch |= {"value": values.value, "advantage": advantage, "returns": returns}
            if adaptive:
                batch |= {f"old_{k}": torch.stack([p[k] for p in old_params]) for k in old_params[0]}
            batch = {k: sequences(v, length) for k, v in batch.items()}
            losses: list[torch.Tensor] = []
            divergences: list[float] = []
            approx_kl = torch.zeros((), device=device)
            for _ in range(config.num_epochs):
                order = torch.randperm(num_sequences, generator=shuffle_stream).to(device)
                for index in order.split(minibatch):
                    part = columns(batch, index)
                    dist, _ = policy(columns(batch_obs, index), batch_hidden[index], part["reset"])
                    value, _ = critic(columns(batch_value_obs, index), batch_critic_hidden[index], part["reset"])
                    if config.normalize_advantage:
                        part["advantage"] = ppo.standardize(part["advantage"])
                    surrogate = ppo.policy_loss(
                        dist.log_prob(part["action"]), part["log_prob"], part["advantage"], config.clip_coef
                    )
                    clip = config.clip_coef if config.clip_value else None
                    value_loss = ppo.value_loss(value, part["returns"], part["value"], clip)
                    entropy = dist.entropy().mean()
                    loss = surrogate.loss + config.value_coef * value_loss - config.entropy_coef * entropy
                    optimizer.zero_grad()
                    loss.backward()
                    if adaptive:
                        old = {k.removeprefix("old_"): v for k, v in part.items() if k.startswith("old_")}
                        with torch.no_grad():
                            moved = kl(from_params(old, env.action, config.network.squash), dist).mean()
                        divergences.append(float(moved))
                        optimizer.lr = ppo.adaptive_lr(optimizer.lr, divergences[-1], config.desired_kl)
                    optimizer.step()
                    approx_kl = surrogate.approx_kl
                    scalars = (surrogate.loss, value_loss, entropy, approx_kl, surrogate.clip_fraction)
                    losses.append(torch.stack([s.detach() for s in scalars]))
                if config.target_kl is not None and float(approx_kl) > 1.5 * config.target_kl:
                    break
            # The normaliser moves between updates only, so that the first minibatch's ratio is exactly 1.
            policy.encoder.update_normalizer(obs)
            critic.encoder.update_normalizer(take(value_obs, slice(0, steps)))

            # --- log, evaluate, save --------------------------------------------------------------------------------
            names = ("loss/policy", "loss/value", "entropy", "approx_kl", "clip_fraction")
            metrics = {"step": global_step, "iteration": iteration + 1, **episode_metrics}
            metrics |= dict(zip(names, torch.stack(losses).mean(0).tolist(), strict=True))
            metrics["explained_variance"] = float(ppo.explained_variance(values.value, returns))
            metrics["lr"] = optimizer.lr
            if adaptive:
                metrics["kl"] = sum(divergences) / len(divergences)
            metrics["loop_seconds"] = clock.seconds
            metrics["steps_per_second"] = global_step / clock.seconds
            frame.check_divergence(metrics, f"step {global_step}")
            is_last = iteration + 1 == iterations
            if is_last or (config.eval_every and (iteration + 1) % config.eval_every == 0):
                with clock:
                    found = run_episodes(policy, eval_env, streams.derive(config.seed, "select"), per_slot)
                metrics |= evaluation.summary(found)
                if metrics["eval/return"] >= best_return:  # among equals the later one has seen more
                    best_return = metrics["eval/return"]
                    run.save_policy(policy)
                reached = config.stop_return is not None and metrics["eval/return"] >= config.stop_return
                streak = streak + 1 if reached else 0
            run.log(metrics)
            progress.update(global_step, {"return": metrics["rollout/return"], "best greedy": best_return})
            if is_last or streak >= config.stop_patience:
                break
            values_to_save = {"iteration": iteration + 1, "best_return": best_return, "streak": streak}
            values_to_save |= {"seconds": clock.seconds}
            values_to_save |= {"reset": reset, "hidden": hidden, "critic_hidden": critic_hidden}
            run.save_if_due(
                lambda v=values_to_save: frame.snapshot(parts, **v), config.checkpoint_every, env.exact_resume
            )

        loop_seconds = clock.seconds

        # --- report: the best policy, on episodes that did not choose it --------------------------------------------
        run.save_policy(policy, "last")
        best = load_policy_file(run.path / "policy.safetensors", device)
        final = evaluation.summary(run_episodes(best, report_env, streams.derive(config.seed, "report"), per_slot))
        curves.draw_curves(run.path / "curves.png", run.read_metrics(), CURVES, f"{task.name}: PPO teacher", columns=4)
        final |= {"step": global_step, "loop_seconds": loop_seconds, "best_selection_return": best_return}
        result = run.finish(final)
    env.close()
    eval_env.close()
    report_env.close()
    return result


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

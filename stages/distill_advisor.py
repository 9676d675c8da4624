"""Distill where the teacher knows more than the student ever can: imitate where that is possible, explore elsewhere.

ADVISOR (Weihs et al. 2021, "Bridging the Imitation Gap by Adaptive Insubordination"): an auxiliary head on the
student's encoder imitates the teacher and nothing else. How far it stays from the teacher tells what the student's view
cannot know, so each state's loss is (their eq. 3)

    w(s) * imitation(teacher, student) + (1 - w(s)) * PPO(student),   w(s) = exp(-alpha * D(teacher || auxiliary))

The student acts; both losses are taken on its own rollouts, in every pass over them.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from tscli import streams
from tscli.config import Network, NetworkConfig, PPOConfig, UserError
from tscli.diagnose.diagnosis import before_distillation
from tscli.envs.views import Obs
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats, run_episodes
from tscli.learning.imitation import check_loss, imitation_loss
from tscli.learning.optim import FlatAdam
from tscli.learning.rollout import Final, ViewedEnv, columns, rollout_values, sequences, take
from tscli.networks import Critic, Head, Policy, PolicySpec
from tscli.networks.distributions import from_params
from tscli.networks.files import load_policy_file
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import evaluation, frame, setup
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


class Config(PPOConfig):
    """PPO's settings, and those of the imitation."""

    teacher: str = Field(
        "", description="Run of the teacher: number, name or path, or several as in 1,2; empty takes the newest."
    )
    teacher_by: str = Field(
        "", description="Of several teachers: group whose largest entry, or index, tells whose a row is; empty: task."
    )
    task: str = Field("", description="What the student learns; empty takes the teacher's task.")
    obs: str = Field("", description="View of the student; empty takes the task's student view.")
    student: Network = Field(NetworkConfig(), description="Body of the student.")
    diagnose: bool = Field(True, description="Say first what may keep the student from learning; costs a second.")
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
    device = setup.prepare(config)
    teachers = find_teachers(session, config.teacher, config.teacher_by, config.task)
    task = load_task(teachers.task)
    env = setup.task_env(task, config.num_envs, device)
    eval_env, report_env = setup.eval_envs(task, config.eval_episodes, device)
    teacher = teachers.open(env, device)
    student_view = setup.resolve(task, config.obs or task.student, env)
    critic_view = setup.resolve(task, config.critic_obs, env) if config.critic_obs else student_view
    spec = PolicySpec(student_view, env.action, config.student)
    loss_kind = config.loss or ("mse" if env.action.is_continuous else "cross_entropy")
    if loss_kind == "cross_entropy" and env.action.is_continuous:  # minus a log density, which goes below 0
        raise UserError("--loss cross_entropy is no distance where actions are continuous: use --loss mse, kl or huber")
    check_loss(loss_kind, spec, teacher.spec.network.head_kind)
    session.say(f"teacher: {teachers.name}")
    if config.diagnose:
        before_distillation(session, teachers, task, student_view, config.student, None, env, rewards_teach=True)

    with streams.seeded_init(config.seed, "student"):
        policy = Policy(spec).to(device)
        auxiliary = Head(policy.encoder.output_size, env.action, config.student).to(device)
    with streams.seeded_init(config.seed, "critic"):
        critic = Critic(critic_view, config.critic or config.student).to(device)
    learnt = [*policy.parameters(), *auxiliary.parameters(), *critic.parameters()]
    optimizer = FlatAdam(learnt, config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "advisor/act", device)
    shuffle_stream = streams.generator(config.seed, "advisor/shuffle")
    reward_scale = ReturnScale(config.num_envs, config.gamma, device) if config.normalize_reward else None

    steps, num_envs = config.rollout_steps, config.num_envs
    length = setup.sequence_length(config.bptt, steps, policy.is_recurrent or critic.is_recurrent)
    num_sequences = num_envs * steps // length
    minibatch = setup.minibatch_size(num_sequences, config.num_minibatches, length)
    iterations = -(-config.total_steps // (steps * num_envs))

    views = {"actor": student_view, "critic": critic_view, "teacher": teacher.spec.view}
    viewed = ViewedEnv(env, views, config.seed, final_for=("critic",))
    reset = torch.ones(num_envs, dtype=torch.bool, device=device)
    hidden, critic_hidden = policy.initial_hidden(num_envs), critic.initial_hidden(num_envs)
    teacher_hidden = teacher.initial_hidden(num_envs)
    episodes = EpisodeStats(num_envs)
    per_slot = config.eval_episodes // eval_env.num_envs
    best_return, streak, start, seconds = -float("inf"), 0, 0, 0.0
    parts = {"policy": policy, "auxiliary": auxiliary, "critic": critic, "optimizer": optimizer}
    parts |= {"viewed": viewed, "episodes": episodes, "act": act_stream, "shuffle": shuffle_stream}
    parts |= {"reward_scale": reward_scale}

    with (
        session.start(config, COMMAND, teachers.task, method=METHOD, role="student", parents=teachers.parents) as run,
        session.progress(config.total_steps) as progress,
    ):
        if run.state is not None:
            saved = frame.restore(run.state, parts, device)
            start, best_return, streak, seconds = (saved[k] for k in ("iteration", "best_return", "streak", "seconds"))
            reset, hidden, critic_hidden = saved["reset"], saved["hidden"], saved["critic_hidden"]
            teacher_hidden = saved["teacher_hidden"]
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
                label, teacher_hidden = teacher(stacked["teacher"], teacher_hidden, all_resets[:-1])
                labels = {k: sequences(v, length) for k, v in label.params().items()}

            # --- update ---------------------------------------------------------------------------------------------
            batch_obs = {k: sequences(v, length) for k, v in stacked["actor"].items()}
            batch_value_obs = {k: sequences(v[:-1], length) for k, v in stacked["critic"].items()}
            batch_hidden, batch_critic_hidden = torch.stack(hiddens).flatten(0, 1), values.hiddens.flatten(0, 1)
            batch = {"action": rollout["action"], "log_prob": rollout["log_prob"], "reset": all_resets[:-1]}
            batch |= {"value": values.value, "advantage": advantage, "returns": returns, "label": label.mode()}
            batch = {k: sequences(v, length) for k, v in batch.items()}
            losses: list[Tensor] = []
            for _ in range(config.num_epochs):
                order = torch.randperm(num_sequences, generator=shuffle_stream).to(device)
                for index in order.split(minibatch):
                    part = columns(batch, index)
                    wanted = from_params(columns(labels, index), env.action, teacher.spec.network.squash)
                    latent, _ = policy.encoder(columns(batch_obs, index), batch_hidden[index], part["reset"])
                    dist, guess = policy.head(latent), auxiliary(latent)
                    value, _ = critic(columns(batch_value_obs, index), batch_critic_hidden[index], part["reset"])
                    imitation = imitation_loss(dist, wanted, part["label"], loss_kind)
                    distance = imitation_loss(guess, wanted, part["label"], loss_kind)
                    weight = torch.ones_like(distance)
                    if global_step > config.warmup:
                        weight = (-config.alpha * distance.detach()).exp()
                    surrogate = ppo.policy_loss(
                        dist.log_prob(part["action"]),
                        part["log_prob"],
                        ppo.standardize(part["advantage"]),
                        config.clip_coef,
                        1 - weight,
                    )
                    value_loss = ppo.value_loss(value, part["returns"], part["value"], None)
                    entropy = dist.entropy().mean()
                    loss = (weight * imitation).mean() + distance.mean() + surrogate.loss
                    loss = loss + config.value_coef * value_loss - config.entropy_coef * entropy
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    scalars = (value_loss, surrogate.loss, entropy, surrogate.approx_kl)
                    scalars += (imitation.mean(), distance.mean(), weight.mean())
                    losses.append(torch.stack([s.detach() for s in scalars]))
            policy.encoder.update_normalizer(stacked["actor"])
            critic.encoder.update_normalizer(take(stacked["critic"], slice(0, steps)))

            # --- log, evaluate, save --------------------------------------------------------------------------------
            names = ("loss/value", "loss/policy", "entropy", "approx_kl", "loss/imitation", "loss/auxiliary", "weight")
            metrics = {"step": global_step, "iteration": iteration + 1, **episode_metrics}
            metrics |= dict(zip(names, torch.stack(losses).mean(0).tolist(), strict=True))
            metrics["explained_variance"] = float(ppo.explained_variance(values.value, returns))
            metrics |= {"lr": optimizer.lr, "loop_seconds": clock.seconds}
            metrics["steps_per_second"] = global_step / clock.seconds
            frame.check_divergence(metrics, f"step {global_step}")
            is_last = iteration + 1 == iterations
            if is_last or (iteration + 1) % config.eval_every == 0:
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
            kept = {"iteration": iteration + 1, "best_return": best_return, "streak": streak, "seconds": clock.seconds}
            kept |= {"reset": reset, "hidden": hidden, "critic_hidden": critic_hidden, "teacher_hidden": teacher_hidden}
            run.save_if_due(lambda v=kept: frame.snapshot(parts, **v), config.checkpoint_every, env.exact_resume)
        loop_seconds = clock.seconds

        # --- report: the best student, on episodes that did not choose it -------------------------------------------
        run.save_policy(policy, "last")
        best = load_policy_file(run.path / "policy.safetensors", device)
        final = evaluation.summary(run_episodes(best, report_env, streams.derive(config.seed, "report"), per_slot))
        curves.draw_curves(run.path / "curves.png", run.read_metrics(), CURVES, f"{task.name}: ADVISOR", columns=4)
        final |= {"step": global_step, "loop_seconds": loop_seconds}
        result = run.finish(final | {"best_selection_return": best_return}, **teachers.details)
    env.close()
    eval_env.close()
    report_env.close()
    return result


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

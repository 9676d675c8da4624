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

from tscli import streams
from tscli.config import LearningRate, Network, NetworkConfig, PPOConfig, UserError, positional
from tscli.envs.spaces import action_scale
from tscli.learning import ppo
from tscli.learning.episodes import EpisodeStats
from tscli.learning.optim import FlatAdam
from tscli.learning.record import Averages, Minibatches, Recorder
from tscli.learning.rollout import ViewedEnv, rollout_values, take
from tscli.networks import Critic
from tscli.networks.distributions import from_params, kl
from tscli.networks.normalize import ReturnScale
from tscli.pictures import curves
from tscli.runs import Run, newest_run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, setup
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
    lr: LearningRate = 3e-4

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
    device, num_envs = setup.join(config, config.num_envs)
    student_run = newest_run(session.runs_dir, config.run, "policy", "", role="student", say=session.note)
    task = load_task(student_run.task)
    env = setup.task_env(task, num_envs, device)
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
    reward_scale = ReturnScale(num_envs, config.gamma, device) if config.normalize_reward else None

    steps = config.rollout_steps
    length = setup.sequence_length(config, policy.is_recurrent or critic.is_recurrent)
    views = {"actor": policy.spec.view, "critic": critic_view} | ({"teacher": teacher.spec.view} if teacher else {})
    viewed = ViewedEnv(env, views, config.seed, ("critic",))
    episodes = EpisodeStats(num_envs)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        hidden=policy.initial_hidden(num_envs),
        critic_hidden=critic.initial_hidden(num_envs),
        teacher_hidden=teacher.initial_hidden(num_envs) if teacher else None,
    )
    parts = {"policy": policy, "critic": critic, "optimizer": optimizer, "critic_optimizer": critic_optimizer}
    parts |= {"viewed": viewed, "episodes": episodes, "act": act_stream, "shuffle": shuffle_stream}
    parts |= {"scale": reward_scale, "at": at}
    frame = (parts, {"policy": policy}, "student", config.total_steps, steps * num_envs)

    with Training(session, config, task, *frame, parents=parents, details=teachers and teachers.details) as training:
        training.keep_as_it_is()  # the student as it came is the one to beat
        for _ in training.iterations():
            actor_learns = training.done > config.critic_warmup
            if config.lr_schedule == "linear":
                optimizer.lr, critic_optimizer.lr = config.lr * training.left, config.critic_lr * training.left

            # --- roll-out -------------------------------------------------------------------------------------------
            record = Recorder()
            with torch.no_grad():
                for t in range(steps):
                    obs = viewed.observe("actor")
                    record.add(obs=obs, value_obs=viewed.observe("critic"), reset=at.reset)
                    if teacher is not None:
                        record.add(teacher_obs=viewed.observe("teacher"))
                    if t % length == 0:
                        record.add(hidden=at.hidden)
                    dist, at.hidden = policy.step(obs, at.hidden, at.reset)
                    action = dist.sample(act_stream)
                    step = viewed.step(action)
                    record.add(action=action, log_prob=dist.log_prob(action))  # as drawn: the env clips it
                    record.add(reward=step.reward, terminated=step.terminated, done=step.done)
                    record.add(last_seen=viewed.final("critic"))
                    at.reset = step.done
                record.add(value_obs=viewed.observe("critic"), reset=at.reset)
                rollout, labels = record.stack(), {}
                if teacher is not None:  # what it would have done
                    resets = rollout.reset[:-1]
                    label, at.teacher_hidden = teacher(rollout.teacher_obs, at.teacher_hidden, resets)
                    labels = label.params()

            # --- advantages -----------------------------------------------------------------------------------------
            reward = rollout.reward if reward_scale is None else reward_scale(rollout.reward, rollout.done)
            values = rollout_values(critic, rollout.value_obs, rollout, at.critic_hidden, length)
            at.critic_hidden = values.hidden
            ends = rollout.terminated, rollout.done
            advantage, returns = ppo.compute_gae(reward, *values[:2], *ends, config.gamma, config.gae_lambda)

            # --- update ---------------------------------------------------------------------------------------------
            starts = {"hidden": rollout.hidden, "critic_hidden": values.hiddens}
            made = {"value": values.value, "advantage": advantage, "returns": returns, "labels": labels}
            batch, averages = Minibatches(length, starts, rollout, **made), Averages()
            for _ in range(config.num_epochs):
                for part in batch.shuffled(config.num_minibatches, shuffle_stream):
                    value, _ = critic(part.value_obs, part.critic_hidden, part.reset)
                    value_loss = ppo.value_loss(value, part.returns, part.value, config.value_clip)
                    critic_optimizer.zero_grad()
                    (config.value_coef * value_loss).backward()
                    critic_optimizer.step()
                    averages.add({"loss/value": value_loss})
                    if not actor_learns:
                        continue
                    dist, _ = policy(part.obs, part.hidden, part.reset)
                    advantage, log_prob = ppo.standardize(part.advantage), dist.log_prob(part.action)
                    surrogate = ppo.policy_loss(log_prob, part.log_prob, advantage, config.clip_coef)
                    entropy = dist.entropy().mean()
                    loss, distance = surrogate.loss - config.entropy_coef * entropy, None
                    if teacher is not None:
                        wanted = from_params(part.labels, env.action, teacher.spec.network.squash)
                        distance = kl(wanted, dist).mean()
                        loss = loss + config.teacher_kl_coef * distance
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    averages.add({"loss/policy": surrogate.loss, "entropy": entropy, "approx_kl": surrogate.approx_kl})
                    if distance is not None:
                        averages.add({"kl_teacher": distance})
            if config.update_normalizer and actor_learns:
                policy.encoder.update_normalizer(rollout.obs)
            critic.encoder.update_normalizer(take(rollout.value_obs, slice(0, steps)))
            metrics = episodes.update(rollout.reward, rollout.done) | averages.read() | {"lr": float(optimizer.lr)}
            metrics["explained_variance"] = float(ppo.explained_variance(values.value, returns))
            training.log(metrics, measure=actor_learns)
        before = setup.open_policy(student_run, env, device)
        return training.report(CURVES, f"{task.name}: fine-tuning", also={"before": before})


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

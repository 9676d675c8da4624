"""Distill a student online: it acts with noise, the frozen teacher labels, and only the last rollout is learnt from.

The loop of rsl_rl's distillation (Schwarke et al. 2025), which is DAgger (Ross et al. 2011) without a dataset: nothing
is stored, so it suits simulators that make data faster than a disk takes it. A rollout is learnt from in windows of
`gradient_length` steps of all envs, in their order; hidden states go on from window to window, gradients do not
(truncated BPTT). Beyond rsl_rl: the rollout's last, shorter window trains as well, actions may be discrete, gradients
are clipped with the recurrent weights among them, and the best student is kept; and episodes may be cut short for the
first `short_steps`, so that a student with memory learns early what to make of its own actions since the start.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator

from tscli import streams
from tscli.config import Network, NetworkConfig, StageConfig, UserError
from tscli.diagnose.diagnosis import before_distillation
from tscli.envs.views import Obs
from tscli.learning import imitation
from tscli.learning.episodes import EpisodeStats, run_episodes
from tscli.learning.imitation import check_loss
from tscli.learning.optim import make_optimizer
from tscli.learning.rollout import ViewedEnv, perturb, take
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import from_params
from tscli.networks.files import load_policy_file
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import evaluation, frame, setup
from tscli.training.teachers import find_teachers

COMMAND = "distill"
METHOD = "online"
ORDER = 31
CURVES = (
    curves.Panel("rollout/return", "return of training episodes"),
    curves.Panel("eval/return", "return, greedy student"),
    curves.Panel("loss/imitation", "imitation loss"),
    curves.Panel("lr", "learning rate"),
    curves.Panel("steps_per_second", "env steps/s"),
)


class Config(StageConfig):
    """Settings of online distillation; the defaults are those of rsl_rl, besides the network."""

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

    total_steps: int = Field(1_000_000, ge=1, description="Env steps over all envs, rounded up to whole iterations.")
    num_envs: int = Field(256, ge=1, description="Envs that step together.")
    rollout_steps: int = Field(24, ge=1, description="Steps per env between updates.")
    random_start: bool = Field(
        False, description="Let first episodes count as begun some steps ago, so that time limits are spread out."
    )
    short_steps: int = Field(
        0, ge=0, description="Env steps, the first of total_steps, in which episodes are cut to short_length."
    )
    short_length: int = Field(40, ge=1, description="Length of those episodes: what follows a start is learnt first.")
    gradient_length: int = Field(15, ge=1, description="Steps of a window, through which a student's memory learns.")
    num_epochs: int = Field(1, ge=1, description="Passes over each rollout.")
    act: Literal["sample", "greedy"] = Field("greedy", description="How the student picks actions while acting.")
    noise: float = Field(
        0.1, ge=0, description="Noise on those actions: share of random ones, or deviation in half action ranges."
    )

    loss: Literal["mse", "huber", "kl", "cross_entropy"] = Field(
        "mse", description="Distance of greedy actions, KL(teacher || student), or cross-entropy to the greedy action."
    )
    optimizer: Literal["adam", "adamw", "sgd", "rmsprop"] = Field("adam", description="How the gradient is used.")
    lr: float = Field(1e-3, gt=0, description="Learning rate at the start.")
    lr_schedule: Literal["constant", "linear"] = Field(
        "constant", description="Whether it falls to 0 over total_steps."
    )
    max_grad_norm: float | None = Field(1.0, gt=0, description="Norm to which gradients are clipped; none: not.")

    eval_every: int = Field(10, ge=1, description="Rollouts between greedy evaluations that choose the best student.")
    eval_episodes: int = Field(100, ge=1, description="Episodes of such an evaluation, and of the final one.")
    stop_return: float | None = Field(None, description="Stop once greedy evaluations reach this return.")
    stop_patience: int = Field(2, ge=1, description="That many times in a row.")

    @model_validator(mode="after")
    def _some_steps_are_of_whole_episodes(self) -> Config:
        if self.short_steps >= self.total_steps:
            raise ValueError(
                f"--short-steps {self.short_steps} leaves none of --total-steps {self.total_steps}: choose fewer"
            )
        return self


def main(config: Config, session: Session) -> Run:
    """Act, label, learn, forget; keep the best."""
    device = setup.prepare(config)
    teachers = find_teachers(session, config.teacher, config.teacher_by, config.task)
    task = load_task(teachers.task)
    env = setup.task_env(task, config.num_envs, device)
    short_env = setup.task_env(task, config.num_envs, device, short=config.short_length) if config.short_steps else None
    if short_env and env.max_episode_steps and config.short_length >= env.max_episode_steps:
        raise UserError(
            f"--short-length {config.short_length}: whole episodes of {task.name} have {env.max_episode_steps} steps: "
            "choose fewer"
        )
    eval_env, report_env = setup.eval_envs(task, config.eval_episodes, device)
    teacher = teachers.open(env, device)
    student_view = setup.resolve(task, config.obs or task.student, env)
    spec = PolicySpec(student_view, env.action, config.student)
    check_loss(config.loss, spec, teacher.spec.network.head_kind)
    session.say(f"teacher: {teachers.name}")
    if config.diagnose:
        before_distillation(session, teachers, task, student_view, config.student, None, env)

    with streams.seeded_init(config.seed, "student"):
        student = Policy(spec).to(device)
    optimizer = make_optimizer(config.optimizer, student.parameters(), config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "student/act", device)
    start_stream = streams.generator(config.seed, "student/start", device)

    num_envs, steps = config.num_envs, config.rollout_steps
    iterations = -(-config.total_steps // (num_envs * steps))
    short_iterations = min(-(-config.short_steps // (num_envs * steps)), iterations - 1)
    views = {"teacher": teacher.spec.view, "student": student_view}
    full = ViewedEnv(env, views, config.seed)
    short = ViewedEnv(short_env, views, streams.derive(config.seed, "short")) if short_env else None
    if config.random_start:
        env.start_part_way(start_stream)
    reset = torch.ones(num_envs, dtype=torch.bool, device=device)
    teacher_hidden, hidden = teacher.initial_hidden(num_envs), student.initial_hidden(num_envs)
    episodes = EpisodeStats(num_envs)
    per_slot = config.eval_episodes // eval_env.num_envs
    best_return, streak, start, seconds = -float("inf"), 0, 0, 0.0
    parts = {"student": student, "optimizer": optimizer, "viewed": full, "short": short, "episodes": episodes}
    parts |= {"act": act_stream}

    with (
        session.start(config, COMMAND, teachers.task, method=METHOD, role="student", parents=teachers.parents) as run,
        session.progress(config.total_steps) as progress,
    ):
        if run.state is not None:
            saved = frame.restore(run.state, parts, device)
            start, best_return, streak, seconds = (saved[k] for k in ("iteration", "best_return", "streak", "seconds"))
            reset, teacher_hidden, hidden = (saved[k] for k in ("reset", "teacher_hidden", "hidden"))
            if not env.exact_resume:
                reset = torch.ones_like(reset)
                episodes.restart()
                if config.random_start:
                    env.start_part_way(start_stream)
            session.say(frame.resume_note(run.name, f"rollout {start} of {iterations}", env))
        clock = frame.Clock(seconds)
        for iteration in range(start, iterations):
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * (1 - iteration / iterations)

            viewed = short if short is not None and iteration < short_iterations else full
            if short is not None and iteration == short_iterations:
                reset = torch.ones_like(reset)
                episodes.restart()

            # --- act and label --------------------------------------------------------------------------------------
            teacher_seen: list[Obs] = []
            seen: list[Obs] = []
            rewards, resets, dones = [], [], []
            first_hidden = hidden
            with torch.no_grad():
                for _ in range(steps):
                    teacher_seen.append(viewed.observe("teacher"))
                    seen.append(viewed.observe("student"))
                    resets.append(reset)
                    dist, hidden = student.step(seen[-1], hidden, reset)
                    action = dist.sample(act_stream) if config.act == "sample" else dist.mode()
                    step = viewed.step(perturb(action, env.action, config.noise, act_stream))
                    rewards.append(step.reward)
                    dones.append(step.done)
                    reset = step.done
                reset_at, obs = torch.stack(resets), {k: torch.stack([o[k] for o in seen]) for k in seen[0]}
                # Labels are not needed for acting, so they are made all at once.
                teacher_obs = {k: torch.stack([o[k] for o in teacher_seen]) for k in teacher_seen[0]}
                label, teacher_hidden = teacher(teacher_obs, teacher_hidden, reset_at)
                labels, wanted = label.params(), label.mode()
            episode_metrics = episodes.update(torch.stack(rewards), torch.stack(dones))

            # --- learn ----------------------------------------------------------------------------------------------
            losses = []
            for _ in range(config.num_epochs):
                carried = first_hidden
                for begin in range(0, steps, config.gradient_length):
                    window = slice(begin, min(begin + config.gradient_length, steps))
                    dist, carried = student(take(obs, window), carried, reset_at[window])
                    target = from_params(take(labels, window), env.action, teacher.spec.network.squash)
                    loss = imitation.imitation_loss(dist, target, wanted[window], config.loss).mean()
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    carried = carried.detach()
                    losses.append(loss.detach())
            if config.num_epochs == 1:
                hidden = carried  # of the weights as they are now, rather than of those that acted
            student.encoder.update_normalizer(obs)

            # --- log, evaluate, save --------------------------------------------------------------------------------
            step_count = (iteration + 1) * num_envs * steps
            metrics = {"step": step_count, "iteration": iteration + 1, **episode_metrics}
            metrics |= {"loss/imitation": float(torch.stack(losses).mean()), "lr": optimizer.lr}
            metrics |= {"loop_seconds": clock.seconds, "steps_per_second": step_count / clock.seconds}
            frame.check_divergence(metrics, f"step {step_count}")
            is_last = iteration + 1 == iterations
            if is_last or (iteration + 1) % config.eval_every == 0:
                with clock:
                    found = run_episodes(student, eval_env, streams.derive(config.seed, "select"), per_slot)
                metrics |= evaluation.summary(found)
                if metrics["eval/return"] >= best_return:  # among equals the later one has seen more
                    best_return = metrics["eval/return"]
                    run.save_policy(student)
                reached = config.stop_return is not None and metrics["eval/return"] >= config.stop_return
                streak = streak + 1 if reached else 0
            run.log(metrics)
            shown = {"return": metrics["rollout/return"], "loss": metrics["loss/imitation"], "best greedy": best_return}
            progress.update(step_count, shown)
            if is_last or streak >= config.stop_patience:
                break
            values = {"iteration": iteration + 1, "best_return": best_return, "streak": streak}
            values |= {"seconds": clock.seconds}
            values |= {"reset": reset, "teacher_hidden": teacher_hidden, "hidden": hidden}
            run.save_if_due(lambda v=values: frame.snapshot(parts, **v), config.checkpoint_every, env.exact_resume)
        loop_seconds = clock.seconds

        # --- report: the best student, on episodes that did not choose it -------------------------------------------
        run.save_policy(student, "last")
        best = load_policy_file(run.path / "policy.safetensors", device)
        final = evaluation.summary(run_episodes(best, report_env, streams.derive(config.seed, "report"), per_slot))
        curves.draw_curves(run.path / "curves.png", run.read_metrics(), CURVES, f"{task.name}: online student")
        final |= {"step": step_count, "loop_seconds": loop_seconds, "best_selection_return": best_return}
        result = run.finish(final, **teachers.details)
    env.close()
    if short_env is not None:
        short_env.close()
    eval_env.close()
    report_env.close()
    return result


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

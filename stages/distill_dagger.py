"""Distill a student by DAgger: the student acts, the teacher labels, and everything labelled so far is learnt from.

Dataset aggregation (Ross et al. 2011). A round lets the mixture of teacher and student act for some steps in every env,
appends what was seen and what the teacher would have done to the pairs on disk, and takes gradient steps on windows
drawn from all of it. It starts from collected pairs of the same teacher, or from episodes of the teacher itself.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field

from tscli import streams
from tscli.config import Network, NetworkConfig, StageConfig
from tscli.diagnose.diagnosis import before_distillation
from tscli.learning.episodes import EpisodeStats, run_episodes
from tscli.learning.imitation import (
    batch_loss,
    check_loss,
    fit_normalizer,
    match_std,
    mean_loss,
    read_batch,
    window_lengths,
)
from tscli.learning.optim import FlatAdam
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy, PolicySpec
from tscli.networks.files import load_policy_file
from tscli.pairs import Pairs, PairsWriter
from tscli.pictures import curves
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import evaluation, frame, setup
from tscli.training.teachers import find_pairs, find_teachers

COMMAND = "distill"
METHOD = "dagger"
DEFAULT_METHOD = True
ORDER = 30
CURVES = (
    curves.Panel("rollout/return", "return by episode", "episodes"),
    curves.Panel("loss/imitation", "loss by episode", "episodes"),
    curves.Panel("loss/imitation", "loss by gradient step", "updates"),
    curves.Panel("eval/return", "return, greedy student", "step"),
    curves.Panel("loss/validation", "loss on held-out episodes", "step"),
    curves.Panel("beta", "beta: share of the teacher's actions", "step"),
)


class Config(StageConfig):
    """DAgger's settings; the defaults suit small control tasks."""

    teacher: str = Field(
        "",
        description="Run of the teacher: number, name or path, or several as in 1,2; empty takes that of --pairs, or "
        "the newest.",
    )
    teacher_by: str = Field(
        "", description="Of several teachers: group whose largest entry, or index, tells whose a row is; empty: task."
    )
    task: str = Field("", description="What the student learns; empty takes the teacher's task.")
    pairs: str | None = Field(
        "",
        description="Run of collected pairs to start from; empty takes this teacher's newest, none starts without.",
    )
    obs: str = Field("", description="View of the student; empty takes the task's student view.")
    student: Network = Field(NetworkConfig(), description="Body of the student.")
    diagnose: bool = Field(True, description="Say first what may keep the student from learning; costs a second.")

    total_steps: int = Field(200_000, ge=1, description="Env steps over all envs, rounded up to whole iterations.")
    total_episodes: int | None = Field(None, ge=1, description="Stop after that many episodes; none: only total_steps.")
    num_envs: int = Field(64, ge=1, description="Envs that step together.")
    round_steps: int = Field(32, ge=1, description="Steps per env and round.")
    updates_per_round: int = Field(16, ge=1, description="Gradient steps after each round.")
    teacher_episodes: int = Field(
        50, ge=1, description="Episodes of the teacher to begin with where there are no collected pairs."
    )
    beta: float = Field(
        0.0, ge=0, le=1, description="Probability that the teacher acts, in the first round that it shares; 0: never."
    )
    beta_schedule: Literal["constant", "linear", "exponential"] = Field(
        "exponential", description="How beta falls: not at all, to 0 over beta_rounds, or by beta_decay each round."
    )
    beta_rounds: int = Field(20, ge=1, description="Rounds until a linear beta is 0.")
    beta_decay: float = Field(0.7, gt=0, lt=1, description="Factor of an exponential beta.")
    act: Literal["sample", "greedy"] = Field("sample", description="How the acting policy picks from its distribution.")
    memory: int | None = Field(None, ge=1, description="Transitions that are learnt from, the newest; none: all.")
    clear_every: int | None = Field(
        None, ge=1, description="Forget all transitions every that many episodes; none: never."
    )

    loss: Literal["kl", "cross_entropy", "mse", "huber"] = Field(
        "kl", description="KL(teacher || student), cross-entropy to its greedy action, or distance of greedy actions."
    )
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate at the start.")
    lr_schedule: Literal["constant", "linear"] = Field(
        "constant", description="Whether it falls to 0 over total_steps."
    )
    batch_size: int = Field(128, ge=1, description="Windows per gradient step.")
    window: int = Field(16, ge=1, description="Steps of a window for a student with memory; without memory it is 1.")
    burn_in: int = Field(
        0,
        ge=0,
        description="Steps before a window that build up memory and carry no loss; 0: memory starts empty. A history "
        "network has one less than its length at the least.",
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which gradients are clipped.")
    validation_fraction: float = Field(0.05, ge=0, lt=1, description="Share of episodes held out; 0 holds out none.")

    eval_every: int = Field(5, ge=1, description="Rounds between greedy evaluations that choose the best student.")
    eval_episodes: int = Field(100, ge=1, description="Episodes of such an evaluation, and of the final one.")
    stop_return: float | None = Field(None, description="Stop once greedy evaluations reach this return.")
    stop_patience: int = Field(2, ge=1, description="That many times in a row.")
    shard_mb: float = Field(64.0, gt=0, description="Size of a file of the aggregated dataset, in MiB, at the most.")


def main(config: Config, session: Session) -> Run:
    """Act, label, append, learn; keep the best."""
    device = setup.prepare(config)
    teachers = find_teachers(session, config.teacher, config.teacher_by, config.task, config.pairs)
    task = load_task(teachers.task)
    env = setup.task_env(task, config.num_envs, device)
    eval_env, report_env = setup.eval_envs(task, config.eval_episodes, device)
    teacher = teachers.open(env, device)
    student_view = setup.resolve(task, config.obs or task.student, env)
    pairs_run = find_pairs(session, config.pairs, teachers)
    session.say(f"teacher: {teachers.name}; pairs: {pairs_run.name if pairs_run else 'none, the teacher begins'}")
    collected = [pairs_run.path / "pairs"] if pairs_run else []
    setup.check_pairs_view(collected, student_view)
    # What is added has the groups of what is there. Opening it now finds damage before a run is begun.
    groups = tuple(Pairs(collected).schema.groups) if collected else tuple(env.groups)

    spec = PolicySpec(student_view, env.action, config.student)
    check_loss(config.loss, spec, teacher.spec.network.head_kind)
    if config.diagnose:
        before_distillation(session, teachers, task, student_view, config.student, pairs_run, env)

    with streams.seeded_init(config.seed, "student"):
        student = Policy(spec).to(device)
    optimizer = FlatAdam(student.parameters(), config.lr, config.max_grad_norm)
    act_stream = streams.generator(config.seed, "student/act", device)
    mix_stream = streams.generator(config.seed, "dagger/mix", device)
    draw_stream = streams.generator(config.seed, "dagger/draw")
    noise_stream = streams.generator(config.seed, "dagger/noise", device)
    window, burn_in = window_lengths(config.student, config.window, config.burn_in)

    num_envs, round_size = config.num_envs, config.num_envs * config.round_steps
    rounds = -(-config.total_steps // round_size)
    viewed = ViewedEnv(env, {"teacher": teacher.spec.view, "student": student_view}, config.seed)
    reset = torch.ones(num_envs, dtype=torch.bool, device=device)
    teacher_hidden, student_hidden = teacher.initial_hidden(num_envs), student.initial_hidden(num_envs)
    episodes = EpisodeStats(num_envs)
    per_slot = config.eval_episodes // eval_env.num_envs
    best_return, streak, start, updates, seconds = -float("inf"), 0, 0, 0, 0.0
    mixed_rounds = cleared_at = forgotten = 0
    parts = {"student": student, "optimizer": optimizer, "viewed": viewed, "episodes": episodes}
    parts |= {"act": act_stream, "mix": mix_stream, "draw": draw_stream, "noise": noise_stream}
    parents = teachers.parents | ({"pairs": pairs_run} if pairs_run else {})

    with (
        session.start(config, COMMAND, teachers.task, method=METHOD, role="student", parents=parents) as run,
        session.progress(config.total_steps) as progress,
    ):
        if run.state is None:
            schema = teachers.schema(env, groups, teacher, config.seed)
            shard_bytes, expected = int(config.shard_mb * 2**20), rounds * config.round_steps
            writer = PairsWriter(run.fresh_folder("pairs"), schema, num_envs, shard_bytes, expected)
            pairs = Pairs(collected, "size", live=writer)
            if collected:
                fit_normalizer(student, pairs)
        else:
            saved = frame.restore(run.state, parts, device)
            writer = PairsWriter.resume(run.path / "pairs", run.state["writer"])
            pairs = Pairs(collected, "size", live=writer)
            start, best_return, streak, seconds = (saved[k] for k in ("round", "best_return", "streak", "seconds"))
            updates, mixed_rounds = saved["updates"], saved["mixed_rounds"]
            cleared_at, forgotten = saved["cleared_at"], saved["forgotten"]
            reset, teacher_hidden, student_hidden = (saved[k] for k in ("reset", "teacher_hidden", "student_hidden"))
            if not env.exact_resume:
                writer.restart_episodes()
                reset = torch.ones_like(reset)
                episodes.restart()
            session.say(frame.resume_note(run.name, f"round {start} of {rounds}", env))
        clock = frame.Clock(seconds)
        for index in range(start, rounds):
            if config.lr_schedule == "linear":
                optimizer.lr = config.lr * (1 - index / rounds)
            begins = not collected and episodes.episodes < config.teacher_episodes
            beta = 1.0 if begins else scheduled_beta(config, mixed_rounds)
            mixed_rounds += not begins
            rows_before = pairs.num_steps

            # --- act and label --------------------------------------------------------------------------------------
            seen, rewards, dones = [], [], []
            with torch.no_grad():
                for _ in range(config.round_steps):
                    label, teacher_hidden = teacher.step(viewed.observe("teacher"), teacher_hidden, reset)
                    seen.append(viewed.observe("student"))
                    # The student's memory goes on also where the teacher acts.
                    own, student_hidden = student.step(seen[-1], student_hidden, reset)
                    own_action = own.sample(act_stream) if config.act == "sample" else own.mode()
                    teacher_action = label.mode()
                    if beta > 0:
                        acts = torch.empty(num_envs, device=device).uniform_(generator=mix_stream) < beta
                        by_teacher = label.sample(act_stream) if config.act == "sample" else teacher_action
                        action = torch.where(acts.reshape(-1, *[1] * (own_action.dim() - 1)), by_teacher, own_action)
                    else:
                        acts, action = torch.zeros_like(reset), own_action
                    obs = viewed.record(groups)
                    step = viewed.step(action)
                    params = {k: v.cpu() for k, v in label.params().items()}
                    ends = (step.reward.cpu(), step.terminated.cpu(), step.truncated.cpu())
                    success = step.success.cpu() if env.has_success else None
                    actor = acts.to(torch.uint8).cpu()
                    writer.append(obs, step.action.cpu(), teacher_action.cpu(), params, *ends, actor, success)
                    rewards.append(step.reward)
                    dones.append(step.done)
                    reset = step.done
            reward = torch.stack(rewards)
            episode_metrics = episodes.update(reward, torch.stack(dones))
            if "vector" in seen[0]:  # frozen while acting and learning, moved in between
                student.encoder.update_normalizer({"vector": torch.stack([o["vector"] for o in seen])})
            if config.clear_every and episodes.episodes // config.clear_every > cleared_at // config.clear_every:
                cleared_at, forgotten = episodes.episodes, rows_before  # what this round has added is kept

            # --- learn ----------------------------------------------------------------------------------------------
            losses = []
            pairs.refresh()
            if index == 0:
                match_std(student, pairs)
            kept = min(config.memory or pairs.num_steps, pairs.num_steps - forgotten)
            train, held_out = pairs.split_episodes(config.validation_fraction, config.seed)
            choice = pairs.windows(window, memory=kept, episodes=train)
            # A small memory may hold nothing but episodes that are held out; then the round only adds to it.
            num_updates = config.updates_per_round if len(choice) else 0
            drawn = choice.sample_batches(draw_stream, config.batch_size, num_updates) if num_updates else []
            for windows in drawn:
                batch = read_batch(pairs, windows, student_view, burn_in, noise_stream, device)
                loss = batch_loss(student, batch, config.loss)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
            updates += num_updates

            # --- log, evaluate, save --------------------------------------------------------------------------------
            step_count = (index + 1) * round_size
            metrics = {"step": step_count, "round": index + 1, "episodes": episodes.episodes, "updates": updates}
            metrics |= {**episode_metrics, "beta": beta}
            metrics["loss/imitation"] = float(torch.stack(losses).mean()) if losses else None
            metrics |= {"loop_seconds": clock.seconds, "lr": optimizer.lr}
            metrics["steps_per_second"] = step_count / clock.seconds
            frame.check_divergence(metrics, f"step {step_count}")
            out_of_episodes = config.total_episodes is not None and episodes.episodes >= config.total_episodes
            is_last = index + 1 == rounds or out_of_episodes
            if is_last or (index + 1) % config.eval_every == 0:
                with clock:
                    found = run_episodes(student, eval_env, streams.derive(config.seed, "select"), per_slot)
                    if len(held_out):
                        metrics["loss/validation"] = mean_loss(student, pairs, held_out, window, burn_in, config.loss)
                metrics |= evaluation.summary(found)
                if metrics["eval/return"] >= best_return:  # among equals the later one has seen more
                    best_return = metrics["eval/return"]
                    run.save_policy(student)
                reached = config.stop_return is not None and metrics["eval/return"] >= config.stop_return
                streak = streak + 1 if reached else 0
            run.log(metrics)
            shown = {"return": metrics["rollout/return"], "loss": metrics["loss/imitation"], "best greedy": best_return}
            # An episode takes as many of all envs' steps as it is long.
            length, end = metrics["rollout/length"], None
            if config.total_episodes is not None and length is not None:
                end = step_count + (config.total_episodes - episodes.episodes) * length
            progress.update(step_count, shown, end)
            if is_last or streak >= config.stop_patience:
                break
            values = {"round": index + 1, "best_return": best_return, "streak": streak, "updates": updates}
            values |= {"mixed_rounds": mixed_rounds, "cleared_at": cleared_at, "forgotten": forgotten}
            values |= {"seconds": clock.seconds}
            values |= {"reset": reset, "teacher_hidden": teacher_hidden, "student_hidden": student_hidden}
            run.save_if_due(
                lambda v=values: {**frame.snapshot(parts, **v), "writer": writer.state_dict()},
                config.checkpoint_every,
                env.exact_resume,
            )
        loop_seconds = clock.seconds

        # --- report: the best student, on episodes that did not choose it -------------------------------------------
        writer.close()
        run.save_policy(student, "last")
        best = load_policy_file(run.path / "policy.safetensors", device)
        final = evaluation.summary(run_episodes(best, report_env, streams.derive(config.seed, "report"), per_slot))
        curves.draw_curves(run.path / "curves.png", run.read_metrics(), CURVES, f"{task.name}: DAgger student")
        final |= {"step": step_count, "episodes": episodes.episodes, "updates": updates, "loop_seconds": loop_seconds}
        result = run.finish(final | {"best_selection_return": best_return}, holds=("pairs",), **teachers.details)
    env.close()
    eval_env.close()
    report_env.close()
    return result


def scheduled_beta(config: Config, index: int) -> float:
    """Probability that the teacher acts in round `index`, those in which it acts alone not counted."""
    if config.beta_schedule == "constant":
        return config.beta
    if config.beta_schedule == "linear":
        return config.beta * max(0.0, 1 - index / config.beta_rounds)
    return config.beta * config.beta_decay**index


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

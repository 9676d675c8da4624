"""Measure a policy on fixed seeds, a student beside its teacher, and film it.

How many episodes each env slot plays is fixed beforehand, so that short episodes are not over-counted: the same number
in all; where that gives more than were asked for, the last slot's surplus is not counted. A student is
measured on the seeds of its teacher; while it acts, the teacher says what it would have done, which gives the share of
equal actions and KL(teacher || student) on the states that the student itself reaches. Where the env has a map, a
picture shows where each of them goes. In a mixture of tasks everyone is measured on each of them as well; of several
teachers the row's own one acts and says what it would have done.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from rich.markup import escape

from tscli import streams
from tscli.config import StageConfig, UserError, positional
from tscli.envs import VecEnv
from tscli.files import atomic_write
from tscli.learning import statistics
from tscli.learning.episodes import Episodes, run_episodes
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Actor
from tscli.networks.distributions import kl
from tscli.pictures import film, maps
from tscli.runs import Run, newest_run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.terminal.tables import FitTable, decimals
from tscli.training import setup
from tscli.training.teachers import teachers_of

COMMAND = "eval"
ORDER = 40


class Config(StageConfig):
    """What to measure, and whether to film it."""

    run: str = positional("", description="Run whose policy is measured: number, name or path; empty: the newest.")
    task: str = Field("", description="Measure on another task of the same groups and actions; empty: the run's own.")
    episodes: int = Field(100, ge=1, description="Episodes per policy and mode.")
    num_envs: int = Field(100, ge=1, description="Env slots at the most; each plays the same number of episodes.")
    teacher: bool = Field(True, description="Measure a student's teacher beside it.")
    which: Literal["policy", "last", "teacher"] = Field(
        "policy", description="The run's best policy, its last, or the teacher that was trained with a student."
    )
    render: Literal["none", "gif", "mp4", "human"] = Field(
        "none", description="Film the greedy policy, or show it live."
    )
    render_episodes: int = Field(1, ge=1, description="Episodes in the film.")
    render_teacher: bool = Field(False, description="Film a student's teacher beside it, in the same episodes.")


def main(config: Config, session: Session) -> Run:
    """Measure, compare, film, report."""
    device = setup.prepare(config)
    policy_run = newest_run(session.runs_dir, config.run, "policy", "")
    session.say(f"policy: {policy_run.name}")
    task = load_task(config.task or policy_run.task)
    tasks = setup.number_of_tasks(task)
    if config.episodes < tasks:
        raise UserError(f"--episodes {config.episodes}: {task.name} is {tasks} tasks in one: give {tasks} or more")
    per_slot = -(-config.episodes // setup.slots_within(task, config.num_envs))
    slots = -(-config.episodes // (per_slot * tasks)) * tasks
    env = setup.task_env(task, slots, device, "report")
    # What a film needs is looked for now, not after everything has been measured.
    film_env = setup.film_env(task, config.render, device)
    main_role = "teacher" if config.which == "teacher" else policy_run.role or "policy"
    policies: dict[str, Actor] = {main_role: setup.open_policy(policy_run, env, device, config.which)}
    names = {main_role: policy_run.name}
    has_teacher = policy_run.teacher_policy is not None or bool(policy_run.teachers)
    if main_role == "student" and config.teacher and not has_teacher:
        session.say(f"{policy_run.name} learned from pairs without a teacher's run: it is measured alone")
    elif main_role == "student" and config.teacher:
        try:
            teachers = teachers_of(policy_run)
        except UserError as error:
            raise UserError(f"{error}; or --no-teacher measures the student alone") from None
        policies["teacher"], names["teacher"] = teachers.open(env, device), teachers.name

    parents = {"policy": policy_run}
    with session.start(config, COMMAND, config.task or policy_run.task, parents=parents, checkpoints=False) as run:
        # Not the seed itself: a policy trained with it has seen those episodes.
        seed = streams.derive(config.seed, "eval")
        report: dict[str, Any] = {"task": task.name, "episodes": config.episodes, "seed": config.seed, "policies": {}}
        report["reset_seed"] = seed  # what the env was given: the same episodes outside of tscli
        greedy_returns: dict[str, torch.Tensor] = {}
        visits: dict[str, torch.Tensor] = {}
        for role, policy in policies.items():
            entry: dict[str, Any] = {"run": names[role], "view": policy.spec.view.name}
            for mode in ("greedy", "sampled"):
                counter = maps.Visits(env) if mode == "greedy" and env.map_shape is not None else None
                found = run_episodes(policy, env, seed, per_slot, greedy=mode == "greedy", watch=counter)
                entry[mode] = figures(found, config.episodes) | task_figures(found, config.episodes, env)
                if mode == "greedy":
                    greedy_returns[role] = found.returns[: config.episodes]
                if counter is not None:
                    visits[role] = counter.per_episode(slots * per_slot)
            report["policies"][role] = entry
        if len(policies) == 2:
            pair = policies["student"], policies["teacher"]
            report["student_states"] = compare_on_student_states(*pair, env, seed, per_slot)
            # Episode by episode, since both had the same ones: how hard they were then drops out of the interval.
            difference = greedy_returns["teacher"] - greedy_returns["student"]
            gap = statistics.bootstrap_mean(difference.cpu().numpy())
            report |= {"gap": gap.mean, "gap_interval": [gap.low, gap.high]}
        if visits:
            heading = f"{task.name}: {slots * per_slot} greedy episodes"
            session.say(f"visits: {maps.draw_visits(run.path / 'visits.png', visits, env.map_marks, heading)}")
        if film_env is not None:
            filmed = policies if config.render_teacher else {main_role: policies[main_role]}
            path = make_film(config, filmed, film_env, seed, run.path)
            if path is not None:
                report["film"] = path.name
                session.say(f"film: {path}")
        atomic_write(run.path / "report.json", json.dumps(report, indent=1))
        main_entry = report["policies"][main_role]["greedy"]
        metrics = {"eval/return": main_entry["return"]["mean"], "eval/length": main_entry["length"]["mean"]}
        if "success_rate" in main_entry:
            metrics["eval/success_rate"] = main_entry["success_rate"]["mean"]
        metrics |= {"gap": report["gap"], **report["student_states"]} if len(policies) == 2 else {}
        result = run.finish(metrics, holds=("report",))
    env.close()
    session.show(eval_table(report), report)
    return result


def figures(found: Episodes, count: int) -> dict[str, Any]:
    """Mean, deviation and 95 % interval of return, length (by bootstrap) and, where the env tells, success (Wilson's).

    Of the first `count` episodes. They stand in the order of the slots, so what is left out are the last slot's last
    ones, whatever became of them.
    """
    values = {"return": found.returns, "length": found.lengths}
    out = {name: statistics.bootstrap_mean(value[:count].cpu().numpy()) for name, value in values.items()}
    if found.success is not None:
        out["success_rate"] = statistics.wilson(found.success[:count].cpu().numpy())
    return {name: estimate._asdict() for name, estimate in out.items()}


def task_figures(found: Episodes, count: int, env: VecEnv) -> dict[str, Any]:
    """In a mixture of tasks, under "tasks": the figures of each task that has an episode among the first `count`."""
    if not env.members:
        return {}
    per_slot = len(found.returns) // env.num_envs
    task = torch.arange(count) // per_slot % len(env.members)
    by_task = {}
    for number, name in enumerate(env.members):
        mine = (task == number).nonzero()[:, 0].to(found.returns.device)
        if len(mine):
            success = None if found.success is None else found.success[mine]
            by_task[name] = figures(Episodes(found.returns[mine], found.lengths[mine], success), len(mine))
    return {"tasks": by_task}


@torch.no_grad()
def compare_on_student_states(
    student: Actor, teacher: Actor, env: VecEnv, seed: int, per_slot: int
) -> dict[str, float]:
    """Agreement and KL over the steps of the greedy student's first `per_slot` episodes in each slot."""
    n = env.num_envs
    viewed = ViewedEnv(env, {"student": student.spec.view, "teacher": teacher.spec.view}, seed)
    hidden, teacher_hidden = student.initial_hidden(n), teacher.initial_hidden(n)
    reset = torch.ones(n, dtype=torch.bool, device=env.device)
    running, steps = ~torch.zeros_like(reset), 0
    count = torch.zeros(n, dtype=torch.int64, device=env.device)
    same, distance, divergence = 0.0, 0.0, 0.0
    # No closed form compares a squashed Gaussian with a plain one, or with a Beta.
    kinds = {policy.spec.network.head_kind for policy in (student, teacher)}
    comparable = not env.action.is_continuous or len(kinds) == 1
    while bool(running.any()):
        dist, hidden = student.step(viewed.observe("student"), hidden, reset)
        label, teacher_hidden = teacher.step(viewed.observe("teacher"), teacher_hidden, reset)
        action, wanted = dist.mode(), label.mode()
        if env.action.is_continuous:
            distance += float((action - wanted).abs().mean(-1)[running].sum())
        else:
            equal = action == wanted
            same += float((equal if equal.dim() == 1 else equal.all(-1))[running].sum())
        if comparable:
            divergence += float(kl(label, dist)[running].sum())
        steps += int(running.sum())
        reset = viewed.step(action).done
        count += reset & running
        running = count < per_slot
    out = {"action_distance": distance / steps} if env.action.is_continuous else {"action_agreement": same / steps}
    return {**out, "kl_teacher_student": divergence / steps} if comparable else out


def make_film(config: Config, policies: Mapping[str, Actor], env: VecEnv, seed: int, folder: Path) -> Path | None:
    """Film greedy episodes of one env, or of each task; of several policies side by side, with the same episodes."""
    fps = 1 / env.control_dt if env.control_dt else 30.0
    # Drawing is what takes the time: a GIF shows 25 pictures per second of the env's time, a film or window all.
    stride = max(1, round(fps / 25)) if config.render == "gif" else 1
    window = film.Window(fps) if config.render == "human" else None
    reels = []
    tasks = env.members or ("",)
    for (role, policy), (row, task) in itertools.product(policies.items(), enumerate(tasks)):
        name = ", ".join(filter(None, [role if len(policies) > 1 else "", task]))
        reel = []
        for frame in frames_of(policy, env, row, seed, config.render_episodes, stride, name):
            if window is None:
                reel.append(frame)
            elif not window.show(frame):
                break
        reels.append(reel)
    env.close()
    if window is not None:
        window.close()
        return None
    write = film.write_gif if config.render == "gif" else film.write_mp4
    return write(folder / f"film.{config.render}", film.side_by_side(reels), fps / stride)


@torch.no_grad()
def frames_of(
    policy: Actor, env: VecEnv, row: int, seed: int, episodes: int, stride: int, name: str
) -> Iterator[np.ndarray]:
    """Every `stride`-th frame of greedy episodes in one row, uint8 [H, W, 3].

    Frames are taken before each step: after an episode's last step the env already shows the next episode.
    """
    viewed = ViewedEnv(env, {"policy": policy.spec.view}, seed)
    n = env.num_envs
    hidden, reset = policy.initial_hidden(n), torch.ones(n, dtype=torch.bool, device=env.device)
    episode, step_count, total = 1, 0, 0.0
    while episode <= episodes:
        if step_count % stride == 0:
            said = f"episode {episode}   step {step_count}   return {total:.1f}"
            yield film.caption(env.render(row), f"{name}   {said}" if name else said)
        dist, hidden = policy.step(viewed.observe("policy"), hidden, reset)
        step = viewed.step(dist.mode())
        reset = step.done
        step_count, total = step_count + 1, total + float(step.reward[row])
        if bool(step.done[row]):
            episode, step_count, total = episode + 1, 0, 0.0


def eval_table(report: dict[str, Any]) -> FitTable:
    """The report as a table: one row per policy and mode, and for greedy ones one per task of a mixture."""
    entries = report["policies"]
    has_success = any("success_rate" in entry["greedy"] for entry in entries.values())
    numbers = ["return", "95 % interval", "sd", *(["success"] if has_success else []), "length"]
    table = FitTable(
        ["policy", "view", "acts", *numbers],
        right=numbers,
        give_way={"view": 7},
        title=f"{report['task']}: {report['episodes']} episodes, seed {report['seed']}",
        caption=_comparison(report) if "gap" in report else "",
    )
    places = return_decimals(report)
    rows = [(role, entry, mode, entry[mode]) for role, entry in entries.items() for mode in ("greedy", "sampled")]
    for role, entry, mode, whole in rows:
        tasks = whole.get("tasks", {}) if mode == "greedy" else {}
        for what, found in {role: whole, **{f"  {escape(name)}": part for name, part in tasks.items()}}.items():
            value = found["return"]
            cells = [what, escape(entry["view"]), mode, f"[bold]{value['mean']:.{places}f}[/]"]
            cells += [f"{value['low']:.{places}f} to {value['high']:.{places}f}", f"{value['sd']:.{places}f}"]
            cells += [f"{100 * found['success_rate']['mean']:.0f} %"] if has_success else []
            table.add(*cells, f"{found['length']['mean']:.0f}")
    return table


def return_decimals(report: dict[str, Any]) -> int:
    """As the largest return of the report asks for."""
    means = (entry[mode]["return"]["mean"] for entry in report["policies"].values() for mode in ("greedy", "sampled"))
    return decimals(max(map(abs, means)))


def _comparison(report: dict[str, Any]) -> str:
    states = report["student_states"]
    same = states.get("action_agreement")
    near = f"actions equal {100 * same:.1f} %" if same is not None else f"distance {states['action_distance']:.3g}"
    if "kl_teacher_student" in states:
        near += f", KL {states['kl_teacher_student']:.3g}"
    places = return_decimals(report)
    gap, low, high = (f"{value:.{places}f}" for value in (report["gap"], *report["gap_interval"]))
    return f"gap {gap} ({low} to {high})\non the student's states: {near}"


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

"""Measure a policy on fixed seeds, a student beside its teacher, and film it.

How many episodes each env slot plays is fixed beforehand, so that short episodes are not over-counted: the same number
in all; where that gives more than were asked for, the last slot's surplus is not counted. A student is
measured on the seeds of its teacher; while it acts, the teacher says what it would have done, which gives the share of
equal actions and KL(teacher || student) on the states that the student itself reaches. Where the env has a map, a
picture shows where each of them goes. `--record 5` keeps five episodes step by step, which the page of `tscli report`
lets one scrub through. In a mixture of tasks everyone is measured on each of them as well; of several
teachers the row's own one acts and says what it would have done.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator

from tscli import streams
from tscli.config import StageConfig, UserError, positional
from tscli.envs import VecEnv
from tscli.files import atomic_write, file_hash
from tscli.learning import statistics
from tscli.learning.episodes import Tally, run_episodes
from tscli.networks import Actor
from tscli.pictures import maps
from tscli.pictures.varied import draw_varied
from tscli.report.evaluation import eval_table
from tscli.runs import Run, newest_run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import evaluation, setup
from tscli.training.filming import make_film
from tscli.training.parting import Parting
from tscli.training.recording import record_episodes, write_episodes
from tscli.training.teachers import teachers_of

COMMAND = "eval"
ORDER = 40


class Config(StageConfig):
    """What to measure, and whether to film it."""

    run: str = positional(
        "", description="Run whose policy is measured: number, name, path, task or best; empty: the newest."
    )
    task: str = Field("", description="Measure on another task of the same groups and actions; empty: the run's own.")
    episodes: int = Field(100, ge=1, le=1_000_000, description="Episodes per policy and mode.")
    num_envs: int = Field(100, ge=1, description="Env slots at the most; each plays the same number of episodes.")
    teacher: bool = Field(True, description="Measure a student's teacher beside it.")
    which: Literal["policy", "last", "teacher"] = Field(
        "policy", description="A run's best policy, its last, or a joint run's teacher; of those beside it as well."
    )
    vary: str = Field(
        "", description="Settings of the env and their values, 'friction=0.2,0.6 push=0,1': measure at each as well."
    )
    render: Literal["none", "gif", "mp4", "human"] = Field(
        "none", description="Film the greedy policy, or show it live."
    )
    render_episodes: int = Field(1, ge=1, le=1_000, description="Episodes in the film.")
    beside: str = Field(
        "", description="Policies filmed beside it in the same episodes: teacher, or runs: teacher,3,unaligned=5."
    )
    grid: str = Field("", description="Film as many episodes at once, such as 3x3: rows x columns; empty films one.")
    record: int = Field(
        0, ge=0, le=100, description="Episodes to keep step by step, pictures included, for the page of `tscli report`."
    )

    @property
    def places(self) -> tuple[int, int] | None:
        """Rows and columns of the grid; None where there is none."""
        return tuple(map(int, self.grid.split("x"))) if self.grid else None  # type: ignore[return-value] - two, as checked

    @field_validator("grid")
    @classmethod
    def _is_a_grid(cls, value: str) -> str:
        if value and not re.fullmatch(r"[1-9]x[1-9]", value):
            raise ValueError(f'"{value}": give rows x columns, each from 1 to 9, such as 3x3')
        return value

    @model_validator(mode="after")
    def _what_is_of_a_film_is_filmed(self) -> Config:
        if self.grid and self.render not in ("gif", "mp4"):
            raise ValueError("--grid is of a film: give --render gif, or mp4")
        if self.beside and self.render == "none":
            raise ValueError("--beside is of a film: give --render gif, mp4 or human")
        return self


def main(config: Config, session: Session) -> Run:
    """Measure, compare, film, report."""
    device = setup.prepare(config)
    policy_run = newest_run(session.runs_dir, config.run, "policy", "", task=config.task, say=session.note)
    session.say(f"policy: {policy_run.name}")
    task = load_task(config.task or policy_run.task)
    tasks = setup.number_of_tasks(task)
    if config.episodes < tasks:
        raise UserError(f"--episodes {config.episodes}: {task.name} is {tasks} tasks in one: give {tasks} or more")
    per_slot = -(-config.episodes // setup.slots_within(task, config.num_envs))
    slots = -(-config.episodes // (per_slot * tasks)) * tasks
    env = setup.task_env(task, slots, device, "report")
    # What a film needs is looked for now, not after everything has been measured.
    grid = config.places
    film_env = setup.film_env(task, config.render, device, math.prod(grid or (1,)))
    record_env = setup.film_env(task, "gif", device) if config.record else None
    # So is what is varied.
    varied = {}
    for name, values in evaluation.read_varied(config.vary):
        for value in values:
            changed = task.model_copy(update={"report_env": task.report_env | {name: value}})
            varied[name, value] = setup.task_env(changed, slots, device, "report")
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
    filmed = {main_role: policies[main_role]} | open_beside(config, session, policies, env, device)

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
                greedy, tally = mode == "greedy", Tally(env)
                found = run_episodes(policy, env, seed, per_slot, greedy, watch=counter, tally=tally)
                entry[mode] = evaluation.figures(found, config.episodes) | evaluation.measured(tally)
                entry[mode] |= evaluation.task_figures(found, config.episodes, env)
                if mode == "greedy":
                    greedy_returns[role] = found.returns[: config.episodes]
                if counter is not None:
                    visits[role] = counter.per_episode(slots * per_slot)
            report["policies"][role] = entry
        if len(policies) == 2:
            pair, parting = (policies["student"], policies["teacher"]), Parting(policies, env)
            report["student_states"] = evaluation.compare_on_student_states(*pair, env, seed, per_slot, parting)
            report["parting"] = parting.figures()
            # Episode by episode, since both had the same ones: how hard they were then drops out of the interval.
            difference = greedy_returns["teacher"] - greedy_returns["student"]
            gap = statistics.student_mean(difference.cpu().numpy())
            report |= {"gap": gap.mean, "gap_interval": [gap.low, gap.high]}
            means = [float(greedy_returns[role].mean()) for role in ("student", "teacher")]
            figures, remark = evaluation.beside_teacher(pair[0], env, seed, *means)
            report |= figures
            if remark:
                session.say(remark)
        if varied:
            report["varied"] = evaluation.varied(policies, varied, seed, per_slot, config.episodes)
            session.note(f"varied: {draw_varied(run.path / 'varied.png', report['varied'], task.name)}")
        if visits:
            heading = f"{task.name}: {slots * per_slot} greedy episodes"
            session.note(f"visits: {maps.draw_visits(run.path / 'visits.png', visits, env.map_marks, heading)}")
        # A film takes its time, and what was measured does not wait for it.
        write_report(run.path, report)
        if film_env is not None:
            path = make_film(config.render, config.render_episodes, filmed, film_env, seed, run.path, grid)
            if path is not None:
                report |= {"film": path.name, "film_shows": list(filmed), "film_grid": config.grid}
                session.note(f"film: {path}")
            film_env.close()
        if record_env is not None:
            kept = record_episodes(policies, record_env, seed, config.record)
            path = write_episodes(run.path, kept, policies, names, record_env)
            run.manifest["artifacts"][path.name] = file_hash(path)
            session.note(f"episodes: {path}")
            record_env.close()
        write_report(run.path, report)
        main_entry = report["policies"][main_role]["greedy"]
        metrics = {"eval/return": main_entry["return"]["mean"], "eval/length": main_entry["length"]["mean"]}
        if "success_rate" in main_entry:
            metrics["eval/success_rate"] = main_entry["success_rate"]["mean"]
        metrics |= {"gap": report["gap"], **report["student_states"]} if len(policies) == 2 else {}
        result = run.finish(metrics, holds=("report",))
    env.close()
    session.show(eval_table(report), report)
    return result


def open_beside(
    config: Config, session: Session, policies: Mapping[str, Actor], env: VecEnv, device: torch.device
) -> dict[str, Actor]:
    """Who is filmed beside the measured policy, by the name that the film gives it.

    Raises:
        UserError: `--beside` names nobody, somebody twice or whom the env does not fit.
    """
    opened: dict[str, Actor] = {}
    measured = next(iter(policies))
    for part in filter(None, map(str.strip, config.beside.split(","))):
        name, _, ref = part.rpartition("=")
        if not ref:
            raise UserError(f"--beside {config.beside}: {part} names no run: write {part}3, or what its number is")
        if ref == "teacher" and len(policies) == 1:
            raise UserError(f"--beside teacher: none is measured beside the {measured}: name its run")
        if ref == "teacher":
            role, actor = ref, policies[ref]
        else:
            run = newest_run(session.runs_dir, ref, "policy", "beside", say=session.note)
            which = run.teacher_policy or config.which if config.which == "teacher" else config.which
            role = f"{'teacher' if config.which == 'teacher' else run.role or 'policy'} of run {run.number}"
            actor = setup.open_policy(run, env, device, which)
        name = name or role
        if name in opened or name == measured:
            raise UserError(f'--beside {config.beside}: two would be called "{name}": name one, other={ref}')
        opened[name] = actor
    return opened


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Into `report.json`, which is whole at any time."""
    atomic_write(folder / "report.json", json.dumps(report, indent=1))


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

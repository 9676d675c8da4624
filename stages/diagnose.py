"""Tell what would keep a student from learning: how good the teacher is, and what the student can know.

It answers "my loss does not fall, what is wrong?" in sentences: the teacher beside random actions, its normaliser and
its actions' bounds; whether the stored labels come out again; inputs that never change or are very large; and how well
the teacher's action can be guessed from the student's view, against from its own. What it finds is no error, and no run
is written. `tscli distill` makes the cheap ones of these checks itself.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, TypeAdapter, ValidationError
from rich.markup import escape
from rich.table import Table

from tscli import streams
from tscli.config import Config as BaseConfig
from tscli.config import Network, NetworkConfig, StageConfig, UserError, one_line
from tscli.diagnose import diagnosis
from tscli.diagnose.checks import Finding, teacher_is_good
from tscli.diagnose.probe import Effort
from tscli.diagnose.sample import Sample, read_sample, roll_out, steps_within
from tscli.envs.views import ViewSpec
from tscli.learning.episodes import run_episodes
from tscli.learning.statistics import bootstrap_mean
from tscli.networks import Policy
from tscli.pairs import Pairs
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import Task, load_task
from tscli.training import setup
from tscli.training.teachers import TeacherRuns, find_pairs, find_teachers

ORDER = 25
ENVS = 64
PICTURES = 64.0  # MB
EFFORT = Effort(fit_rows=4000, test_rows=1000, units=256, updates=400, hurry=False)


class Config(BaseConfig):
    """Whom to look at."""

    teacher: str = Field("", description="Run of the teacher: number, name or path; empty takes the newest.")
    pairs: str | None = Field(
        "", description="Run of collected pairs; empty takes this teacher's newest, none rolls the teacher out instead."
    )
    obs: str = Field("", description="View of the student; empty takes the task's student view.")
    student: Network | None = Field(
        None, description="Body of the student; none takes that of the task's settings for distill."
    )
    episodes: int = Field(100, ge=2, description="Episodes of the teacher, and as many of random actions.")
    steps: int = Field(20_000, ge=100, description="Steps with the teacher's labels that are looked at.")
    seed: int = Field(1, ge=0, lt=2**31, description="Seed of the episodes and of the choice of steps.")
    device: str = Field("cpu", description="Where the teacher acts: cpu, cuda, cuda:1, or auto.")


def main(config: Config, session: Session) -> None:
    """Look at the teacher, then at steps with its labels, and say what was found."""
    device = setup.prepare(StageConfig(device=config.device))
    teachers = find_teachers(session, config.teacher, "", "", config.pairs)
    if len(teachers.runs) != 1:
        raise UserError(f"several teachers ({teachers.name}) are looked at one by one: give --teacher one of them")
    task = load_task(teachers.task)
    env = setup.task_env(task, setup.slots_within(task, ENVS), device)
    (teacher_run,) = teachers.runs
    teacher = setup.open_teacher(teacher_run, env, device)
    view = setup.resolve(task, config.obs or task.student, env)
    network = config.student or students_network(task)
    pairs_run = usable_pairs(session, config.pairs, teachers, (teacher.spec.view, view))
    session.say(f"teacher: {teacher_run.name}; pairs: {pairs_run.name if pairs_run else 'none, it is rolled out'}")

    seed = streams.derive(config.seed, "diagnose")
    wanted = steps_within(config.steps, (teacher.spec.view, view), PICTURES)
    if pairs_run is not None:
        pairs = Pairs(pairs_run.path / "pairs", verify="size")
        sample: Sample = read_sample(pairs, teacher.spec.view, view, wanted, seed)
    else:
        sample = roll_out(teacher, env, view, wanted, seed)
    env.close()
    recorded = pairs_run is not None
    findings = [
        how_good(teacher, task, config.episodes, seed, device),
        *diagnosis.sample_findings(teacher, sample, recorded, network, EFFORT, seed),
    ]
    data: dict[str, Any] = {"task": task.name, "teacher": teacher_run.name, "view": view.name}
    data |= {"pairs": pairs_run.name if pairs_run else None, "steps": sample.num_steps}
    session.show(findings_table(findings), data | {"findings": [finding.to_json() for finding in findings]})


def students_network(task: Task) -> NetworkConfig:
    """The body that `tscli distill` gives the task's student.

    Raises:
        UserError: the task's settings are wrong.
    """
    written = task.stages.get("distill", {}).get("student", {})
    try:
        return TypeAdapter(Network).validate_python(written)
    except ValidationError as error:
        raise UserError(f"task {task.name}, distill, student: {one_line(error, NetworkConfig, prefix='')}") from None


def usable_pairs(
    session: Session, ref: str | None, teachers: TeacherRuns, views: tuple[ViewSpec, ViewSpec]
) -> Run | None:
    """The pairs to look at; None where there are none, or where those that nobody named lack a group of a view.

    Raises:
        UserError: the named pairs are of another teacher, or lack a group.
    """
    run = find_pairs(session, ref, teachers)
    if run is None:
        return None
    try:
        for view in views:
            setup.check_pairs_view([run.path / "pairs"], view)
    except UserError as error:
        if ref:
            raise
        session.say(escape(str(error)))
        return None
    return run


def how_good(teacher: Policy, task: Task, episodes: int, seed: int, device: torch.device) -> Finding:
    """The greedy teacher and random actions, for the same number of episodes in the env that reports are made in."""
    slots = setup.slots_within(task, episodes)
    env = setup.task_env(task, slots, device, "report")
    chance = diagnosis.random_policy(teacher.spec.view, env.action).to(device)
    per_slot = -(-episodes // slots)
    try:
        found = run_episodes(teacher, env, seed, per_slot)
        random = run_episodes(chance, env, seed, per_slot, greedy=False, name="diagnose/random")
    except UserError as error:  # episodes without an end
        return Finding("note", "teacher", f"How good it is cannot be told: {error}.")
    finally:
        env.close()
    success = None if found.success is None else float(found.success.float().mean())
    estimates = [bootstrap_mean(returns.cpu().numpy()) for returns in (found.returns, random.returns)]
    return teacher_is_good(estimates[0], estimates[1], diagnosis.goal_of(task), success)


def findings_table(findings: list[Finding]) -> Table:
    """A line for each, and what to do about it below."""
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        table.add_row(diagnosis.MARKS[finding.level], f"[bold]{finding.about}[/]", escape(finding.what))
        if finding.advice:
            table.add_row("", "", f"[cyan]{escape(finding.advice)}[/]")
    problems, notes = (sum(finding.level == level for finding in findings) for level in ("problem", "note"))
    verdict = "[green]Nothing was found that keeps a student from learning.[/]"
    if problems:
        verdict = f"[bold red]{problems} problem{'s' if problems > 1 else ''}: see above.[/]"
    elif notes:
        verdict = f"[yellow]No problem was found, but see the note{'s' if notes > 1 else ''}.[/]"
    table.add_row("", "", verdict)
    return table


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

"""What would keep a student from learning, in sentences: teacher, labels, inputs, actions, and what the student sees.

`tscli diagnose` makes all checks of `tscli.diagnose.checks`; `before_distillation` makes those that cost next to
nothing, at the start of every distillation, and tells what is not as it should be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from rich.markup import escape
from rich.table import Table

from tscli import ranks, streams
from tscli.config import Network, NetworkConfig, StudentConfig, UserError, WindowsConfig, one_line
from tscli.diagnose.checks import (
    Finding,
    action_bounds,
    constant_inputs,
    from_student_view,
    labels_come_out_again,
    large_inputs,
    memory_within_window,
    normaliser_fits,
    teacher_is_good,
)
from tscli.diagnose.probe import Effort, imitation_gap
from tscli.diagnose.sample import Sample, read_sample, roll_out, steps_within
from tscli.envs import VecEnv
from tscli.envs.spaces import ActionSpec
from tscli.envs.views import ViewSpec
from tscli.learning.episodes import run_episodes
from tscli.learning.statistics import Estimate, student_mean
from tscli.networks import Policy, PolicySpec
from tscli.networks.files import load_policy_file
from tscli.pairs import Pairs
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import Task, load_task
from tscli.training import setup
from tscli.training.teachers import TeacherRuns, teachers_of

MARKS = {"fine": "[green]fine[/]", "note": "[yellow]note[/]", "problem": "[bold red]problem[/]"}

# What the checks before a distillation may cost.
_QUICK = Effort(fit_rows=1500, test_rows=500, units=128, updates=80, hurry=True)
_QUICK_STEPS, _QUICK_ROLLED, _QUICK_ENVS, _QUICK_PICTURES = 20_000, 4000, 32, 8.0  # MB


def goal_of(task: Task) -> float | None:
    """The return at which the task's teacher stops training; None where it names none."""
    goal = task.stages.get("train-teacher", {}).get("stop_return")
    return float(goal) if isinstance(goal, (int, float)) else None


def random_policy(view: ViewSpec, action: ActionSpec) -> Policy:
    """Samples of it are uniform choices, or normal around the middle of the range with half of it as deviation."""
    with streams.seeded_init(0, "diagnose/random"):
        policy = Policy(PolicySpec(view, action, NetworkConfig(hidden=(1,), normalize=False)))
    for parameter in (policy.head.linear.weight, policy.head.linear.bias):
        torch.nn.init.zeros_(parameter)
    return policy


def sample_findings(
    teacher: Policy,
    sample: Sample,
    recorded: bool,
    network: NetworkConfig,
    effort: Effort,
    seed: int,
    window: tuple[str, int],
) -> list[Finding]:
    """All that a sample tells; `recorded`: its labels were stored, so that there is something to compare with.

    `teacher` gave the labels, `network` is the student's, `effort` and `seed` are the probes'; `window` names the
    setting of the steps through which its memory learns, and has these.
    """
    gap = imitation_gap(sample, teacher.is_recurrent, effort, seed)
    return [
        *([labels_come_out_again(teacher, sample)] if recorded else []),
        normaliser_fits(teacher, sample if "vector" in sample.teacher else None),
        action_bounds(sample.rows(sample.label), sample.action),
        constant_inputs(sample),
        large_inputs(sample, network.normalize),
        from_student_view(gap, sample, network.kind != "mlp"),
        memory_within_window(gap, sample, network.kind, window),
    ]


def window_of(settings: Mapping[str, Any]) -> tuple[str, int]:
    """Through how many steps a student's memory learns in a stage with these settings, behind its option's name."""
    name = next((name for name in ("window", "gradient_length", "bptt") if name in settings), "window")
    return name.replace("_", "-"), int(settings.get(name, 16))


def before_distillation(
    session: Session,
    config: StudentConfig,
    teachers: TeacherRuns,
    task: Task,
    view: ViewSpec,
    pairs_run: Run | None,
    env: VecEnv | None = None,
    rewards_teach: bool = False,
) -> None:
    """Say what would keep a student from learning, in well under a second; say nothing where all is fine.

    It draws from no random stream but its own and steps no env of the caller's, so that training is the same with and
    without it. Steps come from the pairs; without them from a short roll-out in an env of its own, where one can be had
    for next to nothing.

    Args:
        session: whom to tell. One that is quiet, that resumes a run, or that is one process of several, which must take
            the same gradient steps, is told nothing, and nothing is computed.
        config: of the stage, which may not want it (`--no-diagnose`).
        teachers: who is to be imitated. Nothing is said of several, each of which is right on its own rows alone, nor
            of demonstrations without a teacher.
        task, view: the student's.
        pairs_run: what it starts from; None where it starts from nothing.
        env: which the stage steps; None where it steps none. It is not touched.
        rewards_teach: rewards teach what the student's view does not tell of the teacher's action, so that need not be
            said.
    """
    if not config.diagnose or session.quiet or session.log is None or session.resume is not None or ranks.size() > 1:
        return
    if len(teachers.runs) != 1:
        return
    try:
        findings = _quick_findings(
            teachers.runs[0], task, view, config.student, pairs_run, env, window_of(dict(config))
        )
    except Exception as error:  # whatever is wrong with a check must not keep the student from learning
        session.say(f"[dim]the checks before distillation did not work here: {escape(repr(error))}[/]")
        return
    for finding in findings:
        if finding.level != "fine" and not (rewards_teach and finding.about == "view"):
            session.say(in_a_line(finding))


def findings_of(student: Run) -> list[Finding]:
    """All that `before_distillation` looked at, of a finished student with pairs of one teacher; else nothing.

    Raises:
        UserError: the teacher, the pairs or the task are gone, or have changed.
    """
    parents = student.manifest["parents"]
    pairs_run = student.parent("pairs") if "pairs" in parents else student
    runs = teachers_of(student).runs if student.teachers else ()
    if len(runs) != 1 or not (pairs_run.path / "pairs").is_dir():
        return []
    spec = load_policy_file(student.policy_path()).spec
    window = window_of(student.config)
    return _quick_findings(runs[0], load_task(student.task), spec.view, spec.network, pairs_run, None, window)


def in_a_line(finding: Finding) -> str:
    """A finding with its mark, as rich markup."""
    return f"{MARKS[finding.level]}  {escape(finding.what)} {escape(finding.advice)}".rstrip()


def _quick_findings(
    teacher_run: Run,
    task: Task,
    view: ViewSpec,
    network: NetworkConfig,
    pairs_run: Run | None,
    env: VecEnv | None,
    window: tuple[str, int],
) -> list[Finding]:
    teacher = load_policy_file(teacher_run.policy_path(teacher_run.teacher_policy or "policy"))
    reached = _reached(teacher_run, task)
    views = (teacher.spec.view, view)
    seed = streams.derive(0, "diagnose")
    sample = None
    if pairs_run is not None:
        pairs = Pairs(pairs_run.path / "pairs", verify="size")
        if set(teacher.spec.view.groups) <= set(pairs.schema.groups):
            sample = read_sample(pairs, *views, steps_within(_QUICK_STEPS, views, _QUICK_PICTURES), seed)
    elif env is not None and env.exact_resume:  # the others are slow to make, or there can be but one
        own = setup.task_env(task, _QUICK_ENVS, torch.device("cpu"))
        sample = roll_out(teacher, own, view, steps_within(_QUICK_ROLLED, views, _QUICK_PICTURES), seed)
        own.close()
    if sample is None:
        return [reached, normaliser_fits(teacher, None)]
    return [reached, *sample_findings(teacher, sample, pairs_run is not None, network, _QUICK, seed, window)]


def _reached(teacher_run: Run, task: Task) -> Finding:
    """What the teacher's run says of how good it became."""
    found = teacher_run.teacher_metric("return")
    if found is None:
        return Finding("fine", "teacher", "The teacher's run does not say how good it is.")
    estimate = Estimate(found, 0.0, found, found, 0)
    return teacher_is_good(estimate, None, goal_of(task), teacher_run.teacher_metric("success_rate"))


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


def students_window(task: Task) -> tuple[str, int]:
    """The setting of the steps through which the memory of the task's student learns, and these."""
    written = {**task.stages.get("distill", {}), **task.stages.get("distill-dagger", {})}.get("window")
    return "window", written if isinstance(written, int) else WindowsConfig.model_fields["window"].default


def how_good(teacher: Policy, task: Task, episodes: int, seed: int, device: torch.device) -> Finding:
    """The greedy teacher and random actions, for the same number of episodes in the env that reports are made in."""
    slots = setup.slots_within(task, episodes)
    env = setup.task_env(task, slots, device, "report")
    chance = random_policy(teacher.spec.view, env.action).to(device)
    per_slot = -(-episodes // slots)
    try:
        found = run_episodes(teacher, env, seed, per_slot)
        random = run_episodes(chance, env, seed, per_slot, greedy=False, name="diagnose/random")
    except UserError as error:  # episodes without an end
        return Finding("note", "teacher", f"How good it is cannot be told: {error}.")
    finally:
        env.close()
    success = None if found.success is None else float(found.success.float().mean())
    estimates = [student_mean(returns.cpu().numpy()) for returns in (found.returns, random.returns)]
    return teacher_is_good(estimates[0], estimates[1], goal_of(task), success)


def findings_table(findings: list[Finding]) -> Table:
    """A line for each, and what to do about it below."""
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        table.add_row(MARKS[finding.level], f"[bold]{finding.about}[/]", escape(finding.what))
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

"""Which run is meant where none is named, or a task, or the best. Does not import torch.

A stage that needs a teacher or pairs goes on from where its user is: from the newest finished policy or pairs if that
fits, or else from what it was made from; only where neither does, from the next newest. So after `collect --teacher 1`
a bare `distill` learns from teacher 1, whatever was trained in between. What needs any policy, or a student's, takes
the newest. Where another run could have been meant, the choice is said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tscli.config import UserError
from tscli.runs.folder import FINISHED, Run, find_run, list_runs, task_stem

BEST = "best"
# Commands whose pairs are taken when none are named; a DAgger student's own are not.
MAKES_PAIRS = ("collect", "merge", "convert")

Fits = Callable[[Run], bool]
Say = Callable[[str], None]


def run_refs(setting: str) -> list[str]:
    """The runs that a setting names: one, or several separated by commas; [""] for the newest.

    Raises:
        UserError: nothing stands beside a comma.
    """
    if Path(setting).exists():  # also one in a folder with a comma in its name
        return [setting]
    refs = [part.strip() for part in setting.split(",")]
    if len(refs) > 1 and not all(refs):
        raise UserError(f'--teacher "{setting}" has a comma without a run beside it: write it as in --teacher 1,2')
    return refs


def chain_of(run: Run, by_name: dict[str, Run]) -> list[Run]:
    """The run, and then those that it was made from and that they were made from, the newest first."""
    found: dict[str, Run] = {}
    left = list(run.parents)
    while left:
        name = left.pop()
        if name in by_name and name not in found:
            found[name] = by_name[name]
            left += by_name[name].parents
    return [run, *sorted(found.values(), key=lambda one: one.number, reverse=True)]


def followed_run(
    runs_dir: Path,
    fits: Fits,
    flag: str,
    say: Say | None = None,
    rivals: Fits | None = None,
    ends: Fits = lambda run: bool(run.offers),
) -> Run | None:
    """The run of the chain that the user is on, see the module's docstring; None where none fits.

    Args:
        runs_dir: where to look.
        fits: what it has to be.
        flag: the setting that would name another one, for what is said; "" where it has no flag.
        say: is told of the newest of its rivals, where that one stands in another chain.
        rivals: what might have been meant as well; None: what fits.
        ends: where a chain may end; a report is no such place.
    """
    runs = [run for run in list_runs(runs_dir) if run.status == FINISHED]
    by_name = {run.name: run for run in runs}
    for end in filter(ends, reversed(runs)):
        chain = chain_of(end, by_name)
        taken = next((run for run in chain if fits(run)), None)
        if taken is not None:
            newest = [run for run in runs if (rivals or fits)(run)][-1:]
            if say is not None and newest and newest[0] not in chain:
                named = f"--{flag} {newest[0].number}" if flag else str(newest[0].number)
                say(f"going on from {end.name}; {named} takes {newest[0].name} instead")
            return taken
    return None


def newest_run(
    runs_dir: Path,
    ref: str,
    holds: str,
    flag: str,
    role: str | None = None,
    fits: Fits | None = None,
    commands: tuple[str, ...] = (),
    *,
    task: str = "",
    say: Say | None = None,
) -> Run:
    """The run that `ref` names or, when it is empty, the finished one that fits in the chain that the user is on.

    Args:
        runs_dir: where to look.
        ref: path, name or number; a task, for its newest run that fits; "best", for that with the highest return of
            `task`; or "".
        holds: "policy" or "pairs".
        flag: the setting that names such a run, for the error line; "" where it has no flag.
        role: of the policy, "teacher" or "student"; None takes either. A run that trained a teacher together with its
            student counts as a teacher's where it is named; unnamed ones: `has_teachers`.
        fits: what else it has to be where it is not named.
        commands: only runs of these commands where it is not named; empty takes any.
        task: where the best is looked for; "" is the task of the run that would be taken if none was named.
        say: is told what was chosen, where another run could have been meant.

    Raises:
        UserError: none fits, or the named one does not.
    """
    what = f"a {role}'s policy" if role else {"policy": "a policy"}.get(holds, holds)
    suits = _suits(holds, role, fits, commands)
    if ref:
        run = _named_run(runs_dir, ref, suits, flag, task, say)
        named = f"--{flag} {ref}" if flag else f"run {ref}"
        has_role = role in (None, run.role) or (role == "teacher" and run.teacher_policy is not None)
        is_unfinished_collect = holds == "pairs" and run.command == "collect" and run.status != FINISHED
        if not is_unfinished_collect and (holds not in run.holds or not has_role):
            raise UserError(
                f"{named}: {run.name} is a {run.command} run, which does not hold {what}{_instead(run, holds)}"
            )
        if run.status != FINISHED:
            raise UserError(f"{named}: {run.name} is {run.status}, not finished: resume it first (--resume)")
        return run
    is_newest = holds == "policy" and role != "teacher"
    found = (
        followed_run(runs_dir, suits, flag, say, ends=suits) if is_newest else followed_run(runs_dir, suits, flag, say)
    )
    if found is None:
        with_flag = f" with --{flag}" if flag else ""
        maker = "tscli distill" if role == "student" else "tscli train-teacher cartpole"
        if holds == "pairs":
            maker = "tscli collect"
        raise UserError(f"no finished run in {runs_dir} holds {what}: run `{maker}` first, or name one{with_flag}")
    if say is not None and fits is None and not is_newest:
        newest = followed_run(runs_dir, lambda run: bool(run.offers), "")
        by_name = {run.name: run for run in list_runs(runs_dir)}
        if newest is not None and found.number < newest.number and found not in chain_of(newest, by_name):
            say(f"{newest.name} is newer than {found.name}, but neither it nor what it was made from holds {what}")
    return found


def _instead(run: Run, holds: str) -> str:
    """What to name where a run does not hold that."""
    if holds == "pairs":
        made = (
            f"`tscli collect --teacher {run.number}` makes some" if run.teacher_policy else "tscli collect makes some"
        )
        return f": {made}"
    return f": its teacher is {', '.join(run.teachers)}" if run.teachers else ""


def _suits(holds: str, role: str | None, fits: Fits | None = None, commands: tuple[str, ...] = ()) -> Fits:
    def suits(run: Run) -> bool:
        is_kind = holds in run.holds and role in (None, run.role) and (not commands or run.command in commands)
        return is_kind and (fits is None or fits(run))

    return suits


def _named_run(runs_dir: Path, ref: str, suits: Fits, flag: str, task: str, say: Say | None) -> Run:
    """What `ref` names; a run that is called so goes before a task, or the best.

    Raises:
        UserError: nothing does.
    """
    runs = [] if (Path(ref) / "manifest.json").exists() else list_runs(runs_dir)
    fitting = [run for run in runs if run.status == FINISHED and suits(run)]
    if ref != BEST:
        called = [run for run in runs if ref in (run.name, str(run.number))]
        of_task = [run for run in fitting if run.task_name == task_stem(ref)]
        return of_task[-1] if of_task and not called else find_run(runs_dir, ref)
    if not task:
        first = followed_run(runs_dir, suits, flag)
        task = first.task if first else ""
    rated = [run for run in fitting if run.task_name == task_stem(task) and _return_of(run) is not None]
    if not rated:
        raise UserError(f"{flag and '--'}{flag or 'run'} best: no run in {runs_dir} that fits has a return: name one")
    found = max(rated, key=lambda run: (_return_of(run), run.number))
    if say is not None:
        say(f"best of {len(rated)} in task {found.task_name}: {found.name}, return {_return_of(found):.5g}")
    return found


def _return_of(run: Run) -> float | None:
    found = run.metrics.get("eval/return")
    return found if isinstance(found, (int, float)) else None


def has_teachers(run: Run) -> bool:
    """Whether a student of its own chain would learn from it, or from those that its labels are of."""
    return run.teacher_policy is not None or bool(run.teachers)


def parent_task(runs_dir: Path, command: str, values: dict[str, Any], from_pairs: bool = False) -> str | None:
    """The task of the run that a stage without a task of its own would continue from; None when there is none.

    Args:
        runs_dir: where to look.
        command: of the stage.
        values: what the user has set so far, of which `teacher`, `pairs` and `run` name runs.
        from_pairs: it begins with pairs, whoever labelled them.
    """
    role = {"eval": None, "export": None, "finetune": "student"}.get(command, "teacher")
    for key in ("run", "pairs", "teacher"):
        if values.get(key):
            refs = run_refs(str(values[key])) if key == "teacher" else [str(values[key])]
            holds = "pairs" if key == "pairs" else "policy"
            whose = {"pairs": None, "run": role if role == "student" else None, "teacher": "teacher"}[key]
            suits = _suits(holds, whose)
            return _named_run(runs_dir, refs[0], suits, key, "", None).task
    if role == "teacher":

        def fits(run: Run) -> bool:
            return "pairs" in run.holds and run.command in MAKES_PAIRS if from_pairs else has_teachers(run)

        found = followed_run(runs_dir, fits, "teacher")
        return found.task if found else None
    with contextlib.suppress(UserError):
        return newest_run(runs_dir, "", "policy", "run", role).task
    return None

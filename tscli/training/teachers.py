"""One teacher or several: which runs they are, the pairs that they labelled, and their policies behind one face."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from tscli.config import UserError, parse_view
from tscli.envs import VecEnv
from tscli.envs.mixed import TASK
from tscli.envs.views import View, resolve_view
from tscli.networks import Actor, Teachers
from tscli.pairs import PairsSchema
from tscli.runs import Run, followed_run, newest_run, run_refs, task_stem, teacher_roles
from tscli.runs.chain import MAKES_PAIRS, has_teachers
from tscli.runs.session import Session
from tscli.training import setup


@dataclass(frozen=True)
class TeacherRuns:
    """The runs of a student's teachers.

    Attributes:
        runs: one, or as many as `by` tells apart.
        by: expression of what says which of several labels a row; without meaning where there is one.
        task: what the student learns.
    """

    runs: tuple[Run, ...]
    by: str
    task: str

    @property
    def name(self) -> str:
        """Their names in one line."""
        return ", ".join(run.name for run in self.runs)

    @property
    def parents(self) -> dict[str, Run]:
        """As parents of a run: "teacher", "teacher-2", ..."""
        return {f"teacher-{i}" if i > 1 else "teacher": run for i, run in enumerate(self.runs, 1)}

    @property
    def task_name(self) -> str:
        """The task's name; of a file that without folder and ending."""
        return task_stem(self.task)

    @property
    def details(self) -> dict[str, Any]:
        """What a manifest and the header of pairs say beside the parents."""
        return {"teacher_by": self.by} if len(self.runs) > 1 else {}

    def open(self, env: VecEnv, device: torch.device) -> Actor:
        """Their frozen policies, as one that acts and labels.

        Raises:
            UserError: one does not fit the env, or they do not fit each other or what tells them apart.
        """
        policies = [setup.open_teacher(run, env, device) for run in self.runs]
        if len(policies) == 1:
            return policies[0]
        try:
            by = resolve_view(self.by, parse_view(self.by), env.groups, env.action)
        except UserError as error:
            raise UserError(f"--teacher-by {self.by}: {error}") from None
        teachers = Teachers(policies, [run.name for run in self.runs], by)
        # A first look, so that a number which is no teacher's is noticed before a run begins.
        teachers.teacher_of(View(by, env.action, env, seed=0).observe()["vector"])
        return teachers

    def taught(self, run: Run) -> bool:
        """Whether a run's labels are of these very policies: runs of several folders may have one name."""
        theirs = [run.manifest["parents"][role] for role in teacher_roles(run.manifest["parents"])]
        return len(theirs) == len(self.runs) and all(
            entry["name"] == own.name
            and entry.get("sha256") in (None, own.manifest["artifacts"].get("policy.safetensors"))
            for entry, own in zip(theirs, self.runs, strict=True)
        )

    def labelled(self, run: Run) -> bool:
        """Whether a run's pairs carry the labels of these teachers, row by row."""
        return self.taught(run) and run.teacher_by == self.by

    def schema(self, env: VecEnv, groups: Iterable[str], teacher: Actor, seed: int) -> PairsSchema:
        """What the rows of a dataset of this env mean that `teacher`, which these runs hold, labels."""
        network = teacher.spec.network
        extra = {"squash": network.squash, "control_dt": env.control_dt, **self.details}
        if network.distribution == "beta":
            extra["distribution"] = "beta"
        return PairsSchema(
            {name: env.groups[name] for name in groups},
            env.action,
            task=self.task,
            teacher=self.name,
            seed=seed,
            has_success=env.has_success,
            extra=extra,
        )


def find_teachers(session: Session, refs: str, by: str, task: str, pairs_ref: str | None = None) -> TeacherRuns:
    """The teachers that a setting names; without one those of the named pairs, else of the chain that the user is on.

    Args:
        session: where to look.
        refs: a run, several separated by commas, or "".
        by: what says which of several labels a row; "" takes that of the pairs or the chain, or the group `task`.
        task: what the student learns; "" takes that of the pairs or the chain, or of the teachers.
        pairs_ref: pairs that are named, or "" or None.

    Raises:
        UserError: a run does not fit, or the teachers are of several tasks and none is named.
    """
    pairs_run = newest_run(session.runs_dir, pairs_ref, "pairs", "pairs", say=session.note) if pairs_ref else None
    followed = pairs_run
    if pairs_run is None and not refs:
        followed = followed_run(session.runs_dir, has_teachers, "teacher", session.note, lambda r: r.role == "teacher")
    if followed is not None and not refs:
        found = teachers_of(followed)
        several = len(found.runs) > 1
        return replace(found, by=(by or found.by) if several else "", task=task or found.task)
    runs = _teacher_runs(session, refs, task or (pairs_run.task if pairs_run else ""))
    tasks = list(dict.fromkeys(run.task for run in runs))
    if pairs_run is not None:
        by, tasks = by or pairs_run.teacher_by, [pairs_run.task]
    if len(tasks) > 1 and not task:
        raise UserError(f"--teacher {refs}: they are of {' and '.join(tasks)}: name the student's task with --task")
    return TeacherRuns(runs, (by or TASK) if len(runs) > 1 else "", task or tasks[0])


def _teacher_runs(session: Session, refs: str, task: str = "") -> tuple[Run, ...]:
    how: dict[str, Any] = {"role": "teacher", "task": task, "say": session.note}
    return tuple(newest_run(session.runs_dir, ref, "policy", "teacher", **how) for ref in run_refs(refs))


def teachers_of(run: Run) -> TeacherRuns:
    """The teachers that a student or pairs came from, unchanged since; of a run that trained both, itself.

    Raises:
        UserError: it has none, or one is gone or has changed.
    """
    if run.teacher_policy:
        return TeacherRuns((run,), "", run.task)
    roles = teacher_roles(run.manifest["parents"]) or ["teacher"]
    return TeacherRuns(tuple(run.parent(role) for role in roles), run.teacher_by, run.task)


def find_pairs(session: Session, ref: str | None, teachers: TeacherRuns) -> Run | None:
    """The collected pairs to begin with: the named run, or one of this task labelled by these teachers.

    Args:
        session: where to look.
        ref: a run, "" for that of the chain that the user is on, which may be missing, None for no pairs at all.
        teachers: whose labels they must carry.

    Raises:
        UserError: the named run does not fit.
    """
    if ref is None:
        return None
    if not ref:

        def fits(run: Run) -> bool:
            of_task = run.task_name == teachers.task_name
            return run.command in MAKES_PAIRS and "pairs" in run.holds and of_task and teachers.labelled(run)

        found = followed_run(session.runs_dir, fits, "pairs", session.note)
        if found is not None:
            teachers_of(found)  # refuses a teacher that has changed since
        return found
    run = newest_run(session.runs_dir, ref, "pairs", "pairs", say=session.note)
    if not teachers.taught(run):
        raise _other_teacher(ref, run, teachers.name)
    if run.teacher_by != teachers.by:
        raise UserError(
            f"--pairs {ref}: in {run.name} --teacher-by was {run.teacher_by or 'left out'}, not {teachers.by}"
        )
    if run.task_name != teachers.task_name:
        raise UserError(
            f"--pairs {ref}: {run.name} is of {run.task_name}, and the student learns {teachers.task_name}: "
            "collect there, or give --pairs none"
        )
    teachers_of(run)  # refuses a teacher that has changed since
    return run


def _other_teacher(ref: str, run: Run, names: str) -> UserError:
    return UserError(f"--pairs {ref}: {run.name} was labelled by another teacher than {names}: --teacher names it")


def find_pairs_and_teachers(session: Session, pairs_ref: str, refs: str) -> tuple[Run, TeacherRuns]:
    """The pairs to clone and the teachers that labelled them, unchanged since; with neither named, those of the chain.

    There are no teachers of pairs that came without one, as demonstrations do.

    Raises:
        UserError: no such runs, or they do not belong together.
    """
    teachers = TeacherRuns(_teacher_runs(session, refs), "", "") if refs else None
    pairs_run = newest_run(
        session.runs_dir,
        pairs_ref,
        "pairs",
        "pairs",
        fits=None if teachers is None else teachers.taught,
        commands=MAKES_PAIRS,
        say=session.note,
    )
    if teachers is not None and not teachers.taught(pairs_run):
        raise _other_teacher(pairs_ref, pairs_run, teachers.name)
    return pairs_run, teachers_of(pairs_run) if pairs_run.teachers else TeacherRuns((), "", pairs_run.task)

"""Run folders: what a stage leaves behind, how it is written and locked, and how the next stage finds it."""

from tscli.runs.chain import followed_run, newest_run, parent_task, run_refs
from tscli.runs.folder import (
    Run,
    check_target,
    find_run,
    find_unfinished,
    list_runs,
    read_run,
    task_stem,
    teacher_roles,
)
from tscli.runs.session import Session
from tscli.runs.writer import RunWriter, Stopped

__all__ = [
    "Run",
    "RunWriter",
    "Session",
    "Stopped",
    "check_target",
    "find_run",
    "find_unfinished",
    "followed_run",
    "list_runs",
    "newest_run",
    "parent_task",
    "read_run",
    "run_refs",
    "task_stem",
    "teacher_roles",
]

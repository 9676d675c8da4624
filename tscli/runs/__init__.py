"""Run folders: what a stage leaves behind, how it is written and locked, and how the next stage finds it."""

from tscli.runs.folder import (
    Run,
    find_run,
    find_unfinished,
    list_runs,
    newest_run,
    parent_task,
    read_run,
    run_refs,
    task_stem,
    teacher_roles,
)

__all__ = [
    "Run",
    "find_run",
    "find_unfinished",
    "list_runs",
    "newest_run",
    "parent_task",
    "read_run",
    "run_refs",
    "task_stem",
    "teacher_roles",
]

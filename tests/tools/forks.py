"""tscli commands in processes of their own, which may be killed at the n-th call of a function.

They are forks of a process that has imported what they need and done nothing since: to start Python and to import torch
takes several times as long as a tiny run.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

IMPORTED = ("pytest", "torch", "h5py", "matplotlib.pyplot", "tscli.cli.app", "tscli.diagnose.diagnosis")


def start(
    *command: str, kill_at: tuple[str, int] | None = None, env: dict[str, str] | None = None, err: str = os.devnull
) -> BaseProcess:
    """Start a command in the folder to stand in; its exit code is that of the process that this gives.

    Args:
        kill_at: ("tscli.learning.optim:FlatAdam.step", 14) kills it at the 14th call of that.
        env: variables beside those of this process.
        err: a file for what it says on stderr.
    """
    can_fork = "forkserver" in multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if can_fork else "spawn")
    context.set_forkserver_preload([*IMPORTED])
    process = context.Process(target=_run, args=(command, kill_at, os.environ | (env or {}), err))
    process.start()
    return process


def _run(command: tuple[str, ...], kill_at: tuple[str, int] | None, env: dict[str, str], err: str) -> None:
    from stage_tools import at_call, kill

    from tscli.cli.app import main

    os.environ.clear()
    os.environ.update(env)
    with Path(err).open("w") as file:
        os.dup2(file.fileno(), 2)
    if kill_at is not None:
        module, _, name = kill_at[0].partition(":")
        owner, attribute = name.split(".")
        target = getattr(importlib.import_module(module), owner)
        setattr(target, attribute, at_call(getattr(target, attribute), kill_at[1], kill))
    sys.exit(main([*command]))


def wait(*processes: BaseProcess) -> list[int | None]:
    """Their exit codes, once they have ended."""
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]

"""Watch a run as it goes: its curves in the terminal, or the cells of a comparison.

It reads the run's folder alone, so it may be started and stopped at will, also for a run of another terminal or of a
machine that shares the disk. It ends when the run ends, or on Ctrl-C; in a pipe it prints once. Without a run it takes
the one at work, and goes on with the next one, as the stages of a pipeline follow each other.
"""

from __future__ import annotations

import contextlib
import shutil
import time

from pydantic import Field

from tscli.config import Config as BaseConfig
from tscli.config import UserError, positional
from tscli.runs import Run, find_run, list_runs, read_run
from tscli.runs.folder import RUNNING
from tscli.runs.session import Session
from tscli.runs.watching import Watched

ORDER = 46


class Config(BaseConfig):
    """Which run, and how often to look."""

    run: str = positional("", description="Run: number, name or path; empty: the one at work, or the newest.")
    every: float = Field(1.0, ge=0.1, le=3600, description="Seconds between two looks.")


def main(config: Config, session: Session) -> None:
    """Draw, wait, draw again."""
    run = find_run(session.runs_dir, config.run) if config.run else newest(session)
    seen, out = Watched(run), session.console
    if out is None or not out.is_terminal or session.json or run.status != RUNNING:
        session.show(seen, seen.plain())
        return
    from rich.live import Live

    with contextlib.suppress(KeyboardInterrupt), Live(seen, console=out, auto_refresh=False, screen=True) as live:
        while run.status == RUNNING:
            time.sleep(config.every)
            run = read_run(run.path)
            if run.status != RUNNING and not config.run:
                time.sleep(config.every)  # the next stage of a pipeline begins
                following = newest(session)
                run, seen = (following, Watched(following)) if following.status == RUNNING else (run, seen)
            seen.refresh(run)
            out.width = shutil.get_terminal_size().columns  # it may have been resized
            live.update(seen, refresh=True)
    out.print(seen)  # what was seen last stays


def newest(session: Session) -> Run:
    """The newest run at work, or the newest of all."""
    runs = list_runs(session.runs_dir)
    if not runs:
        raise UserError(f"there are no runs in {session.runs_dir}: start with `tscli train-teacher cartpole`")
    return next((run for run in reversed(runs) if run.status == RUNNING), runs[-1])


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

"""How far a crew is: a small table that is redrawn on a terminal, a line now and then in a pipe."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from tscli.compare.crew import Crew, Worker
from tscli.terminal.progress import short_count, short_time

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.live import Live

QUIET = 30.0  # seconds between lines in a pipe, besides those of cells that end
STARTING = 2.0  # seconds that a process needs before its stage begins


class Board:
    """Draws a crew's state; use it as a context manager. It costs nothing between two drawings.

    Without a console it draws nothing; `jobs` is the number of processes at a time.
    """

    def __init__(self, console: Console | None, jobs: int):
        self._console, self._jobs = console, jobs
        self._live: Live | None = None
        self._next = time.monotonic() + (0.0 if console is not None and console.is_terminal else QUIET)

    def __enter__(self) -> Board:
        if self._console is not None and self._console.is_terminal:
            from rich.live import Live

            self._live = Live("", console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, crew: Crew) -> None:
        """Draw, if it is time."""
        now = time.monotonic()
        if self._console is None or now < self._next:
            return
        self._next = now + (0.3 if self._live is not None else QUIET)
        if self._live is not None:
            self._live.update(self._table(crew), refresh=True)
        elif crew.working:
            lines = [f"{escape(worker.cell.title)}: {_state(worker)}" for worker in crew.working.values()]
            self._console.print("; ".join([summary(crew, self._jobs), *lines]), highlight=False, soft_wrap=True)

    def _table(self, crew: Crew) -> Group:
        from rich.console import Group
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for worker in crew.working.values():
            table.add_row(f"  [cyan]{escape(worker.cell.title)}[/]", _state(worker))
        return Group(summary(crew, self._jobs), table)


def summary(crew: Crew, jobs: int) -> str:
    """`12 of 40 cells done, 2 running, 26 waiting, about 3m20s left`."""
    parts = [f"{len(crew.finished)} of {len(crew.cells)} cells done", f"{len(crew.working)} running"]
    waiting = len(crew.waiting) - len(crew.elsewhere)
    parts += [f"{waiting} waiting"] if waiting else []
    parts += [f"{len(crew.elsewhere)} in the hands of another process"] if crew.elsewhere else []
    parts += [f"[red]{len(crew.failed)} failed[/]"] if crew.failed else []
    left = time_left(crew, jobs)
    return ", ".join([*parts, *([f"about {short_time(left)} left"] if left is not None else [])])


def _state(worker: Worker) -> str:
    """`1.2M of 6M steps, return 3.4, 12s`, as far as it is known."""
    newest = newest_metrics(worker.cell.folder)
    parts = []
    if isinstance(newest.get("step"), int):
        allowed = f" of {short_count(worker.cell.allowed_steps)}" if worker.cell.allowed_steps else ""
        parts.append(f"{short_count(newest['step'])}{allowed} steps")
    figure = newest.get("rollout/return")
    parts += [f"return {figure:.4g}"] if isinstance(figure, (int, float)) else []
    return ", ".join([*parts, short_time(time.monotonic() - worker.started)])


def newest_metrics(folder: Path) -> Mapping[str, Any]:
    """The last whole line of the metrics of a cell's run; empty where there is none yet."""
    for path in folder.glob("*/metrics.jsonl"):
        with open(path, "rb") as file:
            file.seek(max(0, path.stat().st_size - 8192))
            tail = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
        try:
            return json.loads(tail)
        except ValueError:
            return {}
    return {}


def time_left(crew: Crew, jobs: int) -> float | None:
    """Seconds until all is done, from what finished cells of the same script took; None while one is not known."""
    took: dict[str, list[float]] = {}
    for cell in crew.cells:
        if cell.key in crew.finished:
            seconds = float(crew.finished[cell.key].manifest.get("seconds") or 0)
            took.setdefault(cell.script.name, []).append(seconds + STARTING)
    means = {name: sum(each) / len(each) for name, each in took.items()}
    now, total, longest = time.monotonic(), 0.0, 0.0
    for cell in [*crew.waiting, *(worker.cell for worker in crew.working.values())]:
        if cell.script.name not in means:
            return None
        done = now - crew.working[cell.key].started if cell.key in crew.working else 0.0
        rest = max(1.0, means[cell.script.name] - done)
        total, longest = total + rest, max(longest, rest)
    return max(total / jobs, longest)

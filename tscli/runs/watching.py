"""A run as it goes, drawn for a terminal from what its folder holds. Does not import torch."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tscli.config import UserError
from tscli.plain import read_json
from tscli.runs.folder import FINISHED, RUNNING, Run, list_runs
from tscli.runs.words import headline
from tscli.terminal.plots import draw, sparkline
from tscli.terminal.progress import short_count, short_time
from tscli.terminal.tables import FitTable

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

CELLS = "cells.json"  # of a comparison or a search, which are made of cells
_FIRST = ("eval/return", "rollout/return", "eval/success_rate", "eval_teacher/return", "loss/imitation")
_CLOCKS = ("step", "updates", "candidates")
_PANEL, _LABEL, _MOST_COLUMNS = 38, 9, 3  # characters of a plot with its numbers, and of these
_HEIGHTS = (4, 8)  # of a plot's lines


class Log:
    """A run's metrics.jsonl, of which each look reads what is new."""

    def __init__(self, folder: Path) -> None:
        self._path, self._read = folder / "metrics.jsonl", 0
        self.lines: list[dict[str, Any]] = []

    def refresh(self) -> list[dict[str, Any]]:
        """All lines that are whole by now."""
        try:
            with open(self._path, "rb") as file:
                if self._path.stat().st_size < self._read:  # cut back by a resume, which logs the rest again
                    self._read, self.lines = 0, []
                file.seek(self._read)
                whole, end, _ = file.read().rpartition(b"\n")
        except OSError:
            return self.lines
        self._read += len(whole) + len(end)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                found = json.loads(line)
                self.lines += [found] if isinstance(found, dict) else []
        return self.lines


def returns_of(lines: Sequence[Mapping[str, Any]]) -> list[float]:
    """Returns in the order in which they were logged: those while it trained, or greedy ones where there are more."""
    series = [
        [float(line[name]) for line in lines if isinstance(line.get(name), (int, float))]
        for name in ("rollout/return", "eval/return")
    ]
    return max(series, key=len)


def trend(run: Run, width: int = 8) -> str:
    """The return over a run as a line of blocks; "" where it logged none."""
    return sparkline(returns_of(Log(run.path).refresh()), width)


def cells_of(run: Run) -> list[tuple[str, Run | None]]:
    """The cells that a run is made of, each with its title and the run in it; none of any other run."""
    try:
        listed = read_json(run.path / CELLS)["cells"]
        named = [(str(cell["title"]), Path(str(cell["folder"])).name) for cell in listed]
    except (OSError, UserError, KeyError, TypeError):
        return []
    folders = [(title, list_runs(run.path.parent / "cells" / name)) for title, name in named]
    return [(title, found[-1] if found else None) for title, found in folders]


class Watched:
    """What there is to see of a run; rich prints it as wide and as high as the terminal is."""

    def __init__(self, run: Run) -> None:
        self.run, self.cells = run, cells_of(run)
        self._logs: dict[Path, Log] = {}

    def refresh(self, run: Run) -> None:
        """Look again; `run` is the same one, read anew."""
        self.run, self.cells = run, cells_of(run)

    def _lines(self, run: Run) -> list[dict[str, Any]]:
        return self._logs.setdefault(run.path, Log(run.path)).refresh()

    def plain(self) -> dict[str, Any]:
        """The same as plain data."""
        newest = self._lines(self.run)[-1:]
        cells = [{"title": title, "status": run.status if run else "waiting"} for title, run in self.cells]
        return {"run": self.run.name, "status": self.run.status, "newest": newest[0] if newest else {}, "cells": cells}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """A line on how far it is, then curves, or the cells with the curves of those at work."""
        from rich.text import Text

        width, height = options.max_width, console.size.height if console.is_terminal else 40
        yield Text.from_markup(self._head(self.run))
        left = height - 4
        if self.cells:
            table = self._cell_table(max(3, left // 2))
            yield table
            left -= min(len(self.cells), max(3, left // 2)) + 3
        curves = self._curves()
        if curves and left >= _HEIGHTS[0] + 2:
            yield from _grid(curves, width, left)

    def _head(self, run: Run) -> str:
        """`0003-distill-dagger-cartpole-seed1  running  12k of 60k steps, 3.4k/s, 12s`."""
        lines = self._lines(run)
        newest = lines[-1] if lines else {}
        parts = []
        step = newest.get("step")
        total = run.config.get("total_steps") if isinstance(step, int) else None
        if isinstance(step, int):
            parts.append(f"{short_count(step)}{f' of {short_count(total)}' if isinstance(total, int) else ''} steps")
        if isinstance(speed := newest.get("steps_per_second"), (int, float)):
            parts.append(f"{short_count(speed)}/s")
        if isinstance(spent := newest.get("loop_seconds"), (int, float)):
            parts.append(short_time(spent))
            if isinstance(step, int) and isinstance(total, int) and 0 < step < total and run.status == RUNNING:
                parts.append(f"at most {short_time(spent * (total - step) / step)} left")
        if run.status == FINISHED and headline(run):
            parts.append(headline(run))
        if self.cells:
            done = sum(one is not None and one.status == FINISHED for _, one in self.cells)
            parts.append(f"{done} of {len(self.cells)} cells")
        return f"[bold]{run.name}[/]  [cyan]{run.status}[/]  {', '.join(parts)}"

    def _cell_table(self, most: int) -> FitTable:
        """The cells at work first, then the newest finished ones."""
        from rich.markup import escape

        table = FitTable(
            ("cell", "is", "return", "", "took"), right=("return", "took"), give_way={"took": 0, "cell": 12}
        )
        order = {RUNNING: 0, FINISHED: 1}
        there = [(title, run) for title, run in self.cells if run is not None]
        there.sort(key=lambda pair: (order.get(pair[1].status, 2), -pair[1].path.stat().st_mtime))
        for title, run in there[:most]:
            values = returns_of(self._lines(run))
            final = run.metrics.get("eval/return", values[-1] if values else None)
            text = f"{final:.4g}" if isinstance(final, (int, float)) else ""
            took = short_time(float(run.manifest.get("seconds") or 0)) if run.status != RUNNING else ""
            table.add(escape(title), run.status, text, sparkline(values), took)
        if len(there) < len(self.cells):
            table.add(f"[dim]{len(self.cells) - len(there)} more[/]", "waiting", "", "", "")
        return table

    def _curves(self) -> list[tuple[str, list[tuple[float, float]]]]:
        """Titles and points: of a run's own metrics, or of the returns of the cells at work."""
        if self.cells:
            working = [(title, run) for title, run in self.cells if run is not None and run.status == RUNNING]
            found = [(title, self._points(run, "rollout/return")) for title, run in working]
            return [(title, points) for title, points in found if len(points) > 1]
        names = {name for line in self._lines(self.run) for name in line if "/" in name}
        losses = sorted(name for name in names if name.startswith("loss/") and name not in _FIRST)
        wanted = [*(name for name in _FIRST if name in names), *losses]
        found = [(name, self._points(self.run, name)) for name in wanted]
        return [(name, points) for name, points in found if points]

    def _points(self, run: Run, name: str) -> list[tuple[float, float]]:
        lines = self._lines(run)
        clock = next((clock for clock in _CLOCKS if lines and clock in lines[-1]), None)
        pairs = [(line.get(clock) if clock else i, line.get(name)) for i, line in enumerate(lines)]
        return [(float(x), float(y)) for x, y in pairs if isinstance(x, (int, float)) and isinstance(y, (int, float))]


def _grid(curves: list[tuple[str, list[tuple[float, float]]]], width: int, height: int) -> Iterable[Text]:
    """Plots side by side and under each other, as many as there is room for."""
    from rich.text import Text

    columns = max(1, min(_MOST_COLUMNS, len(curves), width // _PANEL))
    rows = -(-len(curves) // columns)
    rows = max(1, min(rows, height // (_HEIGHTS[0] + 3)))
    tall = max(_HEIGHTS[0], min(_HEIGHTS[1], height // rows - 3))
    wide = width // columns - _LABEL - 2
    for row in range(rows):
        panels = [_panel(title, points, wide, tall) for title, points in curves[row * columns : (row + 1) * columns]]
        yield Text()
        for parts in zip(*panels, strict=True):
            line = Text(no_wrap=True, overflow="crop")
            for part in parts:
                line.append_text(part)
            line.rstrip()
            yield line


def _panel(title: str, points: list[tuple[float, float]], wide: int, tall: int) -> list[Text]:
    """A plot with its title, its newest value and the ends of its axes, [tall + 2] lines of one width."""
    from rich.text import Text

    plot, whole = draw(points, wide, tall), _LABEL + wide + 2
    head = Text(f"{'':{_LABEL}}{title} ", style="bold")
    head.truncate(whole - 10, overflow="ellipsis")
    head.append(f"{points[-1][1]:.4g}", style="cyan")
    lines = [head]
    for i, drawn in enumerate(plot.lines):
        label = plot.high if i == 0 else plot.low if i == tall - 1 else None
        text = "" if label is None else f"{label:.4g}"
        lines.append(Text.assemble((f"{text:>{_LABEL - 1}} ", "dim"), (drawn, "cyan")))
    ends = short_count(plot.left), short_count(plot.right)
    lines.append(Text(f"{'':{_LABEL}}{ends[0]}{ends[1]:>{max(1, wide - len(ends[0]))}}", style="dim"))
    for line in lines:
        line.truncate(whole)
        line.pad_right(whole - line.cell_len)
    return lines

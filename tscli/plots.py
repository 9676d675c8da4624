"""Pictures of a run's metrics. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tscli.files import atomic_write

__all__ = ["Panel", "draw_curves"]

_AXES = {"step": "env steps", "updates": "gradient steps"}
_LINE, _FAINT, _INK = "#2563eb", "#e5e7eb", "#374151"


class Panel(NamedTuple):
    """One small plot: a metric, its heading, and the metric on the horizontal axis."""

    metric: str
    heading: str
    x: str = "step"


def draw_curves(
    path: Path, lines: Sequence[Mapping[str, Any]], panels: Sequence[Panel], title: str, columns: int = 3
) -> Path:
    """A grid of small plots.

    Args:
        path: PNG file to write.
        lines: logged points, as in metrics.jsonl; a metric may be missing or None in some.
        panels: what to draw; metrics that were never logged are left out.
        title: above them all.
        columns: of the grid.

    Raises:
        UserError: the disk is full.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = []
    for panel in panels:
        points = [(line[panel.x], line[panel.metric]) for line in lines if line.get(panel.metric) is not None]
        if points:
            series.append((panel, points))
    rows = max(1, -(-len(series) // columns))
    # Figure without pyplot: no global state, no display, and half the import time.
    figure = Figure(figsize=(3.6 * columns, 0.5 + 2.3 * rows), dpi=110)
    FigureCanvasAgg(figure)
    # Fixed margins: a layout engine draws everything twice to find them.
    top = 1 - 0.45 / figure.get_figheight()
    figure.subplots_adjust(
        left=0.055, right=0.985, top=top - 0.06, bottom=0.5 / figure.get_figheight(), hspace=0.45, wspace=0.22
    )
    figure.suptitle(title, fontsize=11, color=_INK, y=1 - 0.12 / figure.get_figheight())
    for i, (panel, points) in enumerate(series):
        axis = figure.add_subplot(rows, columns, i + 1)
        axis.plot(
            *zip(*points, strict=True), color=_LINE, linewidth=1.2, marker="o" if len(points) < 12 else "", ms=2.5
        )
        axis.set_title(panel.heading, fontsize=9, color=_INK, loc="left")
        axis.grid(color=_FAINT, linewidth=0.6)
        axis.tick_params(labelsize=7, colors=_INK, length=2)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color("#9ca3af")
        axis.xaxis.set_major_formatter(_count_formatter())
        below = series[i + columns][0].x if i + columns < len(series) else None
        if below != panel.x:  # said once per column, where the axis below is not the same
            axis.set_xlabel(_AXES.get(panel.x) or panel.x, fontsize=8, color=_INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic_write(path, buffer.getvalue())
    return path


def _count_formatter() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")

"""Pictures of a run's metrics. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tscli.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXES = {"step": "env steps", "updates": "gradient steps"}
_LINE, FAINT, INK = "#2563eb", "#e5e7eb", "#374151"


class Panel(NamedTuple):
    """One small plot: a metric, its heading, and the metric on the horizontal axis."""

    metric: str
    heading: str
    x: str = "step"


def draw_curves(
    path: Path,
    lines: Sequence[Mapping[str, Any]],
    panels: Sequence[Panel],
    title: str,
    columns: int | None = None,
    marks: Mapping[str, tuple[str, float]] | None = None,
) -> Path:
    """A grid of small plots.

    Args:
        path: PNG file to write.
        lines: logged points, as in metrics.jsonl; a metric may be missing or None in some.
        panels, title: what to draw; metrics that were never logged are left out.
        columns: of the grid; None takes what suits their number.
        marks: name and height of a dashed line beside a metric, such as the teacher's return.
    """
    series = []
    for panel in panels:
        points = [(line[panel.x], line[panel.metric]) for line in lines if line.get(panel.metric) is not None]
        if points:
            series.append((panel, points))
    columns = columns or (3 if len(panels) <= 6 or len(panels) == 9 else 4)
    rows = max(1, -(-len(series) // columns))
    figure = new_figure(3.6 * columns, 0.5 + 2.3 * rows)
    # Fixed margins: a layout engine draws everything twice to find them.
    top = 1 - 0.45 / figure.get_figheight()
    figure.subplots_adjust(
        left=0.055, right=0.985, top=top - 0.06, bottom=0.5 / figure.get_figheight(), hspace=0.45, wspace=0.22
    )
    figure.suptitle(title, fontsize=11, color=INK, y=1 - 0.12 / figure.get_figheight())
    for i, (panel, points) in enumerate(series):
        axis = figure.add_subplot(rows, columns, i + 1)
        axis.plot(
            *zip(*points, strict=True), color=_LINE, linewidth=1.2, marker="o" if len(points) < 12 else "", ms=2.5
        )
        name, height = (marks or {}).get(panel.metric, ("", None))
        if height is not None:
            axis.axhline(height, color=INK, linewidth=0.8, linestyle="--", label=name)
            axis.legend(fontsize=7, frameon=False, loc="lower right")
        axis.set_title(panel.heading, fontsize=9, color=INK, loc="left")
        style_axis(axis, 7)
        axis.xaxis.set_major_formatter(count_formatter())
        below = series[i + columns][0].x if i + columns < len(series) else None
        if below != panel.x:  # said once per column, where the axis below is not the same
            axis.set_xlabel(_AXES.get(panel.x) or panel.x, fontsize=8, color=INK)
    return save_png(path, figure)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that many inches. Without pyplot: no global state, no display, and half the import time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)
    return figure


def style_axis(axis: Axes, size: float) -> None:
    """A grid and thin lines that stay behind the data; `size` is that of the numbers."""
    axis.grid(color=FAINT, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=size, colors=INK, length=2)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#9ca3af")


def count_formatter() -> Any:
    """1500000 -> "1.5M"."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")


def save_png(path: Path, figure: Figure) -> Path:
    """Write a figure.

    Raises:
        UserError: the disk is full.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    atomic_write(path, buffer.getvalue())
    return path

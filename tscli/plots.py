"""Pictures of a run's metrics. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw_curves"]

_LINE, _FAINT, _INK = "#2563eb", "#e5e7eb", "#374151"


def draw_curves(
    path: Path, lines: Sequence[Mapping[str, Any]], panels: Mapping[str, str], x: str, title: str, columns: int = 3
) -> Path:
    """A grid of small plots, one per metric.

    Args:
        path: PNG file to write.
        lines: logged points, as in metrics.jsonl; a metric may be missing or None in some.
        panels: metric -> heading; metrics that were never logged are left out.
        x: metric on the horizontal axis.
        title: above them all.
        columns: of the grid.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = {}
    for metric in panels:
        points = [(line[x], line[metric]) for line in lines if line.get(metric) is not None and x in line]
        if points:
            series[metric] = points
    rows = max(1, -(-len(series) // columns))
    # Figure without pyplot: no global state, no display, and half the import time.
    figure = Figure(figsize=(3.6 * columns, 0.5 + 2.3 * rows), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11, color=_INK)
    for i, (metric, points) in enumerate(series.items()):
        axis = figure.add_subplot(rows, columns, i + 1)
        axis.plot(*zip(*points, strict=True), color=_LINE, linewidth=1.2, marker="o" if len(points) < 12 else "", ms=2.5)
        axis.set_title(panels[metric], fontsize=9, color=_INK, loc="left")
        axis.grid(color=_FAINT, linewidth=0.6)
        axis.tick_params(labelsize=7, colors=_INK, length=2)
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color("#9ca3af")
        axis.xaxis.set_major_formatter(_count_formatter())
        if i >= len(series) - columns:
            axis.set_xlabel(x.replace("_", " "), fontsize=8, color=_INK)
    figure.savefig(path)
    return path


def _count_formatter() -> Any:
    from matplotlib.ticker import EngFormatter

    return EngFormatter(sep="")

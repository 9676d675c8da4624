"""The picture of a search: return against the number of sensors, or what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tscli.compare.plots import GREY, colour
from tscli.pictures.curves import INK, new_figure, save_png, style_axis
from tscli.sensors.results import Results
from tscli.sensors.sets import Candidate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "sensors.png"


def draw(results: Results, folder: Path) -> Path:
    """Every student as a dot with its interval, the best of each cost joined; named is what is kept, and what lost.

    Raises:
        UserError: the disk is full.
    """
    figure = new_figure(3.9 * len(results.full) + 0.9, 4.0)
    figure.suptitle(f"{results.task}: what has to be sensed", fontsize=11, color=INK, x=0.02, ha="left")
    first: Axes | None = None
    for number, full in enumerate(results.full):
        axis = figure.add_subplot(1, len(results.full), number + 1, sharex=first, sharey=first)
        first = first or axis
        style_axis(axis, 8)
        axis.set_title(results.mode(full), fontsize=9, color=INK, loc="left")
        axis.set_xlabel("cost of the sensors" if results.has_costs else "number of sensors", fontsize=8, color=INK)
        _draw_mode(axis, results, [one for one in results.found if one.memory == full.memory], colour(number))
        for name, value in (("teacher", results.scale.teacher), ("random", results.scale.chance)):
            axis.axhline(value, color=GREY, linewidth=0.9, linestyle="--" if name == "teacher" else ":")
            place = {"xycoords": ("axes fraction", "data"), "xytext": (0, 4), "textcoords": "offset points"}
            axis.annotate(name, (0.995, value), fontsize=7, color=GREY, ha="right", **place)
        if number == 0:
            axis.set_ylabel(f"return over {results.episodes} episodes", fontsize=8, color=INK)
    assert first is not None
    costs = [one.cost for one in results.found]
    first.set_xlim(min(costs) - 0.35 * max(1.0, max(costs) / 8), max(costs) + 0.35 * max(1.0, max(costs) / 8))
    first.margins(y=0.14)
    if not results.has_costs:
        first.set_xticks(sorted({len(one.sensors) for one in results.found}))
    figure.subplots_adjust(0.6 / figure.get_figwidth() + 0.02, 0.13, 0.985, 0.85, wspace=0.14)
    return save_png(folder / NAME, figure)


def _draw_mode(axis: Axes, results: Results, candidates: Sequence[Candidate], hue: str) -> None:
    best: dict[float, Candidate] = {}
    for one in candidates:
        estimate = results.found[one].estimate
        is_kept = one in results.kept
        errors = [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
        shape = {"marker": "D" if is_kept else "o", "ms": 7 if is_kept else 4.5, "mfc": hue if is_kept else "white"}
        axis.errorbar(one.cost, estimate.mean, errors, color=hue, linewidth=1.3, zorder=4, **shape)
        if one.cost not in best or estimate.mean > results.found[best[one.cost]].mean:
            best[one.cost] = one
        if is_kept:
            _name(axis, f"{one.names}", one.cost, estimate.mean, hue, "bold")
        elif results.left(one) < 1 - results.scale.loss:
            _name(axis, one.names, one.cost, estimate.mean, GREY, "normal")
    front = sorted(best)
    axis.plot(front, [results.found[best[cost]].mean for cost in front], color=hue, linewidth=1.4, alpha=0.7)


def _name(axis: Axes, text: str, x: float, y: float, hue: str, weight: str) -> None:
    """Write a set's name below its dot, line by line where it is long."""
    text = text if len(text) <= 20 else text.replace(", ", ",\n")
    axis.annotate(
        text, (x, y), xytext=(0, -8), textcoords="offset points", fontsize=6.5, color=hue, weight=weight, ha="center",
        va="top", zorder=5,
    )  # fmt: skip

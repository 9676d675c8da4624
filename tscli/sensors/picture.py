"""The picture of a search: return against the number of sensors, or what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tscli.compare.plots import GREY, colour
from tscli.pictures.curves import INK, new_figure, save_png, style_axis
from tscli.sensors.results import Results
from tscli.sensors.sets import Candidate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import BboxBase

NAME = "sensors.png"
# Where a name may stand beside its dot: points to the right and up, and which side of it is there.
_PLACES = ((0, -8, "center", "top"), (0, 8, "center", "bottom"), (8, 0, "left", "center"), (-8, 0, "right", "center"),
           (0, 30, "center", "bottom"), (0, -30, "center", "top"), (0, 52, "center", "bottom"))  # fmt: skip


def draw(results: Results, folder: Path) -> Path:
    """Every student as a dot with its interval, the best of each cost joined; named is what is kept, and what lost.

    Raises:
        UserError: the disk is full.
    """
    figure = new_figure(3.9 * len(results.full) + 0.9, 4.0)
    figure.suptitle(f"{results.task}: what has to be sensed", fontsize=11, color=INK, x=0.02, ha="left")
    first: Axes | None = None
    axes: list[tuple[Axes, list[Candidate], str]] = []
    for number, full in enumerate(results.full):
        axis = figure.add_subplot(1, len(results.full), number + 1, sharex=first, sharey=first)
        first = first or axis
        style_axis(axis, 8)
        axis.set_title(results.mode(full), fontsize=9, color=INK, loc="left")
        axis.set_xlabel("cost of the sensors" if results.has_costs else "number of sensors", fontsize=8, color=INK)
        chosen = [one for one in results.found if one.memory == full.memory]
        _draw_mode(axis, results, chosen, colour(number))
        axes.append((axis, chosen, colour(number)))
        for name, value in (("teacher", results.scale.teacher), ("random", results.scale.chance)):
            axis.axhline(value, color=GREY, linewidth=0.9, linestyle="--" if name == "teacher" else ":")
            place = {"xycoords": ("axes fraction", "data"), "xytext": (0, 4), "textcoords": "offset points"}
            axis.annotate(name, (0.995, value), fontsize=7, color=GREY, ha="right", **place)
        if number == 0:
            axis.set_ylabel(f"return over {results.episodes} episodes", fontsize=8, color=INK)
    assert first is not None
    costs = [one.cost for one in results.found]
    first.set_xlim(min(costs) - 0.35 * max(1.0, max(costs) / 8), max(costs) + 0.35 * max(1.0, max(costs) / 8))
    first.margins(y=0.2)
    if not results.has_costs:
        first.set_xticks(sorted({len(one.sensors) for one in results.found}))
    figure.subplots_adjust(0.6 / figure.get_figwidth() + 0.02, 0.13, 0.985, 0.85, wspace=0.14)
    for axis, chosen, hue in axes:  # now that it is known where everything lies
        _name(axis, results, chosen, hue)
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
    front = sorted(best)
    axis.plot(front, [results.found[best[cost]].mean for cost in front], color=hue, linewidth=1.4, alpha=0.7)


def _name(axis: Axes, results: Results, candidates: Sequence[Candidate], hue: str) -> None:
    """Write the names of what is kept and of what lost beside their dots, line by line where they are long.

    Each stands at the first place where it covers neither another one nor a dot, and does not leave the axes.
    """
    from matplotlib.transforms import Bbox

    dots = axis.transData.transform([(one.cost, results.found[one].mean) for one in candidates])
    taken: list[BboxBase] = [Bbox([dot - 5, dot + 5]) for dot in dots]
    for one in sorted(candidates, key=lambda one: (one not in results.kept, one.cost)):
        if one not in results.kept and results.holds(one):
            continue
        where = (one.cost, results.found[one].mean)
        text = one.names if len(one.names) <= 20 else one.names.replace(", ", ",\n")
        how: dict[str, Any] = {"color": hue, "weight": "bold"} if one in results.kept else {"color": GREY}
        for right, up, ha, va in _PLACES:
            note = axis.annotate(
                text, where, (right, up), textcoords="offset points", fontsize=6.5, ha=ha, va=va, zorder=5, **how
            )
            box = note.get_window_extent()
            inside = axis.bbox.y0 <= box.y0 and box.y1 <= axis.bbox.y1
            if (inside and not any(map(box.overlaps, taken))) or (right, up, ha, va) == _PLACES[-1]:
                break
            note.remove()
        taken.append(box)

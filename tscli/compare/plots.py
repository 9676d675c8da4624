"""Pictures that put methods side by side: curves with bands, and final figures with the single seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tscli.learning.statistics import Band
from tscli.pictures.curves import INK, count_formatter, new_figure, save_png, style_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Told apart also by those who see red and green alike (Okabe and Ito 2008, darkened to be read on white).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b5589a", "#a97c00", "#3a3a3a", "#56b4e9", "#8c564b")
GREY = "#6b7280"


def colour(number: int) -> str:
    """The colour of the number-th method."""
    return _COLOURS[number % len(_COLOURS)]


class Line(NamedTuple):
    """A curve [X] with its band, or a single point; named where it ends."""

    label: str
    colour: str
    x: np.ndarray
    band: Band
    style: str = "-"  # "--" for a teacher, ":" for what stays the same along the axis
    marked: bool = False  # every point gets a mark


class Final(NamedTuple):
    """A method's final figure: its mean, the interval, one value per seed, and its teacher's mean where it has one."""

    label: str
    colour: str
    value: float
    low: float
    high: float
    seeds: Sequence[float]
    teacher: float | None


def draw_lines(
    path: Path,
    panels: Sequence[tuple[str, Sequence[Line]]],
    title: str,
    x_label: str,
    y_label: str,
    percent: bool = False,
    log_x: bool = False,
    x_names: Sequence[str] = (),
) -> Path:
    """Panels side by side, each with a heading and its lines, on a common vertical axis.

    Args:
        path: PNG file to write.
        panels, title, x_label, y_label: what stands there.
        percent: the values are shares.
        log_x: the horizontal axis is logarithmic.
        x_names: of 0, 1, 2, ..., where the horizontal axis has words instead of numbers.
    """
    longest = max((len(line.label) for _, lines in panels for line in lines), default=0)
    panel, names = 3.6, 0.35 + 0.075 * longest  # inches
    width = 0.75 + len(panels) * (panel + names) + (len(panels) - 1) * 0.45
    figure = new_figure(width, 3.9)
    figure.suptitle(title, fontsize=11, color=INK, x=0.02, ha="left")
    first: Axes | None = None
    for number, (heading, lines) in enumerate(panels):
        axis = figure.add_subplot(1, len(panels), number + 1, sharex=first, sharey=first)
        first = first or axis
        for line in lines:
            _draw_line(axis, line)
        style_axis(axis, 8)
        axis.set_title(heading, fontsize=9, color=INK, loc="left")
        axis.set_xlabel(x_label, fontsize=8, color=INK)
        if number == 0:
            axis.set_ylabel(y_label, fontsize=8, color=INK)
        if log_x:
            axis.set_xscale("log")
        elif x_names:
            axis.set_xticks(range(len(x_names)), x_names)
        elif max((float(line.x[-1]) for line in lines), default=0) >= 1000:
            axis.xaxis.set_major_formatter(count_formatter())
    assert first is not None
    _finish_y(first, percent)
    figure.subplots_adjust(0.75 / width, 0.13, 1 - names / width, 0.83, wspace=(names + 0.45) / panel)
    for axis, (_, lines) in zip(figure.axes, panels, strict=True):
        _name_lines(axis, lines)
    return save_png(path, figure)


def _draw_line(axis: Axes, line: Line) -> None:
    value, low, high = (np.asarray(part, dtype=np.float64) for part in line.band)
    if len(line.x) == 1:
        errors = np.stack([value - low, high - value]).clip(0)
        axis.errorbar(line.x, value, errors, color=line.colour, marker="o", ms=5, linewidth=1.6)
        return
    mark = {"marker": "o", "ms": 4} if line.marked else {}
    axis.plot(line.x, value, color=line.colour, linewidth=1.6, linestyle=line.style, **mark)
    axis.fill_between(line.x, low, high, color=line.colour, alpha=0.16 if line.style == "-" else 0.06, linewidth=0)


def _finish_y(axis: Axes, percent: bool) -> None:
    """Shares run from 0 to 1, whatever was reached."""
    if percent:
        from matplotlib.ticker import PercentFormatter

        axis.set_ylim(-0.03, 1.03)
        axis.yaxis.set_major_formatter(PercentFormatter(1))
    else:
        axis.margins(y=0.08)


def _name_lines(axis: Axes, lines: Sequence[Line]) -> None:
    """Write each line's name beside its end, names that would lie on each other moved apart."""
    if not lines:
        return
    axis.autoscale_view()
    ends = [(float(line.x[-1]), float(np.asarray(line.band.value)[-1])) for line in lines]
    to_axes = axis.transData + axis.transAxes.inverted()
    heights = [float(to_axes.transform(end)[1]) for end in ends]
    for line, end, height in zip(lines, ends, _spread(heights, 0.062), strict=True):
        axis.annotate(
            line.label,
            xy=end,
            xytext=(1.03, height),
            textcoords="axes fraction",
            fontsize=8,
            color=line.colour,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": line.colour, "linewidth": 0.6, "alpha": 0.45, "shrinkA": 1},
        )


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved as little as keeps them `gap` apart, in the same order."""
    order = np.argsort(heights, kind="stable")
    placed = np.asarray(heights, dtype=np.float64)[order]
    for _ in range(200):
        distance = np.diff(placed)
        close = np.flatnonzero(distance < gap - 1e-9)
        if len(close) == 0:
            break
        for i in close:
            push = max(0.0, gap - (placed[i + 1] - placed[i])) / 2
            placed[i] -= push
            placed[i + 1] += push
    result = np.empty_like(placed)
    result[order] = placed
    return result.tolist()


def draw_finals(path: Path, finals: Sequence[Final], title: str, x_label: str, percent: bool = False) -> Path:
    """One row per method, from the top down: its bar with the interval, its seeds as dots, its teacher as a diamond."""
    figure = new_figure(7.2, 1.5 + 0.5 * len(finals))
    axis = figure.add_subplot()
    style_axis(axis, 8)
    every = [value for final in finals for value in (*final.seeds, final.low, final.high, final.teacher or final.value)]
    base = 0.0 if percent or min(every) >= 0 else None  # returns below 0 have no natural foot for a bar
    for row, final in enumerate(finals):
        if base is not None:
            axis.barh(row, final.value - base, 0.56, left=base, color=final.colour, alpha=0.22, linewidth=0)
        spread = np.linspace(-0.16, 0.16, len(final.seeds)) if len(final.seeds) > 1 else np.zeros(len(final.seeds))
        axis.scatter(final.seeds, row + spread, s=13, color=final.colour, alpha=0.55, linewidths=0, zorder=3)
        axis.plot([final.low, final.high], [row, row], color=final.colour, linewidth=2.2, zorder=4)
        axis.plot([final.value], [row], marker="|", ms=15, mew=2.4, color=final.colour, zorder=5)
        if final.teacher is not None:
            axis.plot([final.teacher], [row], marker="D", ms=5.5, mfc="white", mec=GREY, mew=1.3, zorder=6)
    axis.set_yticks(range(len(finals)), [final.label for final in finals])
    axis.set_ylim(len(finals) - 0.45, -0.55)
    axis.grid(visible=False, axis="y")
    axis.tick_params(axis="y", length=0, labelsize=9)
    axis.set_xlabel(x_label, fontsize=8, color=INK)
    if percent:
        from matplotlib.ticker import PercentFormatter

        axis.set_xlim(-0.02, 1.02)
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    _explain_marks(axis, any(final.teacher is not None for final in finals))
    longest = max(len(final.label) for final in finals)
    height = figure.get_figheight()
    left = min(0.45, (0.3 + 0.075 * longest) / 7.2)
    figure.suptitle(title, fontsize=11, color=INK, x=0.02, ha="left", y=1 - 0.12 / height)
    figure.subplots_adjust(left=left, right=0.97, top=1 - 0.72 / height, bottom=0.5 / height)
    return save_png(path, figure)


def _explain_marks(axis: Axes, has_teacher: bool) -> None:
    """What the marks mean, above the rows."""
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color=GREY, marker="|", ms=9, mew=2, linewidth=2, label="mean and 95 % interval"),
        Line2D([], [], color=GREY, marker="o", ms=4, alpha=0.6, linewidth=0, label="one seed"),
    ]
    if has_teacher:
        marks.append(Line2D([], [], marker="D", ms=5, mfc="white", mec=GREY, linewidth=0, label="its teacher, mean"))
    axis.legend(
        handles=marks,
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=3,
        fontsize=8,
        frameon=False,
        borderaxespad=0.2,
        labelcolor=INK,
        handletextpad=0.5,
        columnspacing=1.6,
    )

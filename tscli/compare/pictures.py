"""The pictures of a comparison: final figures, curves of training, and the sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tscli.compare import plots
from tscli.compare.plan import Variant
from tscli.compare.plots import Final, Line, colour
from tscli.compare.results import Results, Summary, mean_curve, training_curves
from tscli.learning.statistics import Band


def draw(results: Results, folder: Path) -> Iterator[Path]:
    """Draw final figures, curves, and the sweep if there is one."""
    rows = [row for row in results.rows if row.finished]
    if not rows:
        return
    metric = results.metric
    finals = []
    for i, row in enumerate(rows):
        seeds, estimate = [outcome.student[metric.name] for outcome in row.finished], row.estimate
        finals.append(
            Final(row.variant.label, colour(i), estimate.mean, estimate.low, estimate.high, seeds, row.teacher)
        )
    label = f"{metric.heading} over {results.comparison.episodes} episodes"
    yield plots.draw_finals(folder / "bars.png", finals, results.title, label, metric.percent)
    students, teachers = [], []
    for i, row in enumerate(rows):
        curves = [training_curves(outcome, metric) for outcome in row.finished]
        for lines, part in ((students, [c[0] for c in curves]), (teachers, [c[1] for c in curves])):
            whole = [curve for curve in part if curve is not None]
            if whole:
                lines.append(Line(row.variant.label, colour(i), *mean_curve(whole, metric)))
    panels = [("student", students), ("its teacher", _joined(teachers))]
    title = f"{results.layout.task.name}: greedy evaluations during training, mean and 95 % interval"
    shown, x_label = [panel for panel in panels if panel[1]], "env steps, the teacher's included"
    yield plots.draw_lines(folder / "curves.png", shown, title, x_label, metric.heading, metric.percent)
    if any(row.variant.swept for row in rows):
        yield _draw_sweep(results, rows, folder)


def _draw_sweep(results: Results, rows: Sequence[Summary], folder: Path) -> Path:
    """The figure against the first swept setting, a line for each combination of the others."""
    key = next(key for key in results.comparison.sweeps if any(key in row.variant.swept for row in rows))
    values = results.comparison.sweeps[key]
    numbers = _numbers(values)
    x = dict(zip(values, range(len(values)) if numbers is None else numbers, strict=True))
    groups: dict[str, list[Summary]] = {}
    for row in rows:
        others = {name: value for name, value in row.variant.swept.items() if name != key}
        groups.setdefault(Variant(row.variant.method, others).label, []).append(row)
    lines = []
    for i, (label, group) in enumerate(groups.items()):
        swept = [row for row in group if key in row.variant.swept]
        swept.sort(key=lambda row: x[row.variant.swept[key]])
        fixed = not swept  # a method without the setting is the same all along
        places = [min(x.values()), max(x.values())] if fixed else [x[row.variant.swept[key]] for row in swept]
        shown = group * 2 if fixed else swept
        figures = [np.array([getattr(row.estimate, part) for row in shown]) for part in ("mean", "low", "high")]
        style = ":" if fixed else "-"
        lines.append(Line(label, colour(i), np.array(places), Band(*figures), style, marked=not fixed))
        teacher = np.array([row.teacher for row in shown], dtype=np.float64)
        if not np.isnan(teacher).any() and not fixed:
            flat = Band(teacher, teacher, teacher)
            lines.append(Line(f"{label}: teacher", colour(i), np.array(places), flat, "--", marked=True))
    positive = [number for number in numbers or () if number > 0]
    title = f"{results.title} over {results.comparison.episodes} episodes"
    return plots.draw_lines(
        folder / "sweep.png",
        [("mean over seeds and 95 % interval; teachers dashed", lines)],
        title,
        key,
        results.metric.heading,
        results.metric.percent,
        log_x=len(positive) == len(values) and max(positive) >= 30 * min(positive),
        x_names=values if numbers is None else (),
    )


def _numbers(values: Sequence[str]) -> list[float] | None:
    """Swept values as numbers, None where one is a word."""
    try:
        return [float(value) for value in values]
    except ValueError:
        return None


def _joined(lines: Sequence[Line]) -> list[Line]:
    """Methods that share their teacher share a line."""
    kept: list[Line] = []
    for line in lines:
        for i, other in enumerate(kept):
            if line.x.tolist() == other.x.tolist() and line.band.value.tolist() == other.band.value.tolist():
                kept[i] = other._replace(label=f"{other.label}, {line.label}")
                break
        else:
            kept.append(line)
    return kept

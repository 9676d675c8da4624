"""A dataset on a page: episodes, who acted, histograms of its entries, and where student and teacher part."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tscli.envs.entries import unit_of
from tscli.learning.statistics import binned
from tscli.pairs import Pairs
from tscli.pairs.schema import STUDENT
from tscli.report.charts import Series, curves, histogram, number
from tscli.report.markup import Html, facts, grid, join, section, tag

ROWS = 20_000  # looked at of each field
MOST_ENTRIES = 48  # that get a histogram
# How near a student is to its teacher.
MEASURES = {
    "action_agreement": "actions equal to the teacher's",
    "action_distance": "distance to the teacher's action",
    "action_distance_p99": "distance of the furthest hundredth",
    "kl_teacher_student": "KL(teacher || student)",
}


def dataset_section(name: str, pairs: Pairs) -> Html:
    """What a run's pairs hold."""
    episodes = pairs.episodes()
    whole = episodes[episodes["finished"]]
    sample = _Sample(pairs)
    rows: list[tuple[object, object]] = [
        ("steps", f"{pairs.num_steps}"),
        ("episodes", f"{len(episodes)}, {len(whole)} of them finished"),
        ("ended", f"{int(whole['terminated'].sum())} terminated, {int(whole['truncated'].sum())} truncated"),
        ("acted by the teacher", f"{100 * (1 - sample.by_student.mean()):.1f} % of steps"),
    ]
    if pairs.schema.has_success and len(whole):
        rows.append(("success", f"{100 * whole['success'].mean():.1f} % of finished episodes"))
    charts = [
        histogram("return of an episode", whole["return"], "return"),
        histogram("length of an episode", whole["length"], "steps"),
    ]
    entries = _entry_histograms(pairs, sample)
    hidden = tag("details", tag("summary", f"{len(entries)} entries"), grid(*entries))
    return section(
        f"Pairs of {name}",
        facts(rows),
        grid(*charts),
        _where_they_part(pairs, sample),
        hidden if entries else "",
    )


class _Sample:
    """Rows that belong to episodes, spread evenly over a dataset: where they lie, and their step in their episode."""

    def __init__(self, pairs: Pairs) -> None:
        places, self.step = [], []
        every = max(1, pairs.num_steps // ROWS)
        for number_, shard in enumerate(pairs.shards):
            if not len(shard.segments):
                continue
            lengths = shard.segments["length"]
            inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            row = (np.repeat(shard.segments["row"], lengths) + inside)[::every]
            places.append((number_, row))
            self.step.append((np.repeat(shard.segments["first_step"], lengths) + inside)[::every])
        self._pairs, self._places = pairs, places
        self.step = np.concatenate(self.step) if self.step else np.zeros(0, int)
        self.by_student = self.field("actor") == STUDENT

    def field(self, name: str) -> np.ndarray:
        """[rows, ...] of a field."""
        parts = [self._pairs.shards[i].fields[name][rows] for i, rows in self._places]
        return np.concatenate(parts) if parts else np.zeros(0)


def _entries(pairs: Pairs, sample: _Sample) -> list[tuple[str, str, np.ndarray]]:
    """Name, unit and values of each entry of the groups that are vectors."""
    found = []
    for name, group in pairs.schema.groups.items():
        if group.is_image:
            continue
        values = sample.field(f"obs/{name}").reshape(len(sample.step), -1)
        for i in range(values.shape[1]):
            entry = group.fields[i] if i < len(group.fields) else str(i)
            found.append((f"{name}: {entry}", unit_of(group, i), values[:, i]))
    return found[:MOST_ENTRIES]


def _entry_histograms(pairs: Pairs, sample: _Sample) -> list[Html]:
    return [histogram(name, values, unit, 2) for name, unit, values in _entries(pairs, sample)]


def _where_they_part(pairs: Pairs, sample: _Sample) -> Html:
    """How near the student's actions were to the teacher's, over the episode and over each entry.

    Empty where the student has hardly acted. Actions are those that were executed, so a sampled one counts as it fell.
    """
    mine = sample.by_student
    if mine.sum() < 200:
        return Html()
    taken, taught = sample.field("action")[mine], sample.field("teacher_action")[mine]
    if pairs.schema.action.is_continuous:
        what = MEASURES["action_distance"]
        near = np.abs(taken.astype(np.float64) - taught).reshape(len(taken), -1).mean(1)
    else:
        what = MEASURES["action_agreement"]
        near = (taken == taught).reshape(len(taken), -1).all(1).astype(np.float64)
    shown = {name: (unit, binned(values[mine], near)) for name, unit, values in _entries(pairs, sample)}
    intro = (
        "While the student gathered these pairs, from its first round to its last: what it did beside what the teacher "
        f"would have done, {number(float(near.mean()))} on average. The entries over which it differs most."
    )
    first = curve_over(what, "the episode", "step of the episode", *binned(sample.step[mine], near)[:2])
    widest = sorted(shown, key=lambda name: -shown[name][1].spread)[:5]
    charts = [curve_over(what, name, _labelled(name, shown[name][0]), *shown[name][1][:2]) for name in widest]
    return join([tag("h3", "Where do they part?"), tag("p", intro, class_="intro"), grid(first, *charts)])


def parting_section(found: dict[str, Any]) -> Html:
    """Where a student and its teacher part, as an evaluation has found it."""
    if not found.get("steps"):
        return Html()
    of = MEASURES.get(found["of"], str(found["of"]))
    charts = [
        curve_over(MEASURES.get(name, str(name)), "the episode", "step of the episode", one["x"], one["y"])
        for name, one in found["over_step"].items()
    ]
    charts += [
        curve_over(of, name, _labelled(name, one["unit"]), one["x"], one["y"]) for name, one in found["over"].items()
    ]
    intro = (
        f"{found['steps']} steps of the greedy student, in which the teacher says what it would have done: means over "
        "the step of the episode, and over the entries over which they differ most."
    )
    return section("Where do student and teacher part?", grid(*charts), intro=intro)


def curve_over(what: str, over: str, label: str, x: Iterable[float], y: Iterable[float]) -> Html:
    """Means in bins, as a curve; how far they are apart is seen from 0, and equal actions from 100 %."""
    title, ys = f"{what}, over {over}", list(map(float, y))
    bounds = (min(*ys, 0.95), 1.0) if what == MEASURES["action_agreement"] else (0.0, max(ys))
    return curves(title, label, [Series(title, list(map(float, x)), ys, 0, dots=True)], bounds)


def _labelled(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name

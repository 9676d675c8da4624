"""How much noise, delay and dropout of each sensor a policy bears until its return has fallen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tscli.compare.cells import Cell
from tscli.diagnose.sample import Sample
from tscli.envs.views import Part
from tscli.sensors.search import Scale
from tscli.sensors.sets import Candidate, Sensor, sensor_view
from tscli.sensors.students import Measure

# Levels that are tried. Noise is in deviations of each entry over the teacher's episodes, delay in control steps.
LEVELS: dict[str, tuple[float, ...]] = {
    "noise": (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0),
    "delay": (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50),
    "dropout": (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9),
}


@dataclass(frozen=True)
class Bearing:
    """What a sensor's disturbance does to the return."""

    sensor: Sensor
    kind: str  # a key of LEVELS
    bears: float  # the highest level that was borne; 0 where none was
    falls: float | None  # the level after it, at which the return has fallen; None where it never does
    left: float | None  # share of the gain over chance that is left there
    physical: str = ""  # what is borne in the sensor's own unit


def deviations(sample: Sample, part: Part) -> list[float]:
    """Standard deviation of each entry of a part over the sample; none of an image."""
    if part.is_image:
        return []
    rows = sample.rows(sample.groups[part.group]).to(torch.float32)
    rows = rows.reshape(len(rows), -1)
    return rows[:, list(part.index or range(part.size))].std(0).tolist()


def disturbed(part: Part, kind: str, level: float, sds: Sequence[float]) -> tuple[Part, ...]:
    """What stands in a part's place: with noise a part for each entry, since each has its own deviation."""
    if kind == "delay":
        return (replace(part, delay=int(level)),)
    if kind == "dropout":
        return (replace(part, dropout=level),)
    index = part.index or range(part.size)
    one = {"size": 1, "shape": (1,)}
    return tuple(replace(part, index=(i,), noise=level * sd, **one) for i, sd in zip(index, sds, strict=True))


def last_borne(levels: Sequence[float], borne: Callable[[float], bool]) -> int:
    """How many levels, counted from the lowest, are borne, by bisection: what is worse than unbearable is too."""
    low, high = 0, len(levels)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if borne(levels[middle - 1]) else (low, middle - 1)
    return low


def find_bearings(
    candidate: Candidate, cells: Sequence[Cell], measure: Measure, scale: Scale, sample: Sample
) -> list[Bearing]:
    """What each of a student's sensors bears, one disturbed at a time; pictures take dropout alone.

    Args:
        candidate, cells: the student, and where its policies are, one per seed. They were trained without disturbance.
        measure: of their returns.
        scale: what may be lost, of the undisturbed return's gain over chance.
        sample: of the teacher's episodes, from which the entries' deviations are.
    """
    undisturbed, found = measure.of_cells(cells).mean, []
    parts = sensor_view(candidate.sensors, sample.env_groups, sample.action).parts
    for number, (sensor, part) in enumerate(zip(candidate.sensors, parts, strict=True)):
        sds = deviations(sample, part)
        for kind, levels in LEVELS.items():
            if part.is_image and kind != "dropout":
                continue

            def share(level: float, kind: str = kind, number: int = number, part: Part = part, sds: Any = sds) -> float:
                seen = {number: disturbed(part, kind, level, sds)}
                return (measure.of_cells(cells, seen).mean - scale.chance) / (undisturbed - scale.chance)

            count = last_borne(levels, lambda level, share=share: share(level) >= 1 - scale.loss)
            bears, falls = levels[count - 1] if count else 0.0, levels[count] if count < len(levels) else None
            left = None if falls is None else share(falls)
            found.append(Bearing(sensor, kind, bears, falls, left, _physical(kind, bears, sds, part, measure, sample)))
    return found


def _physical(kind: str, bears: float, sds: Sequence[float], part: Part, measure: Measure, sample: Sample) -> str:
    """What is borne in the sensor's own unit, or in milliseconds; "" where it has none."""
    if kind == "noise" and len(sds) == 1 and bears:
        units = sample.env_groups[part.group].units
        unit = units[part.index[0] if part.index and len(units) > 1 else 0] if units else ""
        return f"{bears * sds[0]:.2g} {unit}".strip()
    dt = measure.env.control_dt
    return f"{1000 * bears * dt:.0f} ms" if kind == "delay" and bears and dt else ""

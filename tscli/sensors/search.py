"""Backward elimination: from all sensors downwards, as long as nothing is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tscli.learning import statistics
from tscli.sensors.sets import Candidate

HOPELESS = 0.5  # of the teacher's gain: below, the distillations are too short to tell sensors apart


@dataclass(frozen=True)
class Measured:
    """Returns of a policy, one row per seed: [S, E], of the same E episodes for every policy."""

    returns: np.ndarray

    @property
    def estimate(self) -> statistics.Estimate:
        """Mean and 95 % interval: over students where there are several, else over episodes."""
        return statistics.student_mean(self.returns.mean(axis=1) if len(self.returns) > 1 else self.returns[0])

    @property
    def mean(self) -> float:
        """The mean return."""
        return float(self.returns.mean())


@dataclass(frozen=True)
class Scale:
    """What a return is worth: 0 is that of random actions, 1 that of the teacher."""

    chance: float
    teacher: float
    loss: float  # share that may be lost

    def share(self, value: float, full: float | None = None) -> float:
        """Share of what the teacher gains over chance; with `full` of what is gained by that return, if it is less."""
        top = self.teacher if full is None else min(self.teacher, full)
        return (value - self.chance) / (top - self.chance) if top > self.chance else float(value >= top)

    def is_hopeful(self, value: float) -> bool:
        """Whether students that reach this with all sensors can do the task at all."""
        return self.share(value) >= HOPELESS

    def holds(self, value: float, full: float) -> bool:
        """Whether a return is as good as `full`, but for what may be lost."""
        return self.share(value, full) >= 1 - self.loss


Found = Mapping[Candidate, Measured]


def kept(full: Candidate, found: Found, scale: Scale) -> Candidate:
    """The smallest set so far, reached from all sensors without a loss."""
    return _walk(full, found, scale, lambda candidate: 0.0, 1)[0]


def wanted(
    full: Candidate, found: Found, scale: Scale, score: Callable[[Candidate], float], width: int
) -> list[Candidate]:
    """The candidates to measure next; none when the elimination is over.

    From the set that is reached, the cheapest sets with one sensor less come first, of equally cheap ones those from
    which the probes tell the most, `width` at a time. Where one of these loses nothing it goes on from there; where
    none does all the others are tried, so that of what is kept at the end each sensor has been left out once.

    Args:
        full: all sensors.
        found: what was measured so far.
        scale: of returns, by which is told whether something is lost.
        score: what the probes say of a candidate, larger is better.
        width: candidates at a time.
    """
    return _walk(full, found, scale, score, width)[1]


def _walk(
    full: Candidate, found: Found, scale: Scale, score: Callable[[Candidate], float], width: int
) -> tuple[Candidate, list[Candidate]]:
    """What is reached, and what has to be measured to go on from there."""
    if full not in found:
        return full, [full]
    best, current = found[full].mean, full
    if not scale.is_hopeful(best):
        return full, []
    while len(current.sensors) > 1:
        below = [current.without(sensor) for sensor in current.sensors]
        good = [one for one in below if one in found and scale.holds(found[one].mean, best)]
        if good:
            current = min(good, key=lambda one: (one.cost, -found[one].mean))
            continue
        ranked = sorted(below, key=lambda one: (one.cost, -score(one)))
        first = [one for one in ranked[:width] if one not in found]
        return current, first or [one for one in ranked if one not in found]
    return current, []

"""Statistics that say how sure a figure is."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean with the deviation of single values and a 95 % interval of the mean."""

    mean: float
    sd: float
    low: float
    high: float
    count: int


class Band(NamedTuple):
    """A statistic with its 95 % interval: three numbers, or three curves [X]."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


class Binned(NamedTuple):
    """Means in bins, each [B]: where a bin lies, what is found there, and from how many values."""

    x: np.ndarray
    y: np.ndarray
    count: np.ndarray

    @property
    def spread(self) -> float:
        """The deviation of the bins' means, each as often as it has values."""
        middle = np.average(self.y, weights=self.count)
        return float(np.sqrt(np.average((self.y - middle) ** 2, weights=self.count)))


def binned(x: np.ndarray, y: np.ndarray, bins: int = 20) -> Binned:
    """Means of y [K] over x [K], in bins of about equal counts; values of x that are few have a bin each."""
    values, bin_of = np.unique(x, return_inverse=True)
    if len(values) > bins:
        edges = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1)[1:-1]))
        bin_of = np.searchsorted(edges, x, side="right")
    count = np.bincount(bin_of)
    there = count > 0
    mean_x, mean_y = (np.bincount(bin_of, value.astype(np.float64))[there] / count[there] for value in (x, y))
    return Binned(mean_x, mean_y, count[there])


def student_mean(values: np.ndarray, level: float = 0.95) -> Estimate:
    """Mean, standard deviation and Student's t interval of the mean (1908), of episodes or of seeds.

    Of two values or more it covers as often as it says where they are normally distributed, and of many values whatever
    they are. (A percentile bootstrap of 2, 3, 5 or 10 covers 51, 75, 84 or 90 % and not 95.) Values that are all alike
    give an interval of no width, which tells nothing.

    Args:
        values: [E].
        level: coverage.
    """
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
    value, low, high = (float(part[0]) for part in student_curve(values[:, None], level))
    return Estimate(value, float(values.std(ddof=1)) if count > 1 else 0.0, low, high, count)


def student_curve(curves: np.ndarray, level: float = 0.95) -> Band:
    """Mean of curves [S, X], one per seed, with `student_mean`'s interval at each point."""
    curves = np.asarray(curves, dtype=np.float64)
    count, mean = len(curves), curves.mean(axis=0)
    if count == 1:
        return Band(mean, mean, mean)
    half = _student_quantile(count - 1, level) * curves.std(axis=0, ddof=1) / math.sqrt(count)
    return Band(mean, mean - half, mean + half)


def ratio(above: np.ndarray, below: np.ndarray, level: float = 0.95) -> Estimate:
    """Sum of `above` over sum of `below`, with the linearised t interval of a ratio (Cochran 1977, section 2.11).

    Args:
        above, below: [E], of the same episodes or envs.
        level: coverage.
    """
    total = float(np.sum(below))
    if not total > 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, len(below))
    value = float(np.sum(above)) / total
    spread = student_mean((above - value * below) * len(below) / total, level)
    return Estimate(value, spread.sd, value + spread.low, value + spread.high, len(below))


def share(values: np.ndarray, level: float = 0.95) -> Estimate:
    """Share of successes with Clopper and Pearson's interval (1934), of episodes or of seeds' rates.

    It covers at least as often as it says, also where none or all succeeded: there 3 of 3 leave room down to .29.
    Rates between 0 and 1 are added up as if they were that many whole successes. That is the widest that they can
    spread, so the interval assumes nothing of the seeds but that they are independent.

    Args:
        values: [E], one per episode (bool) or seed (rate).
        level: coverage.
    """
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    if count == 0:
        return Estimate(math.nan, math.nan, math.nan, math.nan, 0)
    value, low, high = (float(part[0]) for part in share_curve(values[:, None], level))
    return Estimate(value, float(values.std(ddof=1)) if count > 1 else 0.0, low, high, count)


def share_curve(curves: np.ndarray, level: float = 0.95) -> Band:
    """Mean of curves of rates [S, X], one per seed, with `share`'s interval at each point."""
    curves = np.asarray(curves, dtype=np.float64)
    totals = curves.sum(axis=0)
    bounds = [_share_bounds(total, len(curves), level) for total in totals.tolist()]
    low, high = np.array(bounds).T
    return Band(curves.mean(axis=0), low, high)


def interquartile_mean(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at either end.

    Less moved by a single seed than the mean, less wasteful than the median (Agarwal et al. 2021, section 4.3).

    Args:
        values: at least one along `axis`.
        axis: of the seeds.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=axis)
    count = ordered.shape[axis]
    return np.take(ordered, range(count // 4, count - count // 4), axis=axis).mean(axis=axis)


@functools.cache
def _share_bounds(total: float, count: int, level: float) -> tuple[float, float]:
    missed, tail = count - total, (1 - level) / 2
    slack = 1e-9 * count  # what adding up rates may have left of a whole number
    low = _beta_quantile(tail, total, missed + 1) if total > slack else 0.0
    high = _beta_quantile(1 - tail, total + 1, missed) if missed > slack else 1.0
    return low, high


@functools.cache
def _student_quantile(freedom: int, level: float) -> float:
    """What |T| exceeds with probability 1 - level, T of Student's distribution."""
    x = _beta_quantile(1 - level, freedom / 2, 0.5)
    return math.sqrt(freedom * (1 - x) / x)


def _beta_quantile(probability: float, a: float, b: float) -> float:
    """The x below which Beta(a, b) lies with that probability, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        if _beta_probability(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _beta_probability(x: float, a: float, b: float) -> float:
    """P(Beta(a, b) < x): the regularised incomplete beta function by its continued fraction (DLMF 8.17.22)."""
    if x > (a + 1) / (a + b + 2):  # it converges fast on the other side
        return 1 - _beta_probability(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    fraction = 1.0
    for m in range(20 + int(2 * math.sqrt(max(a, b))), 0, -1):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        fraction = 1 + odd / (1 + even / fraction)
    return math.exp(log_front) / a / fraction

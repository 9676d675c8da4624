"""Statistics that say how sure a figure is."""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
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


def bootstrap_mean(values: np.ndarray, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> Estimate:
    """Mean, standard deviation and percentile bootstrap interval of the mean (Efron 1979).

    Args:
        values: [E], one per episode or per seed; they are resampled with replacement.
        seed: of the resampling, so that the same values give the same interval.
        resamples: number of resampled means.
        level: coverage.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), float("nan"), 0)
    low, high = _interval(values, _mean, seed, resamples, level)
    sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Estimate(float(values.mean()), sd, float(low), float(high), len(values))


def wilson(values: np.ndarray, level: float = 0.95) -> Estimate:
    """Share of successes with Wilson's score interval (1927), which holds also where none or all succeeded.

    There a bootstrap gives an interval of no width, as if ten of ten left no doubt.

    Args:
        values: [E] bool, one per episode.
        level: coverage.
    """
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    if count == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), float("nan"), 0)
    share, z = float(values.mean()), NormalDist().inv_cdf((1 + level) / 2)
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    sd = float(values.std(ddof=1)) if count > 1 else 0.0
    return Estimate(share, sd, max(0.0, centre - half), min(1.0, centre + half), count)


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


def bootstrap_iqm(values: np.ndarray, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> Band:
    """Interquartile mean with its percentile bootstrap interval over seeds (Agarwal et al. 2021).

    Args:
        values: [S], one per seed. With fewer than five it says little more than the mean does.
        seed, resamples, level: as in `bootstrap_mean`.
    """
    values = np.asarray(values, dtype=np.float64)
    low, high = _interval(values, interquartile_mean, seed, resamples, level)
    return Band(interquartile_mean(values), low, high)


def bootstrap_mean_curve(curves: np.ndarray, seed: int = 0, resamples: int = 1000, level: float = 0.95) -> Band:
    """Mean of curves with its percentile bootstrap interval at each point, seeds resampled as whole curves.

    Args:
        curves: [S, X], one per seed.
        seed, resamples, level: as in `bootstrap_mean`.
    """
    curves = np.asarray(curves, dtype=np.float64)
    low, high = _interval(curves, _mean, seed, resamples, level)
    return Band(curves.mean(axis=0), low, high)


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    return values.mean(axis=axis)


def _interval(
    values: np.ndarray, statistic: Callable[[np.ndarray, int], np.ndarray], seed: int, resamples: int, level: float
) -> np.ndarray:
    """Percentiles [2, ...] of a statistic over resamples of the values' [S, ...] first axis."""
    rng = np.random.default_rng(seed)
    found = np.empty((resamples, *values.shape[1:]))
    for start in range(0, resamples, 256):  # in pieces, so that many values need little memory
        stop = min(start + 256, resamples)
        found[start:stop] = statistic(values[rng.integers(len(values), size=(stop - start, len(values)))], 1)
    tail = (1 - level) / 2
    return np.quantile(found, [tail, 1 - tail], axis=0)

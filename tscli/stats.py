"""Statistics that say how sure a figure is."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = ["Estimate", "bootstrap_mean"]


class Estimate(NamedTuple):
    """A mean with the deviation of single values and a 95 % interval of the mean."""

    mean: float
    sd: float
    low: float
    high: float
    count: int


def bootstrap_mean(values: np.ndarray, seed: int = 0, resamples: int = 2000, level: float = 0.95) -> Estimate:
    """Mean, standard deviation and percentile bootstrap interval of the mean (Efron 1979).

    Args:
        values: [E], one per episode; episodes are resampled with replacement.
        seed: of the resampling, so that the same values give the same interval.
        resamples: number of resampled means.
        level: coverage.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for start in range(0, resamples, 256):  # in pieces, so that many episodes need little memory
        stop = min(start + 256, resamples)
        means[start:stop] = values[rng.integers(len(values), size=(stop - start, len(values)))].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return Estimate(float(values.mean()), sd, float(low), float(high), len(values))

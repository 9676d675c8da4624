"""Figures that say how sure they are."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math

import numpy as np
import pytest

from tscli.learning.statistics import bootstrap_iqm, bootstrap_mean, bootstrap_mean_curve, interquartile_mean, wilson


def test_mean_and_deviation_are_the_samples() -> None:
    found = bootstrap_mean(np.array([1.0, 2.0, 6.0], np.float32))
    assert (found.mean, found.sd, found.count) == (3.0, pytest.approx(math.sqrt(7)), 3)
    assert 1.0 <= found.low < 3.0 < found.high <= 6.0


def test_the_interval_is_that_of_the_normal_approximation_for_many_values() -> None:
    values = np.random.default_rng(0).normal(10, 2, 400)
    found = bootstrap_mean(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    narrow = bootstrap_mean(values, level=0.5)
    assert found.low < narrow.low < narrow.high < found.high


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    found = [bootstrap_mean(rng.exponential(size=40), seed=i, resamples=300) for i in range(200)]
    assert 0.86 < np.mean([f.low <= 1.0 <= f.high for f in found]) < 0.99


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=30)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)
    # also where the number of resamples is no multiple of the pieces they are made in
    assert bootstrap_mean(values, resamples=1).low == bootstrap_mean(values, resamples=1).high


def test_one_value_and_none() -> None:
    assert bootstrap_mean(np.array([4.0])) == (4.0, 0.0, 4.0, 4.0, 1)
    nothing = bootstrap_mean(np.array([]))
    assert nothing.count == 0 and math.isnan(nothing.mean) and math.isnan(nothing.low)


def test_wilsons_interval_is_that_computed_by_hand() -> None:
    found = wilson(np.array([True] * 8 + [False] * 2))
    # z = 1.96: (0.8 + z^2 / 20 -+ z sqrt(0.16 / 10 + z^2 / 400)) / (1 + z^2 / 10)
    assert (found.mean, found.count) == (0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert found.sd == pytest.approx(math.sqrt(1.6 / 9))


def test_wilsons_interval_has_a_width_also_where_none_or_all_succeeded() -> None:
    none, every = wilson(np.zeros(10, bool)), wilson(np.ones(10, bool))
    assert (none.low, none.high) == pytest.approx((0.0, 0.2775), abs=1e-4)  # z^2 / (10 + z^2)
    assert (every.low, every.high) == pytest.approx((1 - 0.2775, 1.0), abs=1e-4)
    assert wilson(np.array([], bool)).count == 0
    assert wilson(np.ones(1, bool)).sd == 0.0


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end() -> None:
    assert interquartile_mean(np.array([100.0, 3, 1, 2, -50])) == 2.0  # one of five is left out at either end
    assert interquartile_mean(np.array([8.0, 1, 3, 2, 4, 6, 5, 7])) == 4.5  # 3 to 6
    assert interquartile_mean(np.array([9.0, 1, 2])) == 4.0  # a quarter of three is none
    assert interquartile_mean(np.array([[1.0, 2], [5, 5], [2, 4], [-9, 3]]), axis=0).tolist() == [1.5, 3.5]


def test_the_interval_of_the_interquartile_mean_is_not_moved_by_one_wild_seed() -> None:
    values = np.array([*np.linspace(0.9, 1.1, 15), 500.0])
    found = bootstrap_iqm(values)
    assert found.value == pytest.approx(np.sort(values)[4:12].mean())
    assert 0.9 < found.low < found.value < found.high < 1.2 < bootstrap_mean(values).mean
    assert bootstrap_iqm(values) == found
    assert bootstrap_iqm(np.array([2.0])) == (2.0, 2.0, 2.0)


def test_curves_are_resampled_as_wholes_and_give_an_interval_at_each_point() -> None:
    curves = np.array([[0.0, 10.0], [2.0, 12.0], [4.0, 8.0]])
    band = bootstrap_mean_curve(curves)
    assert band.value.tolist() == [2.0, 10.0]
    for i in range(2):
        alone = bootstrap_mean(curves[:, i], resamples=1000)
        assert (band.low[i], band.high[i]) == (pytest.approx(alone.low), pytest.approx(alone.high))

"""Figures that say how sure they are."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math

import numpy as np
import pytest

from tscli.learning.statistics import Band, interquartile_mean, ratio, share, share_curve, student_curve, student_mean

DRAWS = 2000  # simulated comparisons: a coverage of .95 is then told with a standard error of .005


def coverage(band: Band, mean: float) -> float:
    return float(((band.low <= mean) & (mean <= band.high)).mean())


def test_mean_and_deviation_are_the_samples_and_the_interval_is_students() -> None:
    found = student_mean(np.array([1.0, 2.0, 6.0], np.float32))
    assert (found.mean, found.sd, found.count) == (3.0, pytest.approx(math.sqrt(7)), 3)
    half = 4.302653 * math.sqrt(7 / 3)  # t of 2 degrees of freedom, from a printed table
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))
    half = 1.833113 * math.sqrt(10 / 12)  # of 9, for 90 %: the variance of 0 to 9 is 10 * 11 / 12
    found = student_mean(np.arange(10), level=0.9)
    assert (found.low, found.high) == pytest.approx((4.5 - half * math.sqrt(1.1), 4.5 + half * math.sqrt(1.1)))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_students_interval_covers_the_mean_of_normal_seeds_as_often_as_it_says(seeds: int) -> None:
    drawn = np.random.default_rng(seeds).normal(-3, 7, (seeds, DRAWS))
    assert 0.93 < coverage(student_curve(drawn), -3) < 0.97
    assert 0.47 < coverage(student_curve(drawn, level=0.5), -3) < 0.53


def test_students_interval_covers_the_mean_of_many_episodes_also_where_they_are_skewed() -> None:
    drawn = np.random.default_rng(0).exponential(size=(200, DRAWS))
    assert 0.93 < coverage(student_curve(drawn), 1) < 0.97


@pytest.mark.parametrize("mean", [0.03, 0.5, 0.9])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_the_interval_of_a_share_covers_the_mean_of_seeds_whatever_they_are(seeds: int, mean: float) -> None:
    rng = np.random.default_rng(seeds)
    whole = (rng.random((seeds, DRAWS)) < mean).astype(np.float64)
    least = max(0.0, 2 * mean - 1)  # half of the seeds reach all of it, or twice the mean, and the others this
    half = np.where(rng.random((seeds, DRAWS)) < 0.5, 2 * mean - least, least)
    spread = np.round(8 * rng.beta(4 * mean, 4 - 4 * mean, (seeds, DRAWS))) / 8
    assert coverage(share_curve(whole), mean) > 0.94
    assert coverage(share_curve(half), mean) > 0.94
    assert coverage(share_curve(spread), float(spread.mean())) > 0.94


@pytest.mark.parametrize("mean", [0.002, 0.99, 0.998])
def test_the_interval_of_a_share_covers_the_mean_of_many_episodes_also_near_none_and_all(mean: float) -> None:
    drawn = np.random.default_rng(0).random((500, DRAWS)) < mean
    assert 0.94 < coverage(share_curve(drawn), mean) < 0.995


def test_clopper_and_pearsons_interval_is_that_of_the_tables() -> None:
    found = share(np.array([True] * 8 + [False] * 2))
    assert (found.mean, found.count) == (0.8, 10)
    assert (found.low, found.high) == pytest.approx((0.4439, 0.9748), abs=1e-4)
    assert found.sd == pytest.approx(math.sqrt(1.6 / 9))
    found = share(np.repeat([True, False], 250))
    assert (found.low, found.high) == pytest.approx((0.4553, 0.5447), abs=1e-4)


def test_the_interval_of_a_share_has_a_width_also_where_none_or_all_succeeded_and_stays_within_bounds() -> None:
    for count in (1, 3, 10, 500):
        none, every = share(np.zeros(count, bool)), share(np.ones(count, bool))
        assert (none.low, every.high) == (0.0, 1.0)
        assert every.low == pytest.approx(0.025 ** (1 / count)) and none.high == pytest.approx(1 - 0.025 ** (1 / count))
    near = share(np.array([0.998, 1.0, 1.0]))
    assert share(np.ones(3)).low - 0.01 < near.low < near.mean < near.high < 1
    tenths = share(np.full(10, 0.1))  # whose sum is not quite 1
    assert (tenths.low, tenths.high) == pytest.approx(share(np.arange(10) == 0)[2:4])
    assert share(np.full(3, 1 - 1e-16)).high == 1.0


def test_one_value_and_none_and_values_that_are_all_alike() -> None:
    assert student_mean(np.array([4.0])) == (4.0, 0.0, 4.0, 4.0, 1)
    assert student_mean(np.full(3, 4.0)) == (4.0, 0.0, 4.0, 4.0, 3)
    for nothing in (student_mean(np.array([])), share(np.array([], bool))):
        assert nothing.count == 0 and math.isnan(nothing.mean) and math.isnan(nothing.low)


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end() -> None:
    assert interquartile_mean(np.array([100.0, 3, 1, 2, -50])) == 2.0  # one of five is left out at either end
    assert interquartile_mean(np.array([8.0, 1, 3, 2, 4, 6, 5, 7])) == 4.5  # 3 to 6
    assert interquartile_mean(np.array([9.0, 1, 2])) == 4.0  # a quarter of three is none
    assert interquartile_mean(np.array([[1.0, 2], [5, 5], [2, 4], [-9, 3]]), axis=0).tolist() == [1.5, 3.5]


def test_curves_have_at_each_point_the_interval_of_its_values() -> None:
    curves = np.array([[0.0, 0.5, 1.0], [0.25, 1.0, 1.0], [0.5, 0.0, 1.0]])
    for curve, alone in ((student_curve, student_mean), (share_curve, share)):
        band = curve(curves)
        for i in range(3):
            at = alone(curves[:, i])
            assert (band.value[i], band.low[i], band.high[i]) == pytest.approx((at.mean, at.low, at.high))


def test_a_ratio_weighs_each_by_its_size_and_its_interval_shrinks_where_all_have_one_rate() -> None:
    found = ratio(np.array([1.0, 8.0]), np.array([1.0, 4.0]))
    assert found.mean == pytest.approx(9 / 5) and found.low < 1.8 < found.high
    same = ratio(np.array([2.0, 8.0, 4.0]), np.array([1.0, 4.0, 2.0]))
    assert (same.mean, same.low, same.high) == pytest.approx((2.0, 2.0, 2.0))
    assert np.isnan(ratio(np.zeros(2), np.zeros(2)).mean)

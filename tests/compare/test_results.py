"""Curves of training are averaged over seeds, and figures said as a reader expects them."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math

import numpy as np
import pytest

from tscli.compare.results import METRICS, Curve, mean_curve


def test_curves_are_averaged_where_all_seeds_have_one_and_a_seed_that_stopped_keeps_its_last_value() -> None:
    curves = [
        Curve(np.array([10, 20, 30]), np.array([0.0, 2.0, 4.0])),
        Curve(np.array([20, 25]), np.array([10.0, 20.0])),
    ]
    steps, band = mean_curve(curves, METRICS["return"])
    assert steps.tolist() == [20, 25, 30]
    assert band.value.tolist() == [6.0, 11.5, 12.0]
    assert (band.low <= band.value).all() and (band.value <= band.high).all()


def test_methods_without_steps_of_their_own_are_a_point_at_their_mean() -> None:
    steps, band = mean_curve(
        [Curve(np.array([10]), np.array([1.0])), Curve(np.array([30]), np.array([3.0]))], METRICS["return"]
    )
    assert (steps.tolist(), band.value.tolist()) == ([20.0], [2.0])


def test_a_share_is_said_in_percent() -> None:
    assert METRICS["success_rate"].text(0.987) == "98.7"
    assert METRICS["return"].text(-77.25) == "-77.2" and METRICS["return"].text(math.nan) == "-"


def test_a_curve_of_shares_has_a_band_that_stays_within_bounds() -> None:
    curves = [Curve(np.array([10, 20]), np.array([0.0, 1.0])) for _ in range(3)]
    _, band = mean_curve(curves, METRICS["success_rate"])
    assert band.low.tolist() == pytest.approx([0.0, 0.025 ** (1 / 3)])
    assert band.high.tolist() == pytest.approx([1 - 0.025 ** (1 / 3), 1.0])
    _, alone = mean_curve(curves[:1], METRICS["success_rate"])
    assert alone.low.tolist() == alone.high.tolist() == [0.0, 1.0], "one seed says nothing about others"

"""Curves of training are averaged over seeds, and figures said as a reader expects them."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math

import numpy as np

from tscli.compare.results import METRICS, Curve, mean_curve


def test_curves_are_averaged_where_all_seeds_have_one_and_a_seed_that_stopped_keeps_its_last_value() -> None:
    curves = [
        Curve(np.array([10, 20, 30]), np.array([0.0, 2.0, 4.0])),
        Curve(np.array([20, 25]), np.array([10.0, 20.0])),
    ]
    steps, band = mean_curve(curves)
    assert steps.tolist() == [20, 25, 30]
    assert band.value.tolist() == [6.0, 11.5, 12.0]
    assert (band.low <= band.value).all() and (band.value <= band.high).all()


def test_methods_without_steps_of_their_own_are_a_point_at_their_mean() -> None:
    steps, band = mean_curve([Curve(np.array([10]), np.array([1.0])), Curve(np.array([30]), np.array([3.0]))])
    assert (steps.tolist(), band.value.tolist()) == ([20.0], [2.0])


def test_a_share_is_said_in_percent() -> None:
    assert METRICS["success_rate"].text(0.987) == "98.7"
    assert METRICS["return"].text(-77.25) == "-77.2" and METRICS["return"].text(math.nan) == "-"

"""Attitudes: axes and turns, by hand."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math

import numpy as np
import pytest

from tscli.envs.attitudes import axes, turn


def test_turning_about_two_axes_at_once_is_one_turn_about_the_axis_between() -> None:
    angle = 0.5
    by = np.array([[angle, 0, 0], [angle, angle, 0]]).T / [1, math.sqrt(2)]
    start = np.array([[1.0, 0, 0, 0]] * 2).T
    ahead, left, up = axes(turn(np, start, by))
    # Roll alone, to the right: the left wing up, the thrust to the right.
    assert [axis[0] for axis in ahead] == pytest.approx([1, 0, 0])
    assert [axis[0] for axis in left] == pytest.approx([0, math.cos(angle), math.sin(angle)])
    assert [axis[0] for axis in up] == pytest.approx([0, -math.sin(angle), math.cos(angle)])
    assert up[2][1] == pytest.approx(math.cos(angle)), "Rodrigues: z falls by the cosine of the angle"
    assert [axis[1] for axis in up][:2] == pytest.approx(
        [math.sin(angle) / math.sqrt(2), -math.sin(angle) / math.sqrt(2)]
    )

"""Curves in braille, and lines of blocks: dot by dot."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math

import pytest

from tscli.terminal.plots import draw, sparkline


def test_a_sparkline_has_the_mean_of_each_share_of_the_values() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7], width=2) == "▁█"
    assert sparkline([0, 6, 7, 7, 1, 1, 1], width=3) == "▅█▁"
    assert sparkline([5.0, 5.0, math.nan, 5.0]) == "▁▁▁"
    assert sparkline([3.0]) == sparkline([]) == sparkline([math.inf, 1.0]) == ""


def test_a_line_goes_from_corner_to_corner() -> None:
    # Two characters of 2 x 4 dots beside each other: 4 columns and 4 rows, from the lower left to the upper right.
    plot = draw([(0, 0), (10, 3)], 2, 1)
    assert plot.lines == ["⡠⠊"] and plot[1:] == (0, 3, 0, 10)
    assert draw([(0, 3), (10, 0)], 2, 1).lines == ["⠑⢄"]
    assert draw([(0, 0), (1, 1)], 1, 2).lines == ["⢸", "⡇"]


@pytest.mark.parametrize("points", [[], [(1.0, math.nan)], [(2.0, 5.0)], [(0.0, 5.0), (1.0, 5.0)]])
def test_what_has_no_width_or_height_is_drawn_all_the_same(points: list[tuple[float, float]]) -> None:
    plot = draw(points, 3, 2)
    assert [len(line) for line in plot.lines] == [3, 3] and plot.low < plot.high
    dots = sum(bin(ord(char) - 0x2800).count("1") for line in plot.lines for char in line)
    assert (dots > 0) == any(math.isfinite(y) for _, y in points)

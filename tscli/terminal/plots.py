"""Curves for a terminal: braille, eight dots to a character, and a line of blocks for a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

_BLOCKS = "▁▂▃▄▅▆▇█"
# The bit of each dot of a braille character, by column and row.
_BITS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))

Points = Sequence[tuple[float, float]]


class Plot(NamedTuple):
    """A drawn curve: its lines from the top down, and what its axes span."""

    lines: list[str]
    low: float
    high: float
    left: float
    right: float


def sparkline(values: Sequence[float], width: int = 8) -> str:
    """Values as blocks, each the mean of its share of them; "" of fewer than two."""
    found = [value for value in values if math.isfinite(value)]
    if len(found) < 2:
        return ""
    width = min(width, len(found))
    ends = [round(i * len(found) / width) for i in range(width + 1)]
    means = [sum(found[a:b]) / (b - a) for a, b in itertools.pairwise(ends)]
    low, high = min(means), max(means)
    if high == low:
        return _BLOCKS[0] * width
    return "".join(_BLOCKS[min(7, int(8 * (value - low) / (high - low)))] for value in means)


def draw(points: Points, width: int, height: int) -> Plot:
    """A curve in braille.

    Args:
        points: x and y, in the order of x; values that are not finite are left out.
        width, height: in characters.
    """
    shown = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    every = [y for _, y in shown] or [0.0]
    low, high = min(every), max(every)
    if high == low:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    left, right = (shown[0][0], shown[-1][0]) if shown else (0.0, 1.0)
    columns, rows = 2 * width, 4 * height
    dots = [[0] * width for _ in range(height)]

    def place(x: float, y: float) -> tuple[int, int]:
        column = round((x - left) / (right - left) * (columns - 1)) if right > left else columns - 1
        return column, round((high - y) / (high - low) * (rows - 1))

    places = [place(x, y) for x, y in shown]
    for (x0, y0), (x1, y1) in zip(places, places[1:] or places, strict=False):
        steps = max(abs(x1 - x0), abs(y1 - y0), 1)
        for i in range(steps + 1):
            column, row = round(x0 + (x1 - x0) * i / steps), round(y0 + (y1 - y0) * i / steps)
            dots[row // 4][column // 2] |= _BITS[column % 2][row % 4]
    return Plot(["".join(chr(0x2800 + bits) for bits in line) for line in dots], low, high, left, right)

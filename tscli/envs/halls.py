"""Halls of columns, in which the quadrotor flies: where they stand, where there is room, and a camera's rays."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tscli.streams import stream_id, uniform

GAP, TRIES = 1.4, 16


@functools.lru_cache(maxsize=8)
def draw_halls(count: int, num_halls: int, radii: tuple[float, float], split: str) -> np.ndarray:
    """x, y and radius of each of `count` columns of each hall: [3, count, num_halls].

    Columns come one by one: the first of `TRIES` places that keeps its distance from those before is taken, or the one
    that is farthest from them.
    """
    halls, stream = torch.arange(num_halls), stream_id(f"quadrotor/{split}")
    out = np.zeros((3, count, num_halls))
    for k in range(count):
        u = uniform(0, stream, halls, torch.full_like(halls, k), 1 + 2 * TRIES).numpy().T
        radius = radii[0] + (radii[1] - radii[0]) * u[0]
        x, y = 9.5 * (2 * u[1 : 1 + TRIES] - 1), 12.5 * (2 * u[1 + TRIES :] - 1)
        between = np.hypot(x[:, None] - out[0, :k], y[:, None] - out[1, :k]) - out[2, :k] - radius
        gap = between.min(1, initial=np.inf)  # [TRIES, halls]
        order = 1e3 - np.arange(TRIES)[:, None]
        chosen = np.where(gap > GAP, order, gap).argmax(0), np.arange(num_halls)
        out[:, k] = x[chosen], y[chosen], radius
    return out


def first_free(xs: Sequence[Tensor], ys: Sequence[Tensor], columns: Tensor, room: float) -> tuple[Tensor, Tensor]:
    """Of some places the first that is `room` away from all columns, or the last: two of the places' shape [...].

    Args:
        xs, ys: of each place, [...].
        columns: x, y and radius of each, [3, C, ...].
        room: [m].
    """
    x, y = xs[-1], ys[-1]
    for place_x, place_y in zip(reversed(xs[:-1]), reversed(ys[:-1]), strict=True):
        away = torch.hypot(columns[0] - place_x, columns[1] - place_y) - columns[2]
        free = (away > room).all(0)
        x, y = torch.where(free, place_x, x), torch.where(free, place_y, y)
    return x, y


def camera_rays(width: int, height: int) -> np.ndarray:
    """Unit vectors, [3, height * width], over 90 degrees from left to right: along x, left is y, up is z."""
    left = 1 - 2 * (np.arange(width) + 0.5) / width
    up = (1 - 2 * (np.arange(height) + 0.5) / height) * height / width
    ray = np.stack(np.broadcast_arrays(1.0, left, up[:, None])).reshape(3, -1)
    return (ray / np.linalg.norm(ray, axis=0)).astype(np.float32)

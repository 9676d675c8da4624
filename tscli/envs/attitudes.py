"""Attitudes as unit quaternions (w, x, y, z), four arrays [N]: the body's axes in the world, and turning on."""

from __future__ import annotations

from typing import Any

from tscli.envs.native import Array


def axes(q: Array) -> tuple[tuple[Array, Array, Array], ...]:
    """The body's x, y and z axes in the world, each of three [N]."""
    w, x, y, z = q
    ahead = 1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)
    left = 2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)
    up = 2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)
    return ahead, left, up


def turn(xp: Any, q: Array, by: Array) -> Array:
    """The attitude [4, N] after turning about the body's axes by a vector [3, N] in rad; xp is numpy or torch."""
    angle = xp.sqrt((by * by).sum(0)) + 1e-12
    w, (x, y, z) = xp.cos(angle / 2), by * (xp.sin(angle / 2) / angle)
    turned = xp.stack(
        (
            q[0] * w - q[1] * x - q[2] * y - q[3] * z,
            q[0] * x + q[1] * w + q[2] * z - q[3] * y,
            q[0] * y - q[1] * z + q[2] * w + q[3] * x,
            q[0] * z + q[1] * y - q[2] * x + q[3] * w,
        )
    )
    return turned / xp.sqrt((turned * turned).sum(0))

"""Ground to walk on: patches of rising difficulty side by side on one height field, and its heights looked up.

Along x the difficulty rises by level, along y stand the kinds; a margin of flat ground is around them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tscli.config import UserError
from tscli.envs.mujoco import load_mujoco

KINDS = ("rough", "slope_up", "slope_down", "stairs_up", "stairs_down")
LEVELS = 6
PATCH = 8.0  # m, a side of a patch
MARGIN = 4.0  # m, around all of them
CELL = 0.1  # m
PLATFORM = 1.0  # m from the middle of a patch, flat: where episodes start
BASE = 1.0  # m of ground under the lowest point


class Terrain:
    """Heights of the ground [m], on a grid of `CELL`, with its middle at the world's origin.

    Args:
        kind: of its patches, all of `KINDS` ("patches"), or "flat", which a plane does.
        level: of all patches, from 1 to `LEVELS`; None has them rise.
        seed: of the rough patches.

    Raises:
        UserError: a level of flat ground.
    """

    def __init__(self, kind: str = "flat", level: int | None = None, seed: int = 0) -> None:
        self.patches = kind != "flat"
        if level and not self.patches:
            raise UserError(f"level {level}: flat ground has none: give terrain as well, patches or one of their kinds")
        kinds = KINDS if kind == "patches" else (kind,) * len(KINDS)
        inner = round(PATCH / CELL)
        edge = round(MARGIN / CELL)
        self.heights = np.zeros((len(KINDS) * inner + 2 * edge + 1, LEVELS * inner + 2 * edge + 1))
        rng = np.random.default_rng(seed)
        for i, name in enumerate(kinds if self.patches else ()):
            for j in range(LEVELS):
                rows, columns = (slice(edge + k * inner, edge + (k + 1) * inner) for k in (i, j))
                self.heights[rows, columns] = _patch(name, (level or j + 1) / LEVELS, inner, rng)
        self.half = (np.array(self.heights.shape[::-1]) - 1) * CELL / 2  # of the field, along x and y

    def origin(self, kind: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Middle of patches, in the world: [K, 2]."""
        if not self.patches:
            return np.zeros((len(kind), 2))
        return np.stack([MARGIN + (level + 0.5) * PATCH, MARGIN + (kind + 0.5) * PATCH], -1) - self.half

    def height(self, points: np.ndarray) -> np.ndarray:
        """Of the ground at [..., 2]: between the grid's points bilinear, beyond the field that of its edge."""
        if not self.patches:
            return np.zeros(points.shape[:-1])
        columns, rows = np.moveaxis((points + self.half) / CELL, -1, 0)
        last = np.array(self.heights.shape) - 1
        rows, columns = rows.clip(0, last[0] - 1e-9), columns.clip(0, last[1] - 1e-9)
        i, j = rows.astype(np.int64), columns.astype(np.int64)
        u, v = rows - i, columns - j
        low = self.heights[i, j] * (1 - v) + self.heights[i, j + 1] * v
        high = self.heights[i + 1, j] * (1 - v) + self.heights[i + 1, j + 1] * v
        return low * (1 - u) + high * u

    def normal(self, points: np.ndarray) -> np.ndarray:
        """Unit normals of the ground at [..., 2], over the width of a cell: [..., 3]."""
        x, y = np.array([CELL / 2, 0.0]), np.array([0.0, CELL / 2])
        fall = [(self.height(points - d) - self.height(points + d)) / CELL for d in (x, y)]
        normal = np.stack([*fall, np.ones_like(fall[0])], -1)
        return normal / np.linalg.norm(normal, axis=-1, keepdims=True)

    def beyond(self, points: np.ndarray) -> np.ndarray:
        """Whether points [..., 2] are about to leave the field."""
        return np.asarray((np.abs(points) > self.half - 1.0).any(-1) & self.patches)

    def lay(self, spec: Any, path: Path, floor: str = "floor") -> None:
        """Put the field into an `MjSpec` that came from a file, in place of the plane of that name.

        Raises:
            UserError: it has no such plane.
        """
        if not self.patches:
            return
        rows, columns = self.heights.shape
        low, rise = self.heights.min(), np.ptp(self.heights)
        unit = ((self.heights - low) / rise).ravel()
        spec.add_hfield(name=floor, nrow=rows, ncol=columns, size=[*self.half, rise, BASE], userdata=unit)
        geom = spec.geom(floor)
        if geom is None:
            raise UserError(f'{path} has no geom "{floor}" that other ground could replace: give its plane that name')
        geom.type, geom.hfieldname, geom.pos = load_mujoco().mjtGeom.mjGEOM_HFIELD, floor, [0.0, 0.0, low]


def _patch(kind: str, difficulty: float, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Heights [cells, cells] of a patch, 0 at its edges; difficulty is in (0, 1]."""
    across = (np.arange(cells) + 0.5) * CELL - PATCH / 2
    out = np.maximum(np.abs(across)[:, None], np.abs(across)[None])  # m from the middle, as a square has them
    if kind == "rough":  # up to 8 cm of noise
        noise = rng.uniform(-0.08, 0.08, (cells, cells)) * difficulty
        noise[(out < PLATFORM) | (out > PATCH / 2 - CELL)] = 0.0
        return noise
    up = 1.0 if kind.endswith("up") else -1.0
    down = (PATCH / 2 - CELL - out).clip(0, PATCH / 2 - CELL - PLATFORM)  # m from the edge, inwards
    if kind.startswith("slope"):  # a pyramid, up to 0.4 in steepness
        return -up * 0.4 * difficulty * down
    return -up * (0.05 + 0.05 * difficulty) * np.floor(down / 0.3)  # stairs of 30 cm, 5 to 10 cm high

"""Minigrid's observations one-hot: the whole grid for a teacher, and beside it what the robot sees."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

# Minigrid's cells: kind of object, colour, and its state or, of the robot, its direction.
_SIZES = (11, 6, 4)
_AGENT, _RED = 10, 0


class BothGrids(gymnasium.ObservationWrapper):
    """`grid`: every cell with the robot in it; `image`: the cells in front of the robot, as it sees them. Both one-hot.

    Float32, flattened: 21 numbers a cell (11 kinds, 6 colours, 4 states). Other entries stay as they are.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        inner: Any = env.unwrapped
        own: Any = env.observation_space
        cells = {"grid": inner.width * inner.height, "image": int(np.prod(own["image"].shape[:2]))}
        ours = {name: spaces.Box(0, 1, (n * sum(_SIZES),), np.float32) for name, n in cells.items()}
        self.observation_space = spaces.Dict({**own.spaces, **ours})

    def observation(self, observation: Any) -> Any:
        """Both grids, and what else there is."""
        inner: Any = self.unwrapped
        grid = inner.grid.encode()
        grid[inner.agent_pos] = _AGENT, _RED, inner.agent_dir
        return {**observation, "grid": _one_hot(grid), "image": _one_hot(observation["image"])}


def _one_hot(cells: np.ndarray) -> np.ndarray:
    """Minigrid's [W, H, 3] as one vector."""
    parts = [np.eye(size, dtype=np.float32)[cells[..., i]] for i, size in enumerate(_SIZES)]
    return np.concatenate(parts, axis=-1).ravel()

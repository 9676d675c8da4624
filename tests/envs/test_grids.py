"""Minigrid's two grids."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from tscli.envs.grids import BothGrids

minigrid = pytest.importorskip("minigrid", reason="needs minigrid: pip install 'tscli[minigrid]'")


def test_the_teacher_sees_every_cell_and_the_robot_in_it() -> None:
    env = BothGrids(gymnasium.make("MiniGrid-DoorKey-5x5-v0"))
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    inner: Any = env.unwrapped
    cells = seen["grid"].reshape(5, 5, 21)
    assert (cells.sum(-1) == 3).all()  # a kind, a colour and a state each
    kinds = cells[..., :11].argmax(-1)
    assert np.argwhere(kinds == 10).tolist() == [list(inner.agent_pos)]
    assert cells[tuple(inner.agent_pos)][17:].argmax() == inner.agent_dir
    assert {1, 2, 4, 5, 8, 10} == set(kinds.ravel())  # empty, wall, door, key, goal, robot
    assert seen["image"].shape == (7 * 7 * 21,)

"""Robots for the tests."""

from __future__ import annotations

from typing import Any

import pytest

from tscli.envs import make_env


def quadruped(num_envs: int = 3, **settings: Any) -> Any:
    """Go2s on one thread; without MuJoCo the test is skipped."""
    pytest.importorskip("mujoco")
    return make_env({"kind": "quadruped", "threads": 1, **settings}, num_envs)


def drawer(num_envs: int = 3, **settings: Any) -> Any:
    """Pandas before their drawers, on one thread; without MuJoCo the test is skipped."""
    pytest.importorskip("mujoco")
    return make_env({"kind": "drawer", "threads": 1, **settings}, num_envs)

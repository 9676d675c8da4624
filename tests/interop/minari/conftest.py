"""Fixtures for the tests of Minari: a folder of its datasets, and demonstrations in it."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import pytest


@pytest.fixture(autouse=True)
def local(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of Minari's datasets."""
    path = folder / "minari"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(path))
    return path


@pytest.fixture
def demonstrations() -> list[dict[str, list]]:
    """Twelve episodes of at most 60 steps."""
    from minari_tools import record
    from recorded_tools import controller, play

    env = gymnasium.make("CartPole-v1", max_episode_steps=60)
    played = play(env, controller, 12)
    env.close()
    record("cartpole/hand-v0", played, env="CartPole-v1")
    return played

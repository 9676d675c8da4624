"""Datasets of Minari: ours converted, and what another library would have recorded."""

from __future__ import annotations

import importlib
import warnings
from importlib.metadata import version
from typing import Any

import gymnasium
import pytest
from gymnasium import spaces

from tscli.cli.app import main

minari: Any = pytest.importorskip("minari", reason="needs minari: pip install 'tscli[minari]'")
pictures = pytest.mark.skipif(version("minari") < "0.5.4", reason="minari before 0.5.4 makes JPEGs of pictures")


def quiet(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function of Minari's, which warns of every description that is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def to_minari(source: Any, name: str, *options: str) -> Any:
    """Convert, and open the result with Minari."""
    assert main(["convert", str(source), "--to", "minari", "--id", name, "--quiet", *options]) == 0
    return minari.load_dataset(name)


def stored(values: list[Any]) -> Any:
    """A list of observations as Minari's storage takes them: a list in every entry."""
    if isinstance(values[0], dict):
        return {key: stored([value[key] for value in values]) for key in values[0]}
    return values


def record(name: str, played: list[dict[str, Any]], env: Any = None, **described: Any) -> None:
    """Give episodes to Minari, as another library would."""
    buffer = importlib.import_module("minari.data_collector").EpisodeBuffer
    episodes = [buffer(**{**episode, "observations": stored(episode["observations"])}) for episode in played]
    quiet(minari.create_dataset_from_buffers, name, episodes, env=env, **described)


class Odd(gymnasium.Env):
    """An env that has these spaces, but for its text."""

    def __init__(self, space: spaces.Dict, actions: Any) -> None:
        self.observation_space = spaces.Dict({k: v for k, v in space.items() if k != "order"})
        self.action_space = actions

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

"""One Gymnasium env in a vector of them: its episodes' seeds, and what goes wrong in it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from tscli.traces import blamed_on


class Episodes(gymnasium.Wrapper):
    """One sub-env whose k-th episode depends on (seed, k) alone and whose last observation is safe to keep.

    What goes wrong in it, or what it gives that its spaces do not have, is one line that names it.
    """

    def __init__(self, env: gymnasium.Env, name: str) -> None:
        super().__init__(env)
        self._id, self._steps = name, 0

    def _check_shapes(self, obs: Any) -> None:
        _check_shape(obs, self.env.observation_space, "the observation")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is None:
            self._episode += 1
        else:
            self._seed, self._episode = seed, 0
        self._steps = 0
        with blamed_on(self._id, doing=f"in reset of episode {self._episode}"):
            found = self.env.reset(seed=derive(self._seed, self._episode), options=options)
            if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], dict):
                raise TypeError(f"reset gives (observation, info), not {_described(found)}")
            self._check_shapes(found[0])
        return found

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self._steps += 1
        with blamed_on(self._id, doing=f"in step {self._steps} of an episode"):
            found = self.env.step(action)
            if not isinstance(found, tuple) or len(found) != 5 or not isinstance(found[4], dict):
                raise TypeError(
                    f"step gives (observation, reward, terminated, truncated, info), not {_described(found)}"
                )
            obs, reward, terminated, truncated, info = found
            self._check_shapes(obs)
            given: Any = reward
            if np.size(given) != 1:
                raise TypeError(f"the reward is one number, not {_described(given)}")
            float(given)  # says what is wrong with it
        if terminated or truncated:
            # The autoreset comes before anyone reads this, and may write over an array that the env uses again.
            obs = copy.deepcopy(obs)
        return obs, reward, bool(terminated), bool(truncated), info


def _described(value: Any) -> str:
    if isinstance(value, tuple):
        return f"{len(value)} values"
    return f"an array of {list(value.shape)}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"


def _check_shape(value: Any, space: spaces.Space, what: str) -> None:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            if not isinstance(value, Mapping) or key not in value:
                raise TypeError(f'{what} has no entry "{key}", which its space has')
            _check_shape(value[key], inner, f'{what}\'s entry "{key}"')
    elif space.shape is not None and np.shape(value) != space.shape:
        raise TypeError(f"{what} is {list(np.shape(value))}, its space says {list(space.shape)}")


def derive(*numbers: int) -> int:
    """A seed of 31 bits, which is what environments take, that depends on all the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] >> 1)

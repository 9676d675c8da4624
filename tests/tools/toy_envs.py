"""Tiny Gymnasium environments for the tests of the stages; `toy_envs:toy/Dict-v0` imports this module."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

STEPS = 6


class _Toy(gymnasium.Env):
    """Sees a random walk that the action pushes, and is cut off after `STEPS` steps."""

    observation_space: spaces.Space = spaces.Box(-10.0, 10.0, (2,), np.float32)
    action_space: spaces.Space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        self.steps = 0
        return self.see(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.state = (0.9 * self.state + 0.1 * (np.mean(action) - 0.5)).astype(np.float32)
        return self.see(), float(1 - abs(self.state[0])), False, self.steps >= STEPS, {}

    def see(self) -> Any:
        return self.state


class DictEnv(_Toy):
    """Several groups, one of them a picture; it can be drawn."""

    observation_space = spaces.Dict(
        {
            "body": spaces.Box(-10.0, 10.0, (2,), np.float32),
            "goal": spaces.Discrete(3),
            "camera": spaces.Box(0, 255, (12, 10, 3), np.uint8),
        }
    )
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def see(self) -> Any:
        return {"body": self.state, "goal": int(self.state[1] > 0), "camera": self._picture()}

    def render(self) -> Any:
        return np.kron(self._picture(), np.ones((8, 8, 1), np.uint8))

    def _picture(self) -> np.ndarray:
        return np.full((12, 10, 3), np.clip(128 + 100 * self.state[0], 0, 255), np.uint8)


class ImageEnv(DictEnv):
    """A picture and nothing else."""

    observation_space = spaces.Box(0, 255, (12, 10, 3), np.uint8)

    def see(self) -> Any:
        return self._picture()


class MultiEnv(_Toy):
    """Several discrete actions at once."""

    action_space = spaces.MultiDiscrete([3, 2])


class SuccessEnv(_Toy):
    """Tells at an episode's end, and not before, whether it succeeded: where the walk ended on the right."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, {"is_success": bool(self.state[0] > 0)} if truncated else info


class EndlessReward(gymnasium.Env):
    """Reward 1 for every step of one step's length; whether the end is a termination or a truncation is the caller's.

    With discount g its value is 1 / (1 - g) where the end is a truncation, and 1 where it is a termination.
    """

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, terminates: bool) -> None:
        self.terminates = terminates

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.ones(1, np.float32), 1.0, self.terminates, not self.terminates, {}


class FaultyEnv(_Toy):
    """Gives a NaN or an infinity at the `at`-th step since the env was made: as reward, first reading, or last one."""

    def __init__(self, what: str, at: int, value: float) -> None:
        self.what, self.at, self.value, self.total = what, at, value, 0

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.total += 1
        obs, reward, terminated, truncated, info = super().step(action)
        if self.total >= self.at:
            if self.what == "reward":
                reward = self.value
            elif self.what == "observation" or truncated:
                obs = np.array([0.0, self.value], np.float32)
        return obs, reward, terminated, truncated, info


for _name, _class in (
    ("Dict", "DictEnv"),
    ("Image", "ImageEnv"),
    ("Multi", "MultiEnv"),
    ("Success", "SuccessEnv"),
    ("Endless", "EndlessReward"),
    ("Faulty", "FaultyEnv"),
):
    if f"toy/{_name}-v0" not in gymnasium.registry:
        gymnasium.register(f"toy/{_name}-v0", entry_point=f"{__name__}:{_class}")

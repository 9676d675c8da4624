"""Small simulators behind rsl_rl's own interface, for the tests of `tscli.envs.rsl`; they need rsl-rl-lib."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

# Not import statements: pyright would look for packages that are an extra.
_Base: Any = importlib.import_module("rsl_rl.env").VecEnv
_TensorDict: Any = importlib.import_module("tensordict").TensorDict

STEPS = 6
_alive: list[Any] = []


class Walk(_Base):
    """A point that is pushed along a line, cut off after `STEPS` steps, and lost beyond +-2.

    Groups: `policy` sees where it is, roughly; `critic` exactly, beside the number of the episode in its env and its
    step; `sensors.camera` is a picture. Buffers are written over at every step, as simulators do.
    """

    def __init__(self, num_envs: int, device: str, tells_time_outs: bool = True, gives_final: bool = False) -> None:
        self.num_envs, self.device, self.num_actions = num_envs, torch.device(device), 2
        self.max_episode_length, self.cfg = STEPS, {}
        self.tells_time_outs, self.gives_final = tells_time_outs, gives_final
        self.step_dt = 0.02
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self.episode = torch.zeros_like(self.episode_length_buf)
        self.position = torch.zeros(num_envs, device=self.device)
        self.buffer = torch.zeros(num_envs, 3, device=self.device)
        self.picture = torch.zeros(num_envs, 3, 12, 10, dtype=torch.uint8, device=self.device)
        self.reset()

    def reset(self) -> tuple[Any, dict[str, Any]]:
        """Start every env anew, from torch's global stream."""
        self.episode.zero_()
        self._begin(torch.ones(self.num_envs, dtype=torch.bool, device=self.device))
        return self.get_observations(), {}

    def _begin(self, rows: Tensor) -> None:
        self.episode_length_buf[rows] = 0
        self.position[rows] = torch.rand(int(rows.sum()), device=self.device) - 0.5

    def get_observations(self) -> Any:
        """The same buffers every time."""
        self.buffer[:, 0], self.buffer[:, 1], self.buffer[:, 2] = self.position, self.episode, self.episode_length_buf
        self.picture[:] = (128 + 50 * self.position).clamp(0, 255).to(torch.uint8)[:, None, None, None]
        groups = {"policy": self.buffer[:, :1] + 0.01, "critic": self.buffer, "sensors": {"camera": self.picture}}
        return _TensorDict(groups, batch_size=[self.num_envs])

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
        """Push, and reset what ended within the step."""
        self.position += 0.3 * actions.mean(-1)
        self.episode_length_buf += 1
        lost = self.position.abs() > 2
        time_outs = self.episode_length_buf >= self.max_episode_length
        dones = lost | time_outs
        reward = 1 - self.position.abs()
        extras: dict[str, Any] = {"log": {}, "arrived": (self.position > 0).float()}
        if self.tells_time_outs:
            extras["time_outs"] = time_outs.float()
        if self.gives_final:
            extras["final_obs"] = self.get_observations().clone()
        self.episode[dones] += 1
        self._begin(dones)
        return self.get_observations(), reward, dones.long(), extras


class Screen(Walk):
    """Draws all its envs as one picture."""

    def render(self) -> Any:
        """A picture of the first env."""
        return self.picture[0].movedim(0, -1).numpy()


def make_walk(num_envs: int, device: str, tells_time_outs: bool = True, gives_final: bool = False) -> Walk:
    """As a user's entry point would be."""
    return Walk(num_envs, device, tells_time_outs, gives_final)


def make_screen(num_envs: int, device: str) -> Walk:
    """One that can be drawn."""
    return Screen(num_envs, device)


def make_single(num_envs: int, device: str) -> Walk:
    """One that a process can have a single instance of."""
    if _alive:
        raise RuntimeError("the simulation app is running already")
    _alive.append(Walk(num_envs, device))
    return _alive[0]


def make_five(num_envs: int, device: str) -> Walk:
    """One that does not listen."""
    return Walk(5, device)


def make_nothing(num_envs: int, device: str) -> object:
    """No env at all."""
    return object()

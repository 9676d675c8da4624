"""Small simulators behind rsl_rl's own interface, for the tests of `tscli.envs.rsl`; they need rsl-rl-lib."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any, ClassVar

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


class _Managers:
    """What Isaac Lab's and mjlab's managers tell of `Walk`."""

    active_terms: ClassVar[dict[str, list[str]]] = {
        "policy": ["place"],
        "critic": ["place", "count"],
        "sensors": ["camera"],
    }
    group_obs_term_dim: ClassVar[dict[str, list[tuple[int, ...]]]] = {
        "policy": [(1,)],
        "critic": [(1,), (2,)],
        "sensors": [(3, 12, 10)],
    }
    group_obs_concatenate: ClassVar[dict[str, bool]] = {"policy": True, "critic": True, "sensors": False}


class Managed(Walk):
    """As Isaac Lab and mjlab build theirs: it prints, has managers, counts its steps, and reports as episodes end."""

    def __init__(self, num_envs: int, device: str, auto_reset: bool = True) -> None:
        print("Base Environment")
        self.observation_manager = _Managers()
        self.action_manager = SimpleNamespace(active_terms=["push"], action_term_dim=[2])
        self.common_step_counter, self.auto_reset = 0, auto_reset
        super().__init__(num_envs, device)
        self.cfg = SimpleNamespace(auto_reset=auto_reset)

    def step(self, actions: Tensor) -> tuple[Any, Tensor, Tensor, dict[str, Any]]:
        """Report the counter, and leave ended rows where they are unless it resets itself."""
        print("step")
        self.common_step_counter += 1
        begin, self._begin = self._begin, self._begin if self.auto_reset else (lambda rows: None)
        obs, reward, dones, extras = super().step(actions)
        self._begin = begin
        extras["log"] = {"Curriculum/steps": torch.tensor(float(self.common_step_counter)), "note": "text"}
        return obs, reward, dones, extras

    def reset(self, env_ids: Tensor | None = None) -> tuple[Any, dict[str, Any]]:
        """Start all envs anew, or some."""
        if env_ids is None:
            return super().reset()
        rows = torch.zeros(self.num_envs, dtype=torch.bool)
        rows[env_ids] = True
        self._begin(rows)
        return self.get_observations(), {"log": {"Episode/reward": 1.0}}


def make_managed(num_envs: int, device: str, auto_reset: bool = True) -> Any:
    """In a wrapper that has no `reset` of its own, as Isaac Lab's newer one."""
    inner = Managed(num_envs, device, auto_reset)
    kept = ("num_envs", "num_actions", "max_episode_length", "episode_length_buf", "device", "step", "get_observations")
    return SimpleNamespace(env=inner, unwrapped=inner, **{name: getattr(inner, name) for name in kept})


def make_play(num_envs: int, device: str) -> Walk:
    """One whose episodes never end."""
    walk = Walk(num_envs, device)
    walk.max_episode_length = 50_000_000_000
    return walk


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

"""What the native environments share: a state of a few numbers, random starts, a time limit and same-step autoreset.

The rules are written once, for arrays of NumPy or of torch: with `xp` standing for either, `xp.cos(angle)` is the same
line. On a CPU NumPy does it, whose operations on small arrays cost a third of torch's (0.7 against 2 us for 64 envs);
on a GPU torch does. Either way the state stands as [D, N] columns, and what goes in and out are tensors.

On a GPU nothing waits for it: no value is read on the host, and nothing is brought from there but by the caller.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tscli import devices
from tscli.envs import EnvStep, VecEnv
from tscli.streams import stream_id, uniform

Array = Any  # np.ndarray on a CPU, torch.Tensor elsewhere


class Move(NamedTuple):
    """One step of all envs: states [D, N] before and after it, and the action [N] or [N, A] between them."""

    before: Array
    action: Array
    after: Array


# Hashing a start takes some 50 operations whether for one env or for hundreds, so each env's next ones are drawn ahead.
AHEAD = 32


class NativeEnv(VecEnv):
    """N copies of a system whose state is a few numbers.

    A subclass gives where episodes start (`starts`), what an action does (`_advance`), what ends an episode
    (`_terminal`), what a step pays (`_outcome`) and what the groups show of a state (`_fields`). It stands as after
    `reset(0)` when built.

    Args:
        max_episode_steps: steps after which an episode is truncated.
        num_envs: N.
        device: where the tensors that go in and out live.
        tables: arrays to look things up in, kept as `_tables`.
    """

    is_native = True
    has_success = True
    starts: tuple[tuple[float, float], ...]  # of each number of the state: a start's is uniform in [low, high)
    _stream = stream_id("reset")
    _counts = torch.int64  # type of the numbers of steps and episodes

    def __init__(
        self,
        max_episode_steps: int,
        num_envs: int,
        device: torch.device | str,
        tables: Mapping[str, np.ndarray] = MappingProxyType({}),
    ) -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.max_episode_steps: int = max_episode_steps
        self._on_host = devices.host_may_look(self.device)  # so that values may be looked at
        self._xp: ModuleType = np if self._on_host else torch
        self._tables = {name: self._array(torch.from_numpy(table)) for name, table in tables.items()}
        self._rows = self._array(torch.arange(num_envs, device=self.device))
        low, high = torch.tensor(self.starts, dtype=torch.float64, device=self.device).T[..., None, None]
        self._middle, self._reach = (low + high) / 2, (high - low) / 2
        self.reset(0)

    @abstractmethod
    def _advance(self, state: Array, action: Array) -> Array:
        """State [D, N] after one step, as a new array."""

    @abstractmethod
    def _terminal(self, state: Array) -> Array:
        """Whether each state ends its episode, [N] bool."""

    @abstractmethod
    def _outcome(self, move: Move, terminated: Tensor, truncated: Tensor) -> tuple[Tensor, Tensor]:
        """Reward (float32) and success (bool) of a step, both [N]."""

    @abstractmethod
    def _fields(self, group: str, state: Array) -> Array:
        """What a group shows of states [D, K], one row for each of its entries: [F, K]."""

    def _begin(self, draws: Tensor) -> Tensor:
        """States [D, AHEAD, N] in which episodes start, of uniform draws [len(starts), AHEAD, N] in [0, 1)."""
        return self._middle + (2.0 * draws - 1.0) * self._reach

    def reset(self, seed: int) -> None:
        self._seed = seed
        self._steps, self._episode = (
            self._array(torch.zeros(self.num_envs, dtype=self._counts, device=self.device)) for _ in range(2)
        )
        self._draw_starts()
        self._stand_at(_copy(self._starts[:, 0]))

    def start_part_way(self, generator: torch.Generator) -> None:
        steps = torch.randint(self.max_episode_steps, (self.num_envs,), generator=generator, device=generator.device)
        self._steps = self._array(steps.to(self._counts))

    def step(self, action: Tensor) -> EnvStep:
        before, chosen = self._state, self._array(action)
        state = self._advance(before, chosen)
        ended = self._terminal(state)
        self._steps += 1
        out_of_time = (self._steps >= self.max_episode_steps) & ~ended  # terminated wins
        terminated, truncated = self._tensor(ended), self._tensor(out_of_time)
        reward, success = self._outcome(Move(before, chosen, state), terminated, truncated)
        self._stand_at(state)
        self._restart(ended | out_of_time)
        return EnvStep(reward, terminated, truncated, success)

    def observe(self, group: str, rows: Tensor | None = None) -> Tensor:
        self.check_group(group)
        if group not in self._seen:
            if rows is not None:
                return self._observation(group, self._state[:, self._array(rows)])
            self._seen[group] = self._observation(group, self._state)
        return self._seen[group] if rows is None else self._seen[group][rows]

    def final_observation(self, group: str, rows: Tensor) -> Tensor:
        self.check_group(group)
        return self._observation(group, self._final[:, self._array(rows)])

    def state_dict(self) -> dict[str, Any]:
        parts = {"state": self._state, "steps": self._steps, "episode": self._episode}
        return {"seed": self._seed, **{name: self._tensor(part).clone() for name, part in parts.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.check_saved(len(state["steps"]))
        self._seed = int(state["seed"])
        self._steps = self._array(state["steps"].clone())
        self._episode = self._array(state["episode"].clone())
        self._draw_starts()
        self._stand_at(self._array(state["state"].clone()))

    def _stand_at(self, state: Array) -> None:
        self._state = self._final = state
        self._seen: dict[str, Tensor] = {}

    def _restart(self, done: Array) -> None:
        """Put rows at the start of their next episode; `_final` keeps the states that they ended in."""
        if not self._on_host:
            self._steps *= ~done
            self._episode += done
            self._used += 1
            if self._used == AHEAD:  # at most, since a step takes one start of a row or none
                self._draw_starts()
            starts = self._starts[:, self._episode - self._first, self._rows]
            self._state = self._xp.where(done, starts, self._final)
        elif done.any():
            rows = self._xp.where(done)[0]
            self._steps[rows] = 0
            self._episode[rows] += 1
            ahead = self._episode[rows] - self._first[rows]
            if (ahead == AHEAD).any():
                self._draw_starts()
                ahead = self._episode[rows] - self._first[rows]
            self._state = _copy(self._final)
            self._state[:, rows] = self._starts[:, ahead, rows]

    def _draw_starts(self) -> None:
        """Draw each env's starts from its current episode on: `_starts` is [D, AHEAD, N]."""
        self._first, self._used = _copy(self._episode), 0
        row = self._tensor(self._rows).repeat(AHEAD) + self.first
        episode = self._tensor(self._first) + torch.arange(AHEAD, device=self.device)[:, None]
        draws = uniform(self._seed, self._stream, row, episode.flatten(), len(self.starts))
        self._starts = self._array(self._begin(draws.T.reshape(-1, AHEAD, self.num_envs)))

    def _observation(self, group: str, state: Array) -> Tensor:
        fields = self._fields(group, state).T
        if self._xp is np:
            return torch.from_numpy(fields.astype(np.float32, order="C", copy=False))
        return fields.to(torch.float32, memory_format=torch.contiguous_format)

    def _array(self, tensor: Tensor) -> Array:
        return tensor.numpy() if self._xp is np else tensor.to(self.device)

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(array) if self._xp is np else array


def _copy(array: Array) -> Array:
    return array.copy() if isinstance(array, np.ndarray) else array.clone()


def time_limit(steps: int) -> Any:
    """The setting `max_episode_steps` with its default."""
    return Field(default=steps, ge=1, le=1_000_000, description="Steps after which an episode is truncated.")


def canvas(width: int, height: int) -> tuple[Any, Any]:
    """A picture, and what draws on it, of twice that size for smooth edges: what is shown is `image.reduce(2)`."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (2 * width, 2 * height), "#f7f8fa")
    return image, ImageDraw.Draw(image)

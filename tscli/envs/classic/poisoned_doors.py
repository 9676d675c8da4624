"""PoisonedDoors: one door pays behind a long combination lock, and of the others one pays at once and the rest punish.

By the rules of "Bridging the Imitation Gap by Adaptive Insubordination" (ADVISOR; Weihs et al., NeurIPS 2021) and of
its code, batched. A teacher who is told the good door goes there. A student who is not told and imitates that picks a
poisoned door more often than not; it should take the lock, to which the teacher knows the combination.

There are `num_doors` doors. Behind door 0 is a lock whose combination of `combination_length` codes (0, 1 or 2) is the
same in every episode. One of the other doors, drawn uniformly for each episode, is good; the others are poisoned.

Actions: 0, 1 and 2 enter that code, 3 opens door 0, 3 + i opens door i.
Reward and ends:

    choosing a door    a code             0     nothing happens
                       door 0             0     to the lock
                       the good door      +2    terminated, success
                       a poisoned door    -2    terminated
    at the lock        the right code     0     to the next code
                       the last one       +1    terminated, success
                       any other action   0     terminated

An episode is truncated after `max_episode_steps`. With `lock_starts` above 0 that fraction of the episodes begins at
the lock with any number of right codes already entered. That is not the published task: it is for training a teacher
that also knows the lock, which one that goes straight to the good door never gets to see.

Groups, float32:

    phase      [4]              one-hot of choosing, at_lock, entering (after the first right code), done
    good_door  [num_doors - 1]  one-hot of the good one of doors 1, 2, ..., privileged
    next_code  [3]              one-hot of the code that comes next, zeros away from the lock, privileged

The published student sees the phase, and its scripted teacher the two others.

Returns that can be worked out, with the default 4 doors: told the good door 2; the lock 1; a door at random other than
door 0 -2/3; any action at random -1/2; codes at random at the lock 3^-10. After 300 000 steps the published figures are
PPO 0, behavioural cloning -.60, DAgger -.59, ADVISOR 1.00.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tscli.config import Config
from tscli.envs.native import Array, Move, NativeEnv, canvas, time_limit
from tscli.envs.spaces import ActionSpec, Group

NUM_CODES = 3
LOCK_DOOR = NUM_CODES  # the action that opens door 0
CHOOSING, AT_LOCK, ENTERING, DONE = range(4)


class EnvConfig(Config):
    """Settings of PoisonedDoors."""

    num_doors: int = Field(default=4, ge=3, le=100, description="Doors, that with the lock included.")
    combination_length: int = Field(default=10, ge=1, le=1000, description="Codes in the lock's combination.")
    lock_starts: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Fraction of episodes that begin at the lock, for training a teacher."
    )
    max_episode_steps: int = time_limit(100)


def combination(length: int) -> list[int]:
    """The lock's combination, drawn as the published code draws it, so that it is the published one."""
    stream = random.Random(length)
    return [stream.randint(0, NUM_CODES - 1) for _ in range(length)]


class Env(NativeEnv):
    """N sets of doors; the module's docstring is the specification."""

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        doors = [f"door{i}" for i in range(config.num_doors)]
        codes = tuple(f"code{i}" for i in range(NUM_CODES))
        self.groups = {
            "phase": _one_hot(("choosing", "at_lock", "entering", "done"), "What there is to do."),
            "good_door": _one_hot(tuple(doors[1:]), "The door that pays at once.", privileged=True),
            "next_code": _one_hot(codes, "The code that comes next at the lock.", privileged=True),
        }
        self.action = ActionSpec("discrete", nvec=(NUM_CODES + config.num_doors,), names=(*codes, *doors))
        # The good door, the phase (here the draw that decides it) and the codes entered.
        self.starts = ((1.0, config.num_doors), (0.0, 1.0), (0.0, config.combination_length))
        self._num_doors, self._length = config.num_doors, config.combination_length
        self._lock_starts = config.lock_starts
        tables = {"codes": np.array([*combination(self._length), -1.0])}
        for name, first in (("phase", 0), ("good_door", 1), ("next_code", 0)):
            tables[name] = np.arange(first, first + self.groups[name].size, dtype=np.float64)[:, None]
        super().__init__(config.max_episode_steps, num_envs, device, tables)

    def _begin(self, draws: Tensor) -> Tensor:
        good, drawn, entered = super()._begin(draws)
        at_lock = drawn < self._lock_starts
        entered = entered.floor().clamp(max=self._length - 1) * at_lock
        phase = torch.where(entered > 0, ENTERING, torch.where(at_lock, AT_LOCK, CHOOSING))
        return torch.stack((good.floor().clamp(max=self._num_doors - 1), phase.to(draws.dtype), entered))

    def _next_code(self, state: Array) -> Array:
        """The code that the lock waits for, -1 away from it."""
        xp = self._xp
        _, phase, entered = state
        code = self._tables["codes"][xp.asarray(entered, dtype=xp.int64)]
        return xp.where((phase == AT_LOCK) | (phase == ENTERING), code, -1.0)

    def _advance(self, state: Array, action: Array) -> Array:
        xp = self._xp
        good, phase, entered = state
        code = self._next_code(state)
        right = action == code
        after = xp.empty_like(state)
        after[0] = good
        after[2] = (entered + 1) * right
        at_lock = xp.where(right & (after[2] < self._length), ENTERING, DONE)
        choosing = AT_LOCK * (action == LOCK_DOOR) + DONE * (action > LOCK_DOOR)
        after[1] = xp.where(phase == CHOOSING, choosing, at_lock)
        return after

    def _terminal(self, state: Array) -> Array:
        return state[1] == DONE

    def _outcome(self, move: Move, terminated: Tensor, truncated: Tensor) -> tuple[Tensor, Tensor]:
        good, phase, _ = move.before
        opened = (phase == CHOOSING) & (move.action > LOCK_DOOR)
        is_good = move.action - LOCK_DOOR == good
        reward = self._tensor(opened * (4.0 * is_good - 2.0) + (move.after[2] == self._length)).to(torch.float32)
        return reward, reward > 0

    def _fields(self, group: str, state: Array) -> Array:
        shown = {"good_door": state[0], "phase": state[1]}
        value = self._next_code(state) if group == "next_code" else shown[group]
        return value == self._tables[group]

    def render(self, row: int = 0) -> np.ndarray:
        """The doors, of which the good one is green and the lock's has its codes above it: uint8 [200, W, 3]."""
        good, phase, entered = (int(value) for value in self._state[:, row].tolist())
        width = max(100 * self._num_doors, 30 * self._length + 40)
        image, draw = canvas(width, 200)
        for door in range(self._num_doors):
            color = "#48607d" if door == 0 else "#2e9e62" if door == good else "#e4572e"
            x = 200 * door + 40
            draw.rectangle((x, 160, x + 120, 390), fill=color)
            draw.ellipse((x + 90, 270, x + 108, 288), fill="#f7f8fa")
        if phase != CHOOSING:
            draw.rectangle((30, 150, 170, 400), outline="#f2a541", width=12)
        for place, code in enumerate(self._tables["codes"][:-1].tolist()):
            x, color = 60 * place + 40, "#f2a541" if place < entered else "#c3cad5"
            draw.rectangle((x, 90 - 25 * code, x + 44, 110), fill=color)
        return np.asarray(image.reduce(2))


def _one_hot(fields: tuple[str, ...], about: str, privileged: bool = False) -> Group:
    return Group((len(fields),), fields=fields, units=("1",), low=0.0, high=1.0, privileged=privileged, about=about)

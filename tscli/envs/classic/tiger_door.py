"""TigerDoor: a treasure is behind one of two doors and a tiger behind the other; who does not know can listen first.

After the tiger problem (Cassandra, Kaelbling and Littman 1994) in the form in which "Guided Policy Optimization under
Partial Observability" (GPO; Li, Xie and Lu, ICLR 2026) shows what imitation cannot learn: the teacher sees the tiger
and opens the other door, so it never listens, and its student, who hears nothing, guesses and gets .5, where listening
first is the best that it can do. Published are this story, the .5, and that there is a second task, TigerDoor-alt. That
listening never errs and costs .1, and what TigerDoor-alt pays, are this environment's own choice.

Actions: 0 opens the left door, 1 the right one, 2 listens. With `listen: false` there is no action 2.
Reward and ends:

    the treasure's door    +1             terminated, success; the left one pays `left_reward`
    the tiger's door       0              terminated
    listening              -listen_cost   the tiger stays where it is

An episode is truncated after `max_episode_steps`. The tiger is behind either door with probability 1/2.

Groups, float32:

    heard  [2]  one-hot of the door (left, right) behind which the tiger was heard, zeros before listening
    tiger  [2]  one-hot of the door behind which it is, privileged

Returns that can be worked out: knowing 1; listening, then opening .9; guessing .5. In the task tiger_door_alt, which
has no listening and a left treasure of 2: knowing 1.5; guessing, as who imitates does, .75; always left 1, the best for
a student. There imitation fails with nothing to find out: the teacher opens either door equally often.
"""

from __future__ import annotations

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tscli.config import Config
from tscli.envs.native import Array, Move, NativeEnv, canvas, time_limit
from tscli.envs.spaces import ActionSpec, Group

SIDES = ("left", "right")
LISTEN = 2


class EnvConfig(Config):
    """Settings of TigerDoor."""

    listen: bool = Field(default=True, description="Whether there is the action that listens.")
    listen_cost: float = Field(default=0.1, ge=0.0, le=1000.0, description="What listening once costs; 0: nothing.")
    left_reward: float = Field(default=1.0, gt=0.0, le=1000.0, description="What a treasure behind the left door pays.")
    max_episode_steps: int = time_limit(10)


class Env(NativeEnv):
    """N pairs of doors; the module's docstring is the specification."""

    starts = ((0.0, 2.0), (0.0, 0.0), (0.0, 0.0))  # tiger's side, whether it was heard, whether a door was opened
    groups = {  # noqa: RUF012 - one constant for all instances
        "heard": Group((2,), fields=SIDES, units=("1",), low=0.0, high=1.0, about="Where the tiger was heard."),
        "tiger": Group(
            (2,), fields=SIDES, units=("1",), low=0.0, high=1.0, privileged=True, about="Where the tiger is."
        ),
    }

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        names = ("open_left", "open_right", "listen")[: 3 if config.listen else 2]
        self.action = ActionSpec("discrete", nvec=(len(names),), names=names)
        self._listen_cost, self._left_reward = config.listen_cost, config.left_reward
        super().__init__(config.max_episode_steps, num_envs, device, {"sides": np.array([[0.0], [1.0]])})

    def _begin(self, draws: Tensor) -> Tensor:
        return super()._begin(draws).floor()

    def _advance(self, state: Array, action: Array) -> Array:
        tiger, heard, _ = state
        listens = action == LISTEN
        after = self._xp.empty_like(state)
        after[0] = tiger
        after[1] = listens | (heard > 0)
        after[2] = ~listens
        return after

    def _terminal(self, state: Array) -> Array:
        return state[2] > 0

    def _outcome(self, move: Move, terminated: Tensor, truncated: Tensor) -> tuple[Tensor, Tensor]:
        treasure = 1 - move.before[0]
        found = move.action == treasure
        prize = self._left_reward + (1.0 - self._left_reward) * treasure
        reward = found * prize - self._listen_cost * (move.action == LISTEN)
        return self._tensor(reward).to(torch.float32), self._tensor(found)

    def _fields(self, group: str, state: Array) -> Array:
        tiger, heard, _ = state
        here = tiger == self._tables["sides"]
        return here & (heard > 0) if group == "heard" else here

    def render(self, row: int = 0) -> np.ndarray:
        """The doors, red the tiger's and green the treasure's, with a ring where it was heard: uint8 [200, 240, 3]."""
        tiger, heard, _ = self._state[:, row].tolist()
        image, draw = canvas(240, 200)
        for side in (0, 1):
            x = 60 + 220 * side
            draw.rectangle((x, 120, x + 140, 390), fill="#e4572e" if side == tiger else "#2e9e62")
            draw.ellipse((x + 108, 250, x + 126, 268), fill="#f7f8fa")
            if heard and side == tiger:
                draw.ellipse((x + 40, 30, x + 100, 90), outline="#2e4057", width=12)
        return np.asarray(image.reduce(2))

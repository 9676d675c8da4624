"""MountainCar: drive a car out of a valley with an engine too weak for the slope, by rocking to and fro.

Step for step Gymnasium's MountainCarContinuous-v0 (Moore 1990, with continuous force), batched. Between steps
Gymnasium keeps its state in float32 and this one in float64, so that trajectories part slowly by rounding.

Group `state`, float32 [2]:

    position  1  within [-1.2, 0.6]; the valley's floor is at -pi/6, the goal at 0.45
    velocity  1  per step, within +-0.07

Actions: a force within +-1, positive to the right.
Reward: -0.1 force^2 for every step, and 100 for the one that reaches the goal.
Starts: the position uniform in [-0.6, -0.4), the velocity 0; with `spread_starts` the position uniform in [-1.2, 0.4)
and the velocity in [-0.07, 0.07), since one who starts at the floor hardly ever meets the goal by chance.
Ends: terminated at or beyond the goal with a velocity of 0 or more; truncated after `max_episode_steps`.
The wall at the left end stops the car.
Success: the goal was reached.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tscli.config import Config
from tscli.envs.native import Array, Move, NativeEnv, canvas, time_limit
from tscli.envs.spaces import ActionSpec, Group

POWER = 0.0015
GRAVITY = 0.0025
MIN_POSITION, MAX_POSITION = -1.2, 0.6
MAX_VELOCITY = 0.07
GOAL = 0.45
GOAL_REWARD = 100.0


class EnvConfig(Config):
    """Settings of MountainCar."""

    max_episode_steps: int = time_limit(999)
    spread_starts: bool = Field(default=False, description="Start anywhere in the valley, at any velocity.")


class Env(NativeEnv):
    """N cars; the module's docstring is the specification."""

    starts = ((-0.6, -0.4), (0.0, 0.0))
    groups = {  # noqa: RUF012 - one constant for all instances
        "state": Group(
            shape=(2,),
            fields=("position", "velocity"),
            units=("1", "1"),
            low=MIN_POSITION,
            high=MAX_POSITION,
            about="The car, without noise.",
        )
    }
    action = ActionSpec("continuous", low=(-1.0,), high=(1.0,), names=("force",))

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        if config.spread_starts:
            self.starts = ((MIN_POSITION, 0.4), (-MAX_VELOCITY, MAX_VELOCITY))
        super().__init__(config.max_episode_steps, num_envs, device)

    def _advance(self, state: Array, action: Array) -> Array:
        xp = self._xp
        position, velocity = state
        force = xp.asarray(action[:, 0], dtype=xp.float64).clip(-1.0, 1.0)
        velocity = (velocity + POWER * force - GRAVITY * xp.cos(3.0 * position)).clip(-MAX_VELOCITY, MAX_VELOCITY)
        after = xp.empty_like(state)
        after[0] = (position + velocity).clip(MIN_POSITION, MAX_POSITION)
        after[1] = velocity * ((after[0] > MIN_POSITION) | (velocity > 0))
        return after

    def _terminal(self, state: Array) -> Array:
        return (state[0] >= GOAL) & (state[1] >= 0)

    def _outcome(self, move: Move, terminated: Tensor, truncated: Tensor) -> tuple[Tensor, Tensor]:
        effort = self._tensor(0.1 * self._xp.square(move.action[:, 0])).to(torch.float32)
        return GOAL_REWARD * terminated - effort, terminated.clone()

    def _fields(self, group: str, state: Array) -> Array:
        return state

    def render(self, row: int = 0) -> np.ndarray:
        """The car in its valley, the goal as a flag: uint8 [400, 600, 3]."""
        image, draw = canvas(600, 400)

        def place(position: float) -> tuple[float, float]:
            x = 40 + 1120 * (position - MIN_POSITION) / (MAX_POSITION - MIN_POSITION)
            return x, 640 - 440 * (0.5 + 0.5 * math.sin(3 * position))

        hill = [place(MIN_POSITION + (MAX_POSITION - MIN_POSITION) * i / 200) for i in range(201)]
        draw.polygon([(0, hill[0][1]), *hill, (1200, hill[-1][1]), (1200, 800), (0, 800)], fill="#e9ecf1")
        draw.line(hill, fill="#c3cad5", width=6)
        x, y = place(GOAL)
        draw.line((x, y, x, y - 130), fill="#48607d", width=8)
        draw.polygon([(x, y - 130), (x + 70, y - 105), (x, y - 80)], fill="#2e9e62")
        position = float(self._state[0, row])
        (x, y), (ahead, above) = place(position), place(position + 0.01)
        tilt = math.atan2(above - y, ahead - x)

        def on_car(along: float, up: float) -> tuple[float, float]:
            cos, sin = math.cos(tilt), math.sin(tilt)
            return x + along * cos + up * sin, y + along * sin - up * cos

        draw.polygon([on_car(-52, 22), on_car(52, 22), on_car(40, 66), on_car(-40, 66)], fill="#2e4057")
        for along in (-32, 32):
            cx, cy = on_car(along, 20)
            draw.ellipse((cx - 20, cy - 20, cx + 20, cy + 20), fill="#f2a541", outline="#f7f8fa", width=5)
        return np.asarray(image.reduce(2))

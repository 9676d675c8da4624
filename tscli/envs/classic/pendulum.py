"""Pendulum: swing a rod up by torque at its pivot, too weak to lift it at once, and hold it there.

Step for step Gymnasium's Pendulum-v1 (semi-implicit Euler, 20 Hz), batched.

Group `state`, float32 [3]:

    cos, sin          1      of the angle, 0 is upright and counter-clockwise is positive
    angular_velocity  rad/s  within +-8

Actions: a torque within +-2 N m.
Reward: -(angle^2 + 0.1 angular_velocity^2 + 0.001 torque^2) of the state before the step, with the angle in [-pi, pi).
Starts: the angle uniform in [-pi, pi), the velocity in [-1, 1).
Ends: never terminated; truncated after `max_episode_steps`.
Success: not defined.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tscli.config import Config
from tscli.envs.native import Array, Move, NativeEnv, canvas, time_limit
from tscli.envs.spaces import ActionSpec, Group

GRAVITY = 10.0
MASS = 1.0
LENGTH = 1.0
DT = 0.05
MAX_TORQUE = 2.0
MAX_VELOCITY = 8.0


class EnvConfig(Config):
    """Settings of Pendulum."""

    max_episode_steps: int = time_limit(200)


class Env(NativeEnv):
    """N pendulums; the module's docstring is the specification."""

    starts = ((-math.pi, math.pi), (-1.0, 1.0))
    has_success = False
    control_dt = DT
    groups = {  # noqa: RUF012 - one constant for all instances
        "state": Group(
            shape=(3,),
            fields=("cos", "sin", "angular_velocity"),
            units=("1", "1", "rad/s"),
            low=-MAX_VELOCITY,
            high=MAX_VELOCITY,
            about="The rod, without noise.",
        )
    }
    action = ActionSpec("continuous", low=(-MAX_TORQUE,), high=(MAX_TORQUE,), names=("torque",))

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(config.max_episode_steps, num_envs, device)
        self._never = torch.zeros(num_envs, dtype=torch.bool, device=self.device)

    def _advance(self, state: Array, action: Array) -> Array:
        xp = self._xp
        angle, velocity = state
        torque = xp.asarray(action[:, 0], dtype=xp.float64).clip(-MAX_TORQUE, MAX_TORQUE)
        rate = (1.5 * GRAVITY / LENGTH) * xp.sin(angle) + (3.0 / (MASS * LENGTH**2)) * torque
        after = xp.empty_like(state)
        after[1] = (velocity + DT * rate).clip(-MAX_VELOCITY, MAX_VELOCITY)
        after[0] = angle + DT * after[1]
        return after

    def _terminal(self, state: Array) -> Array:
        return self._array(self._never.clone())  # theirs who write into a result

    def _outcome(self, move: Move, terminated: Tensor, truncated: Tensor) -> tuple[Tensor, Tensor]:
        xp = self._xp
        angle, velocity = move.before
        torque = xp.asarray(move.action[:, 0], dtype=xp.float64).clip(-MAX_TORQUE, MAX_TORQUE)
        angle = xp.remainder(angle + math.pi, 2 * math.pi) - math.pi
        cost = xp.square(angle) + 0.1 * xp.square(velocity) + 0.001 * xp.square(torque)
        return self._tensor(-cost).to(torch.float32), self._never.clone()

    def _fields(self, group: str, state: Array) -> Array:
        xp = self._xp
        return xp.stack((xp.cos(state[0]), xp.sin(state[0]), state[1]))

    def render(self, row: int = 0) -> np.ndarray:
        """The rod and its pivot: uint8 [500, 500, 3]."""
        angle = float(self._state[0, row])
        image, draw = canvas(500, 500)
        reach = 380
        draw.ellipse((500 - reach, 500 - reach, 500 + reach, 500 + reach), outline="#e9ecf1", width=6)
        draw.ellipse((480, 480 - reach, 520, 520 - reach), fill="#2e9e62")
        tip = (500 - reach * math.sin(angle), 500 - reach * math.cos(angle))
        draw.line((500, 500, *tip), fill="#2e4057", width=60)
        for x, y in ((500, 500), tip):
            draw.ellipse((x - 30, y - 30, x + 30, y + 30), fill="#2e4057")
        draw.ellipse((482, 482, 518, 518), fill="#f2a541", outline="#f7f8fa", width=6)
        return np.asarray(image.reduce(2))

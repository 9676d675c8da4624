"""Acrobot: swing the tip of a two-link arm above a line by torque at the elbow alone.

Step for step Gymnasium's Acrobot-v1 (Sutton 1996, with the equations of the book by Sutton and Barto; fourth-order
Runge-Kutta, 5 Hz), batched.

Group `state`, float32 [6]:

    cos1, sin1  1      of the first link's angle, 0 hangs down
    cos2, sin2  1      of the second link's angle relative to the first
    velocity1   rad/s  of the first joint, within +-4 pi
    velocity2   rad/s  of the second joint, within +-9 pi

Actions: torque at the elbow of -1, 0 or +1 N m.
Reward: -1 for every step, 0 for the one that reaches the goal.
Starts: both angles and both velocities uniform in [-0.1, 0.1).
Ends: terminated when the tip stands more than one link length above the shoulder (-cos(a1) - cos(a1 + a2) > 1);
truncated after `max_episode_steps`.
Success: the goal was reached.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tscli.config import Config
from tscli.envs.native import Array, Move, NativeEnv, canvas, time_limit
from tscli.envs.spaces import ActionSpec, Group

GRAVITY = 9.8
DT = 0.2
MAX_VELOCITY_1 = 4 * math.pi
MAX_VELOCITY_2 = 9 * math.pi


class EnvConfig(Config):
    """Settings of Acrobot."""

    max_episode_steps: int = time_limit(500)


class Env(NativeEnv):
    """N Acrobots; the module's docstring is the specification."""

    starts = ((-0.1, 0.1),) * 4
    control_dt = DT
    groups = {  # noqa: RUF012 - one constant for all instances
        "state": Group(
            shape=(6,),
            fields=("cos1", "sin1", "cos2", "sin2", "velocity1", "velocity2"),
            units=("1", "1", "1", "1", "rad/s", "rad/s"),
            low=-MAX_VELOCITY_2,
            high=MAX_VELOCITY_2,
            about="Both joints, without noise.",
        )
    }
    action = ActionSpec("discrete", nvec=(3,), names=("torque_minus", "none", "torque_plus"))

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(config.max_episode_steps, num_envs, device)

    def _rate(self, state: Array, torque: Array) -> Array:
        """Time derivative of the state, [4, N].

        The book's equations with every length, mass and moment filled in (links of 1 m and 1 kg, their centre of mass
        in the middle, moment 1 kg m^2) and the second acceleration multiplied out by d1:

            d1 = 3.5 + cos a2,  d2 = 1.25 + 0.5 cos a2,  1.25 d1 - d2^2 = 2.8125 - 0.25 cos^2 a2
        """
        xp = self._xp
        angle_1, angle_2, velocity_1, velocity_2 = state
        sin_2, cos_2 = xp.sin(angle_2), xp.cos(angle_2)
        d1 = cos_2 + 3.5
        d2 = 0.5 * cos_2 + 1.25
        gravity_2 = (0.5 * GRAVITY) * xp.sin(angle_1 + angle_2)
        gravity_1 = (1.5 * GRAVITY) * xp.sin(angle_1) + gravity_2
        load = gravity_1 - sin_2 * velocity_2 * (0.5 * velocity_2 + velocity_1)
        drive = torque - gravity_2 - 0.5 * sin_2 * xp.square(velocity_1)
        acceleration_2 = (d1 * drive + d2 * load) / (2.8125 - 0.25 * xp.square(cos_2))
        rate = xp.empty_like(state)  # several times as fast as `stack`
        rate[:2] = state[2:]
        rate[2] = (d2 * acceleration_2 + load) / -d1
        rate[3] = acceleration_2
        return rate

    def _advance(self, state: Array, action: Array) -> Array:
        xp = self._xp
        torque = action - 1.0
        k1 = self._rate(state, torque)
        k2 = self._rate(state + (DT / 2) * k1, torque)
        k3 = self._rate(state + (DT / 2) * k2, torque)
        k4 = self._rate(state + DT * k3, torque)
        state = state + (DT / 6) * (k1 + 2 * (k2 + k3) + k4)
        state[:2] -= (2 * math.pi) * xp.round(state[:2] / (2 * math.pi))  # into [-pi, pi]
        state[2] = state[2].clip(-MAX_VELOCITY_1, MAX_VELOCITY_1)
        state[3] = state[3].clip(-MAX_VELOCITY_2, MAX_VELOCITY_2)
        return state

    def _terminal(self, state: Array) -> Array:
        xp = self._xp
        return -xp.cos(state[0]) - xp.cos(state[1] + state[0]) > 1.0

    def _outcome(self, move: Move, terminated: Tensor, truncated: Tensor) -> tuple[Tensor, Tensor]:
        return terminated.to(torch.float32) - 1.0, terminated.clone()

    def _fields(self, group: str, state: Array) -> Array:
        xp = self._xp
        cos, sin = xp.cos(state[:2]), xp.sin(state[:2])
        return xp.concatenate((cos[:1], sin[:1], cos[1:], sin[1:], state[2:]))

    def render(self, row: int = 0) -> np.ndarray:
        """The arm and the line that its tip has to cross: uint8 [500, 500, 3]."""
        angle_1, angle_2, _, _ = self._state[:, row].tolist()
        image, draw = canvas(500, 500)
        scale = 1000 / 4.4
        shoulder = (500.0, 500.0)
        elbow = (500 + scale * math.sin(angle_1), 500 + scale * math.cos(angle_1))
        tip = (elbow[0] + scale * math.sin(angle_1 + angle_2), elbow[1] + scale * math.cos(angle_1 + angle_2))
        goal = 500 - scale
        for start in range(20, 1000, 40):
            draw.line((start, goal, start + 20, goal), fill="#e4572e", width=5)
        for (x, y), end, color in ((shoulder, elbow, "#2e4057"), (elbow, tip, "#48607d")):
            draw.line((x, y, *end), fill=color, width=36)
            for cx, cy in ((x, y), end):
                draw.ellipse((cx - 18, cy - 18, cx + 18, cy + 18), fill=color)
        for x, y in (shoulder, elbow):
            draw.ellipse((x - 20, y - 20, x + 20, y + 20), fill="#f2a541", outline="#f7f8fa", width=6)
        draw.ellipse((tip[0] - 12, tip[1] - 12, tip[0] + 12, tip[1] + 12), fill="#f7f8fa")
        return np.asarray(image.reduce(2))

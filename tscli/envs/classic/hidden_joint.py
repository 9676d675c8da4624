"""Hidden joint: a motor turns an arm to commanded angles, and what it turns is another one in every episode.

One joint as legged robots have them, with what differs between robots and payloads drawn anew in each episode
(semi-implicit Euler, 50 Hz). Feedback alone, without knowing the dynamics, either sags under a payload or shakes behind
a slow motor; who knows them, or has felt them, commands the torque that holds.

    inertia        mass length^2 + 0.02 kg m^2
    acceleration   (strength torque(t - delay) - mass g length sin(angle) - friction velocity) / inertia

Group `state`, float32 [3]:

    angle     rad    of the arm, 0 hangs down; it stops at +-2.8
    velocity  rad/s
    target    rad    commanded angle, uniform in [-2, 2), a new one every 50 steps

Group `dynamics`, float32 [5], privileged, each uniform:

    mass      kg     0.5 to 1.5, at the arm's end
    length    m      0.3 to 0.6
    strength  1      0.4 to 1.6, torque at the arm for a torque commanded
    friction  N m s  0 to 0.5, viscous
    delay     steps  0 to 4 between a command and its torque

Actions: a torque within +-20 N m.
Reward: 1 / (1 + (error / 0.05 rad)^2) - 0.01 (torque / 20 N m)^2 of each step, with the error after it.
Starts: at a random angle in [-2, 2), at rest.
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

GRAVITY = 9.81
DT = 0.02
MAX_TORQUE = 20.0
MAX_ANGLE = 2.8
ARMATURE = 0.02
TOLERANCE = 0.05
HOLD = 50  # steps for which a target stands
MOST_TARGETS = 8  # after which they come again
MOST_DELAY = 4

# Rows of the state: what moves, the clock, commands on their way (the latest first), then what an episode draws.
ANGLE, VELOCITY, CLOCK = range(3)
SENT = slice(3, 3 + MOST_DELAY + 1)
MASS, LENGTH, STRENGTH, FRICTION, DELAY = range(SENT.stop, SENT.stop + 5)
TARGETS = slice(DELAY + 1, DELAY + 1 + MOST_TARGETS)


class EnvConfig(Config):
    """Settings of the hidden joint."""

    max_episode_steps: int = time_limit(200)


class Env(NativeEnv):
    """N joints; the module's docstring is the specification."""

    starts = (
        *((-2.0, 2.0), (0.0, 0.0), (0.0, 0.0)),
        *((0.0, 0.0),) * (MOST_DELAY + 1),
        *((0.5, 1.5), (0.3, 0.6), (0.4, 1.6), (0.0, 0.5), (0.0, MOST_DELAY + 1.0)),
        *((-2.0, 2.0),) * MOST_TARGETS,
    )
    has_success = False
    control_dt = DT
    groups = {  # noqa: RUF012 - one constant for all instances
        "state": Group(
            shape=(3,),
            fields=("angle", "velocity", "target"),
            units=("rad", "rad/s", "rad"),
            about="The arm and the angle that it is to take, without noise.",
        ),
        "dynamics": Group(
            shape=(5,),
            fields=("mass", "length", "strength", "friction", "delay"),
            units=("kg", "m", "1", "N m s", "steps"),
            privileged=True,
            about="What turns, and how well the motor does.",
        ),
    }
    action = ActionSpec("continuous", low=(-MAX_TORQUE,), high=(MAX_TORQUE,), names=("torque",))

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        super().__init__(config.max_episode_steps, num_envs, device)
        self._never = torch.zeros(num_envs, dtype=torch.bool, device=self.device)

    def _begin(self, draws: Tensor) -> Tensor:
        state = super()._begin(draws)
        state[DELAY] = state[DELAY].floor()
        return state

    def _advance(self, state: Array, action: Array) -> Array:
        xp = self._xp
        after = xp.empty_like(state)
        after[SENT.start + 1 : SENT.stop] = state[SENT.start : SENT.stop - 1]
        after[SENT.start] = xp.asarray(action[:, 0], dtype=xp.float64).clip(-MAX_TORQUE, MAX_TORQUE)
        after[SENT.stop :] = state[SENT.stop :]
        after[CLOCK] = state[CLOCK] + 1
        mass, length, strength, friction, delay = (after[row] for row in range(MASS, DELAY + 1))
        torque = sum((delay == late) * after[SENT.start + late] for late in range(MOST_DELAY + 1))
        angle, velocity = state[ANGLE], state[VELOCITY]
        pull = strength * torque - mass * GRAVITY * length * xp.sin(angle) - friction * velocity
        velocity = velocity + DT * pull / (mass * length**2 + ARMATURE)
        angle = angle + DT * velocity
        after[ANGLE] = angle.clip(-MAX_ANGLE, MAX_ANGLE)
        after[VELOCITY] = velocity * (abs(angle) < MAX_ANGLE)  # a stop takes all of it
        return after

    def _terminal(self, state: Array) -> Array:
        return self._array(self._never.clone())  # theirs who write into a result

    def _outcome(self, move: Move, terminated: Tensor, truncated: Tensor) -> tuple[Tensor, Tensor]:
        xp = self._xp
        error = move.after[ANGLE] - self._target(move.before)
        effort = move.after[SENT.start] / MAX_TORQUE
        reward = 1.0 / (1.0 + xp.square(error / TOLERANCE)) - 0.01 * xp.square(effort)
        return self._tensor(reward).to(torch.float32), self._never.clone()

    def _target(self, state: Array) -> Array:
        which = self._xp.remainder(state[CLOCK] // HOLD, MOST_TARGETS)
        return sum((which == i) * state[TARGETS][i] for i in range(MOST_TARGETS))

    def _fields(self, group: str, state: Array) -> Array:
        if group == "dynamics":
            return state[MASS : DELAY + 1]
        return self._xp.stack((state[ANGLE], state[VELOCITY], self._target(state)))

    def render(self, row: int = 0) -> np.ndarray:
        """The arm, its payload and where it is to be: uint8 [500, 500, 3]."""
        state = self._state[:, [row]]
        angle, target, length = float(state[ANGLE, 0]), float(self._target(state)[0]), float(state[LENGTH, 0])
        image, draw = canvas(500, 500)
        reach, size = 700 * length, 30 + 25 * float(state[MASS, 0])
        for turned, color, width in ((target, "#d6dbe3", 20), (angle, "#2e4057", 44)):
            tip = (500 + reach * math.sin(turned), 500 + reach * math.cos(turned))
            draw.line((500, 500, *tip), fill=color, width=width)
            draw.ellipse((tip[0] - size, tip[1] - size, tip[0] + size, tip[1] + size), fill=color)
        draw.ellipse((470, 470, 530, 530), fill="#f2a541", outline="#f7f8fa", width=6)
        return np.asarray(image.reduce(2))

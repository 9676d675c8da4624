"""CartPole: keep a pole upright on a cart by pushing the cart left or right.

Step for step Gymnasium's CartPole-v1 (Barto, Sutton and Anderson 1983; explicit Euler, 50 Hz), batched.

Group `state`, float32 [4]:

    position          m      of the cart; the episode ends beyond +-2.4
    velocity          m/s    of the cart
    angle             rad    of the pole, 0 is upright; the episode ends beyond +-12 degrees
    angular_velocity  rad/s  of the pole

Group `noisy_positions`, float32 [2], where `position_noise` is above 0:

    position  m    of the cart, with Gaussian noise of deviation `position_noise`, then held within +-4.8
    angle     rad  of the pole, with noise of the same deviation, then held within +-24 degrees

Actions: 0 pushes the cart left with 10 N, 1 pushes it right; with `swapped` it is the other way round.
Reward: 1 for every step, the last one included; with `unit_return` 1 / `max_episode_steps`.
Starts: all four numbers uniform in [-0.05, 0.05).
Ends: terminated when the pole falls or the cart leaves the track; truncated after `max_episode_steps`.
Success: the episode reached `max_episode_steps` without falling.

POPGym's versions (Morad et al., ICLR 2023) are settings of this one, all with `unit_return`: PositionOnlyCartPole Easy,
Medium and Hard are 200, 400 and 600 steps long and show the two positions; NoisyPositionOnlyCartPole Easy, Medium and
Hard are 200 steps long and show the noisy ones, `position_noise` .1, .2 and .3. The same number is metres for the cart
and radians for the pole, and the bounds hold back one angle reading in six at .3, where a view's `noise` has none.
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
from tscli.streams import normal, stream_id

GRAVITY = 9.8
POLE_MASS = 0.1
TOTAL_MASS = 1.1
HALF_LENGTH = 0.5
POLE_MOMENT = POLE_MASS * HALF_LENGTH
FORCE = 10.0
DT = 0.02
MAX_POSITION = 2.4
MAX_ANGLE = 12 * 2 * math.pi / 360
_NOISE = stream_id("cartpole/noise")
_EPISODE = 1 << 32  # numbers of readings set aside for each episode, more than it has steps


class EnvConfig(Config):
    """Settings of CartPole."""

    max_episode_steps: int = time_limit(500)
    unit_return: bool = Field(default=False, description="Pay 1 / max_episode_steps a step, so that returns reach 1.")
    position_noise: float = Field(
        default=0.0, ge=0.0, le=10.0, description="Deviation of the noise in noisy_positions; 0: no such group."
    )
    swapped: bool = Field(default=False, description="Let action 0 push to the right and 1 to the left.")


class Env(NativeEnv):
    """N CartPoles; the module's docstring is the specification."""

    starts = ((-0.05, 0.05),) * 4
    control_dt = DT
    groups = {  # noqa: RUF012 - one constant for all instances
        "state": Group(
            shape=(4,),
            fields=("position", "velocity", "angle", "angular_velocity"),
            units=("m", "m/s", "rad", "rad/s"),
            about="Cart and pole, without noise.",
        )
    }
    action = ActionSpec("discrete", nvec=(2,), names=("left", "right"))

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        self._noise = config.position_noise
        self._force = FORCE
        if config.swapped:
            self._force = -FORCE
            self.action = ActionSpec("discrete", nvec=(2,), names=("right", "left"))
        if self._noise:
            self.groups = {
                **self.groups,
                "noisy_positions": Group(
                    shape=(2,),
                    fields=("position", "angle"),
                    units=("m", "rad"),
                    low=-2 * MAX_POSITION,
                    high=2 * MAX_POSITION,
                    about="Cart and pole without velocities, with noise.",
                ),
            }
        super().__init__(config.max_episode_steps, num_envs, device)
        reward = 1.0 / config.max_episode_steps if config.unit_return else 1.0
        self._reward = torch.full((num_envs,), reward, device=self.device)
        self._bound = 2 * torch.tensor([MAX_POSITION, MAX_ANGLE], dtype=torch.float64, device=self.device)

    def _advance(self, state: Array, action: Array) -> Array:
        """Florian (2007), "Correct equations for the dynamics of the cart-pole system", without friction."""
        xp = self._xp
        position, velocity, angle, spin = state
        cos, sin = xp.cos(angle), xp.sin(angle)
        force = action * (2 * self._force) - self._force
        push = (force + POLE_MOMENT * xp.square(spin) * sin) / TOTAL_MASS
        leverage = HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * xp.square(cos) / TOTAL_MASS)
        spin_rate = (GRAVITY * sin - cos * push) / leverage
        acceleration = push - POLE_MOMENT * spin_rate * cos / TOTAL_MASS
        after = xp.empty_like(state)  # `stack` takes as long as a third of all this
        after[0] = position + DT * velocity
        after[1] = velocity + DT * acceleration
        after[2] = angle + DT * spin
        after[3] = spin + DT * spin_rate
        return after

    def _terminal(self, state: Array) -> Array:
        return (abs(state[0]) > MAX_POSITION) | (abs(state[2]) > MAX_ANGLE)

    def _outcome(self, move: Move, terminated: Tensor, truncated: Tensor) -> tuple[Tensor, Tensor]:
        return self._reward.clone(), truncated.clone()

    def _fields(self, group: str, state: Array) -> Array:
        return state

    def observe(self, group: str, rows: Tensor | None = None) -> Tensor:
        if group == "noisy_positions" and self._noise and group not in self._seen:
            self._seen[group] = self._noisy(self._state, self._reading())
        return super().observe(group, rows)

    def final_observation(self, group: str, rows: Tensor) -> Tensor:
        if group != "noisy_positions" or not self._noise:
            return super().final_observation(group, rows)
        index = self._array(rows)
        return self._noisy(self._final[:, index], self._final_reading[index], rows)

    def _stand_at(self, state: Array) -> None:
        super()._stand_at(state)
        if self._noise:
            self._final_reading = self._reading()  # before a restart sets the counts of ended rows back

    def _reading(self) -> Array:
        """Number of the reading that each env's sensor gives now, [N]: its noise depends on that alone."""
        return self._episode * _EPISODE + self._steps

    def _noisy(self, state: Array, reading: Array, rows: Tensor | None = None) -> Tensor:
        """What the sensor reads of states [4, K] of those envs: float32 [K, 2]."""
        env = self._tensor(self._rows) if rows is None else rows.to(self.device)
        noise = self._noise * normal(self._seed, _NOISE, env + self.first, self._tensor(reading), 2)
        seen = self._tensor(state)[::2].T + noise
        return seen.clamp(-self._bound, self._bound).to(torch.float32)

    def render(self, row: int = 0) -> np.ndarray:
        """The cart on its track, seen from the side: uint8 [400, 600, 3]; the red marks are where an episode ends."""
        position, _, angle, _ = self._state[:, row].tolist()
        image, draw = canvas(600, 400)
        scale, ground = 1200 / (2 * MAX_POSITION * 1.15), 600
        x = 600 + position * scale
        draw.rectangle((0, ground + 34, 1200, 800), fill="#e9ecf1")
        draw.line((0, ground + 34, 1200, ground + 34), fill="#c3cad5", width=4)
        for side in (-1, 1):
            edge = 600 + side * MAX_POSITION * scale
            draw.rounded_rectangle((edge - 5, ground - 26, edge + 5, ground + 34), 5, fill="#e4572e")
        draw.rounded_rectangle((x - 70, ground - 40, x + 70, ground + 14), 14, fill="#2e4057")
        for wheel in (x - 40, x + 40):
            draw.ellipse((wheel - 20, ground - 6, wheel + 20, ground + 34), fill="#48607d", outline="#f7f8fa", width=5)
        length = 2 * HALF_LENGTH * scale
        tip = (x + length * math.sin(angle), ground - 40 - length * math.cos(angle))
        draw.line((x, ground - 40, *tip), fill="#f2a541", width=20)
        draw.ellipse((tip[0] - 10, tip[1] - 10, tip[0] + 10, tip[1] + 10), fill="#f2a541")
        draw.ellipse((x - 16, ground - 56, x + 16, ground - 24), fill="#f7f8fa", outline="#2e4057", width=6)
        return np.asarray(image.reduce(2))

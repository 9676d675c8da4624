"""CartPole: keep a pole upright on a cart by pushing the cart left or right.

Step for step Gymnasium's CartPole-v1 (Barto, Sutton and Anderson 1983; explicit Euler, 50 Hz), batched.

Group `state`, float32 [4]:

    position          m      of the cart; the episode ends beyond +-2.4
    velocity          m/s    of the cart
    angle             rad    of the pole, 0 is upright; the episode ends beyond +-12 degrees
    angular_velocity  rad/s  of the pole

Actions: 0 pushes the cart left with 10 N, 1 pushes it right.
Reward: 1 for every step, the last one included.
Starts: all four numbers uniform in [-0.05, 0.05).
Ends: terminated when the pole falls or the cart leaves the track; truncated after `max_episode_steps`.
Success: the episode reached `max_episode_steps` without falling.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tscli.config import Config
from tscli.envs._classic import Array, ClassicEnv, Move
from tscli.spaces import ActionSpec, Group

__all__ = ["Env", "EnvConfig"]

GRAVITY = 9.8
POLE_MASS = 0.1
TOTAL_MASS = 1.1
HALF_LENGTH = 0.5
POLE_MOMENT = POLE_MASS * HALF_LENGTH
FORCE = 10.0
DT = 0.02
MAX_POSITION = 2.4
MAX_ANGLE = 12 * 2 * math.pi / 360


class EnvConfig(Config):
    """Settings of CartPole."""

    max_episode_steps: int = Field(
        default=500, ge=1, le=1_000_000, description="Steps after which an episode is truncated."
    )


class Env(ClassicEnv):
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
        super().__init__(config.max_episode_steps, num_envs, device)
        self._one = torch.ones(num_envs, device=self.device)

    def _advance(self, state: Array, action: Array) -> Array:
        """Florian (2007), "Correct equations for the dynamics of the cart-pole system", without friction."""
        xp = self._xp
        position, velocity, angle, spin = state
        cos, sin = xp.cos(angle), xp.sin(angle)
        force = action * (2 * FORCE) - FORCE
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
        return self._one.clone(), truncated.clone()

    def _fields(self, group: str, state: Array) -> Array:
        return state

    def render(self, row: int = 0) -> np.ndarray:
        """The cart on its track, seen from the side: uint8 [400, 600, 3]; the red marks are where an episode ends."""
        from PIL import Image, ImageDraw

        position, _, angle, _ = self._state[:, row].tolist()
        image = Image.new("RGB", (1200, 800), "#f7f8fa")  # drawn at twice the size for smooth edges
        draw = ImageDraw.Draw(image)
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

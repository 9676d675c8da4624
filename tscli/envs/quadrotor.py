"""Quadrotor: fly through a hall of columns to the other side, with a camera that looks ahead of the body.

A thrust and three body rates are commanded at 50 Hz, as to the controllers of racing quadrotors, or (`control:
acceleration`) an acceleration and a rate of yaw, as to a flight controller. Semi-implicit Euler; thrust and rates
follow what they are told with lags of 30 and 50 ms, and the air takes 0.15 /s of the velocity. The hall is 30 x 30 m, x
and y from its middle, z up; 16 columns as high as the hall stand in it, at least 1.4 m apart where there is room. The
body's x axis is the camera's; a quadrotor flies to any side, so nothing but its pilot turns the camera to where it
flies. After the quadrotor of Messikommer, Xing et al. (ICLR 2025), whose code was not published.

Groups, float32, all in units of about their own size; what a robot knows:

    own [20]      velocity ahead, left (3 m/s) and up (2 m/s); thrust axis ahead, left (1/2) and up; body rates
                  (3 rad/s); height above 1.5 m; thrust above hovering (g); x, y (15 m); cosine and sine of the yaw;
                  the camera's axis up; the command before, of four
    goal [3]      its direction ahead and left, and its distance (15 m)
    depth [192]   of 16 x 12 rays, row by row from the upper left: distance, 1 at `camera_range` and beyond (10 m)

and what it does not, privileged:

    columns [20]  of the nearest five, nearest first: direction ahead (5 numbers), left (5), nearness (5; 1 where they
                  are touched, 0 at 6 m) and radius (5, m)
    scan [32]     of 32 directions, the first ahead, then leftwards: nearness of what is in its way, 0 at 9 m, 0.5 at
                  6 m and 1.5 where it touches. A column fades where a direction passes it by within 0.75 m, and
                  until 60 degrees beside where it flies (at rest, beside the goal)

Ahead and left are those of the yaw alone: of the camera's axis in the plane.
Actions, each in [-1, 1]: thrust (0.1 to 1.9 times gravity's) and rates of roll, pitch (5 rad/s) and yaw (3 rad/s); or
acceleration ahead, left (8 m/s2) and up (5 m/s2), and rate of yaw (3 rad/s).
Reward: metres of progress to the goal, at 3 m/s at the most; 10 for the goal and -10 for a crash; less what
`Env._outcome` takes off for a collision course, for flying too fast, low, high, near a column or jerkily.
Starts: at rest, at x = -13, any y within 11 m, any yaw; the goal at x = 13, any y within 11 m. With `spread_starts`
anywhere in the hall, clear of its columns, at up to 3 m/s in any direction in the plane, whatever the yaw; with
`yaw_drift` each turns by itself, at a rate of its own, which only its own command can make up for.
Ends: terminated within 1.5 m of the goal, or by touching a column (the body is 0.25 m wide all round), a wall, floor or
ceiling, or upside down; truncated after `max_episode_steps`. Success: the goal reached.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tscli.config import Config
from tscli.envs.attitudes import axes, turn
from tscli.envs.halls import camera_rays, draw_halls, first_free
from tscli.envs.native import Array, Move, NativeEnv, canvas, time_limit
from tscli.envs.spaces import ActionSpec, Group

DT = 0.02
GRAVITY = 9.81
THRUST_LAG, RATE_LAG = 0.03, 0.05
RATES = (5.0, 5.0, 3.0)
ACCELERATION = (8.0, 8.0, 5.0)
TILT_GAIN = 10.0  # how fast the flight controller turns the thrust's axis to where it is wanted [1/s]
DRAG = 0.15
HALL, HEIGHT = 15.0, 3.0  # half the width; the camera sees no ceiling
BODY, REACHED = 0.25, 1.5
SPEED = 3.0
NEAREST, BEAMS = 5, 32
VIEW = (16, 12)  # rays, over 90 degrees from left to right
OWN = {  # what a robot knows of itself, and the units
    **dict.fromkeys(("vel_ahead", "vel_left"), "3 m/s"),
    "vel_up": "2 m/s",
    **dict.fromkeys(("thrust_ahead", "thrust_left"), "1/2"),
    "thrust_up": "1",
    **dict.fromkeys(("roll_rate", "pitch_rate", "yaw_rate"), "3 rad/s"),
    **{"height": "m", "thrust": "g", "x": "15 m", "y": "15 m"},
    **dict.fromkeys(("yaw_cos", "yaw_sin", "camera_up", "before_0", "before_1", "before_2", "before_3"), "1"),
}
_COUNTS = ("camera_angle", "in_view", "speed", "flying", "steps", "crashes", "goals", "timeouts")


class EnvConfig(Config):
    """Settings of the quadrotor."""

    max_episode_steps: int = time_limit(1000)
    control: Literal["rates", "acceleration"] = Field(
        "rates", description="What is commanded: thrust and body rates, or what a flight controller makes them of."
    )
    num_columns: int = Field(16, ge=NEAREST, le=64, description="Columns in the hall.")
    min_radius: float = Field(0.5, gt=0, le=2, description="Least radius of a column [m].")
    max_radius: float = Field(1.0, gt=0, le=2, description="Largest radius of a column [m].")
    num_halls: int = Field(4096, ge=1, le=65536, description="Halls, of which each episode draws one.")
    spread_starts: bool = Field(False, description="Start anywhere, flying to any side at up to 3 m/s.")
    yaw_drift: float = Field(
        0.0, ge=0, le=2, description="With spread_starts: most rate at which each turns by itself [rad/s]."
    )
    split: Literal["train", "select", "report"] = Field("train", description="Which halls: no two have any in common.")
    camera_range: float = Field(10.0, gt=0, description="How far the camera sees [m].")
    camera_coef: float = Field(
        0.0, ge=0, description="Reward taken off for flying where the camera does not look, made by hand; 0: none."
    )

    @model_validator(mode="after")
    def _least_before_largest(self) -> EnvConfig:
        if self.min_radius > self.max_radius:
            raise ValueError(f"min_radius {self.min_radius} is above max_radius {self.max_radius}: give less")
        return self


class Env(NativeEnv):
    """N quadrotors; the module's docstring is the specification.

    The state's rows: position (0 to 2), velocity (3 to 5), attitude as a quaternion (6 to 9), body rates (10 to 12),
    thrust (13), the command before (14 to 17), the goal's y (18), the hall's number (19), the yaw's drift (20).
    """

    # Of what an episode draws: x, y, z, yaw, the goal's y, the hall.
    starts = ((-13.5, -12.0), (-11.0, 11.0), (1.0, 2.0), (-math.pi, math.pi), (-11.0, 11.0), (0.0, 1.0))
    control_dt, camera_vectors = DT, ("depth",)
    groups = {  # noqa: RUF012 - one constant for all instances
        "own": Group((len(OWN),), fields=tuple(OWN), units=tuple(OWN.values())),
        "goal": Group((3,), fields=("goal_ahead", "goal_left", "goal_distance"), units=("1", "1", "15 m")),
        "columns": Group(
            (4 * NEAREST,),
            fields=tuple(f"{name}_{i}" for name in ("ahead", "left", "near", "radius") for i in range(NEAREST)),
            units=(*("1",) * (3 * NEAREST), *("m",) * NEAREST),
            privileged=True,
            about="The nearest columns.",
        ),
        "scan": Group((BEAMS,), privileged=True, about="In 32 directions, how near what is in its way is."),
        "depth": Group(
            (VIEW[0] * VIEW[1],), units=("10 m",), low=0.0, high=1.0, about="16 x 12 distances, without noise."
        ),
    }
    action = ActionSpec(
        "continuous", low=(-1.0,) * 4, high=(1.0,) * 4, names=("thrust", "roll_rate", "pitch_rate", "yaw_rate")
    )

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        self._config, self._count = config, config.num_columns
        if config.control == "acceleration":
            names = "acceleration_ahead", "acceleration_left", "acceleration_up", "yaw_rate"
            self.action = dataclasses.replace(self.action, names=names)
        if config.spread_starts:  # speed, its direction, drift, and places, of which the first free one is taken
            flying = (0.0, SPEED), (-math.pi, math.pi), (-config.yaw_drift, config.yaw_drift)
            self.starts = (*self.starts, *flying, *((-13.5, 12.0), (-13.0, 13.0)) * 8)
        radii = config.min_radius, config.max_radius
        halls = draw_halls(self._count, config.num_halls, radii, config.split)
        tables = {"halls": halls.reshape(3 * self._count, -1), "rays": camera_rays(*VIEW)[..., None]}
        beams = 2 * math.pi / BEAMS * np.arange(BEAMS)
        tables |= {"beams": np.stack((np.cos(beams), np.sin(beams)))[..., None, None].astype(np.float32)}
        tables |= {"rates": np.array(RATES)[:, None], "acceleration": np.array(ACCELERATION)[:, None]}
        super().__init__(config.max_episode_steps, num_envs, device, tables)
        self._latest = torch.zeros(len(_COUNTS), self.num_envs, dtype=torch.float64, device=self.device)  # of a step
        self._sums = self._latest.sum(1)

    def _begin(self, draws: Tensor) -> Tensor:
        x, y, z, yaw, goal, hall, *spread = super()._begin(draws)
        zero, number = torch.zeros_like(x), (hall * self._config.num_halls).floor()
        turned = (yaw / 2).cos(), zero, zero, (yaw / 2).sin()
        moving, hover, drift = (zero,) * 3, torch.full_like(x, GRAVITY), zero
        if spread:
            speed, course, drift, *places = spread
            moving = speed * course.cos(), speed * course.sin(), zero
            columns = torch.as_tensor(self._tables["halls"], device=x.device)[:, number.long()]
            x, y = first_free(places[::2], places[1::2], columns.unflatten(0, (3, -1)), 2 * BODY)
        return torch.stack((x, y, z, *moving, *turned, *moving, hover, *(zero,) * 4, goal, number, drift))

    # --- physics ------------------------------------------------------------------------------------------------------

    def _advance(self, state: Array, action: Array) -> Array:
        xp = self._xp
        command = xp.asarray(action, dtype=xp.float64).T.clip(-1.0, 1.0)
        after = xp.empty_like(state)
        after[14:18], after[18:] = command, state[18:]
        follows = 1 - math.exp(-DT / RATE_LAG)
        wanted, rates = self._commanded(state[6:10], command)
        rates[2] += state[20]
        after[10:13] = rate = state[10:13] + (rates - state[10:13]) * follows
        after[13] = thrust = state[13] + (wanted - state[13]) * (1 - math.exp(-DT / THRUST_LAG))
        after[6:10] = attitude = turn(xp, state[6:10], rate * DT)
        up = axes(attitude)[2]
        for i in range(3):
            pull = up[i] * thrust - DRAG * state[3 + i] - (GRAVITY if i == 2 else 0.0)
            after[3 + i] = state[3 + i] + DT * pull
        after[:3] = state[:3] + DT * after[3:6]
        return after

    def _commanded(self, q: Array, command: Array) -> tuple[Array, Array]:
        """Thrust [N], in m/s2, and body rates [3, N] that a command asks for.

        For an acceleration the thrust's axis is turned to gravity's and the acceleration's sum, as fast as it is far
        from it, and the thrust is as much of that sum as lies along it (Lee et al. 2010, without the moments).
        """
        xp = self._xp
        if self._config.control == "rates":
            return GRAVITY * (1 + 0.9 * command[0]), command[1:] * self._tables["rates"]
        (fore, side, climb), (cos, sin) = command[:3] * self._tables["acceleration"], self._yaw(q)
        force = cos * fore - sin * side, sin * fore + cos * side, climb + GRAVITY
        size = xp.sqrt(sum(f * f for f in force))
        x, y, z = (sum(a * f for a, f in zip(axis, force, strict=True)) for axis in axes(q))
        tilt = TILT_GAIN * xp.stack((-y, x)) / size
        rates = xp.concatenate((tilt, RATES[2] * command[3:])).clip(-self._tables["rates"], self._tables["rates"])
        return xp.clip(z, 0.1 * GRAVITY, 1.9 * GRAVITY), rates

    def _yaw(self, q: Array) -> tuple[Array, Array]:
        """Cosine and sine of the direction in the plane to which the camera looks."""
        (x, y, _), _, _ = axes(q)
        flat = self._xp.sqrt(x * x + y * y) + 1e-6
        return x / flat, y / flat

    def _columns(self, state: Array) -> tuple[Array, Array, Array, Array]:
        """Of all columns: x and y from the quadrotor, distance of the axis, and radius, [C, N] each."""
        hall = self._xp.asarray(state[19], dtype=self._xp.int64)
        x, y, radius = self._tables["halls"][:, hall].reshape(3, self._count, -1)
        x, y = x - state[0], y - state[1]
        return x, y, self._xp.sqrt(x * x + y * y), radius

    def _goal(self, state: Array) -> tuple[Array, Array, Array]:
        x, y = 13.0 - state[0], state[18] - state[1]
        return x, y, self._xp.sqrt(x * x + y * y)

    def _terminal(self, state: Array) -> Array:
        xp = self._xp
        self._near = columns = self._columns(state)
        self._clearance = xp.amin(columns[2] - columns[3], 0) - BODY
        _, _, self._distance = self._goal(state)
        self._up = axes(state[6:10])[2][2]
        outside = xp.maximum(abs(state[0]), abs(state[1])) > HALL - 0.1
        outside = outside | (state[2] < 0.1) | (state[2] > HEIGHT - 0.1) | (self._up < 0)
        self._crashed = outside | (self._clearance < 0)
        return self._crashed | (self._distance < REACHED)

    def _outcome(self, move: Move, terminated: Tensor, truncated: Tensor) -> tuple[Tensor, Tensor]:
        xp, after = self._xp, move.after
        goal = (self._distance < REACHED) & ~self._crashed
        speed = xp.sqrt((after[3:6] * after[3:6]).sum(0))
        changed = after[14:18] - move.before[14:18]
        progress = (self._goal(move.before)[2] - self._distance).clip(-SPEED * DT, SPEED * DT)
        reward = progress + 10.0 * goal - 10.0 * self._crashed
        reward = reward - 0.08 * self._collision_course(after)
        reward = reward - 0.02 * (speed - SPEED - 0.5).clip(0, None)
        reward = reward - 0.002 * (after[10:13] * after[10:13]).sum(0).clip(0, 30.0)
        reward = reward - 0.003 * (changed * changed).sum(0)
        reward = reward - 0.02 * abs(after[2] - 1.5)
        reward = reward - 0.03 * (1 - self._clearance / 0.6).clip(0, 1)
        cos, sin = self._yaw(after[6:10])
        if self._config.camera_coef:
            flat = xp.sqrt(after[3] * after[3] + after[4] * after[4])
            aside = 1 - (cos * after[3] + sin * after[4]) / (flat + 1e-3)
            reward = reward - self._config.camera_coef * aside * (flat / 2).clip(0, 1)
        self._count_step(after, speed, (cos, sin), goal, truncated)
        return self._tensor(xp.asarray(reward, dtype=xp.float32)), self._tensor(goal)

    def _collision_course(self, state: Array) -> Array:
        """How surely the quadrotor flies into a column if it goes on as it does, times its speed: [N].

        1 for a column right before it; less where it would pass it by within 0.5 m, or is further ahead, up to 6 m.
        """
        xp = self._xp
        x, y, _, radius = self._near
        speed = xp.sqrt(state[3] * state[3] + state[4] * state[4]) + 0.3
        along = (x * state[3] + y * state[4]) / speed
        miss = abs(x * state[4] - y * state[3]) / speed - radius - BODY
        danger = (1 - miss / 0.5).clip(0, 1) * (1 - along / 6).clip(0, 1) * (along > 0)
        return xp.amax(danger, 0) * (speed / 3).clip(0, 1.3)

    # --- what is told -------------------------------------------------------------------------------------------------

    def _count_step(self, state: Array, speed: Array, yaw: tuple[Array, Array], goal: Array, truncated: Tensor) -> None:
        xp = self._xp
        (ahead, _, _), (cos, sin), (x, y, distance, _) = axes(state[6:10]), yaw, self._near
        flying = speed > 0.5
        cosine = sum(a * v for a, v in zip(ahead, state[3:6], strict=True)) / (speed + 1e-6)
        angle = xp.arccos(cosine.clip(-1.0, 1.0)) * (180 / math.pi)
        fore, side = cos * x + sin * y, cos * y - sin * x
        near = distance < self._config.camera_range
        share = ((abs(side) < fore) & near).sum(0) / near.sum(0).clip(1, None)
        values = (angle * flying, share, speed, flying, flying | True, self._crashed, goal)
        rows = [self._tensor(xp.asarray(value, dtype=xp.float64)) for value in values]
        self._latest = torch.stack((*rows, truncated.double()))
        self._sums = self._sums + self._latest.sum(1)

    def metrics(self) -> dict[str, float]:
        """Means over the steps since this was asked last, and shares of the episodes that ended.

        `camera_angle` [deg] is that between the velocity and the camera's axis, while faster than 0.5 m/s; `in_view`
        the share of the columns within the camera's range that stand within its 90 degrees.
        """
        found = dict(zip(_COUNTS, self._sums.tolist(), strict=True))
        steps, flying = max(found["steps"], 1.0), max(found["flying"], 1.0)
        ended = found["crashes"] + found["goals"] + found["timeouts"]
        self._sums = torch.zeros_like(self._sums)
        out = {"env/camera_angle": found["camera_angle"] / flying}
        out |= {f"env/{name}": found[name] / steps for name in ("in_view", "speed")}
        return out | ({f"env/{name}": found[name] / ended for name in ("crashes", "timeouts")} if ended else {})

    def measures(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        angle, in_view, speed, flying, steps, crashes, goals, timeouts = self._latest
        ended = crashes + goals + timeouts
        found = {"camera angle [deg]": (angle, flying), "share of columns in view": (in_view, steps)}
        found |= {"speed [m/s]": (speed, steps), "share of episodes that crash": (crashes, ended)}
        return {**found, "share of episodes out of time": (timeouts, ended)}

    # --- what is seen -------------------------------------------------------------------------------------------------

    def _fields(self, group: str, state: Array) -> Array:
        if group == "depth":
            return self._depth(self._xp.asarray(state, dtype=self._xp.float32))
        xp, (cos, sin) = self._xp, self._yaw(state[6:10])
        if group == "goal":
            x, y, distance = self._goal(state)
            x, y = x / (distance + 1e-6), y / (distance + 1e-6)
            return xp.stack((cos * x + sin * y, cos * y - sin * x, distance / HALL))
        if group in ("columns", "scan"):
            x, y, distance, radius = self._columns(state)
            fore, left, near = cos * x + sin * y, cos * y - sin * x, 1 - (distance - radius) / 6
            if group == "scan":
                near = (near + 0.5).clip(0, 1.7) * self._in_course(state, x, y, distance)
                return self._scan(fore, left, radius, near)
            order = xp.argsort(-near, 0)[:NEAREST], self._tensor_rows(state)
            shown = fore / distance, left / distance, near.clip(-0.5, 1.2), radius
            return xp.concatenate([value[order] for value in shown])
        ahead, _, up = axes(state[6:10])
        p, v, rates = state[:3], state[3:6], state[10:13] / 3
        velocity = (cos * v[0] + sin * v[1]) / 3, (cos * v[1] - sin * v[0]) / 3, v[2] / 2
        thrust = (cos * up[0] + sin * up[1]) * 2, (cos * up[1] - sin * up[0]) * 2, up[2]
        places = p[2] - 1.5, state[13] / GRAVITY - 1, p[0] / HALL, p[1] / HALL
        return xp.stack((*velocity, *thrust, *rates, *places, cos, sin, ahead[2], *state[14:18]))

    def _in_course(self, state: Array, x: Array, y: Array, distance: Array) -> Array:
        """How much each column stands where the quadrotor flies or, at rest, where the goal is: [C, N], from 0 to 1."""
        goal_x, goal_y, away = self._goal(state)
        to_x, to_y = state[3] + 0.3 * goal_x / (away + 1e-6), state[4] + 0.3 * goal_y / (away + 1e-6)
        cosine = (x * to_x + y * to_y) / (distance * (self._xp.sqrt(to_x * to_x + to_y * to_y) + 1e-6))
        return (2 * cosine - 1).clip(0, 1)  # by degrees: what is beside it must not appear and be gone at once

    def _scan(self, *columns: Array) -> Array:
        """In each direction the nearness of the column that is nearest in it; of columns ahead, left, radius, nearness.

        Without edges, as a list of the nearest columns has them where two change places: what the teacher does then
        changes by degrees, and a student that sees a picture can follow.
        """
        xp, (cos, sin) = self._xp, self._tables["beams"]
        ahead, left, radius, near = (xp.asarray(value, dtype=xp.float32) for value in columns)
        aside = abs(ahead * sin - left * cos) - radius
        return xp.amax(near * (1 - aside / 0.75).clip(0, 1) * (ahead * cos + left * sin > 0), 1)

    def _tensor_rows(self, state: Array) -> Array:
        return np.arange(state.shape[1]) if self._xp is np else torch.arange(state.shape[1], device=self.device)

    def _depth(self, state: Array) -> Array:
        """Distance along each ray to the nearest of columns, walls and floor: float32 [192, K].

        In the plane: a ray of direction u meets a circle of radius r around c at u.c - sqrt(r^2 - (u x c)^2).
        """
        xp, body, rays = self._xp, axes(state[6:10]), self._tables["rays"]  # [192, 1] each
        x, y, z = (rays[0] * ahead + rays[1] * left + rays[2] * up for ahead, left, up in zip(*body, strict=True))
        flat = xp.sqrt(x * x + y * y) + 1e-6
        x, y = x / flat, y / flat
        walls = [(HALL - p * xp.sign(u)) / (abs(u) + 1e-6) for p, u in zip(state[:2], (x, y), strict=True)]
        reach = xp.minimum(*walls)
        for cx, cy, _, radius in zip(*self._columns(state), strict=True):
            along, aside = x * cx + y * cy, x * cy - y * cx
            inside = radius * radius - aside * aside
            hit = along - xp.sqrt(inside.clip(0, None))
            reach = xp.where((inside > 0) & (along > 0), xp.minimum(reach, hit), reach)
        distance = xp.minimum(reach / flat, state[2] / (-z).clip(1e-6, None))
        return distance.clip(0, self._config.camera_range) / self._config.camera_range

    def render(self, row: int = 0) -> np.ndarray:
        """The hall from above, beside it what the camera sees, near things bright: uint8 [480, 648, 3].

        Columns grey, the goal green, the quadrotor's camera a yellow wedge and its velocity over half a second a line.
        """
        from PIL import Image

        size, scale = 480, 960 / (2 * HALL)
        image, draw = canvas(size + 168, size)

        def at(x: float, y: float) -> tuple[float, float]:
            return (x + HALL) * scale, (HALL - y) * scale

        def disc(x: float, y: float, radius: float, **colors: Any) -> None:
            (left, top), (right, bottom) = at(x - radius, y + radius), at(x + radius, y - radius)
            draw.ellipse((left, top, right, bottom), **colors)

        state = self._state[:, [row]]
        x, y, vx, vy = (float(state[i, 0]) for i in (0, 1, 3, 4))
        cos, sin = (float(value[0]) for value in self._yaw(state[6:10]))
        wedge = [at(x + 4 * (cos - side * sin), y + 4 * (sin + side * cos)) for side in (-1, 1)]
        draw.polygon([at(x, y), *wedge], fill="#ffe9a8")
        disc(13.0, float(state[18, 0]), REACHED, fill="#2e9e62")
        for cx, cy, _, radius in zip(*(value[:, 0].tolist() for value in self._columns(state)), strict=True):
            disc(x + cx, y + cy, radius, fill="#7c8798")
        draw.line([at(x, y), at(x + vx / 2, y + vy / 2)], fill="#d1495b", width=8)
        disc(x, y, BODY, fill="#2e4057")
        depth = 255 * (1 - self._observation("depth", state).reshape(VIEW[::-1]).cpu().numpy())
        inset = Image.fromarray(depth.astype(np.uint8)).resize((320, 240), Image.Resampling.NEAREST)
        draw.rectangle((2 * size, 0, 2 * size + 335, 2 * size), fill="#dfe3e9")
        image.paste(inset.convert("RGB"), (2 * size + 8, 360))
        return np.asarray(image.reduce(2))

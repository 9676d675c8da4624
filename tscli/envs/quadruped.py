"""Quadruped: a Unitree Go2 walks as it is told, on ground and with a body that differ in each episode (MuJoCo).

Velocity tracking with the control, commands, rewards and randomisation that are published for this robot (Margolis et
al. 2022; Rudin et al. 2022): 50 Hz, position servos of kp 20 N m/rad and kd 0.5 N m s/rad, four physics steps of 5 ms
to an action. The model is `models/go2.xml`; x is forward, y left, z up.

Groups, float32; what a robot senses:

    ang_vel [3]       rad/s  of the trunk, in its axes
    gravity [3]       1      direction of gravity in the trunk's axes; (0, 0, -1) upright
    command [3]       m/s, m/s, rad/s: forward, left, turning left; a new one every 10 s
    joint_pos [12]    rad    from the default pose (hip 0, thigh 0.8 or 1 behind, calf -1.5), legs FL, FR, RL, RR
    joint_vel [12]    rad/s
    clock [8]         1      sine and cosine of where its stride is, and both times each command; 0 where it is to stand

and what it does not, privileged:

    lin_vel [3]       m/s    of the trunk, in its axes
    dynamics [11]     the episode's friction, added mass, centre of mass, gains, joints and latency
    push [2]          m/s    the latest push, in the trunk's axes, for half a second
    contacts [12]     1      whether each foot, and each thigh and calf, touches something
    heights [20]      m      of each foot above the ground under it and 10 cm before, behind, left and right of it
    normals [12]      1      of the ground under each foot: x ahead, y left, z up
    height_scan [187] m      of the trunk above the ground, 1.6 x 1 m around it, cut off at 1 m

Actions: 12 angles, unbounded: 0.25 rad of each is added to what the motors are told in the default pose, and,
where it is to walk, to a trot on the spot by the clock (`gait_hz`; so do Lee et al. 2020; 0 leaves it out).
Reward: the sum of weights x terms x 0.02 s, no less than 0; `walking.py` has each term and its published weight.
Starts: near the default pose, turned any way, with up to 0.2 m/s.
Ends: terminated when the trunk touches something or leans by more than 70 degrees; truncated after
`max_episode_steps`, or where it leaves the field.
Success: not defined.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from tscli.config import Config, UserError, did_you_mean
from tscli.envs import ActionSpec, Group
from tscli.envs.mujoco import Arrays, MujocoEnv, compiled, load_spec, threads_field
from tscli.envs.native import time_limit
from tscli.envs.terrain import KINDS, LEVELS, PATCH, Terrain
from tscli.envs.walking import JOINTS, LEGS, WEIGHTS, Robot, is_moving, seen_from_above, trot, turned

MODEL = Path(__file__).parent / "models" / "go2.xml"
TIMESTEP = 0.005  # s
DECIMATION = 4
LATEST = 0.1  # s, the oldest control that is kept
ACTION_SCALE = 0.25  # rad
COMMAND_SECONDS = 10.0
SETTLING_SECONDS = 1.0  # after a command, before an evaluation asks whether it is followed
GRAVITY = 9.81  # m/s^2
LEAN = 0.35  # least share of gravity along the trunk's z
DYNAMICS = ("friction", "added_mass", "com_x", "com_y", "com_z", "kp", "kd", "armature", "joint_friction", "damping",
            "latency")  # fmt: skip
UNITS = ("1", "kg", "m", "m", "m", "1", "1", "1", "1", "1", "s")
AROUND = 0.1 * np.array([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
SCAN = np.stack(np.meshgrid(np.linspace(-0.8, 0.8, 17), np.linspace(-0.5, 0.5, 11), indexing="ij"), -1).reshape(-1, 2)

Range = tuple[float, float]
RANGES = ("lin_x", "lin_y", "yaw", "friction", "added_mass", "com", "gains", "joints", "latency")
LIMITS = {"friction": (0.01, np.inf), "gains": (0, np.inf), "joints": (0, np.inf), "latency": (0, LATEST)}


def _range(low: float, high: float, about: str) -> Any:
    return Field((low, high), description=f"{about}, drawn uniformly for each episode; equal ends draw nothing.")


class EnvConfig(Config):
    """Settings of the quadruped; the ranges are the published ones."""

    max_episode_steps: int = time_limit(1000)
    terrain: Literal["flat", "patches", "rough", "slope_up", "slope_down", "stairs_up", "stairs_down"] = Field(
        "flat", description="Flat ground, patches of all other kinds side by side, harder level by level, or one kind."
    )
    level: int | None = Field(
        None, ge=1, le=LEVELS, description="Of all patches; 6: noise of 8 cm, slopes of .4, stairs of 10 cm; none: all."
    )
    curriculum: bool = Field(
        True, description="On patches: who walks far starts on a harder one next; otherwise levels are drawn."
    )
    lin_x: Range = _range(-0.5, 0.5, "Commanded speed forward [m/s]")
    lin_y: Range = _range(-1.0, 1.0, "Commanded speed to the left [m/s]")
    yaw: Range = _range(-1.0, 1.0, "Commanded turning [rad/s]")
    gait_hz: float = Field(
        2.5, ge=0, le=10, description="Strides per second of the trot that actions are added to; 0: none, no clock."
    )
    standing: float = Field(0.1, ge=0, le=1, description="Share of commands that are to stand still.")
    friction: Range = _range(0.2, 1.7, "Friction of the feet")
    added_mass: Range = _range(-1.0, 1.0, "Mass added to the trunk [kg]")
    com: Range = _range(-0.03, 0.03, "Shift of the trunk's centre of mass, along each axis [m]")
    gains: Range = _range(0.8, 1.2, "Factor of kp, and of kd")
    joints: Range = _range(0.5, 1.5, "Factor of the joints' armature, of their dry friction, and of their damping")
    latency: Range = _range(0.0, 0.02, "Delay of actions [s], in steps of the physics")
    push: float = Field(1.0, ge=0, description="Most speed that a push gives, along x and y [m/s]; 0 pushes no one.")
    push_seconds: float = Field(10.0, gt=0, description="Time between two pushes.")
    weights: dict[str, float] = Field(
        {}, description="Weights of the reward's terms, per second, other than the published ones."
    )
    model: str = Field("", description="An MJCF file of yours, with the names of the Go2's; empty takes the Go2.")
    picture: Literal["rays", "gl"] = Field("rays", description="What draws films: rays on any machine, or OpenGL.")
    threads: int | None = threads_field()

    @field_validator("model")
    @classmethod
    def _a_file_that_there_is(cls, value: str) -> str:
        if value and not Path(value).is_file():
            raise ValueError("there is no such file")
        return str(Path(value).absolute()) if value else ""  # a run is read from other folders than it began in

    @field_validator(*RANGES, mode="before")
    @classmethod
    def _one_number_is_both_ends(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, (int, float)) else value

    @field_validator("weights")
    @classmethod
    def _terms_that_there_are(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if name not in WEIGHTS:
                raise ValueError(f'no term of the reward is called "{name}": {did_you_mean(name, list(WEIGHTS))}')
        return value

    @field_validator(*RANGES, mode="after")
    @classmethod
    def _possible(cls, value: Range, info: ValidationInfo) -> Range:
        low, high = LIMITS.get(str(info.field_name), (-np.inf, np.inf))
        if value[0] > value[1]:
            raise ValueError("give the lower end first")
        if value[0] < low:
            raise ValueError(f"cannot be below {low:g}")
        if value[1] > high:
            raise ValueError(f"cannot be above {high:g}")
        return value


class Env(MujocoEnv):
    """N Go2s; the module's docstring is the specification."""

    groups = {  # noqa: RUF012 - one constant for all instances
        "ang_vel": Group((3,), fields=("roll_rate", "pitch_rate", "yaw_rate"), units=("rad/s",)),
        "gravity": Group((3,), fields=("gravity_x", "gravity_y", "gravity_z"), units=("1",), low=-1.0, high=1.0),
        "command": Group((3,), fields=("command_x", "command_y", "command_yaw"), units=("m/s", "m/s", "rad/s")),
        "joint_pos": Group((12,), fields=JOINTS, units=("rad",), about="From the default pose."),
        "joint_vel": Group((12,), fields=tuple(f"{name}_vel" for name in JOINTS), units=("rad/s",)),
        "clock": Group((8,), fields=tuple(f"{what}_{f}" for what in ("clock", "forward", "left", "turn")
                                          for f in ("sin", "cos")), units=("1",)),
        "lin_vel": Group((3,), fields=("vel_x", "vel_y", "vel_z"), units=("m/s",), privileged=True),
        "dynamics": Group((11,), fields=DYNAMICS, units=UNITS, privileged=True, about="The body of this episode."),
        "push": Group((2,), fields=("push_x", "push_y"), units=("m/s",), privileged=True),
        "contacts": Group(
            (12,),
            fields=tuple(f"{leg}_{part}_touches" for part in ("foot", "thigh", "calf") for leg in LEGS),
            units=("1",), low=0.0, high=1.0, privileged=True,
        ),
        "heights": Group((20,), fields=tuple(f"{leg}_height_{i}" for leg in LEGS for i in range(5)), units=("m",),
                         privileged=True, about="Of each foot above the ground under and around it."),
        "normals": Group((12,), fields=tuple(f"{leg}_normal_{axis}" for leg in LEGS for axis in "xyz"), units=("1",),
                         low=-1.0, high=1.0, privileged=True),
        "height_scan": Group((187,), units=("m",), low=-1.0, high=1.0, privileged=True),
    }  # fmt: skip
    action = ActionSpec("continuous", low=(-np.inf,) * 12, high=(np.inf,) * 12, names=JOINTS)

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        path = Path(config.model or MODEL)
        self._config, self._terrain = config, Terrain(config.terrain, config.level)
        self._weights = WEIGHTS | config.weights
        spec = load_spec(path)
        spec.option.timestep = TIMESTEP
        self._terrain.lay(spec, path)
        for actuator in spec.actuators:
            actuator.delay, actuator.nsample = 1.0, 1 + round(LATEST / TIMESTEP)  # the delay itself is drawn
        model = compiled(spec, path)
        self._robot = Robot.find(model, path)
        lightest = float(model.body_mass[self._robot.trunk]) + config.added_mass[0]
        if lightest <= 0:
            raise UserError(f"added_mass {config.added_mass[0]}: leaves a trunk of {lightest:.1f} kg: take off less")
        drawn = ("geom_friction", "body_mass", "body_ipos", "actuator_gainprm", "actuator_biasprm", "actuator_delay",
                 "dof_armature", "dof_frictionloss", "dof_damping")  # fmt: skip
        super().__init__(
            model, num_envs, device, decimation=DECIMATION, max_episode_steps=config.max_episode_steps,
            keyframe=self._robot.home,
            threads=config.threads, fields=drawn, derived=("geom_xpos", "sensordata", "actuator_force"),
        )  # fmt: skip
        sizes = {"action": 12, "action_1": 12, "action_2": 12, "joint_vel_1": 12, "feet_1": 12, "air": 4, "touch": 13}
        sizes |= {"command": 3, "push": 2, "push_age": 1, "dynamics": 11, "spot": 2, "went": 2}
        sizes |= dict.fromkeys(("level", "phase", "turns", "asked"), 1)
        self._now |= {name: np.zeros((num_envs, size)) for name, size in sizes.items()}
        self._push_steps = max(round(config.push_seconds / (self.control_dt or 1.0)), 1)
        self._sums: dict[str, float] = {}
        self._summed = 0
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._now["level"][:] = -1.0
        super().reset(seed)

    # --- episodes -----------------------------------------------------------------------------------------------------

    def _randomize(self, rows: np.ndarray) -> None:
        robot, c = self._robot, self._config
        u = self._draw_once("quadruped/dynamics", rows, len(DYNAMICS))
        ranges = np.array([c.friction, c.added_mass, *(c.com,) * 3, *(c.gains,) * 2, *(c.joints,) * 3, c.latency])
        values = ranges[:, 0] + u * (ranges[:, 1] - ranges[:, 0])
        timestep = self.model.opt.timestep
        late = np.floor((values[:, 10] + 0.5 * timestep) / timestep)
        values[:, 10] = late * timestep
        self._now["dynamics"][rows] = values
        friction, mass, kp, kd = (values[:, [i]] for i in (0, 1, 5, 6))
        drawn, usual, on = self._drawn, self._usual, np.ix_(rows, robot.motors)
        drawn["geom_friction"][(*np.ix_(rows, robot.feet), 0)] = friction
        drawn["body_mass"][rows, robot.trunk] = usual["body_mass"][robot.trunk] + mass[:, 0]
        drawn["body_ipos"][rows, robot.trunk] = usual["body_ipos"][robot.trunk] + values[:, 2:5]
        drawn["actuator_gainprm"][(*on, 0)] = kp * usual["actuator_gainprm"][robot.motors, 0]
        drawn["actuator_biasprm"][(*on, 1)] = kp * usual["actuator_biasprm"][robot.motors, 1]
        drawn["actuator_biasprm"][(*on, 2)] = kd * usual["actuator_biasprm"][robot.motors, 2]
        # A control is read as old as this, rounded to the step before: a tenth less, or rounding errors would decide.
        drawn["actuator_delay"][on] = ((late - 0.1).clip(0) * timestep)[:, None]
        for i, name in enumerate(("dof_armature", "dof_frictionloss", "dof_damping")):
            drawn[name][np.ix_(rows, robot.qvel)] = values[:, [7 + i]] * usual[name][robot.qvel]

    def _place(self, rows: np.ndarray) -> None:
        robot, now, u = self._robot, self._now, self._draw("quadruped/start", rows, 34)
        kind = (u[:, 30] * len(KINDS)).astype(np.int64)
        level = self._levels(rows, u[:, 31])
        now["level"][rows, 0] = level
        spot = self._terrain.origin(kind, level)
        now["spot"][rows] = spot
        now["phase"][rows, 0] = np.floor(u[:, 32] * self._push_steps)
        now["turns"][rows, 0] = u[:, 33]
        start, angle = now["qpos"][rows], np.pi * u[:, 0]
        start[:, :2] = spot + u[:, 1:3] - 0.5
        start[:, 2] += self._terrain.height(spot)
        start[:, 3:7] = np.stack([np.cos(angle), *np.zeros((2, len(rows))), np.sin(angle)], -1)
        start[:, robot.qpos] += 0.4 * (u[:, 3:15] - 0.5)
        now["qpos"][rows] = start
        now["qvel"][rows, :6] = 0.4 * (u[:, 15:21] - 0.5)
        for name in ("action", "action_1", "action_2", "joint_vel_1", "air", "push", "push_age", "asked"):
            now[name][rows] = 0.0
        self._command(rows)

    def _started(self, rows: np.ndarray) -> None:
        self._now["feet_1"][rows] = self._now["geom_xpos"][rows][:, self._robot.feet].reshape(len(rows), 12)
        self._now["touch"][rows] = self._robot.touching(self._now["sensordata"][rows])

    def _levels(self, rows: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Levels of the next episodes (Rudin et al. 2022): up for who left the patch, down for who hardly moved."""
        drawn, level = np.floor(u * LEVELS), self._now["level"][rows, 0]
        if self._config.level or not self._config.curriculum:
            return drawn
        walked = np.linalg.norm(self._now["went"][rows], axis=-1)
        moved = level + (walked > PATCH / 2) - (walked < np.minimum(0.5 * self._now["asked"][rows, 0], PATCH / 4))
        # Whoever masters the last level goes to any.
        moved = np.where(moved >= LEVELS, drawn, moved.clip(0))
        return np.where(level < 0, np.floor(u * 2), moved)

    def _command(self, rows: np.ndarray) -> None:
        c, u = self._config, self._draw("quadruped/command", rows, 4)
        ranges = np.array([c.lin_x, c.lin_y, c.yaw])
        command = ranges[:, 0] + u[:, :3] * (ranges[:, 1] - ranges[:, 0])
        command[np.linalg.norm(command[:, :2], axis=-1) < 0.1, :2] = 0.0  # too slow to be walked
        command[u[:, 3] < c.standing] = 0.0
        self._now["command"][rows] = command

    def _happen(self) -> None:
        now, dt = self._now, self.control_dt or 0.0
        now["went"][:] = now["qpos"][:, :2] - now["spot"]
        now["asked"] += np.linalg.norm(now["command"][:, :2], axis=-1, keepdims=True) * dt
        due = np.flatnonzero(self._steps % round(COMMAND_SECONDS / dt) == 0)
        if len(due):
            self._command(due)
        now["push_age"] += dt
        now["push"][now["push_age"][:, 0] > 0.5 - dt / 2] = 0.0  # between two steps, where no rounding decides
        due = np.flatnonzero((self._steps + now["phase"][:, 0]) % self._push_steps == 0)
        if len(due) and self._config.push:
            push = self._config.push * (2.0 * self._draw("quadruped/push", due, 2) - 1.0)
            now["qvel"][due, :2] += push
            now["push"][due], now["push_age"][due] = push, 0.0

    # --- a step -------------------------------------------------------------------------------------------------------

    def _act(self, action: np.ndarray) -> None:
        robot, now = self._robot, self._now
        now["action_2"][:], now["action_1"][:], now["action"][:] = now["action_1"], now["action"], action
        now["joint_vel_1"][:] = now["qvel"][:, robot.qvel]
        now["turns"][:] = (now["turns"] + (self.control_dt or 0.0) * self._config.gait_hz) % 1.0
        told = robot.held + ACTION_SCALE * action
        if self._config.gait_hz:
            told += trot(now["turns"][:, 0], now["command"], self._config.gait_hz)
        now["ctrl"][:, robot.motors] = told

    def _outcome(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        now, dt = self._now, self.control_dt or 0.0
        now["touch"][:] = self._robot.touching(now["sensordata"])
        now["air"] += dt
        feet = now["geom_xpos"][:, self._robot.feet]
        terms = self._robot.terms(now, feet, self._terrain.height(feet[..., :2]), dt)
        now["air"] *= now["touch"][:, :4] == 0
        now["feet_1"][:] = feet.reshape(-1, 12)
        self._tell(terms)
        reward = sum((self._weights[name] * dt * term for name, term in terms.items()), np.zeros(self.num_envs))
        gravity = turned(now["qpos"][:, 3:7], np.array([0.0, 0.0, -1.0]))
        fallen = (now["touch"][:, 12] > 0) | (gravity[:, 2] > -LEAN)
        return reward.clip(0.0), fallen, self._terrain.beyond(now["qpos"][:, :2])

    def _tell(self, terms: Arrays) -> None:
        off = self._now["command"] - self._velocity(self._now)
        values = {"speed_error": np.linalg.norm(off[:, :2], axis=-1), "yaw_error": np.abs(off[:, 2])}
        values |= {f"reward_{name}": self._weights[name] * term for name, term in terms.items()}
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value.mean())
        self._summed += 1

    def metrics(self) -> dict[str, float]:
        found = {f"env/{name}": total / self._summed for name, total in self._sums.items()}
        if self._terrain.patches and not self._config.level:
            found["env/level"] = float(self._now["level"].mean())
        self._sums, self._summed = {}, 0
        return found

    def measures(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        dt = self.control_dt or 0.0
        at = self._before_reset("qpos", "qvel", "command", "actuator_force", "dynamics")
        # A command is new, and not yet to be followed, for its first second; episodes begin with one.
        settled = self._steps % round(COMMAND_SECONDS / dt) >= round(SETTLING_SECONDS / dt)
        weight = GRAVITY * (self.model.body_mass.sum() + at["dynamics"][:, DYNAMICS.index("added_mass")])
        found = self._robot.measures(at, self._velocity(at), settled, weight)
        found["falls per minute"] = self._fell, np.full(self.num_envs, dt / 60)
        return {name: self._pair(*pair) for name, pair in found.items()}

    def _pair(self, above: np.ndarray, below: np.ndarray | None) -> tuple[Tensor, Tensor | None]:
        told = [None if x is None else torch.from_numpy(x).double().to(self.device) for x in (above, below)]
        assert told[0] is not None
        return told[0], told[1]

    def _velocity(self, at: Arrays) -> np.ndarray:
        """What a command asks for, as it is: [K, 3]."""
        lin = turned(at["qpos"][:, 3:7], at["qvel"][:, :3])
        return np.concatenate([lin[:, :2], at["qvel"][:, 5:6]], -1)

    # --- what is seen -------------------------------------------------------------------------------------------------

    def _fields(self, group: str, at: Arrays) -> np.ndarray:
        robot = self._robot
        quat, feet = at["qpos"][:, 3:7], at["geom_xpos"][:, robot.feet]
        if group == "ang_vel":
            return at["qvel"][:, 3:6]
        if group == "gravity":
            return turned(quat, np.array([0.0, 0.0, -1.0]))
        if group == "lin_vel":
            return turned(quat, at["qvel"][:, :3])
        if group == "push":
            return turned(quat, np.pad(at["push"], ((0, 0), (0, 1))))[:, :2]
        if group == "joint_pos":
            return at["qpos"][:, robot.qpos] - robot.default
        if group == "joint_vel":
            return at["qvel"][:, robot.qvel]
        if group == "contacts":
            return at["touch"][:, :12]
        if group == "heights":
            ground = self._terrain.height(feet[:, :, None, :2] + (AROUND @ seen_from_above(quat))[:, None])
            return (feet[:, :, None, 2] - ground).reshape(len(feet), 20)
        if group == "normals":
            normal = self._terrain.normal(feet[..., :2])
            normal[..., :2] = normal[..., :2] @ seen_from_above(quat).swapaxes(1, 2)
            return normal.reshape(len(feet), 12)
        if group == "clock":
            turns = 2 * np.pi * at["turns"][:, 0]
            shown = is_moving(at["command"]) & (self._config.gait_hz > 0)
            wave = np.stack([np.sin(turns), np.cos(turns)], -1) * shown[:, None]
            return np.concatenate([wave, *(wave * command[:, None] for command in at["command"].T)], -1)
        if group == "height_scan":
            points = at["qpos"][:, None, :2] + SCAN @ seen_from_above(quat)
            return (at["qpos"][:, None, 2] - self._terrain.height(points)).clip(-1.0, 1.0)
        return at[group]

    def render(self, row: int = 0) -> np.ndarray:
        """The robot from a camera that follows it, with its command and its velocity: uint8 [240, 320, 3]."""
        from PIL import Image, ImageDraw

        from tscli.envs import mujoco, rays

        model, data = self._physics.get_model(row), self._physics.get_data(row)
        mujoco.load_mujoco().mj_forward(model, data)
        look_at = data.qpos[:3] * [1, 1, 0] + [0, 0, self._terrain.height(data.qpos[:2]) + 0.2]
        view = look_at - np.array([0.7, 1.3, -0.55]), look_at, (240, 320)
        camera = rays.Camera(model, *view, ground=self._terrain if self._terrain.patches else None)
        gl = self._config.picture == "gl"
        image = Image.fromarray(rays.draw_gl(model, data, *view) if gl else camera.draw(model, data))
        text, moves = ImageDraw.Draw(image), self._velocity(self._now)[row]
        for i, (name, values) in enumerate((("command", self._now["command"][row]), ("moves", moves))):
            text.text((8, 210 + 13 * i), f"{name:8}" + " ".join(f"{v:+.2f}" for v in values), fill="#10151f")
        return np.asarray(image)

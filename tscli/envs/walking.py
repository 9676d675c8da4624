"""A four-legged robot in a MuJoCo model, and what its walking is paid for.

The terms are those of Rudin et al. 2022 and Margolis et al. 2022, as published for the Go2.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tscli.envs.mujoco import Arrays, ids_of

LEGS = ("FL", "FR", "RL", "RR")
JOINTS = tuple(f"{leg}_{part}" for leg in LEGS for part in ("hip", "thigh", "calf"))
SOFT_LIMIT = 0.9  # share of a joint's range that costs nothing
FOOT_HEIGHT = 0.09  # m above the ground at which a foot's middle is to swing
LIFT = 0.3  # rad by which a thigh leans forward as the trot pulls its leg up, and half of the calf's fold
PRESS = 0.5  # share of it by which a leg that stands is pressed down
LEG_PHASE = 2 * np.pi * np.array([0.0, 0.5, 0.5, 0.0])  # of a trot: diagonal legs swing together
LEG = 0.31  # m from hip to foot in the pose
HIPS = np.array([[0.193, 0.142], [0.193, -0.142], [-0.193, 0.142], [-0.193, -0.142]])  # m, feet from the trunk's middle
STRIDE = 1.5  # of the way that a command asks for, which soft motors do not go
ASIDE = -0.2  # of a stride to the side, against which the trunk tips
AIR_SECONDS = 0.25  # a foot's time in the air from which it pays; the published 0.5 costs a trot more than standing
WEIGHTS = {  # per second; those that are published for this robot
    "track_lin": 1.0,
    "track_ang": 0.5,
    "lin_vel_z": -2.0,
    "ang_vel_xy": -0.05,
    "power": -2e-4,
    "dof_acc": -2e-7,
    "action_rate": -0.01,
    "action_smoothness": -0.01,
    "feet_air_time": 1.0,
    "foot_clearance": 0.2,
    "hip": -0.1,
    "collision": -1.0,
    "joint_limits": -5.0,
    "stand_still": -1.0,
    "stand_contact": 0.5,
}


@dataclass(frozen=True)
class Robot:
    """Where a model has what, by the names of the Go2's.

    Attributes:
        qpos, qvel: [12], the joints in the state, in the order of `JOINTS`.
        motors: [12], their actuators.
        feet: [4], geoms.
        trunk: the body "base".
        sensors: [17], in sensordata: the feet's forces; contacts of trunk, thighs, calves and shins.
        home: the keyframe in which it stands.
        default: [12], the joints in it [rad].
        held: [12], what its motors are told there [rad].
        soft: ends of the joints' ranges that cost nothing [rad], each [12].
    """

    qpos: np.ndarray
    qvel: np.ndarray
    motors: np.ndarray
    feet: np.ndarray
    trunk: int
    sensors: np.ndarray
    home: int
    default: np.ndarray
    held: np.ndarray
    soft: tuple[np.ndarray, np.ndarray]

    @classmethod
    def find(cls, model: Any, path: Path) -> Robot:
        """In a model that came from a file.

        Raises:
            UserError: it lacks something; names it and the file.
        """
        joints = ids_of(model, "joint", [f"{name}_joint" for name in JOINTS], path)
        sensed = [*(f"{leg}_foot" for leg in LEGS), "base"]
        sensed += [f"{leg}_{part}" for part in ("thigh", "calf", "shin") for leg in LEGS]
        qpos, (low, high) = model.jnt_qposadr[joints], model.jnt_range[joints].T
        motors = ids_of(model, "actuator", JOINTS, path)
        home = int(ids_of(model, "key", ["home"], path)[0])
        middle, half = (low + high) / 2, SOFT_LIMIT * (high - low) / 2
        return cls(
            qpos=qpos,
            qvel=model.jnt_dofadr[joints],
            motors=motors,
            feet=ids_of(model, "geom", [f"{leg}_foot" for leg in LEGS], path),
            trunk=int(ids_of(model, "body", ["base"], path)[0]),
            sensors=model.sensor_adr[ids_of(model, "sensor", sensed, path)],
            home=home,
            default=model.key_qpos[home][qpos].copy(),
            held=model.key_ctrl[home][motors].copy(),
            soft=(middle - half, middle + half),
        )

    def touching(self, read: np.ndarray) -> np.ndarray:
        """Whether each foot (with 1 N), thigh and calf and the trunk touch something: [N, 13] of 0 and 1.

        Args:
            read: sensordata.
        """
        at = self.sensors
        feet = [np.linalg.norm(read[:, a : a + 3], axis=-1) > 1.0 for a in at[:4]]
        thighs, calves = read[:, at[5:9]] > 0, (read[:, at[9:13]] > 0) | (read[:, at[13:17]] > 0)
        return np.concatenate([np.stack(feet, -1), thighs, calves, read[:, at[4:5]] > 0], -1).astype(np.float64)

    def terms(self, now: Arrays, feet: np.ndarray, ground: np.ndarray, dt: float) -> Arrays:
        """The reward's terms by name, without their weights, each [N].

        Args:
            now: what the env remembers, after a step.
            feet: [N, 4, 3] in the world.
            ground: [N, 4], its height under each.
            dt: seconds of the step.
        """
        command, joint_vel, angle = now["command"], now["qvel"][:, self.qvel], now["qpos"][:, self.qpos]
        lin, ang = turned(now["qpos"][:, 3:7], now["qvel"][:, :3]), now["qvel"][:, 3:6]
        moving = is_moving(command)
        touch = now["touch"][:, :4] > 0
        landed = touch & (now["air"] > 1.5 * dt)  # this step alone is no time in the air
        speed = np.linalg.norm((feet - now["feet_1"].reshape(-1, 4, 3))[..., :2], axis=-1) / dt
        too_low = np.square(feet[..., 2] - ground - FOOT_HEIGHT) * speed
        change = now["action"] - now["action_1"]
        return {
            "track_lin": np.exp(-np.square(command[:, :2] - lin[:, :2]).sum(-1) / 0.25),
            "track_ang": np.exp(-np.square(command[:, 2] - ang[:, 2]) / 0.25),
            "lin_vel_z": np.square(lin[:, 2]),
            "ang_vel_xy": np.square(ang[:, :2]).sum(-1),
            "power": np.abs(now["actuator_force"][:, self.motors] * joint_vel).sum(-1),
            "dof_acc": np.square((joint_vel - now["joint_vel_1"]) / dt).sum(-1),
            "action_rate": np.square(change).sum(-1),
            "action_smoothness": np.square(change - now["action_1"] + now["action_2"]).sum(-1),
            "feet_air_time": ((now["air"] - AIR_SECONDS) * landed).sum(-1) * moving,
            "foot_clearance": np.exp(-too_low.sum(-1) / 0.01) * moving,
            "hip": np.square(angle[:, ::3] - self.default[::3]).sum(-1),
            "collision": now["touch"][:, 4:12].sum(-1),
            "joint_limits": ((self.soft[0] - angle).clip(0) + (angle - self.soft[1]).clip(0)).sum(-1),
            "stand_still": np.abs(angle - self.default).sum(-1) * ~moving,
            "stand_contact": touch.all(-1) * ~moving,
        }

    def measures(
        self, now: Arrays, moves: np.ndarray, settled: np.ndarray, weight: np.ndarray
    ) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
        """What `VecEnv.measures` tells, but for falls.

        Args:
            now: what the env remembers, after a step.
            moves: [N, 3], as a command asks for it.
            settled: [N], whether the command is to be followed by now.
            weight: [N], of the robot [N].
        """
        off, told = np.abs(now["command"] - moves), np.linalg.norm(now["command"][:, :2], axis=-1) > 0
        force = now["actuator_force"][:, self.motors]
        power = np.abs(force * now["qvel"][:, self.qvel]).sum(-1)
        return {
            "speed error [m/s]": (np.linalg.norm(off[:, :2], axis=-1) * settled, settled),
            "yaw error [rad/s]": (off[:, 2] * settled, settled),
            "cost of transport": (power * told, weight * np.linalg.norm(moves[:, :2], axis=-1) * told),
            "largest torque [N m]": (np.abs(force).max(-1), None),
        }


def is_moving(command: np.ndarray) -> np.ndarray:
    """Whether commands [N, 3] ask for more than standing."""
    return np.linalg.norm(command, axis=-1) > 0.1


def trot(turns: np.ndarray, command: np.ndarray, hz: float) -> np.ndarray:
    """Offsets of the joints [N, 12] of a trot as it is commanded [rad].

    Diagonal legs swing together, pulled up and forward, while the others press down and back. Open loop it steps on the
    spot and goes about half as fast forward as it is told: something to start from, no controller.

    Args:
        turns: [N], how many strides have gone by.
        command: [N, 3], forward and left [m/s], turning left [rad/s].
        hz: strides per second.
    """
    swing = np.sin(2 * np.pi * turns[:, None] + LEG_PHASE)
    up, stride = LIFT * np.where(swing > 0, 1.0, PRESS) * swing, swing * STRIDE / (4 * hz * LEG)
    forward = (command[:, :1] - command[:, 2:] * HIPS[:, 1]) * stride
    joints = np.stack([ASIDE * command[:, 1:2] * stride, up - forward, -2 * up], -1)
    return joints.reshape(-1, 12) * is_moving(command)[:, None]


def turned(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Vectors [K, 3] or [3] of the world in the axes of bodies with these rotations [K, 4]: [K, 3]."""
    w, axis = quat[:, :1], -quat[:, 1:]
    cross = 2.0 * _cross(axis, vector)
    return vector + w * cross + _cross(axis, cross)


def seen_from_above(quat: np.ndarray) -> np.ndarray:
    """Where bodies with these rotations [K, 4] look and what is on their left, in the world's x and y: [K, 2, 2]."""
    ahead = turned(quat * [1, -1, -1, -1], np.array([1.0, 0.0, 0.0]))[:, :2]
    ahead /= np.linalg.norm(ahead, axis=-1, keepdims=True).clip(1e-6)
    return np.stack([ahead, np.stack([-ahead[:, 1], ahead[:, 0]], -1)], 1)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`np.cross` for rows of three, in a quarter of its time."""
    return a[..., [1, 2, 0]] * b[..., [2, 0, 1]] - a[..., [2, 0, 1]] * b[..., [1, 2, 0]]

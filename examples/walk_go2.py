"""Judge a walking policy exported by `tscli export`, with nothing of tscli: numpy, onnxruntime and a loop of `mj_step`.

    python walk_go2.py policy.onnx                        # 100 episodes of 20 s, the task's randomisation, no pushes
    python walk_go2.py policy.onnx --push 1               # pushed every 10 s
    python walk_go2.py policy.onnx --nominal --seed 3     # one body: friction 0.8, nothing added
    python walk_go2.py policy.onnx --gauge                # the measures of RoboGauge, on flat ground

It draws bodies, commands and sensor noise by itself, and measures what `tscli eval` does: the error of the velocity
from one second after each command on, falls, and the energy of walking. So the two can be compared, and the file can be
trusted to hold what was measured. `--gauge` takes the goals and measures of RoboGauge (arXiv 2602.00678) with the
commands that this task has: full speed along each axis and a halt, diagonals and their opposites. It needs
`run_exported.py` beside it, and the robot's model (--model).
"""

from __future__ import annotations

import argparse
import copy
import importlib
from pathlib import Path
from typing import Any

import numpy as np
from run_exported import ExportedPolicy

mujoco: Any = importlib.import_module("mujoco")

MODEL = Path(__file__).resolve().parents[1] / "tscli" / "envs" / "models" / "go2.xml"
JOINTS = [f"{leg}_{part}" for leg in ("FL", "FR", "RL", "RR") for part in ("hip", "thigh", "calf")]
FEET = [f"{leg}_foot" for leg in ("FL", "FR", "RL", "RR")]
SENSES = ("ang_vel", "gravity", "command", "joint_pos", "joint_vel", "clock")
SUBSTEPS, ACTION_SCALE = 4, 0.25
COMMAND_SECONDS, SETTLING_SECONDS, PUSH_SECONDS = 10.0, 1.0, 10.0
NOMINAL = {"friction": 0.8, "mass": 0.0, "com": np.zeros(3), "kp": 1.0, "kd": 1.0, "armature": 1.0, "dry": 1.0,
           "damping": 1.0, "late": 0}  # fmt: skip


def drawn_body(rng: np.random.Generator) -> dict:
    """Physics of an episode, in the ranges of the task `quadruped`; `late` in physics steps."""
    gains, joints = rng.uniform(0.8, 1.2, 2), rng.uniform(0.5, 1.5, 3)
    return {"friction": rng.uniform(0.2, 1.7), "mass": rng.uniform(-1, 1), "com": rng.uniform(-0.03, 0.03, 3),
            "kp": gains[0], "kd": gains[1], "armature": joints[0], "dry": joints[1], "damping": joints[2],
            "late": int(rng.uniform(0, 0.02) / 0.005 + 0.5)}  # fmt: skip


class Go2:
    """One robot in plain MuJoCo, told angles 50 times a second."""

    def __init__(self, path: Path, gait_hz: float) -> None:
        self.usual = mujoco.MjModel.from_xml_path(str(path))
        self.gait_hz, self.dt = gait_hz, SUBSTEPS * self.usual.opt.timestep
        model = self.usual
        self.joint = np.array([model.joint(f"{name}_joint").id for name in JOINTS])
        self.motor = np.array([model.actuator(name).id for name in JOINTS])
        self.q, self.v = model.jnt_qposadr[self.joint], model.jnt_dofadr[self.joint]
        self.feet = np.array([model.geom(name).id for name in FEET])
        self.trunk = model.body("base").id
        key = model.key("home")
        self.pose, self.held = key.qpos[self.q].copy(), key.ctrl[self.motor].copy()

    def start(self, body: dict, rng: np.random.Generator | None) -> None:
        """Begin an episode with this body; near the pose, or in it where nothing is drawn."""
        self.model = self._with(body)
        self.data = mujoco.MjData(self.model)
        mujoco.mj_resetDataKeyframe(self.model, self.data, self.model.key("home").id)
        self.turns, self.command = 0.0, np.zeros(3)
        if rng is not None:
            self.turns, turn = rng.uniform(), rng.uniform(0, np.pi)
            self.data.qpos[3:7] = [np.cos(turn), 0, 0, np.sin(turn)]
            self.data.qpos[self.q] += rng.uniform(-0.2, 0.2, 12)
            self.data.qvel[:6] = rng.uniform(-0.2, 0.2, 6)
        self.heard = [self.held.copy()] * body["late"]
        mujoco.mj_forward(self.model, self.data)

    def _with(self, body: dict) -> Any:
        model = copy.copy(self.usual)
        model.geom_friction[self.feet, 0] = body["friction"]
        model.body_mass[self.trunk] += body["mass"]
        model.body_ipos[self.trunk] += body["com"]
        model.actuator_gainprm[self.motor, 0] *= body["kp"]
        model.actuator_biasprm[self.motor, 1] *= body["kp"]
        model.actuator_biasprm[self.motor, 2] *= body["kd"]
        model.dof_armature[self.v] *= body["armature"]
        model.dof_frictionloss[self.v] *= body["dry"]
        model.dof_damping[self.v] *= body["damping"]
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model

    def step(self, action: np.ndarray) -> None:
        """A control step: the angles are heard `late` physics steps after they were told."""
        told = self.held + ACTION_SCALE * action
        self.turns += self.dt * self.gait_hz
        if self.gait_hz and self.walks:
            told = told + self.trot()
        for _ in range(SUBSTEPS):
            self.heard.append(told)
            self.data.ctrl[self.motor] = self.heard.pop(0)
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_step1(self.model, self.data)

    def trot(self) -> np.ndarray:
        """What is added where it walks: diagonal legs in turns, by the command."""
        swing = np.sin(2 * np.pi * (self.turns + np.array([0, 0.5, 0.5, 0])))
        up, stride = np.where(swing > 0, 0.3, 0.15) * swing, 1.5 / (4 * self.gait_hz * 0.31) * swing
        ahead = (self.command[0] - self.command[2] * np.array([0.142, -0.142, 0.142, -0.142])) * stride
        return np.stack([-0.2 * self.command[1] * stride, up - ahead, -2 * up], -1).ravel()

    @property
    def walks(self) -> bool:
        """Whether the command asks for more than standing."""
        return bool(np.linalg.norm(self.command) > 0.1)

    def turned(self, vector: np.ndarray) -> np.ndarray:
        """A vector of the world in the trunk's axes."""
        out, back = np.zeros(3), np.zeros(4)
        mujoco.mju_negQuat(back, self.data.qpos[3:7])
        mujoco.mju_rotVecQuat(out, np.asarray(vector, float), back)
        return out

    def readings(self) -> dict[str, np.ndarray]:
        """What the robot senses, without noise."""
        clock = 2 * np.pi * self.turns
        wave = float(self.walks and self.gait_hz > 0) * np.array([np.sin(clock), np.cos(clock)])
        return {
            "ang_vel": self.data.qvel[3:6].copy(), "gravity": self.turned(np.array([0, 0, -1])),
            "command": self.command.copy(), "joint_pos": self.data.qpos[self.q] - self.pose,
            "joint_vel": self.data.qvel[self.v].copy(), "clock": np.outer([1, *self.command], wave).ravel(),
        }  # fmt: skip

    def velocity(self) -> np.ndarray:
        """Forward, left, turning left."""
        return np.append(self.turned(self.data.qvel[:3])[:2], self.data.qvel[5])

    def power(self) -> float:
        """Of all motors, what they give and what they brake [W]."""
        return float(np.abs(self.data.actuator_force[self.motor] * self.data.qvel[self.v]).sum())

    def fallen(self) -> bool:
        """The trunk touches the ground, or leans by more than 70 degrees."""
        bodies = self.model.geom_bodyid[self.data.contact.geom]
        return bool((bodies == self.trunk).any()) or self.turned(np.array([0, 0, -1]))[2] > -0.35


def drawn_command(rng: np.random.Generator) -> np.ndarray:
    """As the task draws them: a tenth stand, and what is slower than 0.1 m/s is not walked."""
    command = rng.uniform([-0.5, -1, -1], [0.5, 1, 1])
    command[:2] *= np.linalg.norm(command[:2]) >= 0.1
    return command * (rng.uniform() >= 0.1)


def noise_of(policy: ExportedPolicy) -> dict[str, float]:
    """Deviations of the noise that it was trained with."""
    return {part["group"]: part.get("trained_with", {}).get("noise", 0.0) for part in policy.inputs["vector"]["parts"]}


def sensed(robot: Go2, noise: dict[str, float], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Readings with their noise."""
    seen = robot.readings()
    return {name: value + noise.get(name, 0.0) * rng.standard_normal(value.shape) for name, value in seen.items()}


def episode(policy: ExportedPolicy, robot: Go2, body: dict, rng: np.random.Generator, seconds: float, push: float,
            quiet: bool) -> np.ndarray:  # fmt: skip
    """Sums over an episode: settled steps, their speed and yaw errors, energy, weight x way, falls, minutes."""
    noise = {} if quiet else noise_of(policy)
    robot.start(body, None if quiet else rng)
    policy.reset()
    sums, phase = np.zeros(7), rng.uniform(0, PUSH_SECONDS)
    weight = 9.81 * robot.model.body_mass.sum()
    for step in range(round(seconds / robot.dt)):
        since = step % round(COMMAND_SECONDS / robot.dt)
        if since == 0:
            robot.command = drawn_command(rng)
        robot.step(policy.act(sensed(robot, noise, rng)))
        off, moves = robot.command - robot.velocity(), robot.velocity()
        if since + 1 >= round(SETTLING_SECONDS / robot.dt):
            sums[:3] += [1, np.linalg.norm(off[:2]), abs(off[2])]
        if np.linalg.norm(robot.command[:2]) > 0:
            sums[3:5] += [robot.power(), weight * np.linalg.norm(moves[:2])]
        sums[6] += robot.dt / 60
        if robot.fallen():
            sums[5] += 1
            break
        if push and (step + 1 + round(phase / robot.dt)) % round(PUSH_SECONDS / robot.dt) == 0:
            robot.data.qvel[:2] += rng.uniform(-push, push, 2)
    return sums


def goals() -> list[list[tuple[float, np.ndarray]]]:
    """RoboGauge's: seconds and command, one after the other, each list from a new start."""
    most = np.array([0.5, 1.0, 1.0])
    along = [sign * most * axis for axis in np.eye(3) for sign in (-1, 1)]
    diagonal = [most * [x, y, 0] for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y]
    return [[(5.0, way), (2.0, 0 * way)] for way in along] + [[(3.0, way), (3.0, -way)] for way in diagonal]


def measures(robot: Go2, torque_before: np.ndarray) -> np.ndarray:
    """RoboGauge's, each at most 1, which is best; in the order of `MEASURES`."""
    data, (low, high) = robot.data, robot.model.jnt_range[robot.joint].T
    angle, soft = data.qpos[robot.q], 0.1 * (high - low)
    beyond = np.maximum(low + soft - angle, angle - high + soft).clip(0) / (high - low)
    lin = robot.turned(data.qvel[:3]) - [*robot.command[:2], 0]
    ang = data.qvel[3:6] - [0, 0, robot.command[2]]
    torque = data.actuator_force[robot.motor]
    power, change = torque * data.qvel[robot.v], torque - torque_before
    return 1 - np.array([
        np.sqrt(np.mean(beyond**2)), np.linalg.norm(lin) / np.hypot(0.5, 1.0), np.linalg.norm(ang) / 1.0,
        np.sqrt(np.mean(power**2)) / 100, abs(robot.turned(np.array([0, 0, -1]))[0]),
        np.sqrt(np.mean(change**2)) / 30,
    ])  # fmt: skip


MEASURES = ("joint limits", "speed", "turning", "power", "upright", "smooth torque")


def gauge(policy: ExportedPolicy, robot: Go2, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """All measures ten times a second, over goals, five loads and three frictions: [K, 6]; and how often it fell.

    What is left of a goal after a fall counts 0.
    """
    noise, every, rows, falls = noise_of(policy), 5, [], 0
    for friction in (0.4, 0.7, 1.0):
        for mass in (-1, 0, 1, 2, 3):
            for goal in goals():
                robot.start(NOMINAL | {"friction": friction, "mass": mass, "late": rng.integers(0, 5)}, rng)
                policy.reset()
                told = np.concatenate([np.tile(way, (round(seconds / robot.dt), 1)) for seconds, way in goal])
                torque, out = robot.data.actuator_force[robot.motor].copy(), np.zeros((len(told) // every, 6))
                for step, robot.command in enumerate(told):
                    robot.step(policy.act(sensed(robot, noise, rng)))
                    if robot.fallen():
                        falls += 1
                        break
                    if step % every == every - 1:
                        out[step // every] = measures(robot, torque)
                        torque = robot.data.actuator_force[robot.motor].copy()
                rows.append(out)
    return np.concatenate(rows), falls


def main() -> None:
    """Judge a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path")
    parser.add_argument("--model", type=Path, default=MODEL, help="MJCF file of the robot")
    parser.add_argument("--episodes", type=int, default=100, help="at least 2")
    parser.add_argument("--seconds", type=float, default=20.0, help="of an episode")
    parser.add_argument("--push", type=float, default=0.0, help="most speed that a push gives along x and y [m/s]")
    parser.add_argument("--nominal", action="store_true", help="one body, no noise, no drawn start")
    parser.add_argument("--gauge", action="store_true", help="RoboGauge's measures in place of the task's")
    parser.add_argument("--gait-hz", type=float, default=2.5, help="as the env's setting in training")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.episodes < 2 or args.seconds <= 0 or not args.model.is_file():
        parser.error("give at least 2 --episodes, --seconds above 0, and a --model that there is")
    try:
        policy = ExportedPolicy(args.path)
    except Exception as error:  # onnxruntime's own, of which there are many
        raise SystemExit(f"{args.path} is no policy exported by `tscli export --format onnx`: {error}") from None
    robot = Go2(args.model, args.gait_hz)
    missing = {part["group"] for part in policy.inputs["vector"]["parts"]} - set(SENSES) - {"previous_action"}
    if missing:
        raise SystemExit(f"{args.path} sees {', '.join(sorted(missing))}, which no robot senses: export the student")
    rng = np.random.default_rng(args.seed)
    if args.gauge:
        rows, falls = gauge(policy, robot, rng)
        worst = np.sort(rows, axis=0)
        print(f"{'':16}{'mean':>8}{'of the worst half':>20}{'of the worst quarter':>22}")
        for name, values in zip((*MEASURES, "all"), (*worst.T, worst.mean(1)), strict=True):
            half, quarter = (values[: len(values) // part].mean() for part in (2, 4))
            print(f"{name:16}{values.mean():8.3f}{half:20.3f}{quarter:22.3f}")
        print(f"fell {falls} times in {15 * len(goals())}")
        return
    sums = np.array([
        episode(policy, robot, NOMINAL if args.nominal else drawn_body(rng), rng, args.seconds, args.push, args.nominal)
        for _ in range(args.episodes)
    ])  # fmt: skip
    for name, above, below in (("speed error [m/s]", 1, 0), ("yaw error [rad/s]", 2, 0), ("cost of transport", 3, 4),
                               ("falls per minute", 5, 6)):  # fmt: skip
        value = sums[:, above].sum() / max(sums[:, below].sum(), 1e-9)
        spread = np.std((sums[:, above] - value * sums[:, below]) / max(sums[:, below].mean(), 1e-9), ddof=1)
        print(f"{name:20} {value:.3f} +- {1.96 * spread / np.sqrt(len(sums)):.3f}")
    print(f"{'without a fall':20} {np.sum(sums[:, 5] == 0)} of {len(sums)} episodes")


if __name__ == "__main__":
    main()

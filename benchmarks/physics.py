"""How much of raw `mujoco.batch` the quadruped's env leaves: control steps/s of both, in turns, on the same controls.

    python benchmarks/physics.py --num-envs 256 --threads 2 --groups ang_vel gravity command joint_pos joint_vel

The raw side is the same model with the same drawn fields and controls, without actions, rewards, ends or groups. Both
start from the same states and run in turns, since other programs on the machine take their share of either; the ratio
of processor time, beside that of wall time, hardly depends on them.
"""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from typing import Any

import numpy as np
import torch

from tscli.envs import make_env
from tscli.envs.mujoco import STAGE_VEL

SENSED = ["ang_vel", "gravity", "command", "joint_pos", "joint_vel"]


def raw_twin(env: Any, threads: int) -> Any:
    """A batch of the env's model, with its drawn fields and its states."""
    batch = import_module("mujoco.batch").Batch(env.model, env.num_envs, threads)
    for name, values in env._drawn.items():
        batch.expand(name)[:] = values
    batch.set_const()
    for name in ("geom_xpos", "sensordata", "actuator_force"):
        batch.bind(name)
    for name in ("qpos", "qvel", "ctrl", "history", "time", "qacc_warmstart"):
        batch.bind(name)[:] = env._now[name]
    return batch


def main() -> None:
    """Print control steps/s of both and the ratio of each turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20, help="control steps of a turn")
    parser.add_argument("--terrain", default="flat")
    parser.add_argument("--groups", nargs="*", default=SENSED)
    args = parser.parse_args()
    settings = {"kind": "quadruped", "threads": args.threads, "terrain": args.terrain, "push": 0.0}
    env: Any = make_env(settings, args.num_envs)
    env.reset(0)
    rng, robot = np.random.default_rng(0), env._robot
    took: dict[str, list[tuple[float, float]]] = {"env": [], "raw": []}
    for turn in range(args.turns + 1):
        actions = rng.normal(0, 0.5, (args.steps, args.num_envs, 12)).astype(np.float32)
        tensors = torch.from_numpy(actions)
        controls = np.zeros((args.steps, *env._now["ctrl"].shape))
        controls[..., robot.motors] = robot.default + 0.25 * actions
        batch = raw_twin(env, args.threads)
        ctrl = batch.bind("ctrl")

        def play(tensors: torch.Tensor = tensors) -> None:
            for action in tensors:
                env.step(action)
                for group in args.groups:
                    env.observe(group)

        def drive(batch: Any = batch, ctrl: np.ndarray = ctrl, controls: np.ndarray = controls) -> None:
            for control in controls:
                ctrl[:] = control
                batch.step(nstep=4, stage=STAGE_VEL)

        sides = {"raw": drive, "env": play}
        for name in ("raw", "env") if turn % 2 else ("env", "raw"):
            begin = time.perf_counter(), time.process_time()
            sides[name]()
            if turn:  # the first warms up
                took[name].append((time.perf_counter() - begin[0], time.process_time() - begin[1]))
    count = args.steps * args.num_envs
    raw, ours = np.array(took["raw"]), np.array(took["env"])
    for i, kind in enumerate(("wall", "processor")):
        print(
            f"{kind} time: env {count / np.median(ours[:, i]):.0f}, raw {count / np.median(raw[:, i]):.0f} steps/s",
            end="",
        )
        low, middle, high = np.quantile(raw[:, i] / ours[:, i], (0.25, 0.5, 0.75))
        print(f"; env / raw {middle:.3f} (quartiles {low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()

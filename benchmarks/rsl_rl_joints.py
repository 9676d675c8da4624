"""Online distillation beside rsl_rl's on an env as Isaac Lab has them: behind its interface, continuous actions.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/rsl_rl_joints.py --seeds 5

Six joints are pushed to where a command wants them. The teacher sees positions, velocities, the command and how strong
each motor is in this episode; the student noisy positions, the command and its last action, through an LSTM of 64 and
a layer of 64. A teacher is trained once by `tscli train-teacher`; for each seed it is distilled in turns by
`stages/distill_online.py` and by rsl_rl's own Distillation, in the same env, with the same settings: 256 envs x 24
steps, windows of 12, lr 1e-3, gradients clipped at 1, action noise .1. "loss" is the mean squared distance of the
actions on the student's own roll-outs, over the last tenth of the iterations; "return" that of its last roll-outs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rsl_rl.algorithms import Distillation  # pyright: ignore[reportMissingImports] - an extra
from rsl_rl.env import VecEnv as RslVecEnv  # pyright: ignore[reportMissingImports]
from rsl_rl_figures import distill_online, rsl_teacher_weights, run_stage, train_teacher
from tensordict import TensorDict  # pyright: ignore[reportMissingImports]
from torch import Tensor

from tscli.config import NetworkConfig
from tscli.networks.files import load_policy_file
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.trust import TRUST

ENVS, STEPS, WINDOW, LR, NOISE, JOINTS, LIMIT = 256, 24, 12, 1e-3, 0.1, 6, 200
TASK = """
env: {kind: rsl, entry_point: "rsl_rl_joints:make"}
views: {full: [policy, critic], robot: [policy]}
teacher: full
student: robot
"""
STUDENT = NetworkConfig(kind="rnn", hidden=(), memory=64, hidden_after=(64,), activation="elu", init_std=NOISE)
TEACHER = NetworkConfig(hidden=(64, 64), activation="elu", init_std=0.5)


class Joints(RslVecEnv):  # pyright: ignore[reportUntypedBaseClass]
    """Six joints with motors of unknown strength, behind rsl_rl's interface."""

    def __init__(self, num_envs: int, device: Any = "cpu") -> None:
        self.num_envs, self.num_actions, self.device, self.cfg = num_envs, JOINTS, torch.device(device), {}
        self.max_episode_length, self.step_dt = LIMIT, 0.02
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self.position, self.velocity, self.command, self.strength, self.action = (
            torch.zeros(num_envs, JOINTS, device=self.device) for _ in range(5)
        )
        self.reset()

    def reset(self) -> tuple[TensorDict, dict[str, Any]]:
        """Start every env anew."""
        self._begin(torch.ones(self.num_envs, dtype=torch.bool, device=self.device))
        return self.get_observations(), {}

    def _begin(self, rows: Tensor) -> None:
        shape = (self.num_envs, JOINTS)
        drawn = 2 * torch.rand(3, *shape, device=self.device) - 1
        rows = rows.unsqueeze(-1)
        self.position = torch.where(rows, 0.5 * drawn[0], self.position)
        self.command = torch.where(rows, drawn[1], self.command)
        self.strength = torch.where(rows, 1 + 0.6 * drawn[2], self.strength)
        self.velocity, self.action = self.velocity * ~rows, self.action * ~rows
        self.episode_length_buf = self.episode_length_buf * ~rows.squeeze(-1)

    def get_observations(self) -> TensorDict:
        """Groups: what the robot measures, and what a simulator knows."""
        measured = self.position + 0.01 * torch.randn_like(self.position)
        policy = torch.cat([measured, self.command, self.action], -1)
        critic = torch.cat([self.position, self.velocity, self.strength], -1)
        return TensorDict({"policy": policy, "critic": critic}, [self.num_envs])

    def step(self, actions: Tensor) -> tuple[TensorDict, Tensor, Tensor, dict[str, Any]]:
        """Push for a fiftieth of a second; a new command comes now and then."""
        self.action = actions.detach().clamp(-3, 3)
        self.velocity = 0.9 * self.velocity + 0.1 * self.strength * self.action
        self.position = self.position + 0.1 * self.velocity
        self.episode_length_buf = self.episode_length_buf + 1
        away = (self.position - self.command).square().mean(-1)
        reward = (-4 * away).exp() - 0.01 * self.action.square().mean(-1)
        changes = torch.rand(self.num_envs, 1, device=self.device) < 0.02
        self.command = torch.where(changes, 2 * torch.rand_like(self.command) - 1, self.command)
        time_outs = self.episode_length_buf >= LIMIT
        self._begin(time_outs)
        return self.get_observations(), reward, time_outs.long(), {"time_outs": time_outs.float()}


def make(num_envs: int, device: Any = "cpu") -> Joints:
    """The task's entry point."""
    return Joints(num_envs, device)


def theirs(teacher: Path, seed: int, iterations: int) -> tuple[float, float, float]:
    """rsl_rl's algorithm in its runner's loop: (env steps/s, loss, return)."""
    torch.manual_seed(seed)
    policy = load_policy_file(teacher, torch.device("cpu"))
    config: dict[str, Any] = {
        "num_steps_per_env": STEPS,
        "obs_groups": {"student": ["policy"], "teacher": ["policy", "critic"]},
        "multi_gpu": None,
        "student": {
            "class_name": "RNNModel",
            "rnn_type": "lstm",
            "rnn_hidden_dim": 64,
            "hidden_dims": [64],
            "activation": "elu",
            "obs_normalization": True,
            "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": NOISE},
        },
        "teacher": {
            "class_name": "MLPModel",
            "hidden_dims": [64, 64],
            "activation": "elu",
            "obs_normalization": True,
        },
        "algorithm": {
            "class_name": "Distillation",
            "gradient_length": WINDOW,
            "learning_rate": LR,
            "max_grad_norm": 1.0,
        },
    }
    env = Joints(ENVS)
    obs = env.get_observations()
    with contextlib.redirect_stdout(io.StringIO()):
        algorithm = Distillation.construct_algorithm(obs, env, config, "cpu")
    algorithm.load({"actor_state_dict": rsl_teacher_weights(policy)}, None, True)
    algorithm.train_mode()
    losses, returns, total = [], [], torch.zeros(ENVS)
    start = time.process_time()
    for _ in range(iterations):
        with torch.inference_mode():
            for _ in range(STEPS):
                obs, reward, done, extras = env.step(algorithm.act(obs))
                algorithm.process_env_step(obs, reward, done, extras)
                total += reward
                if done.any():
                    returns.append(float(total[done > 0].mean()))
                    total[done > 0] = 0
        losses.append(algorithm.update()["behavior"])
    speed = iterations * ENVS * STEPS / (time.process_time() - start)
    return speed, statistics.mean(losses[-iterations // 10 :]), returns[-1]


def ours(task: Path, teacher: Run, seed: int, iterations: int, session: Session) -> tuple[float, float, float]:
    """Our loop with the same settings."""
    torch.manual_seed(seed)
    config = distill_online.Config(
        teacher=str(teacher.path),
        task=str(task),
        student=STUDENT,
        seed=seed,
        num_envs=ENVS,
        rollout_steps=STEPS,
        gradient_length=WINDOW,
        lr=LR,
        noise=NOISE,
        total_steps=iterations * ENVS * STEPS,
        eval_every=0,
        eval_episodes=1,
    )
    run = run_stage(distill_online, config, session)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "loss/imitation" in line]
    loss = statistics.mean(line["loss/imitation"] for line in lines[-iterations // 10 :])
    return lines[-1]["step"] / lines[-1]["loop_seconds"], loss, lines[-1]["rollout/return"]


def main() -> None:
    """Run all and print rows, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=300, help="rollouts of 6144 env steps")
    args = parser.parse_args()
    time.perf_counter = time.process_time  # what our stages measure their loops by
    torch.set_num_threads(1)
    os.environ[TRUST] = "1"  # the task's code is this file
    sys.modules["rsl_rl_joints"] = sys.modules["__main__"]
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        session, task = Session(Path(folder), quiet=True), Path(folder) / "joints.yaml"
        task.write_text(TASK)
        teacher = run_stage(train_teacher, teacher_config(task), session)
        print(f"teacher: return {teacher.metrics['eval/return']:.1f}")
        print(f"{'seed':>4} {'method':8}{'steps/s':>9}{'loss':>9}{'return':>8}")
        for seed in range(1, args.seeds + 1):
            weights = teacher.path / "policy.safetensors"
            rows = {"tscli": ours(task, teacher, seed, args.iterations, session)}
            rows["rsl_rl"] = theirs(weights, seed, args.iterations)
            for name, (speed, loss, value) in rows.items():
                print(f"{seed:4} {name:8}{speed:9.0f}{loss:9.5f}{value:8.1f}", flush=True)
            ratios.append(rows["tscli"][0] / rows["rsl_rl"][0])
    print(f"env steps/s over rsl_rl's, on processor time, median of seeds: {statistics.median(ratios):.2f}")


def teacher_config(task: Path) -> Any:
    """PPO's settings for the joints."""
    return train_teacher.Config(
        task=str(task),
        network=TEACHER,
        num_envs=ENVS,
        rollout_steps=STEPS,
        total_steps=600_000,
        random_start=True,
        gamma=0.97,
        eval_every=0,
        eval_episodes=64,
    )


if __name__ == "__main__":
    main()

"""PPO's loop beside Stable-Baselines3's: env steps per second on the same env, network and settings.

    pip install -c constraints.txt -e ".[peers,mujoco]"
    python benchmarks/sb3_speed.py hopper --turns 5

Both are PPO as the task has it (envs, rollouts, minibatches, epochs, normalised observations and rewards) on a
Gymnasium id with continuous actions; networks of two layers, apart for actor and critic. They train in turns, each
turn with a seed of its own, in one process and one thread. Seconds are of the processor unless `--wall`, and of the
loop alone: what builds and what evaluates is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import torch
from stable_baselines3 import PPO  # pyright: ignore[reportMissingImports] - an extra
from stable_baselines3.common.env_util import make_vec_env  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.vec_env import VecNormalize  # pyright: ignore[reportMissingImports]

from tscli.launch.scripts import find_script, load_script
from tscli.runs.session import Session
from tscli.tasks import load_task

train_teacher = load_script(find_script("train-teacher"))


def ours(config: Any, folder: Path) -> float:
    """Seconds of our loop."""
    session = Session(folder, quiet=True)
    session.command = "train-teacher"
    run = train_teacher.main(config, session)
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    return lines[-1]["loop_seconds"]


def theirs(config: Any, env_id: str) -> float:
    """Seconds of Stable-Baselines3's with the same settings."""
    env = make_vec_env(env_id, config.num_envs, seed=config.seed)
    env = VecNormalize(env, norm_reward=config.normalize_reward, gamma=config.gamma)
    layers = list(config.network.hidden)
    peer = PPO(
        "MlpPolicy",
        env,
        learning_rate=config.lr,
        n_steps=config.rollout_steps,
        batch_size=config.num_envs * config.rollout_steps // config.num_minibatches,
        n_epochs=config.num_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_coef,
        ent_coef=config.entropy_coef,
        vf_coef=config.value_coef,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs={"net_arch": {"pi": layers, "vf": layers}, "activation_fn": torch.nn.Tanh},
        seed=config.seed,
        device="cpu",
    )
    start = time.perf_counter()
    peer.learn(config.total_steps)
    seconds = time.perf_counter() - start
    env.close()
    return seconds


def main() -> None:
    """Train both in turns and print each turn's rates, then the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", nargs="?", default="hopper")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=5, help="rollouts of both in a turn")
    parser.add_argument("--wall", action="store_true", help="by the clock on the wall")
    args = parser.parse_args()
    if not args.wall:
        time.perf_counter = time.process_time  # what our stages measure their loops by
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    task: Any = load_task(args.task)
    settings = task.stages["train-teacher"] | {"eval_every": 0, "eval_episodes": 1, "stop_return": None}
    config, ratios = train_teacher.Config(task=args.task, **settings), []
    steps = args.iterations * config.num_envs * config.rollout_steps
    print(f"{task.env['id']}, {config.num_envs} envs: env steps/s\n{'turn':>4}{'tscli':>9}{'sb3':>9}{'ratio':>7}")
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1, args.turns + 1):
            config = config.model_copy(update={"total_steps": steps, "seed": turn})
            seconds, others = ours(config, Path(folder)), theirs(config, task.env["id"])
            ratios.append(others / seconds)
            print(f"{turn:4}{steps / seconds:9.0f}{steps / others:9.0f}{ratios[-1]:7.2f}", flush=True)
    print(f"median of the turns' ratios: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()

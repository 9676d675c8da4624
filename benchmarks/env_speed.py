"""Steps per second of the native environments beside Gymnasium's own vectorised ones.

    python benchmarks/env_speed.py
    python benchmarks/env_speed.py --env cartpole --num-envs 64,4096 --device cuda
    python benchmarks/env_speed.py --env color_maze --num-envs 1024

Each figure is the best of the repeats of stepping with random actions and reading the observation after each step,
resets included, policy excluded. Of the maze and the doors the teacher's groups are read; Gymnasium has no such
environments.
Gymnasium's SyncVectorEnv is left out above `--sync-limit` envs: its rate does not grow with their number.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import gymnasium
import torch

from tscli.envs import make_env

GROUPS = {
    "cartpole": ("state",),
    "acrobot": ("state",),
    "pendulum": ("state",),
    "mountain_car": ("state",),
    "poisoned_doors": ("phase", "good_door", "next_code"),
    "tiger_door": ("heard", "tiger"),
    "color_maze": ("goal_offset", "colors", "last_move"),
}
GYMNASIUM_IDS = {
    "cartpole": "CartPole-v1",
    "acrobot": "Acrobot-v1",
    "pendulum": "Pendulum-v1",
    "mountain_car": "MountainCarContinuous-v0",
}


def steps_per_second(step: Callable[[], None], num_envs: int, seconds: float, repeats: int) -> float:
    """Best rate over the repeats, each of which lasts about `seconds`."""
    for _ in range(3):
        step()
    best = 0.0
    for _ in range(repeats):
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            step()
            count += 1
        best = max(best, count * num_envs / elapsed)
    return best


def native(kind: str, num_envs: int, device: str) -> Callable[[], None]:
    """One step of a native env on tensors."""
    env = make_env({"kind": kind}, num_envs, device)
    if env.action.is_continuous:
        low, high = torch.tensor(env.action.low, device=device), torch.tensor(env.action.high, device=device)
        actions = [low + (high - low) * torch.rand((num_envs, len(low)), device=device) for _ in range(64)]
    else:
        actions = [torch.randint(env.action.nvec[0], (num_envs,), device=device) for _ in range(64)]
    count = 0

    def step() -> None:
        nonlocal count
        env.step(actions[count % 64])
        for group in GROUPS[kind]:
            env.observe(group)
        count += 1
        if env.device.type == "cuda":
            torch.cuda.synchronize()

    return step


def gymnasium_vector(kind: str, num_envs: int, mode: str) -> Callable[[], None] | None:
    """One step of Gymnasium's vectorisation of the same env; None where it has no such version."""
    if kind not in GYMNASIUM_IDS:
        return None
    spec = gymnasium.spec(GYMNASIUM_IDS[kind])
    if mode == "vector_entry_point" and spec.vector_entry_point is None:
        return None
    env = gymnasium.make_vec(spec, num_envs, vectorization_mode=mode)
    env.reset(seed=1)
    env.action_space.seed(1)
    actions = [env.action_space.sample() for _ in range(64)]
    count = 0

    def step() -> None:
        nonlocal count
        env.step(actions[count % 64])
        count += 1

    return step


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", choices=sorted(GROUPS), action="append", help="env to measure, may be repeated")
    parser.add_argument("--num-envs", default="64,256,1024,4096", help="comma-separated numbers of envs")
    parser.add_argument("--device", default="cpu", help="device of the native envs")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one repeat")
    parser.add_argument("--repeats", type=int, default=3, help="repeats, of which the best counts")
    parser.add_argument("--sync-limit", type=int, default=256, help="largest number of envs for SyncVectorEnv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    print(f"torch {torch.__version__}, {torch.get_num_threads()} thread(s), native envs on {args.device}")
    print(f"gymnasium {gymnasium.__version__}, best of {args.repeats} x {args.seconds} s, env steps per second\n")
    print(f"{'env':<15}{'num_envs':>9}{'tscli':>14}{'entry point':>14}{'sync':>14}")
    for kind in args.env or sorted(GROUPS):
        for num_envs in (int(n) for n in args.num_envs.split(",")):
            line = f"{kind:<15}{num_envs:>9}"
            sync = gymnasium_vector(kind, num_envs, "sync") if num_envs <= args.sync_limit else None
            for step in (
                native(kind, num_envs, args.device),
                gymnasium_vector(kind, num_envs, "vector_entry_point"),
                sync,
            ):
                rate = steps_per_second(step, num_envs, args.seconds, args.repeats) if step else None
                line += f"{'-' if rate is None else f'{rate:,.0f}':>14}"
            print(line, flush=True)


if __name__ == "__main__":
    main()

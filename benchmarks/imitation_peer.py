"""Cloning and DAgger by the `imitation` library, run by `imitation_figures.py` in an environment of that library.

    python imitation_peer.py curve.pt --demonstrations demonstrations.npz --seed 1 --batches 8000
    python imitation_peer.py curve.pt --expert expert.pt --seed 1 --steps 8000

The first reads episodes (`obs` [steps, 4], `acts` [steps], `length` of each) and trains `imitation.algorithms.bc.BC`;
the second lets an expert label what `SimpleDAggerTrainer` meets in CartPole-v1. Both have the library's defaults. After
every `--every` batches the weights are kept with the seconds that it took to come there. Whoever called it measures the
policies: weights, also the expert's, are those of three linear layers with tanh between them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import gymnasium
import numpy as np
import torch

# These are in the other environment alone.
from imitation.algorithms.bc import BC  # pyright: ignore[reportMissingImports]
from imitation.algorithms.dagger import SimpleDAggerTrainer  # pyright: ignore[reportMissingImports]
from imitation.data.types import Trajectory  # pyright: ignore[reportMissingImports]
from imitation.util import logger  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.policies import BasePolicy  # pyright: ignore[reportMissingImports]
from stable_baselines3.common.vec_env import DummyVecEnv  # pyright: ignore[reportMissingImports]

ENVS = 8
QUIET: dict[str, Any] = {"progress_bar": False, "log_rollouts_n_episodes": 0}


def trajectories(path: str) -> list[Trajectory]:
    """The recorded episodes; the observation after the last action was not recorded, and cloning has no use for it."""
    with np.load(path) as file:
        obs, acts, ends = file["obs"], file["acts"], np.cumsum(file["length"])
    begins = [0, *ends[:-1]]
    return [
        Trajectory(obs=np.concatenate([obs[a:b], obs[b - 1 : b]]), acts=acts[a:b], infos=None, terminal=True)
        for a, b in zip(begins, ends, strict=True)
    ]


def weights(policy: Any) -> list[torch.Tensor]:
    """Weight and bias of each layer from an observation to the logits."""
    layers = [policy.mlp_extractor.policy_net[0], policy.mlp_extractor.policy_net[2], policy.action_net]
    return [parameter.detach().clone() for layer in layers for parameter in (layer.weight, layer.bias)]


class Expert(BasePolicy):
    """Acts by the larger logit of three layers."""

    def __init__(self, env: gymnasium.Env, layers: list[torch.Tensor]) -> None:
        super().__init__(env.observation_space, env.action_space)
        self.layers = layers

    def _predict(self, observation: torch.Tensor, deterministic: bool = False) -> torch.Tensor:
        w1, b1, w2, b2, w3, b3 = self.layers
        x = torch.tanh(torch.nn.functional.linear(observation, w1, b1))
        x = torch.tanh(torch.nn.functional.linear(x, w2, b2))
        return torch.nn.functional.linear(x, w3, b3).argmax(-1)


def clone(trainer: BC, demonstrations: str, batches: int, after_batch: Callable[[], None]) -> None:
    """Behaviour cloning."""
    trainer.set_demonstrations(trajectories(demonstrations))
    trainer.train(n_batches=batches, on_batch_end=after_batch, **QUIET)


def dagger(trainer: BC, expert: str, seed: int, steps: int, after_batch: Callable[[], None]) -> None:
    """DAgger from nothing, in `ENVS` envs."""
    venv = DummyVecEnv([lambda: gymnasium.make("CartPole-v1") for _ in range(ENVS)])
    policy = Expert(gymnasium.make("CartPole-v1"), torch.load(expert, weights_only=True))
    with tempfile.TemporaryDirectory() as folder:
        loop = SimpleDAggerTrainer(
            venv=venv,
            scratch_dir=folder,
            expert_policy=policy,
            rng=np.random.default_rng(seed),
            bc_trainer=trainer,
            custom_logger=logger.configure(format_strs=[]),
        )
        loop.train(steps, bc_train_kwargs={"on_batch_end": after_batch, **QUIET})


def main() -> None:
    """Train, and write what was kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("curve")
    parser.add_argument("--demonstrations")
    parser.add_argument("--expert")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--batches", type=int, default=8000, help="of cloning")
    parser.add_argument("--steps", type=int, default=8000, help="env steps of DAgger")
    parser.add_argument("--every", type=int, default=100, help="batches between policies that are kept")
    parser.add_argument("--clock", choices=("perf_counter", "process_time"), default="perf_counter")
    args = parser.parse_args()
    clock = getattr(time, args.clock)
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    env = gymnasium.make("CartPole-v1")
    trainer = BC(
        observation_space=env.observation_space,
        action_space=env.action_space,
        rng=np.random.default_rng(args.seed),
        custom_logger=logger.configure(format_strs=[]),
    )
    points: list[tuple[float, list[torch.Tensor]]] = []
    count, spent = 0, 0.0

    def after_batch() -> None:
        nonlocal count, spent, start
        count += 1
        if count % args.every == 0:
            spent += clock() - start
            points.append((spent, weights(trainer.policy)))
            start = clock()

    start = clock()
    if args.expert:
        dagger(trainer, args.expert, args.seed, args.steps, after_batch)
    else:
        clone(trainer, args.demonstrations, args.batches, after_batch)
    versions = {name: metadata.version(name) for name in ("imitation", "stable-baselines3", "torch")}
    samples_per_second = len(points) * args.every * trainer.batch_size / points[-1][0]
    torch.save({"points": points, "samples_per_second": samples_per_second, "versions": versions}, args.curve)


if __name__ == "__main__":
    main()

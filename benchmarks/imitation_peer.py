"""Behaviour cloning by the `imitation` library, run by `imitation_figures.py` in an environment of that library.

    python imitation_peer.py demonstrations.npz curve.pt --seed 1 --batches 8000 --every 100

Reads episodes (`obs` [steps, 4], `acts` [steps], `length` of each), trains `imitation.algorithms.bc.BC` with its
defaults on CartPole-v1's spaces, and keeps the weights after every `--every` batches with the seconds of training until
then. Whoever called it measures the policies: the weights are three linear layers with tanh between them.
"""

from __future__ import annotations

import argparse
import time
from importlib import metadata
from typing import Any

import gymnasium
import numpy as np
import torch

# These are in the other environment alone.
from imitation.algorithms.bc import BC  # pyright: ignore[reportMissingImports]
from imitation.data.types import Trajectory  # pyright: ignore[reportMissingImports]
from imitation.util import logger  # pyright: ignore[reportMissingImports]


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


def main() -> None:
    """Train, and write what was kept."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("demonstrations")
    parser.add_argument("curve")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--batches", type=int, required=True)
    parser.add_argument("--every", type=int, required=True, help="batches between policies that are kept")
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
        demonstrations=trajectories(args.demonstrations),
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
    trainer.train(n_batches=args.batches, on_batch_end=after_batch, progress_bar=False)
    versions = {name: metadata.version(name) for name in ("imitation", "stable-baselines3", "torch")}
    samples_per_second = count * trainer.batch_size / points[-1][0]
    torch.save({"points": points, "samples_per_second": samples_per_second, "versions": versions}, args.curve)


if __name__ == "__main__":
    main()

"""Measuring policies: the same episodes for each, summed up in a few figures."""

from __future__ import annotations

from collections.abc import Mapping

from tscli.envs import VecEnv
from tscli.learning.episodes import Episodes, run_episodes
from tscli.networks import Policy

__all__ = ["measure", "summary"]


def measure(policies: Mapping[str, Policy], env: VecEnv, seed: int, per_slot: int = 1) -> dict[str, float]:
    """`summary` of several policies on the same episodes, under "<role>/return" and so on."""
    out: dict[str, float] = {}
    for role, policy in policies.items():
        found = summary(run_episodes(policy, env, seed, per_slot))
        out |= {key.replace("eval/", f"{role}/"): value for key, value in found.items()}
    return out


def summary(episodes: Episodes) -> dict[str, float]:
    """`eval/return`, `eval/length` and, where the env tells, `eval/success_rate`."""
    out = {"eval/return": float(episodes.returns.mean()), "eval/length": float(episodes.lengths.mean())}
    if episodes.success is not None:
        out["eval/success_rate"] = float(episodes.success.float().mean())
    return out

"""Pairs of a fake env, and students to learn from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from fake_env import DISCRETE, GROUPS, FakeEnv

from tscli.config import NetworkConfig, ViewPart, parse_view
from tscli.envs.spaces import ActionSpec
from tscli.envs.views import resolve_view
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy, PolicySpec
from tscli.pairs import Pairs, PairsSchema
from tscli.pairs.writer import PairsWriter

ARM = ActionSpec("continuous", low=(-1.0,), high=(1.0,))


def record(
    folder: Path, action: ActionSpec = DISCRETE, steps: int = 20, shard_bytes: int = 256 << 20, **extra: Any
) -> Pairs:
    """Three envs; env 0's episodes last 7 and 3 steps, env 1's 5, env 2's never end. The teacher looks at the step."""
    env = FakeEnv([[7, -3], [-5], [1000]], action)
    viewed = ViewedEnv(env, {}, 0)
    writer = PairsWriter(folder, PairsSchema(GROUPS, action, extra=extra), 3, shard_bytes)
    for _ in range(steps):
        obs = {name: env.observe(name) for name in GROUPS}
        step = obs["flag"]
        if action.is_continuous:
            label = torch.sin(step)[:, None]
            dist = {"mean": label, "std": torch.full((3, 1), 0.5)}
        else:
            label = step.long() % 2
            dist = {"logits": torch.stack([step, 3.0 - step], dim=1)}
        taken = viewed.step(label)
        ends = (taken.reward, taken.terminated, taken.truncated)
        dist = {} if extra.get("distribution") == "none" else dist
        writer.append(obs, taken.action, label, dist, *ends, torch.ones(3, dtype=torch.uint8))
    writer.close()
    return Pairs(folder)


def make_student(pairs: Pairs, *parts: ViewPart | str, **network: Any) -> Policy:
    """A small student that sees those parts, always the same one."""
    found = [part for p in parts for part in (parse_view(p) if isinstance(p, str) else (p,))]
    spec = resolve_view("student", tuple(found), pairs.schema.groups, pairs.schema.action)
    torch.manual_seed(0)
    config = NetworkConfig.model_validate({"hidden": (8,), "memory": 4, **network})
    return Policy(PolicySpec(spec, pairs.schema.action, config))

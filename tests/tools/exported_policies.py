"""Policies to export, and the file that one becomes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_env import FakeEnv

from tscli.config import NetworkConfig, parse_view
from tscli.envs.spaces import ActionSpec
from tscli.envs.views import resolve_view
from tscli.interop import export, onnx, torchscript
from tscli.networks import LatentSpec, Policy, PolicySpec

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="the extra `export` is not installed")
MODULES = {"onnx": onnx, "torchscript": torchscript}
FORMATS = [pytest.param("onnx", marks=needs_onnx), "torchscript"]

ACTIONS = {
    "discrete": ActionSpec("discrete", nvec=(3,)),
    "multi_discrete": ActionSpec("multi_discrete", nvec=(3, 2)),
    "bounded": ActionSpec("continuous", low=(-2.0, 0.0), high=(2.0, 0.5)),
    "unbounded": ActionSpec("continuous", low=(-float("inf"),) * 2, high=(float("inf"),) * 2),
}
SEEN = "state + previous_action + flag + goal[1]"
LENGTHS = [[3, -7], [12], [-4, 5], [30]]


def make(
    network: dict[str, Any], action: ActionSpec, view: str = SEEN, lengths: Any = LENGTHS
) -> tuple[Policy, FakeEnv]:
    """A policy with a normaliser that has seen something and a head that is not near zero."""
    env = FakeEnv(lengths, action)
    torch.manual_seed(3)
    latent = None
    if "latent" in network:  # of a part of the view, beside another one
        inner = NetworkConfig(kind=network["latent"], hidden=(4,), memory=3)
        latent = LatentSpec((5, 0, 1), (2, 3), inner, 2)
    config = NetworkConfig.model_validate({"hidden": (8, 8), **{k: v for k, v in network.items() if k != "latent"}})
    policy = Policy(PolicySpec(resolve_view("seen", parse_view(view), env.groups, action), action, config, latent))
    torch.nn.init.normal_(policy.head.linear.weight)
    policy.encoder.update_normalizer({"vector": 3 + 2 * torch.randn(50, policy.spec.view.vector_size)})
    return policy.eval().requires_grad_(False), env


def exported(policy: Policy, env: FakeEnv, format: str, folder: Path) -> tuple[export.Actor, Path, export.Runner]:
    """The policy as it is exported, its file, and the file as it is run."""
    actor = export.Actor(policy)
    about = export.describe(policy, env, run="a", task="b")
    path = folder / ("p.onnx" if format == "onnx" else "p.pt")
    MODULES[format].write(actor, path, about)
    return actor, path, MODULES[format].load(path)

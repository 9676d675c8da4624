"""Policies as other libraries save them, and what `tscli import` makes of one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tscli.envs.spaces import ActionSpec
from tscli.envs.views import Part, ViewSpec
from tscli.interop import weights
from tscli.interop.source import read_policy, settle_activation
from tscli.networks import Policy

ARM = ActionSpec("continuous", low=(-2.0, -1.0, -float("inf")), high=(2.0, 3.0, float("inf")))
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


def view_of(size: int) -> ViewSpec:
    """A view of one group."""
    return ViewSpec("all", (Part("state", None, size, (size,)),))


def policy_of(path: Path, size: int, action: ActionSpec, activation: str | None = None) -> Policy:
    """What `tscli import` makes of a file."""
    source = read_policy(path)
    found = source.found
    assert found is not None and (found.num_inputs, found.num_outputs) == (size, action.num_params)
    return settle_activation(source, activation, lambda name: weights.build(found, view_of(size), action, name, 0.1))


def readings(steps: int, num: int, size: int) -> Tensor:
    """Observations [steps, num, size]."""
    return 4 * torch.randn(steps, num, size, generator=torch.Generator().manual_seed(1))


def saved(folder: Path, content: Any, name: str = "model.pt") -> Path:
    """A file of what `torch.save` writes."""
    torch.save(content, folder / name)
    return folder / name


def perceptron(sizes: tuple[int, ...], activation: str) -> nn.Sequential:
    """Linear layers with a non-linearity between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def numbered(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """A module's parameters below a name."""
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}


def cleanrl(name: str) -> tuple[dict[str, Tensor], nn.Module]:
    """Parameters under cleanrl's names, and the function that they stand for."""
    torch.manual_seed(4)
    if name == "ppo":
        actor = perceptron((4, 6, 6, 2), "tanh")
        return {**numbered("actor", actor), **numbered("critic", perceptron((4, 6, 6, 1), "tanh"))}, actor
    if name == "dqn":
        network = perceptron((4, 12, 8, 2), "relu")
        return numbered("network", network), network
    if name == "ppo_continuous_action":
        actor = perceptron((3, 6, 6, 1), "tanh")
        return {**numbered("actor_mean", actor), "actor_logstd": torch.full((1, 1), -0.3)}, actor
    actor = perceptron((3, 6, 6, 1), "relu")
    names = {"0": "fc1", "2": "fc2", "4": "fc_mu" if name == "td3" else "fc_mean"}
    state = {f"{names[key[0]]}{key[1:]}": value for key, value in actor.state_dict().items()}
    state |= {"action_scale": torch.full((1, 1), 2.0), "action_bias": torch.zeros(1, 1)}
    if name == "sac":
        state |= numbered("fc_logstd", nn.Linear(6, 1))
    return state, nn.Sequential(*actor, nn.Tanh())

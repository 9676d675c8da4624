"""Heads of every kind of action."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from policies import ARM, DISCRETE, make, sequence, view
from torch import nn

from tscli.config import NetworkConfig
from tscli.envs.spaces import ActionSpec
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import Categorical, Gaussian, MultiCategorical, TanhGaussian
from tscli.networks.layers import ACTIVATIONS


@pytest.mark.parametrize(
    ("action", "settings", "kind"),
    [
        (DISCRETE, {}, Categorical),
        (ActionSpec("multi_discrete", nvec=(2, 3)), {}, MultiCategorical),
        (ARM, {}, Gaussian),
        (ARM, {"std": "network"}, Gaussian),
        (ARM, {"squash": True}, TanhGaussian),
        (ARM, {"squash": True, "std": "network"}, TanhGaussian),
    ],
)
def test_every_kind_of_action_has_its_head(action: ActionSpec, settings: dict[str, Any], kind: type) -> None:
    policy, obs = make("mlp", "state", action, **settings), sequence(5, 4)
    dist, _ = policy(obs, policy.initial_hidden(4), None)
    assert type(dist) is kind
    sample = dist.sample(torch.Generator().manual_seed(0))
    assert sample.shape == (5, 4, *action.shape) and sample.dtype in (getattr(torch, action.dtype), torch.float64)
    assert dist.log_prob(sample).shape == dist.entropy().shape == (5, 4)
    dist.log_prob(sample).sum().backward()
    assert all(p.grad is not None for p in policy.parameters())
    if settings.get("squash"):
        low, high = torch.tensor(action.low), torch.tensor(action.high)
        assert bool(((sample >= low) & (sample <= high)).all())


@pytest.mark.parametrize("std", ["state_independent", "network"])
def test_a_new_gaussian_policy_stands_in_the_middle_with_the_deviation_asked_for(std: str) -> None:
    config = NetworkConfig.model_validate({"std": std, "init_std": 0.5})
    policy = Policy(PolicySpec(view("state", ARM), ARM, config))
    params = policy(sequence(1, 50), policy.initial_hidden(50), None)[0].params()
    # centre 1 and 3, half range 2 and 1
    torch.testing.assert_close(params["mean"], torch.tensor([1.0, 3.0]).expand(1, 50, 2), atol=0.2, rtol=0)
    torch.testing.assert_close(params["std"], torch.tensor([1.0, 0.5]).expand(1, 50, 2), atol=0.1, rtol=0)


@pytest.mark.parametrize("squash", [False, True])
def test_a_deviation_can_be_set_in_the_envs_units_and_has_bounds(squash: bool) -> None:
    head = make("mlp", "state", ARM, squash=squash).head
    half = torch.ones(2) if squash else torch.tensor([2.0, 1.0])  # squashed, it is that of the normal underneath
    latent = torch.zeros(1, head.linear.in_features)
    head.start_from_std(torch.tensor([0.5, 0.25]))
    torch.testing.assert_close(head(latent).params()["std"], torch.tensor([[0.5, 0.25]]))
    for log_std, bound in ((50.0, 2.0), (-50.0, -10.0)):
        with torch.no_grad():
            head.log_std.fill_(log_std)
        torch.testing.assert_close(head(latent).params()["std"][0], half * math.exp(bound))


@pytest.mark.parametrize("settings", [{}, {"head_hidden": (6, 5)}, {"head_hidden": (6,), "std": "network"}])
def test_a_frozen_head_gives_the_same_and_its_gradient_to_the_latent_alone(settings: dict[str, Any]) -> None:
    policy = make("mlp", "state", ARM, **settings)
    latent = torch.randn(3, 2, policy.encoder.output_size, requires_grad=True)
    gradients = []
    for frozen in (False, True):
        dist = policy.head(latent, frozen=frozen)
        dist.log_prob(dist.mode().detach() + 0.1).sum().backward()
        gradients.append(latent.grad)
        assert all((p.grad is None) == frozen for p in policy.head.parameters())
        latent.grad = None
        policy.zero_grad()
    assert torch.equal(*gradients) and bool((gradients[0] != 0).any())  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ["tanh", "elu"])
def test_a_head_has_the_layers_asked_for_with_the_bodys_non_linearity(activation: str) -> None:
    policy = make("history", "state", DISCRETE, head_hidden=(6, 5), activation=activation)
    assert [type(layer) for layer in policy.head.layers] == [nn.Linear, ACTIVATIONS[activation]] * 2
    latent = torch.randn(4, policy.encoder.output_size)
    x = latent
    for layer in (policy.head.layers[0], policy.head.layers[2]):
        x = ACTIVATIONS[activation]()(layer(x))
    torch.testing.assert_close(policy.head(latent).params()["logits"], policy.head.linear(x))
    again = PolicySpec.from_json(json.loads(json.dumps(policy.spec.to_json())))
    assert again == policy.spec and policy.spec.to_json()["network"]["head_hidden"] == [6, 5]

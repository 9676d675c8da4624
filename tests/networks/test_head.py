"""Heads of every kind of action."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import pytest
import torch
from policies import ARM, DISCRETE, make, sequence, view

from tscli.config import NetworkConfig
from tscli.envs.spaces import ActionSpec
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import Categorical, Gaussian, MultiCategorical, TanhGaussian


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
    assert sample.shape == (5, 4, *action.shape) and sample.dtype == getattr(torch, action.dtype)
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

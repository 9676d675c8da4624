"""Policies and critics: one interface to what their parts do."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json

import pytest
import torch
from policies import ARM, DISCRETE, KINDS, RESETS, make, sequence, view

from tscli.config import NetworkConfig
from tscli.envs.spaces import ActionSpec
from tscli.learning.ppo import policy_loss
from tscli.networks import Critic, PolicySpec


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_ratio_of_an_update_is_one(kind: str) -> None:
    policy, obs = make(kind), sequence(7, 5)
    hidden, log_probs, actions = policy.initial_hidden(5), [], []
    with torch.no_grad():
        for t in range(7):
            dist, hidden = policy.step({"vector": obs["vector"][t]}, hidden, RESETS[t])
            actions.append(dist.sample(torch.Generator().manual_seed(t)))
            log_probs.append(dist.log_prob(actions[-1]))
    dist, _ = policy(obs, policy.initial_hidden(5), RESETS)
    found = policy_loss(dist.log_prob(torch.stack(actions)), torch.stack(log_probs), torch.randn(7, 5), 1e-4)
    assert found.clip_fraction == 0 and abs(found.approx_kl) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_critic_is_called_as_a_policy_is(kind: str) -> None:
    torch.manual_seed(0)
    critic = Critic(view("state + secret"), NetworkConfig.model_validate({"kind": kind, "hidden": (8,), "history": 3}))
    obs = sequence(7, 5, "state + secret")
    value, hidden = critic(obs, critic.initial_hidden(5), RESETS)
    assert value.shape == (7, 5) and hidden.shape == (5, critic.encoder.hidden_size)
    assert critic.is_recurrent == (hidden.numel() > 0)
    # Env 2 has a reset before step 3.
    again, _ = critic({"vector": obs["vector"][3:, 2:3]}, critic.initial_hidden(1))
    torch.testing.assert_close(value[3:, 2:3], again)


@pytest.mark.parametrize("action", [DISCRETE, ARM])
def test_a_spec_survives_json(action: ActionSpec) -> None:
    spec = PolicySpec(view("state[1:3] + camera", action), action, NetworkConfig(kind="gru", squash=True))
    assert PolicySpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec

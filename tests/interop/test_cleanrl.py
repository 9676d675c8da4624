"""Policies of cleanrl act here as they do there."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_policies import cleanrl, readings, saved
from stage_tools import call, error_of

from tscli.launch.start import load_policy


@pytest.mark.parametrize("name", ["ppo", "dqn", "ppo_continuous_action", "td3", "sac"])
def test_policies_of_cleanrl_act_the_same(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, function = cleanrl(name)
    saved(folder, (state, {}, {}) if name == "td3" else state, "agent.cleanrl_model")
    task = "cartpole" if name in ("ppo", "dqn") else "Pendulum-v1"
    command = ("import", "agent.cleanrl_model", "--task", task, "--eval-episodes", "2")
    assert "--activation tanh|relu|elu|silu" in error_of(capsys, *command)
    policy = load_policy(call(*command, "--activation", "tanh" if "ppo" in name else "relu"))
    obs = readings(1, 50, policy.spec.view.vector_size)
    dist, _ = policy({"vector": obs}, policy.initial_hidden(50), None)
    wanted = function(obs[0]).detach() * (2 if name in ("td3", "sac") else 1)
    found = dist.mode() if policy.spec.action.is_continuous else dist.params()["logits"]
    torch.testing.assert_close(found[0], wanted, atol=1e-5, rtol=1e-5)
    if name == "ppo_continuous_action":
        torch.testing.assert_close(dist.params()["std"][0, 0], torch.tensor([np.exp(-0.3)], dtype=torch.float32))

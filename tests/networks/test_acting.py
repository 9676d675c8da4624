"""A policy in a plain loop acts as it does in ours."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from tscli.config import NetworkConfig, UserError, parse_view
from tscli.envs import make_env
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import resolve_view
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy, PolicySpec


@pytest.mark.parametrize("kind", ["mlp", "rnn", "history"])
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_a_plain_gymnasium_loop_acts_as_ours_does(kind: str, env_id: str) -> None:
    view = "state[0,2] + previous_action"
    env = make_env({"kind": "gym", "id": env_id, "max_episode_steps": 20}, 1)
    torch.manual_seed(0)
    policy = make(view, env.groups, env.action, NetworkConfig(kind=kind, hidden=(8,), memory=8))
    with torch.no_grad():
        policy.head.linear.weight.normal_()
    viewed, actions = ViewedEnv(env, {"policy": policy.spec.view}, 3), gymnasium.make(env_id).action_space
    hidden, reset, ended = policy.initial_hidden(1), torch.ones(1, dtype=torch.bool), 0
    for _ in range(50):
        with torch.no_grad():
            dist, hidden = policy.step(viewed.observe("policy"), hidden, reset)
        if reset:
            policy.reset()
        action: Any = policy.act(env.observe("state")[0].numpy())
        np.testing.assert_allclose(action, dist.mode()[0].clamp(-2, 2), atol=1e-6)
        assert actions.contains(action)
        reset = viewed.step(dist.mode()).done
        ended += int(reset)
    assert ended >= 2, "later episodes remember nothing of the first"


def make(view: str, groups: dict[str, Group], action: ActionSpec, network: NetworkConfig) -> Policy:
    return Policy(PolicySpec(resolve_view(view, parse_view(view), groups, action), action, network)).eval()


def test_a_dict_with_nested_names_choices_and_pictures_is_read() -> None:
    groups = {"robot.arm": Group((3,)), "goal": Group((4,)), "camera": Group((6, 5, 3), dtype="uint8")}
    policy = make(
        "robot.arm[1] + goal + camera", groups, ActionSpec("multi_discrete", nvec=(3, 2)), NetworkConfig(hidden=(4,))
    )
    obs = {"robot": {"arm": np.arange(3.0)}, "goal": np.int64(2), "camera": np.zeros((3, 6, 5), np.uint8), "more": 1}
    action = policy.act(obs)
    assert action.shape == (2,) and 0 <= action[0] < 3
    assert {int(policy.act(obs, greedy=False)[0]) for _ in range(50)} == {0, 1, 2}, "drawn where that is asked for"
    with pytest.raises(UserError, match=r'the observation has no "robot.arm"'):
        policy.act({**obs, "robot": {}})
    with pytest.raises(UserError, match='sees "goal" as 4 numbers, and the observation has 2'):
        policy.act({**obs, "goal": np.zeros(2)})
    nowhere = {"arm": np.array([0.0, np.nan, 0.0])}
    with pytest.raises(UserError, match=r'the observation has nan in "robot.arm"'):
        policy.act({**obs, "robot": nowhere})
    assert policy.act({**obs, "robot": {"arm": np.array([np.nan, 0.0, np.inf])}}).shape == (2,), "not seen"

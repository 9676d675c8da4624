"""Acrobot against Gymnasium's, its goal, its starts and its time limit."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
from native_envs import last_seen, put

from tscli.envs.classic.acrobot import MAX_VELOCITY_1, MAX_VELOCITY_2, Env, EnvConfig


def test_it_is_gymnasiums_step_for_step_through_goals_and_the_time_limit():
    n = 4
    env = Env(EnvConfig(), n)
    theirs = [gymnasium.make("Acrobot-v1") for _ in range(n)]
    for i, single in enumerate(theirs):
        single.reset(seed=i)
    rng = np.random.default_rng(0)
    seen = {"terminated": 0, "truncated": 0}
    for _ in range(510):
        states = np.array([single.unwrapped.state for single in theirs])  # type: ignore[attr-defined]
        put(env, states)
        actions = np.where(states[:, 2] > 0, 0, 2)  # pumps energy until the goal is reached
        actions[2:] = 1  # hangs until the limit
        actions[3] = rng.integers(3)
        result = env.step(torch.tensor(actions))
        seen_last = last_seen(env, result.terminated | result.truncated)
        for i, single in enumerate(theirs):
            obs, reward, terminated, truncated, _ = single.step(int(actions[i]))
            np.testing.assert_allclose(seen_last[i].numpy(), obs, rtol=1e-5, atol=1e-7)
            assert (result.reward[i], result.terminated[i], result.truncated[i]) == (reward, terminated, truncated)
            assert result.success[i] == terminated
            if terminated or truncated:
                single.reset()
            seen["terminated"] += terminated
            seen["truncated"] += truncated
    assert seen["terminated"] >= 2
    assert seen["truncated"] >= 1


def test_fast_states_are_wrapped_and_bounded_as_gymnasium_does():
    n = 300
    rng = np.random.default_rng(1)
    states = rng.uniform(-1, 1, (n, 4)) * [math.pi, math.pi, MAX_VELOCITY_1, MAX_VELOCITY_2]
    actions = rng.integers(3, size=n)
    env = Env(EnvConfig(), n)
    put(env, states)
    result = env.step(torch.tensor(actions))
    single = gymnasium.make("Acrobot-v1")
    single.reset()
    expected, angles = [], []
    for state, action in zip(states, actions, strict=True):
        single.unwrapped.state = state  # type: ignore[attr-defined]
        obs, reward, terminated, _, _ = single.unwrapped.step(int(action))
        expected.append(obs)
        angles.append(single.unwrapped.state[:2])  # type: ignore[attr-defined]
        assert (result.reward[len(expected) - 1], result.terminated[len(expected) - 1]) == (reward, terminated)
    seen = last_seen(env, result.terminated).numpy()
    np.testing.assert_allclose(seen, np.array(expected), rtol=1e-5, atol=1e-6)
    assert (np.abs(seen[:, 5]) == np.float32(MAX_VELOCITY_2)).any()
    assert 0 < result.terminated.sum() < n
    goes_on = ~result.terminated.numpy()
    ours = env.state_dict()["state"][:2].T.numpy()
    np.testing.assert_allclose(ours[goes_on], np.array(angles)[goes_on], rtol=0, atol=1e-9)


def test_reaching_the_goal_in_the_last_step_is_a_termination():
    env = Env(EnvConfig(max_episode_steps=1), 2)
    put(env, np.array([[3.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    result = env.step(torch.tensor([1, 1]))
    assert result.terminated.tolist() == [True, False]
    assert result.truncated.tolist() == [False, True]
    assert result.success.tolist() == [True, False]
    assert result.reward.tolist() == [0.0, -1.0]


def test_starts_hang_down_and_differ():
    env = Env(EnvConfig(), 500)
    env.reset(5)
    seen = env.observe("state")
    angles = torch.atan2(seen[:, [1, 3]], seen[:, [0, 2]])
    assert angles.abs().max() <= 0.1 + 1e-6
    assert seen[:, 4:].abs().max() <= 0.1
    assert len(seen.unique(dim=0)) == 500


def test_the_picture_follows_the_arm():
    env = Env(EnvConfig(), 2)
    put(env, np.array([[0.0, 0.0, 0, 0], [math.pi, 0.0, 0, 0]]))
    down, up = env.render(0), env.render(1)
    assert down.shape == up.shape == (500, 500, 3)
    assert down.dtype == np.uint8
    link = lambda picture: np.abs(picture.astype(int) - [46, 64, 87]).sum(-1) < 30  # noqa: E731
    assert link(down)[260:].sum() > 500 > link(down)[:240].sum()
    assert link(up)[:240].sum() > 500 > link(up)[260:].sum()

"""Pendulum against Gymnasium's, its starts and its time limit."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math

import gymnasium
import numpy as np
import torch
from native_envs import last_seen, put

from tscli.envs.classic.pendulum import MAX_VELOCITY, Env, EnvConfig


def test_it_is_gymnasiums_step_for_step_through_the_time_limit():
    n = 4
    env = Env(EnvConfig(), n)
    theirs = [gymnasium.make("Pendulum-v1") for _ in range(n)]
    for i, single in enumerate(theirs):
        single.reset(seed=i)
    rng = np.random.default_rng(0)
    truncations = 0
    for _ in range(210):
        put(env, np.array([single.unwrapped.state for single in theirs]))  # type: ignore[attr-defined]
        actions = rng.uniform(-2, 2, (n, 1)).astype(np.float32)
        actions[0] = 2.0  # one that turns over and over, so that its angle grows
        result = env.step(torch.from_numpy(actions))
        seen_last = last_seen(env, result.truncated)
        for i, single in enumerate(theirs):
            obs, reward, terminated, truncated, _ = single.step(actions[i])
            np.testing.assert_allclose(seen_last[i].numpy(), obs, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(result.reward[i].item(), float(reward), rtol=1e-6)
            assert (result.terminated[i], result.truncated[i], result.success[i]) == (terminated, truncated, False)
            if truncated:
                single.reset()
            truncations += truncated
    assert truncations == n


def test_fast_states_and_great_torques_are_bounded_as_gymnasium_does():
    n = 300
    rng = np.random.default_rng(1)
    states = rng.uniform(-1, 1, (n, 2)) * [4 * math.pi, MAX_VELOCITY]
    actions = rng.uniform(-4, 4, (n, 1)).astype(np.float32)
    env = Env(EnvConfig(), n)
    put(env, states)
    result = env.step(torch.from_numpy(actions))
    single = gymnasium.make("Pendulum-v1").unwrapped
    single.reset()
    bounded = 0
    for i in range(n):
        single.state = states[i]  # type: ignore[attr-defined]
        obs, reward, _, _, _ = single.step(actions[i])
        np.testing.assert_allclose(env.observe("state")[i].numpy(), obs, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(result.reward[i].item(), float(reward), rtol=1e-5)
        bounded += abs(obs[2]) == MAX_VELOCITY
    assert bounded > 3


def test_the_reward_is_minus_the_cost_of_the_state_before_the_step():
    env = Env(EnvConfig(), 2)
    put(env, np.array([[math.pi / 2, 2.0], [-3 * math.pi / 2, 2.0]]))  # one pose, a turn apart
    result = env.step(torch.tensor([[1.0], [1.0]]))
    expected = -((math.pi / 2) ** 2 + 0.1 * 4 + 0.001)
    np.testing.assert_allclose(result.reward.numpy(), [expected, expected], rtol=1e-6)


def test_starts_are_all_around_and_slow():
    env = Env(EnvConfig(), 1000)
    env.reset(5)
    seen = env.observe("state")
    angles = torch.atan2(seen[:, 1], seen[:, 0])
    assert torch.histc(angles, 4, -math.pi, math.pi).min() > 180
    assert seen[:, 2].abs().max() <= 1.0
    assert seen[:, 2].abs().max() > 0.95


def test_the_picture_follows_the_rod():
    env = Env(EnvConfig(), 2)
    put(env, np.array([[0.0, 0.0], [math.pi / 2, 0.0]]))
    up, left = env.render(0), env.render(1)
    assert up.shape == left.shape == (500, 500, 3)
    assert up.dtype == np.uint8
    rod = lambda picture: np.abs(picture.astype(int) - [46, 64, 87]).sum(-1) < 30  # noqa: E731
    assert rod(up)[:240].sum() > 500 > rod(up)[:, :220].sum()
    assert rod(left)[:, :240].sum() > 500 > rod(left)[:220].sum()

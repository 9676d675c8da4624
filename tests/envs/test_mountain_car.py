"""MountainCar against Gymnasium's continuous one, its goal, its wall and its time limit."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import gymnasium
import numpy as np
import torch
from native_envs import last_seen, put

from tscli.envs.classic.mountain_car import GOAL, MAX_VELOCITY, MIN_POSITION, Env, EnvConfig

ID = "MountainCarContinuous-v0"


def test_it_is_gymnasiums_step_for_step_through_goals_and_the_time_limit():
    n = 4
    env = Env(EnvConfig(), n)
    theirs = [gymnasium.make(ID) for _ in range(n)]
    for i, single in enumerate(theirs):
        single.reset(seed=i)
    rng = np.random.default_rng(0)
    seen = {"terminated": 0, "truncated": 0}
    for _ in range(1010):
        states = np.array([single.unwrapped.state for single in theirs])  # type: ignore[attr-defined]
        put(env, states)
        actions = np.where(states[:, 1:] < 0, -1.0, 1.0).astype(np.float32)  # rocks until the goal is reached
        actions[2] = 0  # stands until the limit
        actions[3] = rng.uniform(-1, 1)
        result = env.step(torch.from_numpy(actions))
        seen_last = last_seen(env, result.terminated | result.truncated)
        for i, single in enumerate(theirs):
            obs, reward, terminated, truncated, _ = single.step(actions[i])
            np.testing.assert_allclose(seen_last[i].numpy(), obs, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(result.reward[i].item(), float(reward), rtol=1e-6, atol=1e-9)
            assert (result.terminated[i], result.truncated[i]) == (terminated, truncated)
            assert result.success[i] == terminated
            if terminated or truncated:
                single.reset()
            seen["terminated"] += terminated
            seen["truncated"] += truncated
    assert seen["terminated"] >= 10
    assert seen["truncated"] >= 1


def test_walls_and_fast_states_are_as_gymnasiums():
    n = 400
    rng = np.random.default_rng(1)
    states = np.stack([rng.uniform(-1.2, 0.6, n), rng.uniform(-MAX_VELOCITY, MAX_VELOCITY, n)], axis=1)
    states[:100, 0] = rng.uniform(-1.2, -1.15, 100)
    actions = rng.uniform(-2, 2, (n, 1)).astype(np.float32)  # some beyond the bounds, for which the reward pays in full
    env = Env(EnvConfig(), n)
    put(env, states)
    result = env.step(torch.from_numpy(actions))
    seen = last_seen(env, result.terminated).numpy()
    single = gymnasium.make(ID).unwrapped
    single.reset()
    for i in range(n):
        single.state = states[i]  # type: ignore[attr-defined]
        obs, reward, terminated, _, _ = single.step(actions[i])
        np.testing.assert_allclose(seen[i], obs, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(result.reward[i].item(), float(reward), rtol=1e-5)
        assert result.terminated[i] == terminated
    at_wall = seen[:, 0] == np.float32(MIN_POSITION)
    assert 5 < at_wall.sum() < n
    assert (seen[at_wall, 1] == 0).all()
    assert (np.abs(seen[:, 1]) == np.float32(MAX_VELOCITY)).any()
    assert 5 < result.terminated.sum() < n


def test_reaching_the_goal_in_the_last_step_is_a_termination():
    env = Env(EnvConfig(max_episode_steps=1), 2)
    put(env, np.array([[GOAL - 0.001, 0.05], [-0.5, 0.0]]))
    result = env.step(torch.tensor([[1.0], [0.5]]))
    assert result.terminated.tolist() == [True, False]
    assert result.truncated.tolist() == [False, True]
    assert result.success.tolist() == [True, False]
    np.testing.assert_allclose(result.reward.numpy(), [99.9, -0.025], rtol=1e-6)


def test_starts_stand_in_the_valley():
    env = Env(EnvConfig(), 1000)
    env.reset(5)
    position, velocity = env.observe("state").T
    assert -0.6 <= position.min() < -0.595
    assert -0.405 < position.max() <= -0.4
    assert (velocity == 0).all()


def test_spread_starts_are_anywhere_before_the_goal_and_moving():
    env = Env(EnvConfig(spread_starts=True), 1000)
    env.reset(5)
    position, velocity = env.observe("state").T
    assert position.min() < -1.19 and 0.38 < position.max() < GOAL
    assert velocity.min() < -0.069 and velocity.max() > 0.069


def test_the_picture_follows_the_car():
    env = Env(EnvConfig(), 2)
    put(env, np.array([[-1.0, 0.0], [0.3, 0.0]]))
    left, right = env.render(0), env.render(1)
    assert left.shape == right.shape == (400, 600, 3)
    assert left.dtype == np.uint8
    car = lambda picture: np.abs(picture.astype(int) - [46, 64, 87]).sum(-1) < 30  # noqa: E731
    assert car(left)[:, :300].sum() > 200 > car(left)[:, 300:].sum()
    assert car(right)[:, 300:].sum() > 200 > car(right)[:, :300].sum()

"""CartPole against Gymnasium's, its starts and its time limit."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from classic_envs import last_seen, put

from tscli.config import UserError
from tscli.envs import make_env
from tscli.envs.cartpole import MAX_POSITION, Env, EnvConfig


def starts(env: Env, num: int) -> list[list[list[float]]]:
    """First observations of every env's first episodes, whatever their lengths: [env][episode]."""
    found: list[list[list[float]]] = [[row.tolist()] for row in env.observe("state")]
    while min(len(rows) for rows in found) < num:
        result = env.step(torch.zeros(env.num_envs, dtype=torch.int64))
        for i in (result.terminated | result.truncated).nonzero()[:, 0].tolist():
            found[i].append(env.observe("state")[i].tolist())
    return [rows[:num] for rows in found]


def test_it_is_gymnasiums_step_for_step_through_falls_and_the_time_limit():
    n = 6
    env = Env(EnvConfig(), n)
    theirs = [gymnasium.make("CartPole-v1") for _ in range(n)]
    for i, single in enumerate(theirs):
        single.reset(seed=i)
    rng = np.random.default_rng(0)
    seen = {"terminated": 0, "truncated": 0}
    for _ in range(520):
        states = np.array([single.unwrapped.state for single in theirs])  # type: ignore[attr-defined]
        put(env, states)
        actions = rng.integers(2, size=n)
        actions[:3] = states[:3] @ [0.5, 1.0, 20.0, 4.0] > 0  # three that stay up until the limit
        result = env.step(torch.tensor(actions))
        seen_last = last_seen(env, result.terminated | result.truncated)
        for i, single in enumerate(theirs):
            obs, reward, terminated, truncated, _ = single.step(int(actions[i]))
            np.testing.assert_allclose(seen_last[i].numpy(), obs, rtol=1e-6, atol=1e-9)
            assert (result.reward[i], result.terminated[i], result.truncated[i]) == (reward, terminated, truncated)
            assert result.success[i] == truncated
            if terminated or truncated:
                single.reset()
            seen["terminated"] += terminated
            seen["truncated"] += truncated
    assert seen["terminated"] > 10
    assert seen["truncated"] == 3


def test_a_fall_in_the_last_step_is_a_termination_and_no_success():
    env = Env(EnvConfig(max_episode_steps=1), 2)
    put(env, np.array([[MAX_POSITION - 0.001, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    result = env.step(torch.tensor([1, 1]))
    assert result.terminated.tolist() == [True, False]
    assert result.truncated.tolist() == [False, True]
    assert result.success.tolist() == [False, True]


def test_an_envs_episodes_depend_on_the_seed_its_index_and_their_number_alone():
    few, many = Env(EnvConfig(max_episode_steps=3), 2), Env(EnvConfig(max_episode_steps=5), 4)
    few.reset(7)
    many.reset(7)
    # More episodes than are drawn ahead at once, of different lengths.
    first, second = starts(few, 70), starts(many, 70)
    assert first == second[:2]
    assert len({tuple(start) for rows in second for start in rows}) == 4 * 70
    few.reset(8)
    assert starts(few, 1) != [rows[:1] for rows in first]
    assert all(abs(x) <= 0.05 for rows in second for start in rows for x in start)


def test_a_time_limit_out_of_bounds_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"^env cartpole: max_episode_steps 0: [^\n]+$"):
        make_env({"kind": "cartpole", "max_episode_steps": 0}, 2)


def test_the_picture_follows_the_cart():
    env = Env(EnvConfig(), 2)
    put(env, np.array([[-1.5, 0, 0.1, 0], [1.5, 0, 0.1, 0]]))
    left, right = env.render(0), env.render(1)
    assert left.shape == right.shape == (400, 600, 3)
    assert left.dtype == np.uint8
    cart = lambda picture: np.abs(picture.astype(int) - [46, 64, 87]).sum(-1) < 30  # noqa: E731
    assert cart(left)[:, :300].sum() > 500 > cart(left)[:, 300:].sum()
    assert cart(right)[:, 300:].sum() > 500 > cart(right)[:, :300].sum()

"""CartPole against Gymnasium's, its starts and its time limit."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from native_envs import last_seen, put

from tscli.config import UserError
from tscli.envs import make_env
from tscli.envs.classic.cartpole import MAX_ANGLE, MAX_POSITION, Env, EnvConfig
from tscli.envs.views import resolve_view
from tscli.tasks import load_task


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


def test_with_unit_return_a_whole_episode_pays_1_and_a_fall_its_share():
    env = Env(EnvConfig(max_episode_steps=4, unit_return=True), 2)
    put(env, np.array([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.2, 3.0]]))
    first = env.step(torch.tensor([0, 0]))
    assert first.reward.tolist() == [0.25, 0.25]  # a fall's step pays too
    assert first.terminated.tolist() == [False, True]
    rest = [env.step(torch.tensor([t % 2, 0])) for t in (1, 2, 3)]
    assert rest[-1].truncated[0]
    assert sum(result.reward[0].item() for result in rest) == 0.75


def test_noise_has_its_deviation_and_is_held_within_twice_where_episodes_end():
    env = Env(EnvConfig(position_noise=0.3), 20_000)
    put(env, np.tile([1.0, 5.0, 0.1, 5.0], (20_000, 1)))
    position, angle = (env.observe("noisy_positions").double() - torch.tensor([1.0, 0.1])).T
    assert position.mean().abs() < 0.01 and (position.std() - 0.3).abs() < 0.01
    high = 2 * MAX_ANGLE - 0.1  # 1.063 deviations above the angle and 1.730 below it
    assert angle.max().item() == pytest.approx(high) and angle.min().item() == pytest.approx(-2 * MAX_ANGLE - 0.1)
    assert (angle > high - 1e-6).double().mean().item() == pytest.approx(0.144, abs=0.01)
    assert (angle < -high - 0.2 + 1e-6).double().mean().item() == pytest.approx(0.0418, abs=0.01)
    assert abs(torch.corrcoef(torch.stack([position, angle]))[0, 1]) < 0.03


def test_noise_is_fresh_at_every_step_and_the_same_for_any_episode_lengths_before():
    readings = {}
    for limit in (2, 3):
        env = Env(EnvConfig(max_episode_steps=limit, position_noise=0.1), 2)
        env.reset(7)
        noise = []  # of the second episode's first two readings
        for t in range(limit + 2):
            if t >= limit:
                clean = env.observe("state")[:, [0, 2]]
                noise.append(env.observe("noisy_positions") - clean)
            env.step(torch.tensor([t % 2, t % 2]))
        readings[limit] = torch.stack(noise)
    assert torch.equal(readings[2][0], readings[3][0])
    assert len(readings[2].unique()) == 8
    env = Env(EnvConfig(max_episode_steps=3, position_noise=0.1), 2)
    assert not torch.equal(env.observe("noisy_positions") - env.observe("state")[:, [0, 2]], readings[3][0])


def test_without_noise_there_is_no_such_group():
    env = Env(EnvConfig(), 2)
    assert list(env.groups) == ["state"]
    with pytest.raises(UserError, match="noisy_positions"):
        env.observe("noisy_positions")


@pytest.mark.parametrize(
    ("name", "steps", "noise"),
    [
        ("popgym_cartpole_easy", 200, 0.0),
        ("popgym_cartpole_medium", 400, 0.0),
        ("popgym_cartpole_hard", 600, 0.0),
        ("popgym_noisy_cartpole_easy", 200, 0.1),
        ("popgym_noisy_cartpole_medium", 200, 0.2),
        ("popgym_noisy_cartpole_hard", 200, 0.3),
    ],
)
def test_popgyms_tasks_have_their_published_lengths_noise_and_views(name, steps, noise):
    task = load_task(name)
    env = make_env(task.env, 1)
    assert isinstance(env, Env)
    config = EnvConfig.model_validate({key: value for key, value in task.env.items() if key != "kind"})
    assert (config.max_episode_steps, config.position_noise, config.unit_return) == (steps, noise, True)
    group = "noisy_positions" if noise else "state"
    seen = resolve_view("student", task.views[task.student], env.groups, env.action).parts
    assert [(part.group, part.size) for part in seen] == [(group, 2), ("previous_action", 1)]

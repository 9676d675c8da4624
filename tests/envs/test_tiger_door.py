"""TigerDoor: its rules, the returns of policies that can be worked out by hand, and its two tasks."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tscli.envs import make_env
from tscli.envs.classic.tiger_door import Env, EnvConfig
from tscli.tasks import load_task

LEFT, RIGHT, LISTEN = 0, 1, 2
ALT = {"listen": False, "left_reward": 2.0}


def pairs(num_envs: int, **settings: object) -> Env:
    return Env(EnvConfig.model_validate(settings), num_envs)


def knowing(env: Env) -> Tensor:
    """Open the treasure's door, which is the one without the tiger."""
    return 1 - env.observe("tiger").argmax(1)


def listening(env: Env) -> Tensor:
    heard = env.observe("heard")
    return torch.where(heard.sum(1) > 0, 1 - heard.argmax(1), LISTEN)


def always_left(env: Env) -> Tensor:
    return torch.zeros(env.num_envs, dtype=torch.int64)


def guessing(env: Env) -> Tensor:
    return torch.arange(env.num_envs) % 2


def mean_return(env: Env, policy: Callable[[Env], Tensor], steps: int = 12) -> float:
    """Of all episodes that end; 12 steps are whole episodes of one step or of two."""
    total, ends = 0.0, 0
    for _ in range(steps):
        result = env.step(policy(env))
        total += float(result.reward.double().sum())
        ends += int((result.terminated | result.truncated).sum())
    return total / ends


def test_policies_that_can_be_worked_out_by_hand_get_what_they_should():
    assert mean_return(pairs(100), knowing) == pytest.approx(1.0)
    assert mean_return(pairs(100), listening) == pytest.approx(0.9)
    assert mean_return(pairs(2000), guessing) == pytest.approx(0.5, abs=0.02)
    assert mean_return(pairs(100, listen_cost=0.0), listening) == pytest.approx(1.0)


def test_in_the_alternative_the_blind_choice_of_left_is_better_than_imitating_who_knows():
    assert mean_return(pairs(2000, **ALT), knowing) == pytest.approx(1.5, abs=0.02)
    assert mean_return(pairs(2000, **ALT), guessing) == pytest.approx(0.75, abs=0.03)
    assert mean_return(pairs(2000, **ALT), always_left) == pytest.approx(1.0, abs=0.04)


def test_doors_end_an_episode_and_the_treasure_is_a_success():
    env = pairs(200)
    env.reset(3)
    tiger = env.observe("tiger").argmax(1)
    result = env.step(always_left(env))
    assert result.terminated.all()
    assert torch.equal(result.success, tiger == RIGHT)
    assert torch.equal(result.reward, (tiger == RIGHT).float())


def test_the_tiger_is_heard_after_listening_and_not_before_and_stays_heard_until_the_episode_ends():
    env = pairs(50)
    env.reset(3)
    tiger = env.observe("tiger").clone()
    assert not env.observe("heard").any()
    for _ in range(2):
        result = env.step(torch.full((50,), LISTEN))
        assert not result.terminated.any() and not result.success.any()
        assert result.reward.tolist() == pytest.approx([-0.1] * 50)
        assert torch.equal(env.observe("heard"), tiger) and torch.equal(env.observe("tiger"), tiger)
    env.step(always_left(env))
    assert not env.observe("heard").any()
    assert not torch.equal(env.observe("tiger"), tiger)


def test_who_only_listens_runs_out_of_time():
    env = pairs(1, max_episode_steps=3)
    ends = [env.step(torch.tensor([LISTEN])).truncated.item() for _ in range(3)]
    assert ends == [False, False, True]
    assert env.final_observation("heard", torch.tensor([0])).sum() == 1


def test_the_tasks_hide_the_tiger_from_the_student_and_the_alternative_has_two_actions():
    for name, actions in (("tiger_door", 3), ("tiger_door_alt", 2)):
        task = load_task(name)
        assert make_env(task.env, 1).action.nvec == (actions,)
        assert [part.group for part in task.views[task.student]] == ["heard"]
    assert pairs(1).groups["tiger"].privileged
    env = make_env(load_task("tiger_door_alt").env, 1)
    assert isinstance(env, Env) and mean_return(env, always_left) in (0.0, *np.arange(1, 13) / 6)


def test_the_picture_shows_the_tiger():
    env = pairs(20)
    env.reset(1)
    for row in range(4):
        red = (np.abs(env.render(row).astype(int) - [228, 87, 46]).sum(-1) < 30).sum(0).nonzero()[0]
        assert (red.mean() > 120) == (int(env.observe("tiger")[row].argmax()) == RIGHT)

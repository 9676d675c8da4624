"""PoisonedDoors: its rules, the returns of policies that can be worked out by hand, and what each role sees."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tscli.config import UserError
from tscli.envs import EnvStep, make_env
from tscli.envs.classic.poisoned_doors import Env, EnvConfig, combination

CODES = [2, 0, 1, 1, 2, 0, 0, 1, 1, 1]  # the published one, of length 10
LOCK = 3


def doors(num_envs: int, **settings: object) -> Env:
    return Env(EnvConfig.model_validate(settings), num_envs)


def act(env: Env, *action: int) -> EnvStep:
    return env.step(torch.tensor(action))


def good(env: Env) -> Tensor:
    """The action that opens each env's good door."""
    return env.observe("good_door").argmax(1) + LOCK + 1


def mean_return(env: Env, policy: Callable[[Env], Tensor], episodes: int = 3) -> float:
    """Of each env's first episodes, of which all count as much."""
    left = torch.full((env.num_envs,), episodes)
    total = 0.0
    while left.any():
        result = env.step(policy(env))
        total += float(result.reward[left > 0].double().sum())
        left -= ((result.terminated | result.truncated) & (left > 0)).long()
    return total / (episodes * env.num_envs)


def at_random(low: int, high: int) -> Callable[[Env], Tensor]:
    stream = torch.Generator().manual_seed(0)
    return lambda env: torch.randint(low, high, (env.num_envs,), generator=stream)


def test_the_combination_is_the_published_one():
    assert combination(10) == CODES
    assert combination(3) != combination(4)[:3]  # another length is another combination


def test_the_good_door_pays_2_and_the_poisoned_ones_take_2_and_either_ends_the_episode():
    env = doors(300)
    env.reset(1)
    right = good(env)
    result = act(env, *[4] * 300)
    assert torch.equal(result.reward, torch.where(right == 4, 2.0, -2.0))
    assert torch.equal(result.success, right == 4)
    assert result.terminated.all() and not result.truncated.any()
    assert 70 < int(result.success.sum()) < 130


def test_the_lock_pays_1_after_its_last_code_and_its_phases_are_shown():
    env = doors(1)
    act(env, LOCK)
    for i, code in enumerate(CODES):
        assert env.observe("phase")[0].tolist() == ([0, 1, 0, 0] if i == 0 else [0, 0, 1, 0])
        assert env.observe("next_code")[0].argmax() == code
        result = act(env, code)
        assert result.reward.item() == (1.0 if i == 9 else 0.0)
        assert result.terminated.item() == result.success.item() == (i == 9)
    assert env.final_observation("phase", torch.tensor([0]))[0].tolist() == [0, 0, 0, 1]
    assert env.observe("phase")[0].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("wrong", [0, 3, 4, 6], ids=["code", "door0", "door1", "door3"])
def test_anything_but_the_right_code_ends_the_episode_without_reward(wrong):
    env = doors(1)
    act(env, LOCK)
    if wrong == 0:
        act(env, CODES[0])
        wrong = 2  # the second code is 0
    result = act(env, wrong)
    assert (result.reward.item(), result.terminated.item(), result.success.item()) == (0.0, True, False)


def test_a_code_away_from_the_lock_does_nothing_until_time_runs_out():
    env = doors(1, max_episode_steps=3)
    ends = [act(env, code) for code in (2, 0, 1)]
    assert [result.reward.item() for result in ends] == [0.0, 0.0, 0.0]
    assert [result.truncated.item() for result in ends] == [False, False, True]
    assert env.final_observation("phase", torch.tensor([0]))[0].tolist() == [1, 0, 0, 0]


def test_policies_that_can_be_worked_out_by_hand_get_what_they_should():
    def lock(env: Env) -> Tensor:
        choosing = env.observe("phase")[:, 0] > 0
        return torch.where(choosing, LOCK, env.observe("next_code").argmax(1))

    assert mean_return(doors(100), good) == 2.0
    assert mean_return(doors(100), lock) == 1.0
    # Over three doors (2 - 2 - 2) / 3. A mean of 12 000 episodes is off by .017 in one deviation.
    assert mean_return(doors(4000), at_random(4, 7)) == pytest.approx(-2 / 3, abs=0.07)
    # Codes do nothing; of door 0 and the others one is opened in the end, so 3/4 of that.
    assert mean_return(doors(4000), at_random(0, 7)) == pytest.approx(-1 / 2, abs=0.07)


def test_the_student_sees_nothing_of_the_good_door_and_that_is_marked():
    env = doors(50)
    assert {name for name, group in env.groups.items() if group.privileged} == {"good_door", "next_code"}
    assert len(env.observe("good_door").unique(dim=0)) == 3
    assert len(env.observe("phase").unique(dim=0)) == 1
    assert not env.observe("next_code").any()


def test_more_doors_and_a_shorter_combination_are_settings():
    env = doors(2000, num_doors=6, combination_length=2)
    assert env.action.nvec == (9,)
    assert env.observe("good_door").sum(0).min() > 300
    act(env, *[LOCK] * 2000)
    act(env, *[combination(2)[0]] * 2000)
    assert act(env, *[combination(2)[1]] * 2000).reward.min() == 1.0
    with pytest.raises(UserError, match=r"^env poisoned_doors: num_doors 2: [^\n]+$"):
        make_env({"kind": "poisoned_doors", "num_doors": 2}, 1)


def test_lock_starts_begin_that_fraction_of_episodes_with_right_codes_entered():
    env = doors(5000, lock_starts=0.4)
    phase = env.observe("phase").argmax(1)
    assert (phase == 0).double().mean().item() == pytest.approx(0.6, abs=0.03)
    assert (phase == 1).double().mean().item() == pytest.approx(0.04, abs=0.015)  # one in ten of them has none
    waits = env.observe("next_code")[phase > 0].argmax(1)
    assert torch.bincount(waits) / len(waits) == pytest.approx(np.bincount(CODES) / 10, abs=0.05)
    action = torch.where(phase > 0, env.observe("next_code").argmax(1), good(env))
    result = env.step(action)
    assert (result.reward[phase == 0] == 2).all()
    assert result.reward[phase > 0].mean().item() == pytest.approx(0.1, abs=0.03)  # one in ten was at the last
    assert not (result.terminated & (result.reward == 0)).any()


def test_the_picture_shows_the_good_door():
    env = doors(20)
    env.reset(1)
    for row in (0, 1, 2, 3):
        picture = env.render(row)
        green = (np.abs(picture.astype(int) - [46, 158, 98]).sum(-1) < 30).sum(0).nonzero()[0]
        door = int(good(env)[row]) - LOCK
        assert 100 * door < green.min() and green.max() < 100 * (door + 1)

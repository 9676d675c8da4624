"""The native environments as plain Gymnasium ones."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tscli.config import UserError
from tscli.interop.gymnasium import env_ids


@pytest.mark.filterwarnings("ignore:.*Box observation space")
@pytest.mark.parametrize("env_id", env_ids())
def test_gymnasiums_own_checks_pass(env_id):
    try:
        env = gymnasium.make(env_id)
    except UserError as error:
        if "pip install" not in str(error):
            raise
        pytest.skip(str(error))
    check_env(env.unwrapped)


def test_importing_it_registers_the_ids_without_torch():
    code = """
import sys, gymnasium
assert "tscli/CartPole-v0" not in gymnasium.registry
import tscli.interop.gymnasium
assert {"tscli/CartPole-v0", "tscli/Acrobot-v0"} <= set(gymnasium.registry), "not registered"
assert "torch" not in sys.modules, "torch was imported"
gymnasium.make("tscli:tscli/Acrobot-v0")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_episode_ends_with_its_last_observation_and_reset_goes_on_to_the_next():
    env = gymnasium.make("tscli/CartPole-v0", config={"max_episode_steps": 3})
    long = gymnasium.make("tscli/CartPole-v0")
    first, _ = env.reset(seed=4)
    long.reset(seed=4)
    for t in range(3):
        obs, reward, terminated, truncated, info = env.step(1)
        expected = long.step(1)[0]
        np.testing.assert_array_equal(obs["state"], expected["state"])
        assert (reward, terminated, truncated) == (1.0, False, t == 2)
        assert info == ({"is_success": True} if t == 2 else {})
    second, _ = env.reset()
    assert not np.array_equal(second["state"], first["state"])
    again, _ = env.reset(seed=4)
    np.testing.assert_array_equal(again["state"], first["state"])


def test_a_reset_in_the_middle_of_an_episode_begins_a_new_one_that_repeats():
    env = gymnasium.make("tscli/CartPole-v0")
    seen = []
    for _ in range(2):
        env.reset(seed=4)
        env.step(1)
        obs, _ = env.reset()
        seen.append(obs["state"].tolist())
        assert np.abs(obs["state"]).max() <= 0.05
    assert seen[0] == seen[1]


def test_stepping_past_the_end_is_an_error():
    env = gymnasium.make("tscli/CartPole-v0", config={"max_episode_steps": 1})
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset"):
        env.step(0)


def test_bad_settings_are_refused_in_one_line():
    with pytest.raises(UserError, match=r'^env cartpole: unknown setting "max_steps"[^\n]+$'):
        gymnasium.make("tscli/CartPole-v0", config={"max_steps": 3})


def test_after_the_end_the_picture_is_the_last_one_of_the_episode():
    env = gymnasium.make("tscli/CartPole-v0", config={"max_episode_steps": 2}, render_mode="rgb_array")
    env.reset(seed=0)
    env.step(1)
    before = np.asarray(env.render())
    env.step(1)
    np.testing.assert_array_equal(np.asarray(env.render()), before)
    env.reset()
    assert not np.array_equal(np.asarray(env.render()), before)

"""What goes wrong in somebody's own env, or is not installed for one, is one line: whose, where, and what."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from tscli.config import UserError
from tscli.envs import make_env


class Broken(gymnasium.Env):
    """Goes wrong in its second step."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, how: str) -> None:
        self.how, self.steps = how, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.steps = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        good = (np.zeros(2, np.float32), 0.0, False, False, {})
        if self.steps < 2:
            return good
        if self.how == "raises":
            raise KeyError("goal")
        if self.how == "exits":
            sys.exit(3)
        while self.how == "never ends":
            pass
        return {
            "four": good[:4],
            "shape": (np.zeros(3, np.float32), *good[1:]),
            "reward": (good[0], "much", *good[2:]),
            "rewards": (good[0], np.zeros(4), *good[2:]),
        }[self.how]


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    gymnasium.register("tests/Broken-v0", entry_point=lambda **given: Broken(**given))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raises", r"failed in step 2 .*test_gym_errors.py, line \d+\): KeyError: 'goal'"),
        ("exits", r"failed in step 2 .*test_gym_errors.py, line \d+\): it ended the process \(sys.exit\)"),
        ("never ends", r"failed in step 2 .*test_gym_errors.py, line \d+\): TimeoutError: no end within 0.2 s"),
        ("four", "failed in step 2 .*got 4"),
        ("shape", r"the observation is \[3\], its space says \[2\]"),
        ("reward", "failed in step 2 .*: ValueError: could not convert string to float"),
        ("rewards", r"the reward is one number, not an array of \[4\]"),
    ],
)
def test_the_env_the_step_and_the_line_are_named(how: str, words: str) -> None:
    seconds = 0.2 if how == "never ends" else 9
    settings = {"kind": "gym", "id": "tests/Broken-v0", "kwargs": {"how": how}, "step_seconds": seconds}
    env = make_env(settings, 1)
    env.step(torch.zeros(1, dtype=torch.int64))
    with pytest.raises(UserError, match=f"tests/Broken-v0 .*{words}"):
        env.step(torch.zeros(1, dtype=torch.int64))


@pytest.mark.parametrize(
    ("env_id", "extra", "module"), [("Hopper-v5", "mujoco", "mujoco"), ("LunarLander-v3", "box2d", "Box2D")]
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(env_id: str, extra: str, module: str) -> None:
    if importlib.util.find_spec(module):
        pytest.skip(f"{module} is installed")
    with pytest.raises(
        UserError, match=rf"^{env_id} needs a package that is not installed.*pip install 'tscli\[{extra}\]'$"
    ):
        make_env({"kind": "gym", "id": env_id}, 2)


def test_without_pygame_training_works_and_pictures_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *args: None if name == "pygame" else found(name, *args)
    )
    for env_id in ("Pendulum-v1", "CartPole-v1"):
        env = make_env({"kind": "gym", "id": env_id}, 2)
        env.reset(0)
        env.step(torch.zeros(2, *env.action.shape, dtype=getattr(torch, env.action.dtype)))
        with pytest.raises(UserError, match="was built without pictures: set render: true"):
            env.render(0)
        with pytest.raises(UserError, match=r"needs pygame, which is not installed: pip install pygame$"):
            make_env({"kind": "gym", "id": env_id, "render": True}, 2)

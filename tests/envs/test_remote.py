"""An object in another process: what it answers, what it refuses, and its end."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tscli.config import UserError
from tscli.envs import EnvStep, make_env
from tscli.envs.remote import Remote


def away(*args: Any) -> Remote:
    return Remote(make_env, args, torch.device("cpu"), "mine")


def test_it_answers_as_the_object_would_here() -> None:
    there, here = away({"kind": "cartpole"}, 3), make_env({"kind": "cartpole"}, 3)
    for env in (there, here):
        env.reset(5)
    for t in range(30):
        action = torch.tensor([0, 1, t % 2])
        ours, theirs = here.step(action), there.step(action)
        assert isinstance(theirs, EnvStep)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert torch.equal(here.observe("state", action), there.observe("state", action))
    picture = there.render(1)
    assert isinstance(picture, np.ndarray) and np.array_equal(picture, here.render(1))
    there.load_state_dict(here.state_dict())
    there.close()
    there.close()


def test_what_is_refused_there_is_refused_here() -> None:
    with pytest.raises(UserError, match='unknown env kind "cartpol": did you mean "cartpole"'):
        away({"kind": "cartpol"}, 3)
    there = away({"kind": "cartpole"}, 3)
    with pytest.raises(UserError, match='unknown observation group "stat": did you mean "state"'):
        there.observe("stat")
    with pytest.raises(RuntimeError, match=r"in the process of mine:\nTraceback[^$]*has no attribute 'fly'"):
        there.fly()
    there.close()


def test_an_end_by_itself_is_told_in_one_line() -> None:
    there = Remote(__import__, ("signal",), torch.device("cpu"), "mine")
    with pytest.raises(UserError, match=r"^the process of mine has ended by itself \(exit code -9\): [^\n]+$"):
        there.raise_signal(9)

"""What the native environments owe to the class that they share: array kinds, independence, resume."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import pytest
import torch
from native_envs import use_torch

from tscli.config import UserError
from tscli.envs import color_maze, quadrotor
from tscli.envs.classic import acrobot, cartpole, mountain_car, pendulum, poisoned_doors, tiger_door
from tscli.envs.native import AHEAD, NativeEnv

MODULES = [color_maze, quadrotor, cartpole, acrobot, pendulum, mountain_car, poisoned_doors, tiger_door]
pytestmark = pytest.mark.parametrize("module", MODULES, ids=[m.__name__.rpartition(".")[2] for m in MODULES])


def make(module: Any, num_envs: int, max_episode_steps: int = 40) -> NativeEnv:
    more = {"control": "acceleration", "spread_starts": True} if module is quadrotor else {}
    return module.Env(module.EnvConfig(max_episode_steps=max_episode_steps, **more), num_envs)


def actions(env: NativeEnv, *shape: int) -> torch.Tensor:
    stream = torch.Generator().manual_seed(0)
    if env.action.is_continuous:
        return torch.rand((*shape, len(env.action.low)), generator=stream) * 2 - 1
    return torch.randint(env.action.nvec[0], shape, generator=stream)


def test_torchs_arrays_give_what_numpys_give(module: Any) -> None:
    on_numpy, on_torch = make(module, 5, 5), make(module, 5, 5)
    use_torch(on_torch)
    on_numpy.reset(3)
    on_torch.reset(3)
    for action in actions(on_numpy, 200, 5):
        # Small differences grow in an unstable system, so both begin each step alike.
        on_torch.load_state_dict(on_numpy.state_dict())
        ours, theirs = on_numpy.step(action), on_torch.step(action)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        for group in on_numpy.groups:
            # A ray that grazes a column: a root of nearly 0, in float32.
            rtol = 1e-4 if group == "depth" else 1e-5
            torch.testing.assert_close(on_numpy.observe(group), on_torch.observe(group), rtol=rtol, atol=1e-7)


def test_restarting_without_a_look_at_values_gives_the_same_bit_for_bit(module: Any) -> None:
    looking, blind = make(module, 5, 6), make(module, 5, 6)
    blind._on_host = False
    rows = torch.tensor([4, 1, 2])
    for t, action in enumerate(actions(looking, 500, 5)):
        ours, theirs = looking.step(action), blind.step(action)
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, theirs, strict=True))
        for group in looking.groups:
            for look in ("observe", "final_observation"):
                assert torch.equal(getattr(looking, look)(group, rows), getattr(blind, look)(group, rows))
        if t == 250:
            blind.load_state_dict(looking.state_dict())
    ours, theirs = looking.state_dict(), blind.state_dict()
    assert all(torch.equal(torch.as_tensor(ours[name]), torch.as_tensor(theirs[name])) for name in ours)
    assert ours["episode"].min() > 2 * AHEAD, "starts were drawn several times"


def test_more_envs_change_no_bit_of_the_first_ones(module: Any) -> None:
    few, many = make(module, 3), make(module, 13)
    for action in actions(few, 200, 13):
        few.step(action[:3])
        many.step(action)
        assert all(torch.equal(few.observe(group), many.observe(group)[:3]) for group in few.groups)


def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(module: Any) -> None:
    env, other = make(module, 8), make(module, 8)
    drawn = actions(env, 160, 8)
    env.reset(11)
    for action in drawn[:80]:
        env.step(action)
    other.load_state_dict(env.state_dict())
    assert all(torch.equal(env.observe(group), other.observe(group)) for group in env.groups)
    for action in drawn[80:]:
        ours, theirs = env.step(action), other.step(action)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert all(torch.equal(env.observe(group), other.observe(group)) for group in env.groups)


def test_a_saved_state_is_not_changed_by_later_steps(module: Any) -> None:
    env = make(module, 2)
    state = env.state_dict()
    before = {name: value.clone() for name, value in state.items() if isinstance(value, torch.Tensor)}
    for action in actions(env, 50, 2):
        env.step(action)
    assert all(torch.equal(before[name], state[name]) for name in before)


def test_a_state_of_another_number_of_envs_is_refused(module: Any) -> None:
    with pytest.raises(UserError, match="of 4 envs and this run has 2"):
        make(module, 2).load_state_dict(make(module, 4).state_dict())


def test_a_misspelt_group_is_an_error(module: Any) -> None:
    with pytest.raises(UserError, match=r'unknown observation group "misspelt": [^\n]+$'):
        make(module, 2).observe("misspelt")

"""Our optimisers against those of torch.optim."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import Tensor, nn

from tscli.learning.optim import FlatAdam, FlatOptimizer, make_optimizer


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))


def loss_of(net: nn.Module, step: int) -> Tensor:
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
    return (net(x) - x[:, :2].sin() * (1 + step % 3)).square().mean()


def train(net: nn.Module, optimizer: FlatOptimizer, steps: range) -> None:
    for step in steps:
        optimizer.lr = 0.01 * (1 - step / 40)
        optimizer.zero_grad()
        loss_of(net, step).backward()
        optimizer.step()


@pytest.mark.parametrize("max_grad_norm", [None, 0.05, 100.0])
def test_twenty_steps_are_those_of_torch(max_grad_norm: float | None) -> None:
    ours, theirs = make_net(), make_net()
    adam = torch.optim.Adam(theirs.parameters(), eps=1e-5)
    for step in range(20):
        adam.param_groups[0]["lr"] = 0.01 * (1 - step / 40)
        adam.zero_grad()
        loss_of(theirs, step).backward()
        if max_grad_norm is not None:
            nn.utils.clip_grad_norm_(theirs.parameters(), max_grad_norm)
        adam.step()
    train(ours, FlatAdam(ours.parameters(), 0.01, max_grad_norm), range(20))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "rmsprop"])
def test_kinds_by_name_are_those_of_torch_and_resume_exactly(kind: str) -> None:
    ours, theirs = make_net(), make_net()
    names = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSprop"}
    other = getattr(torch.optim, names[kind])(theirs.parameters(), lr=0.01)
    for step in range(20):
        other.param_groups[0]["lr"] = 0.01 * (1 - step / 40)
        other.zero_grad()
        loss_of(theirs, step).backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.05)
        other.step()
    optimizer = make_optimizer(kind, ours.parameters(), 0.01, 0.05)
    train(ours, optimizer, range(10))
    state = copy.deepcopy(optimizer.state_dict())
    resumed = make_optimizer(kind, ours.parameters(), 0.5, 0.05)
    resumed.load_state_dict(state)
    train(ours, resumed, range(10, 20))
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_moving_parameters_into_one_buffer_leaves_their_values() -> None:
    net, plain = make_net(), make_net()
    FlatAdam(net.parameters(), 0.01)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), plain.parameters(), strict=True))


def test_steps_reach_parameters_that_were_loaded_later() -> None:
    net = make_net()
    optimizer = FlatAdam(net.parameters(), 0.01)
    saved = {name: torch.full_like(value, 0.5) for name, value in net.state_dict().items()}
    net.load_state_dict(saved)
    train(net, optimizer, range(1))
    moved = [(value - 0.5).abs() for value in net.state_dict().values()]
    # Adam's first step moves every weight by lr, from the loaded value on.
    assert all(bool((move > 0.009).all() and (move < 0.011).all()) for move in moved)


def test_a_parameter_without_a_gradient_stays() -> None:
    net, idle = make_net(), nn.Linear(2, 2)
    before = idle.weight.clone()
    train(net, FlatAdam([*net.parameters(), *idle.parameters()], 0.01), range(3))
    assert torch.equal(idle.weight, before)


def test_a_resumed_optimizer_goes_on_bit_for_bit() -> None:
    net = make_net()
    optimizer = FlatAdam(net.parameters(), 0.01, 0.5)
    train(net, optimizer, range(5))
    weights, state = copy.deepcopy(net.state_dict()), copy.deepcopy(optimizer.state_dict())
    train(net, optimizer, range(5, 10))
    again = make_net()
    resumed = FlatAdam(again.parameters(), 0.5, 0.5)
    again.load_state_dict(weights)
    resumed.load_state_dict(state)
    assert resumed.lr == pytest.approx(0.01 * (1 - 4 / 40))
    train(again, resumed, range(5, 10))
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_torch_is_not_heard_on_weights_of_an_rnn_that_lie_in_the_buffer() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        FlatAdam(nn.LSTM(2, 2).parameters(), 0.01)
        warnings.warn("RNN module weights are not part of single contiguous chunk of memory. This means", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(warning.message) for warning in heard] == ["another"]

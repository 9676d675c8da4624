"""Running statistics against NumPy's over everything at once."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from tscli.networks.normalize import ReturnScale, RunningNorm


def test_statistics_over_chunks_are_those_of_everything() -> None:
    data = np.random.default_rng(0).normal([5.0, -1000.0, 0.0], [2.0, 0.01, 30.0], (1000, 3)).astype(np.float32)
    norm = RunningNorm(3)
    for chunk in np.split(data, [1, 2, 60, 500]):
        norm.update(torch.from_numpy(chunk))
    exact = data.astype(np.float64)
    np.testing.assert_allclose(norm.mean.numpy(), exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(norm.var.numpy(), exact.var(0), rtol=1e-6)
    assert norm.count.item() == 1000
    out = norm(torch.from_numpy(data)).numpy()
    np.testing.assert_allclose(out, (exact - exact.mean(0)) / exact.std(0), atol=0.02)


def test_time_and_env_axes_and_an_empty_batch_are_taken_in() -> None:
    x = torch.randn(4, 5, 2)
    flat, shaped = RunningNorm(2), RunningNorm(2)
    flat.update(x.reshape(20, 2))
    shaped.update(x)
    shaped.update(x[:0])
    assert torch.equal(flat.mean, shaped.mean) and torch.equal(flat.var, shaped.var)


def test_nothing_moves_unless_update_is_called() -> None:
    norm = RunningNorm(2)
    norm.update(torch.randn(10, 2))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm.train()
    norm(torch.randn(100, 2) + 50)
    assert all(torch.equal(value, norm.state_dict()[name]) for name, value in before.items())


def test_a_reload_gives_the_same_output() -> None:
    model = nn.Sequential(RunningNorm(2), nn.Linear(2, 2))
    model[0].update(torch.randn(10, 2) * 7 + 3)  # type: ignore[operator]
    again = nn.Sequential(RunningNorm(2), nn.Linear(2, 2))
    again.load_state_dict(model.state_dict())
    x = torch.randn(5, 2) * 7
    assert torch.equal(model(x), again(x))


def test_a_constant_entry_keeps_its_scale() -> None:
    norm = RunningNorm(2)
    norm.update(torch.tensor([[3.0, 1.0], [3.0, 2.0]]))
    # at its constant 0, and a first change of 0.5 stays 0.5
    assert norm(torch.tensor([[3.0, 1.5], [3.5, 1.5]])).tolist() == [[0.0, 0.0], [0.5, 0.0]]


def test_outliers_are_clipped() -> None:
    norm = RunningNorm(1)
    assert norm(torch.tensor([[1e6], [2.0]])).tolist() == [[10.0], [2.0]]
    norm.update(torch.tensor([[-1.0], [1.0]]))
    assert norm(torch.tensor([[-1e6]])).tolist() == [[-10.0]]


def test_return_scale_divides_by_the_deviation_of_discounted_returns() -> None:
    rng = np.random.default_rng(1)
    reward = rng.normal(size=(40, 3)).astype(np.float32) * 20
    done = rng.random((40, 3)) < 0.1
    returns, running = [], np.zeros(3)
    for r, d in zip(reward.astype(np.float64), done, strict=True):
        running = running * 0.9 + r
        returns.append(running.copy())
        running[d] = 0
    scale = ReturnScale(3, 0.9)
    # In two batches, of which the first is left behind by the running return.
    scale(torch.from_numpy(reward[:15]), torch.from_numpy(done[:15]))
    found = scale(torch.from_numpy(reward[15:]), torch.from_numpy(done[15:]))
    np.testing.assert_allclose(found.numpy(), reward[15:] / np.std(returns), rtol=1e-4)  # scaled, not shifted


def test_scaled_rewards_are_clipped() -> None:
    scale, never = ReturnScale(2, 0.0), torch.zeros(1, 2, dtype=torch.bool)
    scale(torch.tensor([[-1.0, 1.0]]).repeat(200_000, 1), never.repeat(200_000, 1))
    assert scale(torch.tensor([[100.0, -100.0]]), never).tolist() == [[10.0, -10.0]]


def test_a_restarted_return_scale_forgets_the_returns_under_way_and_keeps_its_statistics() -> None:
    scale, never = ReturnScale(1, 0.5), torch.zeros(2, 1, dtype=torch.bool)
    scale(torch.tensor([[4.0], [2.0]]), never)  # returns 4 and 4
    kept = scale.norm.mean.clone()
    scale.restart()
    assert torch.equal(scale.norm.mean, kept)
    scale(torch.tensor([[1.0], [1.0]]), never)  # 1 and 1.5; 3 and 2.5 had it gone on
    assert scale.norm.mean.item() == (4 + 4 + 1 + 1.5) / 4


def test_return_scale_goes_on_where_it_was() -> None:
    reward, done = torch.randn(2, 8, 3)
    done = done > 1
    scale = ReturnScale(3, 0.9)
    scale(reward, done)
    again = ReturnScale(3, 0.9)
    again.load_state_dict({name: value.clone() for name, value in scale.state_dict().items()})
    assert torch.equal(scale(reward * 2, done), again(reward * 2, done))

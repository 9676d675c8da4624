"""What is saved of a loop comes back as it was."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tscli.config import UserError
from tscli.training import State, state


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_snapshot_brings_back_modules_generators_states_and_threads(threads: None) -> None:
    net, generator, at = torch.nn.Linear(2, 2), torch.Generator().manual_seed(1), State(hidden=torch.ones(2), updates=7)
    parts = {"net": net, "act": generator, "at": at, "nothing": None}
    torch.set_num_threads(1)
    saved = state.snapshot(parts)
    weight, drawn = net.weight.detach().clone(), torch.rand(3, generator=generator)
    saved["parts"]["net"] = {"weight": weight, "bias": net.bias.detach()}
    torch.nn.init.zeros_(net.weight)
    at.hidden, at.updates = torch.zeros(2), 0
    torch.set_num_threads(2)
    state.restore(saved, parts, torch.device("cpu"))
    assert torch.equal(net.weight, weight) and torch.equal(torch.rand(3, generator=generator), drawn)
    assert at.hidden.tolist() == [1, 1] and at.updates == 7
    assert torch.get_num_threads() == 1


def test_a_snapshot_of_another_kind_of_device_or_of_other_parts_is_refused(threads: None) -> None:
    parts = {"act": torch.Generator()}
    saved = state.snapshot(parts)
    state.restore(saved, parts, torch.device("cpu"))
    with pytest.raises(UserError, match="begun on cuda and would go on on cpu"):
        state.restore({**saved, "device": "cuda"}, parts, torch.device("cpu"))
    with pytest.raises(UserError, match=r"another version of tscli .*has no mix"):
        state.restore(saved, {**parts, "mix": torch.Generator()}, torch.device("cpu"))


def test_where_episodes_begin_anew_every_row_is_reset() -> None:
    at = State(reset=torch.tensor([False, True]), hidden=torch.ones(2))
    at.restart()
    assert at.reset.tolist() == [True, True]
    State(updates=3).restart()
    with pytest.raises(AttributeError, match="no hiden in this state: it has reset, hidden"):
        _ = at.hiden


def test_a_clock_goes_on_from_what_a_loop_took_before_and_leaves_pauses_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr(state.time, "perf_counter", lambda: now)
    clock = state.Clock(7.0)
    now += 2
    with clock:
        now += 100
    now += 1
    assert clock.seconds == 10.0

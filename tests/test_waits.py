"""The counter of what waits for a GPU: it sees what does, says where, and leaves alone what does not."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from waits import count_waits

TABLE = torch.arange(12.0).reshape(3, 4)
MASK, ROWS, ROW = torch.tensor([True, False, True]), torch.tensor([2, 0]), torch.tensor(1)


@pytest.mark.parametrize(
    ("what", "call"),
    [
        ("item", lambda: TABLE[0, 0].item()),
        ("__float__", lambda: float(TABLE[0, 0])),
        ("__bool__", lambda: 1 if MASK.any() else 0),
        ("__bool__", lambda: max(TABLE[0, 0], TABLE[0, 1])),
        ("__index__", lambda: range(ROW)),
        ("cpu", lambda: TABLE.cpu()),
        ("numpy", lambda: TABLE.numpy()),
        ("__array__", lambda: np.asarray(TABLE)),
        ("tolist", lambda: TABLE.tolist()),
        ("equal", lambda: torch.equal(TABLE, TABLE)),
        ("allclose", lambda: torch.allclose(TABLE, TABLE)),
        ("nonzero", lambda: MASK.nonzero()),
        ("nonzero", lambda: torch.where(MASK)),
        ("masked_select", lambda: TABLE.masked_select(MASK[:, None])),
        ("_unique2", lambda: TABLE.unique()),
        ("index", lambda: TABLE[MASK]),
        ("index_put_", lambda: TABLE.clone().__setitem__(MASK, TABLE[ROWS])),
        ("_local_scalar_dense", lambda: TABLE[ROW]),
        ("_local_scalar_dense", lambda: torch.full_like(TABLE, ROW)),  # type: ignore[arg-type] - as it must not be used
        ("repeat_interleave", lambda: torch.repeat_interleave(ROWS)),
        ("repeat_interleave", lambda: ROWS.repeat_interleave(ROWS)),
        ("lift_fresh", lambda: torch.tensor([1.0, 2.0])),
        ("lift_fresh", lambda: torch.as_tensor(np.ones(2))),
        ("lift_fresh", lambda: TABLE[..., [0, 2]]),
        ("from_numpy", lambda: torch.from_numpy(np.ones(2))),
    ],
)
def test_what_waits_is_counted_with_its_place(what: str, call: Callable[[], Any]) -> None:
    with count_waits() as found:
        call()
        call()
    line = call.__code__.co_firstlineno
    assert found == {f"{what} at tests/test_waits.py:{line}": 2}


@pytest.mark.parametrize(
    "call",
    [
        lambda: TABLE[ROWS] * 2 + TABLE[:2, :],
        lambda: TABLE.clone().__setitem__(ROWS, TABLE[:2]),
        lambda: torch.where(MASK[:, None], 0, TABLE).clip(-1, 1),
        lambda: TABLE.masked_fill(MASK[:, None], 0.0),
        lambda: torch.zeros(3) + torch.arange(3) + torch.full((3,), 2.0),
        lambda: TABLE.index_select(0, ROWS).to(torch.float64),
        lambda: TABLE.repeat_interleave(2, dim=0).take(ROWS),
        lambda: torch.stack((TABLE, TABLE)).sum(0).sort().values,
    ],
)
def test_what_does_not_wait_is_not_counted(call: Callable[[], Any]) -> None:
    with count_waits() as found:
        call()
    assert not found


def test_outside_nothing_is_counted_and_everything_is_as_it_was() -> None:
    before = torch.Tensor.item, torch.Tensor.__bool__, torch.from_numpy
    with count_waits() as found:
        pass
    assert TABLE[0, 1].item() == 1 and bool(MASK.any())
    assert not found and before == (torch.Tensor.item, torch.Tensor.__bool__, torch.from_numpy)

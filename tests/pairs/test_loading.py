"""Pairs in torch's own DataLoader."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tscli.config import UserError
from tscli.pairs import Pairs


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_gives_windows_of_a_view_with_their_labels(recorded: Path, workers: int) -> None:
    pairs = Pairs(recorded)
    group = next(name for name, found in pairs.schema.groups.items() if not found.is_image)
    dataset = pairs.torch(f"{group} + previous_action", length=5)
    batches = list(DataLoader(dataset, batch_size=7, num_workers=workers))
    assert sum(len(batch["valid"]) for batch in batches) == len(dataset)
    assert sum(int(batch["valid"].sum()) for batch in batches) == pairs.num_steps
    every = pairs.gather(pairs.windows(5, start="tile")[:], [f"obs/{group}", "teacher_action"])
    seen = torch.cat([batch["vector"] for batch in batches])
    expected = every[f"obs/{group}"].reshape(5, len(dataset), -1).swapaxes(0, 1)
    np.testing.assert_array_equal(seen[..., : expected.shape[-1]], expected)
    labels = torch.cat([batch["teacher_action"] for batch in batches])
    np.testing.assert_array_equal(labels, every["teacher_action"].swapaxes(0, 1))
    torch.testing.assert_close(dataset[-1]["vector"], seen[-1])


def test_what_is_not_there_is_named(recorded: Path) -> None:
    pairs = Pairs(recorded)
    with pytest.raises(UserError, match='no group "nothing"'):
        pairs.torch("nothing", 4)
    dataset = pairs.torch(next(iter(pairs.schema.groups)), 4)
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_a_misspelt_view_of_the_task_is_told_with_the_closest_one(recorded: Path) -> None:
    pairs = Pairs(recorded)
    pairs.schema = replace(pairs.schema, task="cartpole")
    with pytest.raises(UserError, match='task cartpole has no view "partail": did you mean "partial"'):
        pairs.torch("partail", 4)

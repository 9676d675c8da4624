"""Rollouts, and the minibatches that are cut from them."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pytest
import torch

from tscli.learning.record import Averages, Minibatches, Recorder, sequences


def test_sequences_stand_side_by_side_with_their_envs_together() -> None:
    x = torch.arange(8).reshape(4, 2)  # [T = 4, N = 2]: 0 1 | 2 3 | 4 5 | 6 7
    assert sequences(x, 2).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert sequences(x.unsqueeze(-1), 4).shape == (4, 2, 1)


def test_a_rollout_stacks_tensors_and_dicts_and_lists_all_else() -> None:
    record = Recorder()
    for t in range(3):
        record.add(obs={"vector": torch.full((2, 1), t)}, reward=torch.full((2,), t), last_seen=None)
    record.add(obs={"vector": torch.full((2, 1), 3)})
    rollout = record.stack()
    assert rollout.obs["vector"].shape == (4, 2, 1) and rollout.reward.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert rollout.last_seen == [None, None, None]
    with pytest.raises(AttributeError, match="done was not recorded; there are obs, reward, last_seen"):
        _ = rollout.done


def test_a_pass_shows_every_sequence_once_with_the_hidden_state_before_it() -> None:
    record = Recorder()
    for t in range(4):
        record.add(step=torch.tensor([t, 10 + t]), obs={"vector": torch.tensor([[t], [10 + t]])})
    record.add(obs={"vector": torch.full((2, 1), 99)})
    starts = torch.tensor([[[0.0], [10.0]], [[2.0], [12.0]]])  # [T / 2, N, 1]: the step that it stands before
    batch = Minibatches(2, {"hidden": starts}, record.stack(), twice=torch.arange(8).reshape(4, 2))
    generator, seen = torch.Generator().manual_seed(0), []
    for part in batch.shuffled(2, generator):
        assert part.step.shape == (2, 2)
        assert torch.equal(part.step[0].float(), part.hidden[:, 0])
        assert torch.equal(part.step, part.obs["vector"][..., 0])
        assert torch.equal(part.twice // 2, part.step % 10)
        seen += part.step[0].tolist()
    assert sorted(seen) == [0, 2, 10, 12]
    passes = [[part.step[0].tolist() for part in batch.shuffled(2, generator)] for _ in range(5)]
    assert any(each != passes[0] for each in passes), "shuffled anew each time"


def test_averages_are_those_of_the_minibatches_by_name() -> None:
    averages = Averages()
    for value in (1.0, 3.0):
        averages.add({"loss/policy": torch.tensor(value, requires_grad=True)})
        averages.add({"entropy": torch.tensor(-value)})
    assert averages.read() == {"loss/policy": 2.0, "entropy": -2.0}

"""What a student with memory learns from: walks through episodes, and the memory that it has there."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from imitation_data import make_student, record

from tscli.learning.replay import Replay
from tscli.networks import Policy
from tscli.pairs import Pairs

STEPS = 60  # of all episodes that `record` writes


def walk(student: Policy, pairs: Pairs, count: int, columns: int = 3, window: int = 4, **choice: Any) -> list[tuple]:
    """(episode, step) of every step that counted, in turn."""
    replay = Replay(student, window, columns, torch.Generator().manual_seed(0))
    replay.choose(pairs, choice.get("episodes"), choice.get("memory"))
    steps = []
    next_ = replay._next

    def watched() -> Any:
        windows, blind = next_()
        for b in range(columns):
            numbers = np.arange(blind[b], windows.valid_length[b])
            steps.extend((int(windows.episode[b]), int(windows.step[b] + n)) for n in numbers)
        return windows, blind

    replay._next = watched
    for batch in replay.batches(count, torch.Generator()):
        replay.loss(batch, "kl")
    return steps


def test_every_step_counts_as_often_as_every_other(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    steps = np.array(walk(make_student(pairs, "state", kind="gru"), pairs, 300))
    means = []
    for episode, length in enumerate(pairs.episodes()["length"]):
        counts = np.bincount(steps[steps[:, 0] == episode, 1], minlength=length)
        # How many walks an episode has is left to chance; of a walk all steps count once, the first like any other, but
        # for those with which the three columns begin and end.
        assert counts.min() > 3 and np.ptp(counts) <= 6
        means.append(counts.mean())
    assert max(means) < 1.5 * min(means)  # a long episode is drawn no more often than a short one


def test_a_walk_shows_an_episode_from_its_start_to_its_end_and_the_memory_goes_along(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state", kind="rnn", normalize=False)
    replay = Replay(student, 3, 2, torch.Generator().manual_seed(1))
    replay.choose(pairs, None)
    expected = replay.hidden
    previous, seen, lengths = None, 0, set[int]()
    next_ = replay._next
    found: list[Any] = []
    replay._next = lambda: found.append(next_()) or found[-1]
    for batch in replay.batches(40, torch.Generator()):
        windows, _ = found[-1]
        lengths.add(len(batch.weight))
        if previous is not None:
            goes_on = (windows.episode == previous[0]) & (windows.step == previous[1]) & (windows.step > 0)
            assert ((windows.step == 0) | goes_on).all()
            seen += goes_on.sum()
            expected = expected * torch.from_numpy(goes_on)[:, None]
        torch.testing.assert_close(replay.hidden, expected)
        with torch.no_grad():
            expected = student(batch.obs, expected)[1]
        replay.loss(batch, "kl").backward()  # from this window's start on
        assert not replay.hidden.requires_grad
        previous = (windows.episode, windows.step + windows.valid_length)
    assert seen > 10 and lengths == {2, 3, 4}


def test_a_walk_goes_on_while_the_dataset_grows_and_ends_where_its_steps_are_forgotten(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state", kind="gru")
    replay = Replay(student, 2, 8, torch.Generator().manual_seed(0))
    assert replay.choose(pairs, None) == STEPS
    for batch in replay.batches(3, torch.Generator()):
        replay.loss(batch, "kl")
    stood = replay.state_dict()["columns"][:2].tolist()
    assert replay.choose(pairs, np.array([1])) == pairs.episodes()["length"][1]
    windows, _ = replay._next()
    assert set(windows.episode.tolist()) == {1}
    for b, (episode, step) in enumerate(zip(*stood, strict=True)):
        assert windows.step[b] == (step if episode == 1 else 0)
        assert bool(replay.hidden[b].any()) == (episode == 1)


def test_a_history_counts_only_where_it_is_whole(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state", kind="history", history=4)
    replay = Replay(student, 4, 64, torch.Generator().manual_seed(0))
    replay.choose(pairs, None)
    windows, blind = replay._next()  # the first ones begin anywhere
    np.testing.assert_array_equal(blind, np.where(windows.step == 0, 0, 3))
    assert (blind > 0).any()


def test_the_state_brings_back_the_same_walks(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state", kind="rnn")
    a, b = (Replay(student, 4, 5, torch.Generator().manual_seed(0)) for _ in range(2))
    a.choose(pairs, None)
    for batch in a.batches(7, torch.Generator()):
        a.loss(batch, "kl")
    b._generator.set_state(a._generator.get_state())
    b.load_state_dict(a.state_dict())
    b.choose(pairs, None)
    for x, y in zip(a.batches(5, torch.Generator()), b.batches(5, torch.Generator()), strict=True):
        assert torch.equal(x.obs["vector"], y.obs["vector"]) and torch.equal(x.weight, y.weight)
        assert torch.equal(a.loss(x, "kl"), b.loss(y, "kl"))


def test_without_memory_single_steps_are_drawn(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state")
    replay = Replay(student, 16, 8, torch.Generator().manual_seed(0))
    assert replay.choose(pairs, None) == STEPS
    (batch,) = replay.batches(1, torch.Generator())
    assert batch.weight.shape == (1, 8) and bool(batch.weight.all())
    assert not list(replay.batches(0, torch.Generator()))

"""Windows: numbered, drawn, and which steps they show."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import numpy as np
import torch
from pairs_data import write

from tscli.pairs import Pairs


def test_sampling_anywhere_shows_every_step_equally_often(tmp_path):
    write(tmp_path, num_envs=3, steps=60)
    pairs = Pairs(tmp_path)
    index = pairs.windows(5)
    windows = index[:]
    seen: dict[tuple[int, int], int] = {}
    for shard, row in zip(windows.shard.repeat(5), windows.rows.ravel(), strict=True):
        seen.setdefault((int(shard), int(row)), 0)
    for shard, row, count in zip(windows.shard, windows.row, windows.valid_length, strict=True):
        for i in range(count):
            seen[int(shard), int(row) + i] += 1
    assert len(seen) == 180
    assert set(seen.values()) == {5}


def test_full_windows_lie_wholly_in_their_segment_wherever_it_is_long_enough(tmp_path):
    write(tmp_path, num_envs=3, steps=60)
    pairs = Pairs(tmp_path)
    segments = pairs.segments()
    assert len(pairs.windows(4, "full")) == np.maximum(segments["length"] - 3, 1).sum()
    windows = pairs.windows(4, "full")[:]
    assert set(windows.valid_length[windows.valid_length < 4]) <= set(segments["length"])


def test_tiles_cover_every_step_once_and_episode_windows_begin_with_the_episode(tmp_path):
    write(tmp_path, num_envs=3, steps=60)
    pairs = Pairs(tmp_path)
    tiles = pairs.windows(4, "tile")[:]
    rows = [(s, r + i) for s, r, n in zip(tiles.shard, tiles.row, tiles.valid_length, strict=True) for i in range(n)]
    assert len(rows) == len(set(rows)) == 180
    starts = pairs.windows(4, "episode")[:]
    assert len(starts) == pairs.num_episodes
    assert (starts.step == 0).all()


def test_memory_keeps_the_most_recent_steps_alone(tmp_path):
    write(tmp_path, num_envs=3, steps=60, shard_bytes=1 << 24)
    pairs = Pairs(tmp_path)
    windows = pairs.windows(1, memory=40)[:]
    assert len(windows) == 39  # 13 steps of 3 envs
    start = pairs.episodes()["start"][windows.episode]
    assert sorted(start + windows.step) == sorted(list(range(47, 60)) * 3)


def test_the_same_generator_draws_the_same_windows(tmp_path):
    write(tmp_path)
    pairs = Pairs(tmp_path)
    for make in (np.random.default_rng, lambda s: torch.Generator().manual_seed(s)):
        a, b, c = (pairs.sample_windows(make(s), 50, 3) for s in (1, 1, 2))
        np.testing.assert_array_equal(a.row, b.row)
        assert not np.array_equal(a.row, c.row)


def test_batches_drawn_at_once_are_those_drawn_one_by_one(tmp_path):
    write(tmp_path)
    index = Pairs(tmp_path).windows(3)
    for make in (np.random.default_rng, lambda s: torch.Generator().manual_seed(s)):
        one_by_one, at_once = make(1), make(1)
        expected = [index.sample(one_by_one, 7) for _ in range(5)]
        for found, single in zip(index.sample_batches(at_once, 7, 5), expected, strict=True):
            for name in ("shard", "row", "valid_length", "episode", "step", "cut", "previous_action"):
                np.testing.assert_array_equal(getattr(found, name), getattr(single, name))

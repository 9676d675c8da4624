"""Rows of windows: against plain lists, across shard borders, delayed."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import numpy as np
from pairs_data import ARM, SCHEMA, expected_episodes, write

from tscli.pairs import Pairs


def test_windows_stay_in_their_segment_and_carry_the_previous_action(tmp_path):
    write(tmp_path, num_envs=3, steps=60, shard_bytes=70_000)
    expected = expected_episodes(SCHEMA, 3, 60)
    pairs = Pairs(tmp_path)
    assert len(set(pairs.segments()["shard"])) > 2
    info = pairs.episodes()
    windows = pairs.sample_windows(np.random.default_rng(0), 300, 6)
    batch = pairs.gather(windows, ["obs/state", "obs/camera", "action", "previous_action"])
    assert batch["obs/camera"].shape == (6, 300, 20, 20, 3)
    assert all(value.flags.c_contiguous for value in batch.values())
    for b in range(300):
        episode = info[windows.episode[b]]
        rows = expected[int(episode["env"]), int(episode["index"])]["rows"]
        count = int(batch["valid"][:, b].sum())
        assert 1 <= count == windows.valid_length[b]
        for t in range(6):
            step = int(windows.step[b]) + min(t, count - 1)
            np.testing.assert_array_equal(batch["obs/state"][t, b], rows[step]["obs/state"])
            np.testing.assert_array_equal(batch["obs/camera"][t, b], rows[step]["obs/camera"])
            assert batch["action"][t, b] == rows[step]["action"]
            assert batch["previous_action"][t, b] == (rows[step - 1]["action"] if step else 0)
            assert batch["first"][t, b] == (t == 0 and windows.step[b] == 0)
    assert batch["first"].any() and not batch["valid"].all()
    assert (windows.cut & (windows.step > 0)).any(), "no window began at a shard border"


def test_previous_actions_of_a_vector_are_rebuilt_across_borders(tmp_path):
    write(tmp_path, ARM, num_envs=3, steps=60, shard_bytes=1_000)
    expected = expected_episodes(ARM, 3, 60)
    for episode in Pairs(tmp_path).iter_episodes(["previous_action"]):
        rows = expected[episode.info["env"], episode.info["index"]]["rows"]
        want = [np.zeros(2), *[row["action"] for row in rows[:-1]]]
        np.testing.assert_array_equal(episode.rows["previous_action"], np.stack(want))


def test_a_delayed_group_reaches_back_over_shard_borders_to_the_episodes_start(tmp_path):
    write(tmp_path, num_envs=3, steps=60, shard_bytes=12_000)
    expected = expected_episodes(SCHEMA, 3, 60)
    pairs = Pairs(tmp_path)
    info = pairs.episodes()
    windows = pairs.sample_windows(np.random.default_rng(0), 200, 4)
    batch = pairs.gather(windows, ["obs/state", "obs/flag"], delay={"state": 3})
    for b, t in np.ndindex(200, 4):
        episode = info[windows.episode[b]]
        rows = expected[int(episode["env"]), int(episode["index"])]["rows"]
        step = int(windows.step[b]) + min(t, int(windows.valid_length[b]) - 1)
        np.testing.assert_array_equal(batch["obs/state"][t, b], rows[max(step - 3, 0)]["obs/state"])
        assert batch["obs/flag"][t, b] == rows[step]["obs/flag"]


def test_gathering_given_windows_in_any_order_gives_that_order(tmp_path):
    write(tmp_path)
    pairs = Pairs(tmp_path)
    index = pairs.windows(3)
    numbers = np.random.default_rng(0).permutation(len(index))
    mixed, plain = pairs.gather(index[numbers], ["obs/state"]), pairs.gather(index[:], ["obs/state"])
    np.testing.assert_array_equal(mixed["obs/state"], plain["obs/state"][:, numbers])

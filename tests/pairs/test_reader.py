"""Reading pairs back: against plain lists, from several folders, while the writer still writes."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pairs_data import ARM, SCHEMA, expected_episodes, make_step, write

from tscli.config import UserError
from tscli.envs.spaces import Group
from tscli.pairs import Pairs
from tscli.pairs.reader import as_tensors
from tscli.pairs.writer import PairsWriter


@pytest.mark.parametrize("schema", [SCHEMA, ARM], ids=["discrete", "continuous"])
@pytest.mark.parametrize("shard_bytes", [9_000, 70_000, 1 << 24])
def test_every_episode_is_read_back_as_it_was_written(tmp_path, schema, shard_bytes):
    write(tmp_path, schema, num_envs=3, steps=60, shard_bytes=shard_bytes)
    expected = expected_episodes(schema, 3, 60)
    pairs = Pairs(tmp_path)
    assert pairs.num_steps == 180
    assert repr(pairs).startswith(f"<Pairs of {schema.task}, {len(expected)} episodes, 180 steps; ")
    assert f"state {list(schema.groups['state'].shape)}" in repr(pairs)
    found = {(e.info["env"], e.info["index"]): e for e in pairs.iter_episodes()}
    assert found.keys() == expected.keys()
    for key, want in expected.items():
        info, rows = found[key].info, found[key].rows
        for name in ("start", "length", "terminated", "truncated", "finished", "success"):
            assert info[name] == want[name], (key, name)
        assert info["return"] == pytest.approx(want["return"])
        assert info["seed"] == schema.seed
        for name in pairs.fields:
            np.testing.assert_array_equal(rows[name], np.stack([row[name] for row in want["rows"]]), err_msg=name)


def test_several_folders_are_read_as_one(tmp_path):
    write(tmp_path / "a", steps=40, seed=1)
    write(tmp_path / "b", steps=60, seed=2)
    a, b, both = Pairs(tmp_path / "a"), Pairs(tmp_path / "b"), Pairs([tmp_path / "a", tmp_path / "b"])
    assert both.num_steps == a.num_steps + b.num_steps
    assert both.num_episodes == a.num_episodes + b.num_episodes
    want = [e.rows["reward"] for one in (a, b) for e in one.iter_episodes(["reward"])]
    for got, expected in zip(both.iter_episodes(["reward"]), want, strict=True):
        np.testing.assert_array_equal(got.rows["reward"], expected)
    assert set(both.windows(1, memory=b.num_steps)[:].episode) == set(range(a.num_episodes, both.num_episodes))


def test_folders_of_different_tasks_are_not_read_as_one(tmp_path):
    write(tmp_path / "a", steps=5)
    write(tmp_path / "b", ARM, steps=5)
    write(tmp_path / "c", replace(SCHEMA, groups={**SCHEMA.groups, "state": Group((3,), units=("mm",))}), steps=5)
    with pytest.raises(UserError, match="action spaces differ"):
        Pairs([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(UserError, match='group "state" differs'):
        Pairs([tmp_path / "a", tmp_path / "c"])


def test_a_live_writers_rows_are_read_as_they_come(tmp_path):
    write(tmp_path / "old", steps=20)
    writer = PairsWriter(tmp_path / "new", SCHEMA, 3, shard_bytes=70_000)
    pairs = Pairs(tmp_path / "old", live=writer)
    assert pairs.num_steps == 60
    old_episodes = pairs.num_episodes
    rng = np.random.default_rng(0)
    for t in range(45):
        writer.append(**make_step(SCHEMA, 3, t))
        pairs.sample_windows(rng, 2, 3)
        assert pairs.num_steps == 60 + 3 * (t + 1)
    assert writer.num_shards >= 2
    expected = expected_episodes(SCHEMA, 3, 45)
    for episode in list(pairs.iter_episodes(["obs/state", "previous_action"]))[old_episodes:]:
        rows = expected[episode.info["env"], episode.info["index"]]["rows"]
        np.testing.assert_array_equal(episode.rows["obs/state"], np.stack([row["obs/state"] for row in rows]))
    live = [e.rows["obs/state"] for e in pairs.iter_episodes(["obs/state"])]
    writer.close()
    pairs.refresh()
    finished = [e.rows["obs/state"] for e in Pairs([tmp_path / "old", tmp_path / "new"]).iter_episodes(["obs/state"])]
    assert all(np.array_equal(a, b) for a, b in zip(live, finished, strict=True))
    assert all(np.array_equal(a.rows["obs/state"], b) for a, b in zip(pairs.iter_episodes(), finished, strict=True))


def test_windows_drawn_before_a_shard_was_finished_are_refused(tmp_path):
    writer = PairsWriter(tmp_path, SCHEMA, 3, shard_bytes=70_000)
    pairs = Pairs(live=writer)
    writer.append(**make_step(SCHEMA, 3, 0))
    windows = pairs.sample_windows(np.random.default_rng(0), 4, 2)
    writer.append(**make_step(SCHEMA, 3, 1))
    pairs.gather(windows, ["reward"])
    writer.close()
    pairs.refresh()
    with pytest.raises(ValueError, match="draw them again"):
        pairs.gather(windows, ["reward"])


def test_the_split_by_episode_is_stable_and_leaves_neither_side_empty(tmp_path):
    write(tmp_path / "short", num_envs=3, steps=30)
    write(tmp_path / "long", num_envs=3, steps=300)
    short, long = Pairs(tmp_path / "short"), Pairs(tmp_path / "long")
    train, held_out = long.split_episodes(0.3, seed=5)
    assert sorted([*train, *held_out]) == list(range(long.num_episodes))
    assert 0.15 < len(held_out) / long.num_episodes < 0.45
    np.testing.assert_array_equal(held_out, long.split_episodes(0.3, seed=5)[1])
    assert set(held_out) != set(long.split_episodes(0.3, seed=6)[1])
    short_held_out = short.split_episodes(0.3, seed=5)[1]
    np.testing.assert_array_equal(short_held_out, held_out[held_out < short.num_episodes])
    few_train, few_held_out = short.split_episodes(0.001)
    assert len(few_held_out) == 1 and len(few_train) == short.num_episodes - 1
    assert set(long.sample_windows(np.random.default_rng(0), 200, 3, episodes=held_out).episode) <= set(held_out)


@pytest.mark.parametrize("seed", range(20))
def test_an_episode_changes_sides_only_where_one_would_be_empty(tmp_path, seed):
    schema = replace(SCHEMA, has_success=False)
    writer = PairsWriter(tmp_path, schema, 1)
    pairs, sides = Pairs(live=writer), {}
    ends: dict[str, Any] = {"terminated": np.array([True]), "truncated": np.array([False]), "success": None}
    for count in range(12):
        writer.append(**make_step(schema, 1, count) | ends)
        pairs.refresh()
        train, held_out = pairs.split_episodes(0.4, seed)
        assert len(train) + len(held_out) == count + 1
        assert len(train) and (len(held_out) or count == 0)
        moved = [number for number in held_out if sides.get(number) == "train"]
        moved += [number for number in train if sides.get(number) == "held out"]
        assert not moved or min(len(train), len(held_out)) == 1
        sides = dict.fromkeys(train.tolist(), "train") | dict.fromkeys(held_out.tolist(), "held out")


def test_batches_become_tensors_over_the_same_memory(tmp_path):
    write(tmp_path)
    pairs = Pairs(tmp_path)
    batch = pairs.gather(pairs.sample_windows(np.random.default_rng(0), 4, 3), [*pairs.fields, "previous_action"])
    tensors = as_tensors(batch)
    batch["reward"][0, 0] = 99.0
    assert tensors["reward"][0, 0] == 99.0
    assert tensors["terminated"].dtype == torch.bool and tensors["obs/camera"].dtype == torch.uint8


def test_a_misspelt_field_is_named(tmp_path):
    write(tmp_path, steps=5)
    pairs = Pairs(tmp_path)
    with pytest.raises(UserError, match='did you mean "obs/state"'):
        pairs.gather(pairs.windows(1)[[0]], ["obs/stat"])

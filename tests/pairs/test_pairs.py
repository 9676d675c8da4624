"""Writing pairs and reading them back: against plain lists, across shard borders, while the writer still writes."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pairs_data import ARM, SCHEMA, digest, expected_episodes, flat, make_step, read_plain, write

from tscli.config import UserError
from tscli.envs.spaces import ActionSpec, Group
from tscli.pairs import Pairs, PairsSchema, pairs_folder
from tscli.pairs.format import read_sealed
from tscli.pairs.reader import as_tensors
from tscli.pairs.writer import PairsWriter


@pytest.mark.parametrize("schema", [SCHEMA, ARM], ids=["discrete", "continuous"])
@pytest.mark.parametrize("shard_bytes", [9_000, 70_000, 1 << 24])
def test_every_episode_is_read_back_as_it_was_written(tmp_path, schema, shard_bytes):
    write(tmp_path, schema, num_envs=3, steps=60, shard_bytes=shard_bytes)
    expected = expected_episodes(schema, 3, 60)
    pairs = Pairs(tmp_path)
    assert pairs.num_steps == 180
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


def test_that_there_is_success_is_noted_with_the_first_that_is_told(tmp_path):
    schema = replace(SCHEMA, has_success=False)
    writer = PairsWriter(tmp_path / "a", schema, 2)
    for t in range(3):
        step = make_step(schema, 2, t)
        step["success"] = np.array([t == 1, False]) if t else None
        writer.append(**step)
        assert read_sealed(tmp_path / "a" / "pairs.json")["has_success"] == (t > 0)
    PairsWriter.resume(tmp_path / "a", writer.state_dict()).close()
    assert Pairs(tmp_path / "a").schema.has_success


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


def test_rows_that_are_not_kept_are_left_out_of_the_files(tmp_path):
    writer = PairsWriter(tmp_path, SCHEMA, 2, shard_bytes=70_000)
    kept_rows = []
    done = np.array([False, False])
    for t in range(40):
        step = make_step(SCHEMA, 2, t)
        keep = np.array([True, not done[1]])
        writer.append(**step, keep=keep)
        kept_rows += [(env, t) for env in range(2) if keep[env]]
        done |= step["terminated"] | step["truncated"]
    writer.close()
    pairs = Pairs(tmp_path)
    assert pairs.num_steps == writer.num_steps == len(kept_rows) < 80
    want = np.stack([flat(make_step(SCHEMA, 2, t))["obs/state"][env] for env, t in kept_rows])
    got = np.concatenate([episode.rows["obs/state"] for episode in pairs.iter_episodes(["obs/state"])])
    assert sorted(map(tuple, got)) == sorted(map(tuple, want))
    assert len(read_plain(tmp_path)[0]["reward"]) == len(kept_rows)


def test_an_env_that_leaves_in_mid_episode_comes_back_with_an_episode_only(tmp_path):
    writer = PairsWriter(tmp_path, ARM, 1)
    going_on = {**make_step(ARM, 1, 0), "terminated": np.array([False]), "truncated": np.array([False])}
    ending = {**going_on, "terminated": np.array([True])}
    writer.append(**going_on)
    writer.append(**going_on, keep=np.array([False]))
    with pytest.raises(ValueError, match="middle of an episode"):
        writer.append(**going_on)
    writer.append(**ending, keep=np.array([False]))
    writer.append(**ending)
    writer.close()
    episodes = Pairs(tmp_path).episodes()
    assert episodes["length"].tolist() == [1, 1]
    assert episodes["finished"].tolist() == [False, True]
    assert episodes["index"].tolist() == [0, 1]


def test_restarted_envs_begin_new_episodes(tmp_path):
    writer = PairsWriter(tmp_path, ARM, 2)
    for t in range(4):
        step = make_step(ARM, 2, t)
        writer.append(**{**step, "terminated": np.zeros(2, bool), "truncated": np.zeros(2, bool)})
        if t == 1:
            writer.restart()
    writer.close()
    pairs = Pairs(tmp_path)
    assert pairs.episodes()["length"].tolist() == [2, 2, 2, 2]
    previous = [episode.rows["previous_action"][0] for episode in pairs.iter_episodes(["previous_action"])]
    assert not np.any(previous)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.zeros((3, 1), np.float32)}, "reward has shape"),
        ({"action": np.zeros(3, np.float32)}, "action is float32"),
        ({"teacher_dist": {"mean": np.zeros((3, 4))}}, "expected"),
        ({"obs": {"state": np.zeros((3, 3))}}, "expected"),
    ],
)
def test_a_field_that_does_not_fit_is_refused(tmp_path, change, message):
    writer = PairsWriter(tmp_path, SCHEMA, 3)
    with pytest.raises(ValueError, match=message):
        writer.append(**{**make_step(SCHEMA, 3, 0), **change})


def test_tensors_are_written_like_arrays(tmp_path):
    def to_tensors(value):
        return {k: to_tensors(v) for k, v in value.items()} if isinstance(value, dict) else torch.from_numpy(value)

    write(tmp_path / "arrays", steps=20)
    writer = PairsWriter(tmp_path / "tensors", SCHEMA, 3, shard_bytes=70_000)
    for t in range(20):
        writer.append(**to_tensors(make_step(SCHEMA, 3, t)))
    writer.close()
    assert digest(tmp_path / "arrays") == digest(tmp_path / "tensors")


def test_batches_become_tensors_over_the_same_memory(tmp_path):
    write(tmp_path)
    pairs = Pairs(tmp_path)
    batch = pairs.gather(pairs.sample_windows(np.random.default_rng(0), 4, 3), [*pairs.fields, "previous_action"])
    tensors = as_tensors(batch)
    batch["reward"][0, 0] = 99.0
    assert tensors["reward"][0, 0] == 99.0
    assert tensors["terminated"].dtype == torch.bool and tensors["obs/camera"].dtype == torch.uint8


def test_plain_h5py_sees_the_same_rows_wherever_the_folder_is_moved(tmp_path, monkeypatch):
    write(tmp_path / "here", num_envs=3, steps=60)
    shutil.move(tmp_path / "here", tmp_path / "there")
    monkeypatch.chdir("/")
    pairs = Pairs(tmp_path / "there" / "dataset.h5")
    arrays, attrs = read_plain(tmp_path / "there")
    assert set(json.loads(attrs["groups"])) == set(SCHEMA.groups)
    assert ActionSpec.from_json(json.loads(attrs["action"])) == SCHEMA.action
    assert attrs["schema"] == 1 and attrs["task"] == "toy"
    assert set(arrays) == {*pairs.fields, "segments", "episodes"}
    np.testing.assert_array_equal(arrays["episodes"], pairs.episodes())
    segments = arrays["segments"]
    assert segments["length"].sum() == len(arrays["reward"]) == 180
    order = np.lexsort((segments["first_step"], segments["episode"]))
    rows = np.concatenate([np.arange(s["row"], s["row"] + s["length"]) for s in segments[order]])
    for name in pairs.fields:
        want = np.concatenate([episode.rows[name] for episode in pairs.iter_episodes([name])])
        np.testing.assert_array_equal(arrays[name][rows], want, err_msg=name)


def test_a_small_dataset_leaves_small_files(tmp_path):
    write(tmp_path, steps=5, shard_bytes=1 << 26)
    assert sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()) < 100_000


def test_two_writings_of_the_same_steps_are_equal_byte_for_byte(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


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


def test_gathering_given_windows_in_any_order_gives_that_order(tmp_path):
    write(tmp_path)
    pairs = Pairs(tmp_path)
    index = pairs.windows(3)
    numbers = np.random.default_rng(0).permutation(len(index))
    mixed, plain = pairs.gather(index[numbers], ["obs/state"]), pairs.gather(index[:], ["obs/state"])
    np.testing.assert_array_equal(mixed["obs/state"], plain["obs/state"][:, numbers])


def test_a_misspelt_field_is_named(tmp_path):
    write(tmp_path, steps=5)
    pairs = Pairs(tmp_path)
    with pytest.raises(UserError, match='did you mean "obs/state"'):
        pairs.gather(pairs.windows(1)[[0]], ["obs/stat"])


def test_labels_that_are_actions_alone_have_no_distribution_to_store():
    schema = replace(SCHEMA, extra={"distribution": "none"})
    assert schema.teacher_fields == () and "teacher_logits" not in schema.row_fields()
    assert PairsSchema.from_json(schema.to_json()) == schema
    assert "made differently" in schema.difference(SCHEMA)


def test_the_schema_survives_the_file(tmp_path):
    write(tmp_path, steps=5)
    assert Pairs(tmp_path).schema == SCHEMA
    assert PairsSchema.from_json(json.loads(json.dumps(ARM.to_json()))) == ARM


def test_pairs_are_found_by_run_folder_and_by_file(tmp_path):
    write(tmp_path / "run" / "pairs", steps=5)
    folder = tmp_path / "run" / "pairs"
    assert pairs_folder(tmp_path / "run") == pairs_folder(folder) == pairs_folder(folder / "dataset.h5") == folder
    with pytest.raises(UserError, match="does not exist"):
        pairs_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no pairs"):
        pairs_folder(tmp_path)


def test_a_folder_that_holds_pairs_is_not_written_over(tmp_path):
    write(tmp_path, steps=5)
    with pytest.raises(UserError, match="holds pairs already"):
        PairsWriter(tmp_path, SCHEMA, 3)


def test_a_step_that_fits_into_no_shard_is_refused_at_the_start(tmp_path):
    with pytest.raises(UserError, match="use larger shards"):
        PairsWriter(tmp_path, SCHEMA, 3, shard_bytes=1000)

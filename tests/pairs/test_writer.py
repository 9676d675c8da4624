"""Writing pairs: what is kept, what begins an episode, and what is refused."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pairs_data import ARM, SCHEMA, digest, flat, make_step, read_plain, write

from tscli.config import UserError
from tscli.pairs import Pairs
from tscli.pairs.sealed import read_sealed
from tscli.pairs.writer import PairsWriter


def test_two_writings_of_the_same_steps_are_equal_byte_for_byte(tmp_path):
    write(tmp_path / "a")
    write(tmp_path / "b")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_tensors_are_written_like_arrays(tmp_path):
    def to_tensors(value):
        return {k: to_tensors(v) for k, v in value.items()} if isinstance(value, dict) else torch.from_numpy(value)

    write(tmp_path / "arrays", steps=20)
    writer = PairsWriter(tmp_path / "tensors", SCHEMA, 3, shard_bytes=70_000)
    for t in range(20):
        writer.append(**to_tensors(make_step(SCHEMA, 3, t)))
    writer.close()
    assert digest(tmp_path / "arrays") == digest(tmp_path / "tensors")


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


def test_a_folder_that_holds_pairs_is_not_written_over(tmp_path):
    write(tmp_path, steps=5)
    with pytest.raises(UserError, match="holds pairs already"):
        PairsWriter(tmp_path, SCHEMA, 3)


def test_a_step_that_fits_into_no_shard_is_refused_at_the_start(tmp_path):
    with pytest.raises(UserError, match="use larger shards"):
        PairsWriter(tmp_path, SCHEMA, 3, shard_bytes=1000)

"""The files as plain h5py and the file system see them."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import shutil

import numpy as np
from pairs_data import SCHEMA, read_plain, write

from tscli.envs.spaces import ActionSpec
from tscli.pairs import Pairs


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

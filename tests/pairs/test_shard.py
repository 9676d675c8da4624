"""What damaged, missing, cut and foreign files do: nothing of them is read."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from pairs_data import ARM, write

from tscli.config import UserError
from tscli.pairs import Pairs
from tscli.pairs.sealed import PairsError, read_sealed


def flip(path: Path, byte: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


def assert_one_line_with_a_fix(error: UserError, path: Path) -> None:
    message = str(error)
    assert "\n" not in message
    assert str(path) in message
    assert "tscli verify" in message and "collect again" in message


def test_a_truncated_shard_is_refused(dataset):
    shard = dataset / "shards" / "00001.h5"
    os.truncate(shard, shard.stat().st_size - 1)
    for verify in ("full", "size"):
        with pytest.raises(PairsError, match="bytes instead of") as caught:
            Pairs(dataset, verify=verify)
        assert_one_line_with_a_fix(caught.value, shard)


@pytest.mark.parametrize("region", ["metadata", "anywhere"])
def test_single_flipped_bits_in_a_shard_are_noticed(dataset, region):
    shard = dataset / "shards" / "00002.h5"
    whole = shard.read_bytes()
    first_data = min(f["offset"] for f in read_sealed(shard.with_suffix(".json"))["fields"].values())
    rng = np.random.default_rng(0)
    for _ in range(30):
        flip(shard, int(rng.integers(first_data if region == "metadata" else len(whole))), int(rng.integers(8)))
        with pytest.raises(PairsError, match="does not match its sha256") as caught:
            Pairs(dataset)
        assert_one_line_with_a_fix(caught.value, shard)
        shard.write_bytes(whole)
    Pairs(dataset)


@pytest.mark.parametrize("name", ["shards/00001.json", "pairs.json"])
def test_single_flipped_bits_in_the_text_files_are_noticed(dataset, name):
    path = dataset / name
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(40):
        flip(path, int(rng.integers(len(whole))), int(rng.integers(8)))
        with pytest.raises(PairsError, match="damaged") as caught:
            Pairs(dataset, verify="size")
        assert_one_line_with_a_fix(caught.value, path)
        path.write_bytes(whole)
    Pairs(dataset)


def test_a_missing_shard_is_refused(dataset):
    shard = dataset / "shards" / "00001.h5"
    shard.unlink()
    with pytest.raises(PairsError, match="missing") as caught:
        Pairs(dataset, verify="size")
    assert_one_line_with_a_fix(caught.value, shard)


def test_a_foreign_hdf5_file_in_a_shards_place_is_refused(dataset):
    shard = dataset / "shards" / "00000.h5"
    with h5py.File(shard, "w") as file:
        file["obs/state"] = np.zeros((54, 3), np.float32)
    with pytest.raises(PairsError):
        Pairs(dataset)
    # Of the same size, too.
    size = (dataset / "shards" / "00001.h5").stat().st_size
    shutil.copyfile(dataset / "shards" / "00001.h5", shard)
    assert shard.stat().st_size == size
    with pytest.raises(PairsError, match="sha256"):
        Pairs(dataset)


def test_a_shard_of_another_dataset_is_refused_although_it_is_whole(dataset, tmp_path):
    write(tmp_path / "arm", ARM, steps=20)
    for suffix in (".h5", ".json"):
        shutil.copyfile(tmp_path / "arm" / "shards" / f"00000{suffix}", dataset / "shards" / f"00002{suffix}")
    with pytest.raises(PairsError, match="belongs to another dataset"):
        Pairs(dataset)

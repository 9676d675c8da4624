"""Pairs folders: found, opened, and refused where a part is missing or does not belong."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import shutil

import pytest
from pairs_data import SCHEMA, make_step, write

from tscli.cli.app import main
from tscli.config import UserError
from tscli.pairs import Pairs, pairs_folder
from tscli.pairs.sealed import PairsError, read_sealed, write_sealed
from tscli.pairs.writer import PairsWriter


def test_pairs_are_found_by_run_folder_and_by_file(tmp_path):
    write(tmp_path / "run" / "pairs", steps=5)
    folder = tmp_path / "run" / "pairs"
    assert pairs_folder(tmp_path / "run") == pairs_folder(folder) == pairs_folder(folder / "dataset.h5") == folder
    with pytest.raises(UserError, match="does not exist"):
        pairs_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no pairs"):
        pairs_folder(tmp_path)


def test_an_empty_folder_says_what_to_name_instead(tmp_path):
    with pytest.raises(UserError, match="holds no pairs; name a run made by `tscli collect`"):
        Pairs(tmp_path)


def test_a_folder_without_its_header_is_refused(dataset):
    (dataset / "pairs.json").unlink()
    with pytest.raises(PairsError, match=r"pairs.json: missing"):
        Pairs(dataset)


def test_a_run_killed_before_its_first_shard_says_so(tmp_path, capsys):
    writer = PairsWriter(tmp_path, SCHEMA, 3)
    writer.append(**make_step(SCHEMA, 3, 0))
    with pytest.raises(UserError, match="holds no finished shard; collect again, or --resume"):
        Pairs(tmp_path)
    assert main(["verify", str(tmp_path)]) == 2
    assert "holds no finished shard; collect again, or --resume" in capsys.readouterr().err


@pytest.mark.parametrize("index", [0, 1, 3])
def test_a_shard_that_is_gone_with_its_sidecar_is_missed(dataset, index):
    for suffix in (".h5", ".json"):
        (dataset / "shards" / f"{index:05d}{suffix}").unlink()
    with pytest.raises(PairsError, match=f"{index:05d}.json: missing"):
        Pairs(dataset)


def test_a_surplus_shard_is_refused(dataset):
    for suffix in (".h5", ".json"):
        shutil.copyfile(dataset / "shards" / f"00003{suffix}", dataset / "shards" / f"00004{suffix}")
    with pytest.raises(PairsError, match=r"00004.json: does not belong"):
        Pairs(dataset)


@pytest.mark.parametrize("number", [2**63, 10**30])
def test_a_header_that_tells_of_more_shards_than_can_be_takes_no_memory(dataset, number):
    header = read_sealed(dataset / "pairs.json")
    write_sealed(dataset / "pairs.json", header | {"num_shards": number})
    with pytest.raises(PairsError, match=r"00004\.json: missing"):
        Pairs(dataset)


@pytest.mark.parametrize("offset", [2**62, -64])
def test_a_sidecar_that_places_rows_outside_of_its_file_is_refused(dataset, offset):
    path = dataset / "shards" / "00001.json"
    sidecar = read_sealed(path)
    sidecar["fields"]["reward"]["offset"] = offset
    write_sealed(path, sidecar)
    with pytest.raises(PairsError, match=r"00001\.json: malformed \(fields\.reward\.offset"):
        Pairs(dataset)


@pytest.mark.parametrize(("name", "value"), [("episode", 2**31), ("first_step", -1), ("length", 2**31)])
def test_a_sidecar_whose_segments_cannot_be_is_refused(dataset, name, value):
    path = dataset / "shards" / "00001.json"
    sidecar = read_sealed(path)
    sidecar["segments"][name][0] = value
    write_sealed(path, sidecar)
    with pytest.raises(PairsError, match=r"00001\.json: malformed \(ValueError: a segment "):
        Pairs(dataset)

"""Features of recorded pictures: made once, kept beside the shards or in them, read in the pictures' place."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from pairs_data import SCHEMA, make_step, write
from torch import Tensor, nn

from tscli.cli.app import main
from tscli.config import parse_view
from tscli.envs.views import resolve_view
from tscli.pairs import Pairs, PairsError, PairsWriter
from tscli.pairs.features import CHUNK, field_of
from tscli.pairs.folder import open_folder
from tscli.pairs.loading import read_view
from tscli.pairs.sealed import read_sealed, write_sealed


class Counting(nn.Module):
    """Stands for an encoder whose features of a picture are its first pixel and their mean; counts the pictures."""

    def __init__(self, sha256: str = "ab" * 32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.sha256, self.features, self.seen = sha256, 4, 0
        self.frozen = {"camera": self}

    def features_of(self, obs: dict[str, Tensor]) -> dict[str, Tensor]:
        image = obs["camera"].float()
        assert len(image) <= CHUNK
        self.seen += len(image)
        return {"camera": torch.cat([image[..., 0, 0, :], image.mean((-1, -2, -3))[..., None]], -1).half()}


def shown(folders: Any, encoder: Any, **options: Any) -> Pairs:
    pairs = Pairs(folders, **options)
    pairs.show_features(encoder)
    return pairs


def assert_of_its_pictures(pairs: Pairs, encoder: Any) -> None:
    length = 3
    windows, field = pairs.windows(length)[:], pairs.features["camera"]
    found = pairs.gather(windows, [field, "obs/camera"])
    assert found[field].dtype == np.float16 and found[field].shape[:2] == (length, len(windows))
    images = torch.from_numpy(found["obs/camera"]).flatten(0, 1)
    for part, expected in zip(torch.from_numpy(found[field]).flatten(0, 1).split(200), images.split(200), strict=True):
        assert torch.equal(part, encoder.features_of({"camera": expected})["camera"])


def test_features_are_made_once_for_each_recorded_picture(tmp_path: Path) -> None:
    write(tmp_path)
    encoder, said = Counting(), []
    pairs = Pairs(tmp_path)
    pairs.show_features(encoder, said.append)  # type: ignore[arg-type]
    assert encoder.seen == pairs.num_steps and len(pairs.shards) > 1
    assert len(said) == len(pairs.shards) and "pictures" in said[0] and str(tmp_path / "features") in said[0]
    assert_of_its_pictures(pairs, Counting())
    again = Counting()
    assert_of_its_pictures(shown(tmp_path, again), Counting())
    assert again.seen == 0
    other = Counting("cd" * 32)
    shown(tmp_path, other)
    assert other.seen == pairs.num_steps
    assert len(list((tmp_path / "features").iterdir())) == 2


def spoil(path: Path, what: str) -> None:
    data = path.read_bytes()
    if what == "gone":
        path.unlink()
    elif what == "cut":
        path.write_bytes(data[:-1])
    elif what == "flipped":
        path.write_bytes(bytes([*data[:-1], data[-1] ^ 1]))
    else:
        sidecar = path.with_suffix(".json")
        write_sealed(sidecar, read_sealed(sidecar) | {what: "ef" * 32})


@pytest.mark.parametrize("what", ["gone", "cut", "flipped", "shard", "encoder"])
def test_what_is_damaged_or_of_something_else_is_made_again(tmp_path: Path, what: str) -> None:
    write(tmp_path)
    pairs = shown(tmp_path, Counting())
    path = next((tmp_path / "features").rglob("camera-00001.npy"))
    del pairs
    spoil(path, what)
    encoder = Counting()
    pairs = shown(tmp_path, encoder)
    assert encoder.seen == pairs.shards[1].rows
    assert_of_its_pictures(pairs, Counting())


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(np.lib.format, "open_memmap", refuse)
    with pytest.raises(Exception, match=r"camera-00000.npy: the disk is full \(0 MiB needed\)"):
        shown(tmp_path, Counting())


def append(writer: PairsWriter, t: int, encoder: Any) -> None:
    step = make_step(SCHEMA, 3, t)
    made = encoder.features_of({"camera": torch.from_numpy(step["obs"]["camera"])})["camera"]
    step["obs"][field_of("camera", encoder.sha256)] = made.numpy()
    writer.append(**step)


def begin(folder: Path, encoder: Any) -> PairsWriter:
    sizes = {field_of("camera", encoder.sha256): encoder.features}
    return PairsWriter(folder, SCHEMA, 3, shard_bytes=70_000, features=sizes)


def test_a_writer_that_has_features_keeps_them_in_its_shards(tmp_path: Path) -> None:
    write(tmp_path / "first")
    maker, encoder = Counting(), Counting()
    writer = begin(tmp_path / "live", maker)
    pairs = shown([tmp_path / "first"], encoder, live=writer)
    collected = encoder.seen
    for t in range(60):
        append(writer, t, maker)
        if t % 15 == 2:
            assert_of_its_pictures(pairs, Counting())
    writer.close()
    pairs.refresh()
    assert_of_its_pictures(pairs, Counting())
    assert encoder.seen == collected
    alone = Counting()
    assert_of_its_pictures(shown(tmp_path / "live", alone), Counting())
    assert alone.seen == 0 and not (tmp_path / "live" / "features").exists()
    assert SCHEMA.difference(Pairs([tmp_path / "first", tmp_path / "live"]).schema) == ""
    with h5py.File(tmp_path / "live" / "dataset.h5") as file:
        assert "obs/camera" in file and "features" not in file


def test_a_writer_goes_on_with_its_features(tmp_path: Path) -> None:
    folders = [tmp_path / "whole", tmp_path / "resumed"]
    encoder = Counting()
    for folder in folders:
        writer = begin(folder, encoder)
        for t in range(40):
            append(writer, t, encoder)
        if folder.name == "resumed":
            state = json.loads(json.dumps(writer.state_dict()))
            for t in range(40, 50):
                append(writer, t, encoder)
            writer = PairsWriter.resume(folder, state)
        for t in range(40, 60):
            append(writer, t, encoder)
        writer.close()
    hashes = [[read_sealed(path)["sha256"] for path in sorted(folder.rglob("shards/*.json"))] for folder in folders]
    assert hashes[0] == hashes[1] and len(hashes[0]) > 1


def test_a_merged_dataset_has_the_features_of_its_sources_but_for_damaged_ones(tmp_path: Path) -> None:
    encoder = Counting()
    for seed, name in enumerate("ab"):
        write(tmp_path / name, seed=seed)
        shown(tmp_path / name, encoder)
    spoil(tmp_path / "b" / "features" / encoder.sha256[:12] / "camera-00000.npy", "cut")
    assert main(["merge", str(tmp_path / "a"), str(tmp_path / "b"), "--runs-dir", str(tmp_path / "runs")]) == 0
    (merged,) = tmp_path.glob("runs/*/pairs")
    assert main(["verify", str(merged)]) == 0
    again = Counting()
    assert_of_its_pictures(shown(merged, again), Counting())
    assert again.seen == Pairs(tmp_path / "b").shards[0].rows


@pytest.mark.parametrize("change", [{"dtype": "float32"}, {"shape": [7, 4]}, {"shape": [2]}])
def test_features_that_are_none_of_the_shards_rows_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    writer, encoder = begin(tmp_path, Counting()), Counting()
    for t in range(10):
        append(writer, t, encoder)
    writer.close()
    sidecar = tmp_path / "shards" / "00000.json"
    about = read_sealed(sidecar)
    about["fields"][field_of("camera", encoder.sha256)] |= change
    write_sealed(sidecar, about)
    with pytest.raises(PairsError, match="malformed"):
        open_folder(tmp_path, "size")


def test_a_view_reads_features_in_the_place_of_the_pictures(tmp_path: Path) -> None:
    write(tmp_path)
    pairs = shown(tmp_path, Counting())
    view = resolve_view("mine", parse_view("state[1] + camera + previous_action"), SCHEMA.groups, SCHEMA.action)
    windows = pairs.windows(4)[[1, 30, 50]]
    obs, _ = read_view(pairs, windows, view, [])
    expected = pairs.gather(windows, [pairs.features["camera"], "obs/state"])
    np.testing.assert_array_equal(obs["camera"].numpy(), expected[pairs.features["camera"]])
    np.testing.assert_array_equal(obs["vector"][..., 0].numpy(), expected["obs/state"][..., 1])

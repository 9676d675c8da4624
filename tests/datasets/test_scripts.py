"""`tscli describe`, `verify` and `merge`: what they print, what they find wrong, what they leave alone."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from pairs_data import ARM, SCHEMA, digest, expected_episodes, make_step, read_plain, write

from tscli.cli.app import main
from tscli.files import file_hash
from tscli.pairs import Pairs, features
from tscli.pairs.sealed import read_sealed, write_sealed
from tscli.pairs.writer import PairsWriter


def as_json(capsys, *arguments: Any) -> Any:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_describe_tells_what_was_recorded(dataset, capsys):
    data = as_json(capsys, "describe", dataset)
    steps = [make_step(SCHEMA, 3, t) for t in range(60)]
    state = np.concatenate([step["obs"]["state"] for step in steps])
    camera = np.concatenate([step["obs"]["camera"] for step in steps])
    assert data["steps"] == 180
    assert data["task"] == "toy" and data["teacher"] == SCHEMA.teacher
    np.testing.assert_allclose(data["groups"]["state"]["mean"], state.mean(0), rtol=1e-5)
    np.testing.assert_array_equal(np.float32(data["groups"]["state"]["max"]), state.max(0))
    assert data["groups"]["state"]["privileged"] is True
    assert data["groups"]["camera"]["min"] == [camera.min()]
    np.testing.assert_allclose(data["groups"]["camera"]["mean"], [camera.mean()])
    actions = np.concatenate([step["action"] for step in steps])
    np.testing.assert_allclose(data["action"]["action_shares"], [np.bincount(actions, minlength=4) / 180])
    np.testing.assert_allclose(data["acted_by_teacher"], np.concatenate([s["actor"] for s in steps]).mean())
    returns = [e["return"] for e in expected_episodes(SCHEMA, 3, 60).values() if e["finished"]]
    assert data["episodes"]["finished"] == len(returns)
    assert data["episodes"]["return"]["mean"] == pytest.approx(np.mean(returns))
    assert data["episodes"]["return"]["sd"] == pytest.approx(np.std(returns))


def test_describe_prints_groups_entries_and_actions(tmp_path, capsys):
    write(tmp_path / "toy", steps=10)
    write(tmp_path / "arm", ARM, steps=10)
    assert main(["describe", str(tmp_path / "toy" / "dataset.h5")]) == 0
    text = capsys.readouterr().out
    assert "state (3,) float32 privileged" in text and "camera (20, 20, 3) uint8" in text and "30 steps" in text
    assert main(["describe", str(tmp_path / "arm")]) == 0
    assert "actions (continuous)" in capsys.readouterr().out


def test_verify_finds_nothing_wrong_with_what_the_writer_wrote(tmp_path, capsys):
    write(tmp_path / "toy", steps=60)
    write(tmp_path / "arm", ARM, steps=60, shard_bytes=1000)
    write(tmp_path / "task", replace(SCHEMA, task="walk.yaml"), steps=5)
    unfinished = PairsWriter(tmp_path / "unfinished", SCHEMA, 3, shard_bytes=70_000)
    for t in range(40):
        unfinished.append(**make_step(SCHEMA, 3, t))
    for name in ("toy", "arm", "unfinished"):
        data = as_json(capsys, "verify", tmp_path / name)
        assert data["right"] is True
        assert all(file["fault"] is None for file in data["files"])


def verify_fails(folder: Path, capsys) -> str:
    assert main(["verify", str(folder)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error
    return error


def test_verify_lists_every_fault_and_names_the_first(dataset, capsys):
    shard = dataset / "shards" / "00001.h5"
    data = bytearray(shard.read_bytes())
    data[5000] ^= 4
    shard.write_bytes(data)
    (dataset / "shards" / "00003.h5").unlink()
    error = verify_fails(dataset, capsys)
    assert "00001.h5: damaged" in error and "(and 1 more)" in error
    assert main(["verify", str(dataset), "--json"]) == 2
    faults = {f["name"]: f["fault"] for f in json.loads(capsys.readouterr().out)["files"] if f["fault"]}
    assert set(faults) == {"shards/00001", "shards/00003"}


def reseal(path: Path, change: Any) -> None:
    """Rewrite a sidecar as a faulty writer would: hashes right, content wrong."""
    data = read_sealed(path)
    change(data)
    write_sealed(path, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["segments"]["length"].__setitem__(0, d["segments"]["length"][0] + 1), "cover its rows"),
        (lambda d: d["segments"]["first_step"].__setitem__(0, 1), "do not follow each other"),
        (lambda d: d["segments"]["previous_action"].__setitem__(0, 1), "previous action"),
        (lambda d: d["episodes"]["return"].__setitem__(0, 99.0), "sum of its rewards"),
        (lambda d: d["episodes"]["length"].__setitem__(0, 99), "length is not that"),
        (lambda d: d["episodes"]["terminated"].__setitem__(0, not d["episodes"]["terminated"][0]), '"terminated"'),
        (lambda d: d["fields"]["reward"].__setitem__("offset", d["fields"]["reward"]["offset"] + 4), "lies elsewhere"),
    ],
)
def test_verify_notices_tables_that_do_not_fit_the_rows(dataset, capsys, change, message):
    first_of_all = dataset / "shards" / "00000.json"
    reseal(first_of_all, change)
    assert message in verify_fails(dataset, capsys)


def test_verify_looks_at_kept_features_as_well(dataset, capsys):
    shard = Pairs(dataset).shards[1]
    features.add(shard, "camera", "ab" * 32, 4, lambda images: images[:, 0, 0, :1].repeat(4, 1).astype(np.float16))
    data = as_json(capsys, "verify", dataset)
    name = "features/abababababab/camera-00001.npy"
    assert [file["rows"] for file in data["files"] if file["name"] == name] == [shard.rows]
    path = dataset / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert f"{path}: damaged, or of another shard; delete it: it is made again" in verify_fails(dataset, capsys)
    path.rename(path.with_name("camera-00077.npy"))
    assert "camera-00077.npy: damaged, or of another shard" in verify_fails(dataset, capsys)


def test_verify_notices_values_that_are_not_finite_and_choices_that_are_none(tmp_path, capsys):
    for name, change in {
        "finite": {"reward": np.array([np.nan] * 3)},
        "choices": {"action": np.array([0, 9, 1])},
    }.items():
        writer = PairsWriter(tmp_path / name, SCHEMA, 3)
        writer.append(**{**make_step(SCHEMA, 3, 0), **change})
        writer.close()
        assert name in verify_fails(tmp_path / name, capsys)


def test_verify_notices_a_dataset_file_that_is_not_the_one_written(dataset, capsys):
    path = dataset / "dataset.h5"
    with h5py.File(path, "a") as file:
        file.attrs["task"] = "another"
    assert "dataset.h5: damaged" in verify_fails(dataset, capsys)
    path.unlink()
    assert "dataset.h5: missing" in verify_fails(dataset, capsys)


def test_verify_notices_a_dataset_file_of_fewer_shards(dataset, recorded, tmp_path, capsys):
    writer = PairsWriter(tmp_path / "short", SCHEMA, 3, shard_bytes=70_000)
    for t in range(36):
        writer.append(**make_step(SCHEMA, 3, t))
    shutil.copyfile(tmp_path / "short" / "dataset.h5", dataset / "dataset.h5")
    reseal(dataset / "pairs.json", lambda d: d.update(dataset_sha256=file_hash(dataset / "dataset.h5")))
    assert "does not show all shards" in verify_fails(dataset, capsys)


@pytest.mark.parametrize("options", [[], ["--copy-files"]], ids=["linked", "copied"])
def test_merge_joins_datasets_and_leaves_them_alone(tmp_path, capsys, options):
    write(tmp_path / "a", steps=40, seed=1)
    write(tmp_path / "b", steps=50, seed=2, num_envs=4)
    before = digest(tmp_path / "a"), digest(tmp_path / "b")
    runs = tmp_path / "runs"
    sources = [str(tmp_path / "a"), str(tmp_path / "b" / "dataset.h5")]
    assert main(["merge", *sources, *options, "--runs-dir", str(runs)]) == 0
    capsys.readouterr()
    assert (digest(tmp_path / "a"), digest(tmp_path / "b")) == before
    (run,) = runs.glob("*-merge-*")
    merged, both = Pairs(run), Pairs([tmp_path / "a", tmp_path / "b"])
    np.testing.assert_array_equal(merged.episodes()[["episode", "env", "length", "return"]],
                                  both.episodes()[["episode", "env", "length", "return"]])  # fmt: skip
    for got, want in zip(merged.iter_episodes(), both.iter_episodes(), strict=True):
        for name in merged.fields:
            np.testing.assert_array_equal(got.rows[name], want.rows[name])
    newest = merged.windows(1, memory=30)[:]
    assert set(newest.episode) <= set(range(Pairs(tmp_path / "a").num_episodes, merged.num_episodes))
    assert len(read_plain(run / "pairs")[0]["reward"]) == 40 * 3 + 50 * 4
    assert as_json(capsys, "verify", run)["right"] is True


def test_merge_refuses_what_does_not_belong_together(tmp_path, capsys):
    write(tmp_path / "a", steps=5)
    write(tmp_path / "arm", ARM, steps=5)
    write(tmp_path / "other", replace(SCHEMA, teacher="0002-train-teacher-toy-seed2"), steps=5)
    write(tmp_path / "task", replace(SCHEMA, task="walk.yaml"), steps=5)
    unfinished = PairsWriter(tmp_path / "unfinished", SCHEMA, 3, shard_bytes=12_000)
    for t in range(5):
        unfinished.append(**make_step(SCHEMA, 3, t))
    runs = ["--runs-dir", str(tmp_path / "runs")]
    for other, message in {
        "arm": "action spaces differ",
        "other": "was labelled by 0002-train-teacher-toy-seed2",
        "task": "is of task walk, ",
        "unfinished": "unfinished; --resume its run first",
        "a": "name two or more datasets, each once",
    }.items():
        assert main(["merge", str(tmp_path / "a"), str(tmp_path / other), *runs]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_path_without_pairs_says_what_to_name_instead(tmp_path, capsys):
    assert main(["describe", str(tmp_path)]) == 2
    assert "holds no pairs; name a run" in capsys.readouterr().err
    assert main(["verify", "--runs-dir", str(tmp_path)]) == 2
    assert "holds pairs: run `tscli collect` first" in capsys.readouterr().err

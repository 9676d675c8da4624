"""`tscli convert` to LeRobot's folder and back, and datasets of others in that form."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from pairs_data import ARM, SCHEMA, write
from recorded_tools import controller, episodes_of, play
from stage_tools import call, error_of

from tscli.cli.app import main
from tscli.interop import lerobot

pa: Any = pytest.importorskip("pyarrow", reason="needs pyarrow: pip install 'tscli[lerobot]'")
pq: Any = importlib.import_module("pyarrow.parquet")


pytestmark = pytest.mark.usefixtures("folder")


def to_folder(source: Any, *options: str) -> None:
    assert main(["convert", str(source), "--to", "lerobot", "--out", "demos", "--quiet", *options]) == 0


@pytest.mark.parametrize("schema", [SCHEMA, ARM])
def test_what_went_to_lerobot_comes_back_whole(folder: Path, schema: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(lerobot, "_FILE_BYTES", 20_000)
    write(folder / "pairs", schema)
    to_folder(folder / "pairs")
    run = call("convert", "demos", "--to", "pairs")
    assert main(["verify", str(run.path), "--quiet"]) == 0
    for (old, rows), (new, found) in zip(episodes_of(folder / "pairs"), episodes_of(run.path), strict=True):
        assert rows.keys() == found.keys()
        for name, values in rows.items():
            np.testing.assert_array_equal(found[name], values)
        same = ("length", "terminated", "truncated", "success", "finished")
        assert [old[name] for name in same] == [new[name] for name in same]


def test_the_folder_is_as_lerobot_documents_it(dataset: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(lerobot, "_FILE_BYTES", 20_000)
    monkeypatch.setattr(lerobot, "_FILES", 2)
    to_folder(dataset)
    info = json.loads(Path("demos/meta/info.json").read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 50 and info["total_frames"] == 180
    assert info["features"]["observation.images.camera"]["dtype"] == "image"
    assert info["features"]["observation.state"] == {"dtype": "float32", "shape": [3], "names": ["a", "b", "c"]}
    episodes = pq.read_table("demos/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert len(episodes) == info["total_episodes"] and len({one["data/chunk_index"] for one in episodes}) > 1
    state = []
    for number, (one, (_, rows)) in enumerate(zip(episodes, episodes_of(dataset), strict=True)):
        place = {"chunk_index": one["data/chunk_index"], "file_index": one["data/file_index"]}
        data = pq.read_table(Path("demos", info["data_path"].format(**place)), filters=[("episode_index", "=", number)])
        assert data.num_rows == one["length"] == one["dataset_to_index"] - one["dataset_from_index"]
        assert data["index"].to_pylist() == list(range(one["dataset_from_index"], one["dataset_to_index"]))
        np.testing.assert_allclose(data["timestamp"], np.arange(one["length"]) / 50, atol=1e-6)
        np.testing.assert_array_equal(np.stack(data["observation.state"].to_numpy()), rows["obs/state"])
        assert data["observation.images.camera"][0].as_py()["bytes"].startswith(b"\x89PNG")
        assert set(info["features"]) == set(data.column_names)
        state.append(rows["obs/state"])
    stats = json.loads(Path("demos/meta/stats.json").read_text())
    for name in ("mean", "std", "min", "max"):
        figures = getattr(np.concatenate(state).astype(float), name)(0)
        np.testing.assert_allclose(stats["observation.state"][name], figures)
    assert np.shape(stats["observation.images.camera"]["mean"]) == (3, 1, 1)
    assert 0.4 < np.mean(stats["observation.images.camera"]["mean"]) < 0.6


def test_tasks_are_what_pandas_reads_by_their_names(dataset: Path) -> None:
    pandas = pytest.importorskip("pandas")
    to_folder(dataset)
    assert int(pandas.read_parquet("demos/meta/tasks.parquet").loc["toy"].task_index) == 0


def demonstrations(path: Path, **features: Any) -> list[dict[str, list]]:
    """What another program has written: one file, no ends, no rewards, a text beside."""
    env = gymnasium.make("CartPole-v1", max_episode_steps=60)
    played = play(env, controller, 12)
    env.close()
    rows = [
        {"observation.state": obs, "action": int(action), "episode_index": number, "observation.note": "go"}
        for number, episode in enumerate(played)
        for obs, action in zip(np.array(episode["observations"])[:-1].tolist(), episode["actions"], strict=True)
    ]
    described = {"observation.state": ("float32", [4]), "action": ("int64", [1]), "episode_index": ("int64", [1])}
    described |= {"observation.note": ("string", [1]), **features}
    info = {
        "codebase_version": "v3.0",
        "total_episodes": 12,
        "total_frames": len(rows),
        "features": {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in described.items()},
    }
    (path / "meta").mkdir(parents=True)
    (path / "meta" / "info.json").write_text(json.dumps(info))
    (path / "data" / "chunk-000").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), path / "data" / "chunk-000" / "file-000.parquet", row_group_size=100)
    return played


@pytest.mark.usefixtures("no_plots")
def test_a_student_is_cloned_from_demonstrations_of_others(folder: Path) -> None:
    played = demonstrations(folder / "demos", **{"observation.images.top": ("video", [96, 96, 3])})
    pairs = call("convert", "demos", "--to", "pairs", "--task", "cartpole", "--groups", "state")
    for episode, (info, rows) in zip(played, episodes_of(pairs.path), strict=True):
        np.testing.assert_array_equal(rows["obs/state"], np.array(episode["observations"], np.float32)[:-1])
        np.testing.assert_array_equal(rows["action"], episode["actions"])
        assert info["truncated"] and info["finished"]
    cloning = ("distill", "--method", "bc", "--num-epochs", "12", "--eval-every", "12", "--eval-episodes", "10")
    student = call(*cloning, "--loss", "cross_entropy", "--obs", "full", "--student", "mlp", "--lr", "0.003")
    assert student.parents == [pairs.name] and student.metrics["eval/return"] > 80


def test_what_cannot_be_used_is_refused(folder: Path, dataset: Path, capsys: Any) -> None:
    def refused(*words: str) -> str:
        return error_of(capsys, "convert", *words)

    back = ("--to", "pairs", "--task", "cartpole")
    demonstrations(folder / "demos")
    info = Path("demos/meta/info.json")
    assert "does not say which env it is of" in refused("demos", "--to", "pairs", "--groups", "state")
    assert 'entry "note" is a Text space' in refused("demos", *back)
    whole = info.read_text()
    info.write_text(whole.replace('"total_episodes": 12', '"total_episodes": 13'))
    assert "holds 12 episodes of" in refused("demos", *back, "--groups", "state")
    info.write_text(whole.replace("v3.0", "v2.1"))
    assert "is of LeRobot's format v2.1: convert it to v3.0" in refused("demos", *back)
    info.write_text(whole.replace('"shape": [4]', '"shape": [5]'))
    assert 'demos has the group "state" as float32 (5,)' in refused("demos", *back, "--groups", "state")
    info.write_text(whole)
    next(Path("demos/data").rglob("*.parquet")).write_bytes(b"PAR1")
    assert "demos cannot be read as a LeRobot dataset" in refused("demos", *back, "--groups", "state")
    shutil.rmtree("demos/meta")
    assert "demos is no folder of LeRobot" in refused("demos", *back)
    assert not list(Path("runs").glob("0*"))


def test_without_pyarrow_the_extra_is_named(dataset: Path, monkeypatch: Any, capsys: Any) -> None:
    real = importlib.import_module

    def missing(name: str, *args: Any) -> Any:
        if name == "pyarrow":
            raise ModuleNotFoundError("No module named 'pyarrow'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    error = error_of(capsys, "convert", str(dataset), "--to", "lerobot", "--out", "demos")
    assert "pip install 'tscli[lerobot]'" in error and not Path("demos").exists()

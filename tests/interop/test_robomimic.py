"""`tscli convert` to robomimic's file and back, and demonstrations of others in that form."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
from pairs_data import ARM, SCHEMA, write
from recorded_tools import controller, episodes_of, play
from stage_tools import call, error_of

from tscli.cli.app import main
from tscli.pairs import Pairs


def to_file(source: Any, *options: str) -> None:
    assert main(["convert", str(source), "--to", "robomimic", "--out", "demos.hdf5", "--quiet", *options]) == 0


@pytest.mark.parametrize("schema", [SCHEMA, ARM])
def test_what_went_to_robomimic_comes_back_whole(folder: Path, schema: Any) -> None:
    write(folder / "pairs", schema)
    to_file(folder / "pairs")
    run = call("convert", "demos.hdf5", "--to", "pairs", "--shard-mb", "0.06")
    assert run.manifest["converted"]["robomimic"] == "demos.hdf5"
    assert main(["verify", str(run.path), "--quiet"]) == 0
    for (old, rows), (new, found) in zip(episodes_of(folder / "pairs"), episodes_of(run.path), strict=True):
        assert rows.keys() == found.keys()
        for name, values in rows.items():
            np.testing.assert_array_equal(found[name], values)
        same = ("length", "terminated", "truncated", "success", "finished")
        assert [old[name] for name in same] == [new[name] for name in same]


def test_the_file_is_as_robomimic_documents_it(runs: Path) -> None:
    to_file(2)
    pairs = Pairs("runs/" + next(path.name for path in runs.glob("0002-*")))
    with h5py.File("demos.hdf5") as file:
        data: Any = file["data"]
        assert data.attrs["total"] == pairs.num_steps
        env = json.loads(data.attrs["env_args"])
        assert gymnasium.make(env["env_name"], **env["env_kwargs"]) and env["env_type"] == 2
        for number, (_, rows) in enumerate(episodes_of(pairs.shards[0].path.parents[1])):
            demo = data[f"demo_{number}"]
            assert demo.attrs["num_samples"] == len(demo["actions"]) == len(demo["states"])
            np.testing.assert_array_equal(demo["actions"][:, 0], rows["action"])
            np.testing.assert_array_equal(demo["obs/state"], rows["obs/state"])
            np.testing.assert_array_equal(demo["next_obs/state"][:-1], rows["obs/state"][1:])
            np.testing.assert_array_equal(demo["next_obs/state"][-1], rows["obs/state"][-1])
            np.testing.assert_array_equal(demo["rewards"], rows["reward"])
            np.testing.assert_array_equal(demo["dones"], rows["terminated"])
        masks = {name: set(rows[()]) for name, rows in file["mask"].items()}  # type: ignore[reportAttributeAccessIssue]
        assert masks["train"] | masks["valid"] == {name.encode() for name in data} and masks["valid"]
        assert not masks["train"] & masks["valid"]


def demonstrations(path: str, dtype: Any = np.float64, env: Any = ("CartPole-v1", 2, {})) -> list[dict[str, list]]:
    """What another program has written: plain observations under a key, actions as floats, done from some step on."""
    made = gymnasium.make("CartPole-v1", max_episode_steps=60)
    played = play(made, controller, 12)
    made.close()
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(dict(zip(("env_name", "env_type", "env_kwargs"), env, strict=True)))
        for number, episode in enumerate(played):
            demo = data.create_group(f"demo_{number}")
            demo["actions"] = np.array(episode["actions"], dtype)[:, None]
            demo["obs/state"] = np.array(episode["observations"], np.float64)[:-1]
            demo["dones"] = np.arange(len(episode["actions"])) > 20
        file["mask/few"] = np.array(["demo_10", "demo_3"], "S")
    return played


@pytest.mark.usefixtures("no_plots")
def test_a_student_is_cloned_from_demonstrations_of_others(folder: Path) -> None:
    played = demonstrations("demos.hdf5")
    pairs = call("convert", "demos.hdf5", "--to", "pairs", "--task", "cartpole")
    for episode, (info, rows) in zip(played, episodes_of(pairs.path), strict=True):
        np.testing.assert_array_equal(rows["obs/state"], np.array(episode["observations"], np.float32)[:-1])
        np.testing.assert_array_equal(rows["action"], episode["actions"])
        assert info["length"] == len(episode["actions"]) and info["finished"]
    cloning = ("distill", "--method", "bc", "--num-epochs", "12", "--eval-every", "12", "--eval-episodes", "10")
    student = call(*cloning, "--loss", "cross_entropy", "--obs", "full", "--student", "mlp", "--lr", "0.003")
    assert student.parents == [pairs.name] and student.metrics["eval/return"] > 80


def test_a_mask_takes_its_demonstrations_alone(folder: Path, capsys: Any) -> None:
    played = demonstrations("demos.hdf5")
    run = call("convert", "demos.hdf5", "--to", "pairs", "--mask", "few")
    assert run.task == "CartPole-v1"
    assert Pairs(run.path).episodes()["length"].tolist() == [len(played[i]["actions"]) for i in (3, 10)]
    refused = error_of(capsys, "convert", "demos.hdf5", "--to", "pairs", "--mask", "fev")
    assert '--mask fev: demos.hdf5 has no such mask: did you mean "few"?' in refused


def test_what_cannot_be_used_is_refused(folder: Path, dataset: Path, capsys: Any) -> None:
    def refused(*words: str) -> str:
        return error_of(capsys, "convert", *words)

    assert "--to robomimic needs a place" in refused(str(dataset), "--to", "robomimic")
    assert "there is no folder" in refused(str(dataset), "--to", "robomimic", "--out", "nowhere/a.hdf5")
    assert '--groups: there is no group "stat"' in refused(
        str(dataset), "--to", "robomimic", "--out", "a.hdf5", "--groups", "stat"
    )
    to_file(dataset)
    assert "demos.hdf5 exists" in refused(str(dataset), "--to", "robomimic", "--out", "demos.hdf5")
    Path("broken.hdf5").write_bytes(Path("demos.hdf5").read_bytes()[:5000])
    assert "broken.hdf5 cannot be read as robomimic's HDF5" in refused("broken.hdf5", "--to", "pairs")
    with h5py.File("demos.hdf5", "r+") as file:
        del file["data/demo_3/labels/actor"]
    assert "demos.hdf5, episode 3 has no actor" in refused("demos.hdf5", "--to", "pairs")
    demonstrations("odd.hdf5", env=("Lift", 1, {"horizon": 400}))
    assert "odd.hdf5 is of Lift: name a task" in refused("odd.hdf5", "--to", "pairs")
    demonstrations("half.hdf5")
    with h5py.File("half.hdf5", "r+") as file:
        file["data/demo_1/actions"][0] = 0.5  # type: ignore[reportIndexIssue]
    assert "half.hdf5, episode 1 has actions that are no choices" in refused("half.hdf5", "--to", "pairs")
    assert not list(Path().glob(".*.part")) and not list(Path("runs").glob("0*"))

"""`tscli convert --to pairs`: what comes back of ours, and students of other people's datasets."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from minari_tools import minari, pictures, quiet, record, to_minari
from pairs_data import ARM, SCHEMA, make_step, write
from recorded_tools import controller, episodes_of, play
from stage_tools import BC, RUNS, SMALL, call, error_of

from tscli.cli.app import main
from tscli.cli.pages import next_step
from tscli.pairs import Pairs
from tscli.pairs.writer import PairsWriter
from tscli.runs import Run, list_runs


@pictures
def test_what_went_to_minari_comes_back_for_no_other_task(dataset: Path, capsys: Any) -> None:
    to_minari(dataset, "toy/teacher-v0")
    convert = ("convert", "toy/teacher-v0", "--to", "pairs", "--task")
    assert 'unknown task "nope"' in error_of(capsys, *convert, "nope")
    assert "toy/teacher-v0 has " in error_of(capsys, *convert, "acrobot")
    assert not list(Path("runs").glob("0*"))


@pictures
def test_what_went_to_minari_comes_back_whole(dataset: Path) -> None:
    to_minari(dataset, "toy/teacher-v0")
    run = call("convert", "toy/teacher-v0", "--to", "pairs", "--shard-mb", "0.06")
    again = Pairs(run.path)
    assert again.schema == SCHEMA and len(again.shards) > 1
    assert main(["verify", str(run.path), "--quiet"]) == 0
    for (old, rows), (new, found) in zip(episodes_of(dataset), episodes_of(run.path), strict=True):
        assert rows.keys() == found.keys()
        for name, values in rows.items():
            np.testing.assert_array_equal(found[name], values)
        same = ("length", "terminated", "truncated", "success", "finished")
        assert [old[name] for name in same] == [new[name] for name in same]


@pytest.mark.parametrize("distribution", ["gaussian", "beta"])
def test_continuous_actions_and_their_distributions_come_back_too(folder: Path, distribution: str) -> None:
    schema = ARM if distribution == "gaussian" else replace(ARM, extra={"distribution": "beta"})
    writer = PairsWriter(folder / "arm", schema, 2)
    for t in range(30):
        step = make_step(ARM, 2, t)
        if distribution == "beta":
            step["teacher_dist"] = {"alpha": step["teacher_dist"]["std"], "beta": step["teacher_dist"]["std"] + 1}
        writer.append(**step)
    writer.close()
    assert to_minari(folder / "arm", "arm-v3").action_space == spaces.Box(-1, 1, (2,), np.float32)
    run = call("convert", "arm-v3", "--to", "pairs")
    assert Pairs(run.path).schema == replace(schema, has_success=True)
    for (_, rows), (_, found) in zip(episodes_of(folder / "arm"), episodes_of(run.path), strict=True):
        for name, values in rows.items():
            np.testing.assert_array_equal(found[name], values)


@pictures
def test_pictures_that_minari_would_make_jpegs_of_lose_nothing(folder: Path) -> None:
    groups = {"joints.arm": SCHEMA.groups["state"], "eye": replace(SCHEMA.groups["camera"], shape=(40, 40, 3))}
    schema = replace(SCHEMA, groups=groups)
    write(folder / "big", schema, num_envs=1, steps=8, shard_bytes=1 << 20)
    to_minari(folder / "big", "big-v0")
    run = call("convert", "big-v0", "--to", "pairs")
    for name in ("obs/eye", "obs/joints.arm"):
        ours = [rows[name] for _, rows in episodes_of(folder / "big")]
        np.testing.assert_array_equal(
            np.concatenate([rows[name] for _, rows in episodes_of(run.path)]), np.concatenate(ours)
        )


def test_other_peoples_episodes_become_pairs(demonstrations: Any) -> None:
    run = call("convert", "cartpole/hand-v0", "--to", "pairs")
    pairs = Pairs(run.path)
    assert run.task == "CartPole-v1" and run.manifest["converted"]["labels"] == ["action"]
    assert list(pairs.schema.groups) == ["state"] and pairs.schema.teacher_fields == ()
    assert pairs.fields == ("obs/state", "action", "teacher_action", "reward", "terminated", "truncated", "actor")
    for played, (info, rows) in zip(demonstrations, episodes_of(run.path), strict=True):
        np.testing.assert_array_equal(rows["obs/state"], np.array(played["observations"])[:-1])
        np.testing.assert_array_equal(rows["action"], played["actions"])
        np.testing.assert_array_equal(rows["teacher_action"], played["actions"])
        assert info["finished"] and info["length"] == len(played["actions"])
        assert (info["terminated"], info["truncated"]) == (played["terminations"][-1], played["truncations"][-1])
    assert main(["verify", "1", "--quiet"]) == 0 and main(["describe", "1", "--quiet"]) == 0
    assert next_step([run]) == "tscli distill --method bc --pairs 1 --loss cross_entropy"
    # One that was killed is begun anew, not resumed.
    assert next_step([run, Run(run.path, {**run.manifest, "status": "failed"})]) == next_step([run])


@pytest.mark.usefixtures("no_plots")
def test_a_student_is_cloned_from_what_minaris_own_collector_recorded(capsys: Any) -> None:
    pytest.importorskip("jax", reason="minari's collector needs jax: pip install 'minari[create]'")
    env = minari.DataCollector(gymnasium.make("CartPole-v1", max_episode_steps=100), record_infos=True)
    play(env, controller, 20)
    quiet(env.create_dataset, "cartpole/collected-v0")
    env.close()
    clone_and_measure("cartpole/collected-v0", capsys)


@pytest.mark.usefixtures("no_plots")
def test_a_student_is_cloned_from_demonstrations(capsys: Any) -> None:
    env = gymnasium.make("CartPole-v1", max_episode_steps=100)
    record("cartpole/buffers-v0", play(env, controller, 20), env=env)
    clone_and_measure("cartpole/buffers-v0", capsys)


def clone_and_measure(name: str, capsys: Any) -> None:
    """Convert for a task with a student's view of its own, clone, and measure against no training at all."""
    pairs = call("convert", name, "--to", "pairs", "--task", "cartpole")
    assert Pairs(pairs.path).schema.groups["state"].fields[0] == "position"
    cloning = ("distill", "--method", "bc", "--num-epochs", "12", "--eval-every", "12", "--eval-episodes", "10")
    student = call(*cloning, "--loss", "cross_entropy", "--obs", "full", "--student", "mlp", "--lr", "0.003")
    assert student.parents == [pairs.name] and student.metrics["eval/return"] > 80
    capsys.readouterr()
    assert main(["eval", "--episodes", "4", "--json", "--quiet"]) == 0
    assert set(json.loads(capsys.readouterr().out)["policies"]) == {"student"}


@pytest.mark.usefixtures("no_plots", "demonstrations")
def test_a_kl_needs_more_than_actions_and_the_other_losses_do_not(capsys: Any) -> None:
    call("convert", "cartpole/hand-v0", "--to", "pairs", "--task", "cartpole")
    error = error_of(capsys, *BC, *SMALL, "--pairs", "1")
    assert "--loss kl needs the teacher's distribution, and 0001-convert-cartpole has its actions alone" in error
    for loss in ("mse", "huber"):
        student = call(*BC, *SMALL, "--loss", loss)
        first, *_, last = [json.loads(line) for line in (student.path / "metrics.jsonl").read_text().splitlines()]
        assert last["loss/imitation"] < first["loss/imitation"]
    assert "0001-convert-cartpole was not made from a teacher" in error_of(capsys, "distill", "--pairs", "1")


@pictures
def test_every_kind_of_entry_becomes_the_group_that_gymnasium_envs_have() -> None:
    """One that counts its choices from 5, pictures with channels first, a text that is left out."""
    space = spaces.Dict(
        {
            "eye": spaces.Box(0, 255, (3, 36, 40), np.uint8),
            "gear": spaces.Discrete(3, start=5),
            "joints": spaces.Dict({"angle": spaces.Box(-1, 1, (2, 2), np.float64)}),
            "order": spaces.Text(8),
        }
    )
    space.seed(0)
    actions = spaces.MultiDiscrete([3, 2], start=[1, 0])
    steps, rng = 6, np.random.default_rng(0)
    observations = [{**space.sample(), "order": "go"} for _ in range(steps + 1)]
    episode = {
        "observations": observations,
        "actions": [np.array([1, 0]) + rng.integers(0, [3, 2]) for _ in range(steps)],
        "rewards": [0.5] * steps,
        "terminations": [False] * (steps - 1) + [True],
        "truncations": [False] * (steps - 1) + [True],
    }
    record("odd-v0", [episode], observation_space=space, action_space=actions)
    gymnasium.register("Odd-v0", "minari_tools:Odd", kwargs={"space": space, "actions": actions})
    try:
        run = call("convert", "odd-v0", "--to", "pairs", "--task", "Odd-v0", "--groups", "eye,gear,joints.angle")
    finally:
        del gymnasium.registry["Odd-v0"]
    ((info, rows),) = episodes_of(run.path)
    assert info["terminated"] and not info["truncated"]
    assert rows["obs/eye"].dtype == np.uint8
    np.testing.assert_array_equal(
        rows["obs/eye"], np.moveaxis(np.array([obs["eye"] for obs in observations[:-1]]), 1, -1)
    )
    np.testing.assert_array_equal(rows["obs/gear"].argmax(-1), [obs["gear"] - 5 for obs in observations[:-1]])
    angles = [obs["joints"]["angle"].ravel() for obs in observations[:-1]]
    np.testing.assert_array_equal(rows["obs/joints.angle"], np.array(angles, np.float32))
    np.testing.assert_array_equal(rows["action"], np.array(episode["actions"]) - [1, 0])


def test_an_episode_without_an_end_stays_unfinished_and_success_is_taken_over() -> None:
    episode = {
        "observations": np.zeros((4, 4), np.float32),
        "actions": np.array([0, 1, 1]),
        "rewards": np.ones(3),
        "terminations": np.zeros(3, bool),
        "truncations": np.zeros(3, bool),
        "infos": {"success": np.array([False, False, False, True])},
    }
    record("cut-v0", [episode, {**episode, "truncations": np.array([False, False, True])}], env="CartPole-v1")
    run = call("convert", "cut-v0", "--to", "pairs")
    table = Pairs(run.path).episodes()
    assert table["finished"].tolist() == [False, True] and table["success"].tolist() == [False, True]
    assert Pairs(run.path).schema.has_success


def test_a_merge_of_demonstrations_is_cloned_too(demonstrations: Any) -> None:
    record("cartpole/more-v0", demonstrations[:3], env="CartPole-v1")
    for name in ("cartpole/hand-v0", "cartpole/more-v0"):
        call("convert", name, "--to", "pairs")
    merged = call("merge", "1", "2")
    assert merged.metrics["episodes"] == 15 and merged.parents == [
        "0001-convert-CartPole_v1",
        "0002-convert-CartPole_v1",
    ]


def test_names_that_cannot_be_used_are_refused(dataset: Path, demonstrations: Any, capsys: Any) -> None:
    def refused(*words: str) -> str:
        return error_of(capsys, "convert", *words)

    path = str(dataset)
    assert "is no id of a Minari dataset" in refused(path, "--to", "minari", "--id", "no version")
    assert "is no id of a Minari dataset" in refused(path, "--to", "minari", "--id", "../outside-v0")
    assert "exists: choose another name" in refused(path, "--to", "minari", "--id", "cartpole/hand-v0")
    assert 'did you mean "camera"' in refused(path, "--to", "minari", "--id", "a-v0", "--groups", "kamera")
    assert "--id cartpole/teacher-v0" in refused(path, "--to", "minari")
    assert 'did you mean "cartpole/hand-v0"' in refused("cartpole/hand-v1", "--to", "pairs")
    assert "--to pairs needs the id" in refused("--to", "pairs")
    assert "name its own task" in refused("cartpole/hand-v0", "--to", "pairs", "--task", "pendulum")
    assert "none of them the same" in refused("cartpole/hand-v0", "--to", "pairs", "--groups", "x")
    assert "plain observations" in refused("cartpole/hand-v0", "--to", "pairs", "--groups", "x,y")
    assert not RUNS.exists()


def test_an_env_that_a_bare_id_does_not_make_again_needs_a_task(demonstrations: Any, capsys: Any) -> None:
    record("soft-v0", demonstrations, env=gymnasium.make("CartPole-v1", sutton_barto_reward=True))
    assert "write a task file" in error_of(capsys, "convert", "soft-v0", "--to", "pairs")
    both = {"observation_space": spaces.Box(-9, 9, (4,)), "action_space": spaces.Discrete(2)}
    record("unknown-v0", demonstrations, **both)
    assert "name its task with --task" in error_of(capsys, "convert", "unknown-v0", "--to", "pairs")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"terminations": [True, False, True]}, "goes on after its end"),
        ({"rewards": [1.0, float("nan"), 1.0]}, "not finite in reward"),
    ],
)
def test_an_episode_that_is_not_in_order_leaves_no_run_behind(capsys: Any, change: Any, message: str) -> None:
    good = {"observations": [np.zeros(4, np.float32)] * 4, "actions": [0, 1, 0], "rewards": [1.0] * 3}
    good |= {"terminations": [False, False, True], "truncations": [False] * 3}
    record("bad-v0", [good, {**good, **change}], env="CartPole-v1")
    error = error_of(capsys, "convert", "bad-v0", "--to", "pairs")
    assert "episode 1" in error and message in error
    assert list_runs(RUNS) == [] and not list(RUNS.glob("0*"))

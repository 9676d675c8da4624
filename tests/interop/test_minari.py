"""`tscli convert`: what the real Minari reads, what comes back of it, and students of other people's datasets."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib
import json
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pairs_data import ARM, SCHEMA, expected_episodes, make_step, write
from stage_tools import BC, RUNS, SMALL, call, error_of

from tscli.cli.app import main
from tscli.cli.pages import next_step
from tscli.interop.minari import write as writing
from tscli.pairs import Pairs
from tscli.pairs.writer import PairsWriter
from tscli.runs import Run, list_runs

minari: Any = pytest.importorskip("minari", reason="needs minari: pip install 'tscli[minari]'")


pictures = pytest.mark.skipif(version("minari") < "0.5.4", reason="minari before 0.5.4 makes JPEGs of pictures")


@pytest.fixture(autouse=True)
def local(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of Minari's datasets."""
    path = folder / "minari"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(path))
    return path


def quiet(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Call a function of Minari's, which warns of every description that is missing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


def to_minari(source: Any, name: str, *options: str) -> Any:
    """Convert, and open the result with Minari."""
    assert main(["convert", str(source), "--to", "minari", "--id", name, "--quiet", *options]) == 0
    return minari.load_dataset(name)


def episodes_of(source: Any) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    return [(episode.info, episode.rows) for episode in Pairs(source).iter_episodes()]


# --- to Minari --------------------------------------------------------------------------------------------------------


@pictures
def test_minari_opens_what_was_recorded(dataset: Path) -> None:
    found = to_minari(dataset, "toy/teacher-v0")
    expected = list(expected_episodes(SCHEMA, 3, 60).values())
    order = sorted(range(len(expected)), key=lambda i: expected[i]["start"])
    assert found.total_episodes == len(expected) and found.total_steps == 180
    assert found.observation_space["camera"] == spaces.Box(0, 255, (20, 20, 3), np.uint8)
    assert found.action_space == spaces.Discrete(4)
    assert "toy/teacher-v0" in minari.list_local_datasets()
    by_start = sorted((info["start"], i) for i, (info, _) in enumerate(episodes_of(dataset)))
    assert [start for start, _ in by_start] == [expected[i]["start"] for i in order]
    for episode, (info, _) in zip(found.iterate_episodes(), episodes_of(dataset), strict=True):
        rows = expected_episodes(SCHEMA, 3, 60)[(info["env"], info["index"])]["rows"]
        for name in SCHEMA.groups:
            stored = np.array([row[f"obs/{name}"] for row in rows])
            np.testing.assert_array_equal(episode.observations[name][:-1], stored)
            np.testing.assert_array_equal(episode.observations[name][-1], stored[-1])
        np.testing.assert_array_equal(episode.actions, [row["action"] for row in rows])
        np.testing.assert_array_equal(episode.rewards, [row["reward"] for row in rows])
        np.testing.assert_array_equal(episode.terminations, [row["terminated"] for row in rows])
        np.testing.assert_array_equal(episode.infos["teacher_logits"][:-1], [row["teacher_logits"] for row in rows])
        assert episode.terminations[-1] or episode.truncations[-1]
        assert len(episode.infos["actor"]) == len(episode) + 1
    assert "copy of the one before" in found.storage.metadata["tscli"]["last_observation"]


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
def test_one_group_alone_becomes_a_plain_box(dataset: Path) -> None:
    found = to_minari(dataset, "toy/camera-v0", "--groups", "camera")
    assert found.observation_space == spaces.Box(0, 255, (20, 20, 3), np.uint8)
    assert found[0].observations.shape == (len(found[0]) + 1, 20, 20, 3)
    run = call("convert", "toy/camera-v0", "--to", "pairs")
    assert list(Pairs(run.path).schema.groups) == ["camera"]
    both = to_minari(dataset, "toy/some-v0", "--groups", "state,flag")
    assert set(both.observation_space.spaces) == {"state", "flag"}


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


def test_minari_makes_the_env_again(runs: Path) -> None:
    found = to_minari(2, "cartpole/teacher-v0")
    env = found.recover_environment()
    assert env.observation_space == found.observation_space and env.action_space == found.action_space
    env.close()


@pytest.mark.skipif(version("minari") >= "0.5.4", reason="minari from 0.5.4 on keeps pictures as they are")
def test_a_minari_that_makes_jpegs_is_given_no_pictures(dataset: Path, capsys: Any) -> None:
    words = ("convert", str(dataset), "--to", "minari", "--id", "toy-v0")
    assert 'stores "camera" as JPEG: use 0.5.4' in error_of(capsys, *words)
    assert main([*words, "--groups", "state,flag", "--quiet"]) == 0


@pictures
def test_minari_adds_and_filters_as_with_its_own(dataset: Path) -> None:
    found = to_minari(dataset, "toy/teacher-v0")
    long = found.filter_episodes(lambda episode: len(episode) > 5)
    assert 0 < long.total_episodes < found.total_episodes
    first = found.storage.get_episode_metadata([0])
    assert next(iter(first))["rewards_sum"] == pytest.approx(float(found[0].rewards.sum()), abs=1e-5)


# --- from Minari ------------------------------------------------------------------------------------------------------


def controller(obs: np.ndarray) -> int:
    """Balances CartPole's pole."""
    return int(obs @ np.array([0.05, 0.1, 1.0, 0.5]) > 0)


def play(env: gymnasium.Env, policy: Any, episodes: int) -> list[dict[str, list]]:
    """Observations (one more), actions, rewards and ends of episodes."""
    played = []
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        episode: dict[str, list] = {"observations": [obs], "actions": [], "rewards": []}
        episode |= {"terminations": [], "truncations": []}
        while not (episode["rewards"] and (episode["terminations"][-1] or episode["truncations"][-1])):
            action = policy(obs)
            obs, reward, terminated, truncated, _ = env.step(action)
            for name, value in (("observations", obs), ("actions", action), ("rewards", reward)):
                episode[name].append(value)
            episode["terminations"].append(terminated)
            episode["truncations"].append(truncated)
        played.append(episode)
    return played


def stored(values: list[Any]) -> Any:
    """A list of observations as Minari's storage takes them: a list in every entry."""
    if isinstance(values[0], dict):
        return {key: stored([value[key] for value in values]) for key in values[0]}
    return values


def record(name: str, played: list[dict[str, Any]], env: Any = None, **described: Any) -> None:
    """Give episodes to Minari, as another library would."""
    buffer = importlib.import_module("minari.data_collector").EpisodeBuffer
    episodes = [buffer(**{**episode, "observations": stored(episode["observations"])}) for episode in played]
    quiet(minari.create_dataset_from_buffers, name, episodes, env=env, **described)


@pytest.fixture
def demonstrations() -> list[dict[str, list]]:
    """Twelve episodes of at most 60 steps."""
    env = gymnasium.make("CartPole-v1", max_episode_steps=60)
    played = play(env, controller, 12)
    env.close()
    record("cartpole/hand-v0", played, env="CartPole-v1")
    return played


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
    gymnasium.register("Odd-v0", "test_minari:Odd", kwargs={"space": space, "actions": actions})
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


class Odd(gymnasium.Env):
    """An env that has these spaces, but for its text."""

    def __init__(self, space: spaces.Dict, actions: Any) -> None:
        self.observation_space = spaces.Dict({k: v for k, v in space.items() if k != "order"})
        self.action_space = actions

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}


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


# --- what goes wrong --------------------------------------------------------------------------------------------------


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


@pictures
def test_a_conversion_that_fails_half_way_shows_nothing_and_can_be_begun_anew(
    dataset: Path, local: Path, monkeypatch: Any
) -> None:
    about = writing._about
    monkeypatch.setattr(writing, "_about", lambda episode: 1 / 0)
    assert main(["convert", str(dataset), "--to", "minari", "--id", "toy/a-v0", "--quiet"]) == 1
    assert minari.list_local_datasets() == {} and not list(local.rglob("*.hdf5"))
    monkeypatch.setattr(writing, "_about", about)
    # What a killed one leaves is in the way of nobody.
    (local / ".tscli-toy-a-v0.part" / "new" / "data").mkdir(parents=True)
    assert to_minari(dataset, "toy/a-v0").total_steps == 180
    assert [path.name for path in local.iterdir()] == ["toy"]


def test_without_minari_the_extra_is_named(dataset: Path, monkeypatch: Any, capsys: Any) -> None:
    real = importlib.import_module

    def missing(name: str, *args: Any) -> Any:
        if name == "minari":
            raise ModuleNotFoundError("No module named 'minari'")
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert "pip install 'tscli[minari]'" in error_of(capsys, "convert", str(dataset), "--to", "minari", "--id", "a-v0")

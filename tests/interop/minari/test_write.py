"""`tscli convert --to minari`: what the real Minari reads."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from minari_tools import minari, pictures, to_minari
from pairs_data import SCHEMA, expected_episodes
from recorded_tools import episodes_of
from stage_tools import COLLECT, TEACHER, call, error_of

from tscli.cli.app import main
from tscli.interop.minari import write as writing
from tscli.interop.recorded import id_of_spec
from tscli.pairs import Pairs


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
def test_one_group_alone_becomes_a_plain_box(dataset: Path) -> None:
    found = to_minari(dataset, "toy/camera-v0", "--groups", "camera")
    assert found.observation_space == spaces.Box(0, 255, (20, 20, 3), np.uint8)
    assert found[0].observations.shape == (len(found[0]) + 1, 20, 20, 3)
    run = call("convert", "toy/camera-v0", "--to", "pairs")
    assert list(Pairs(run.path).schema.groups) == ["camera"]
    both = to_minari(dataset, "toy/some-v0", "--groups", "state,flag")
    assert set(both.observation_space.spaces) == {"state", "flag"}


def test_minari_makes_the_env_again(runs: Path) -> None:
    found = to_minari(2, "cartpole/teacher-v0")
    env = found.recover_environment()
    assert env.observation_space == found.observation_space and env.action_space == found.action_space
    env.close()


@pytest.mark.usefixtures("no_plots")
def test_an_env_registered_by_its_class_is_made_again_by_name(folder: Path, monkeypatch: Any, capsys: Any) -> None:
    Path("mine.py").write_text(
        "import gymnasium\n"
        "from gymnasium.envs.classic_control.cartpole import CartPoleEnv as Mine\n"
        "class Mine(Mine): pass\n"
        "gymnasium.register('Mine-v0', entry_point=Mine, max_episode_steps=50)\n"
        "gymnasium.register('Nameless-v0', entry_point=lambda **kwargs: Mine(**kwargs), max_episode_steps=50)\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    try:
        call("train-teacher", "mine:Mine-v0", *TEACHER[2:])
        call(*COLLECT)
        found = to_minari(2, "mine-v0")
        assert found.env_spec.entry_point == "mine:Mine"
        found.recover_environment().close()
        assert call("convert", "mine-v0", "--to", "pairs").task == "mine:Mine-v0"
        call("train-teacher", "mine:Nameless-v0", *TEACHER[2:])
        call(*COLLECT)
        assert main(["convert", "--to", "minari", "--id", "nameless-v0"]) == 0
        assert "which no module has under its name" in capsys.readouterr().err
        del gymnasium.registry["Mine-v0"]
        assert id_of_spec(found.env_spec) == "mine:Mine-v0"  # as in a process that has not imported it
    finally:
        for name in ("Mine-v0", "Nameless-v0"):
            gymnasium.registry.pop(name, None)
        sys.modules.pop("mine", None)


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

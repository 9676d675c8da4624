"""Where settings come from, and how a wrong one is named."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
from toy_scripts import TASK, config_of, error_of, stand_among

from tscli.cli.app import main


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_among(tmp_path, monkeypatch)


def test_later_places_win(folder: Path) -> None:
    assert config_of("train-teacher", "bare.yaml")["num_envs"] == 4
    assert config_of("train-teacher", "toy.yaml")["num_envs"] == 8
    (folder / "own.yaml").write_text("num_envs: 16\nlr: 0.02\n")
    preset = ("train-teacher", "toy.yaml", "--preset", "big")
    assert config_of(*preset)["num_envs"] == 64
    with_file = (*preset, "--config", "own.yaml")
    assert config_of(*with_file)["num_envs"] == 16
    with_set = (*with_file, "--set", "num_envs=32", "--set", "lr=0.03")
    assert config_of(*with_set)["num_envs"] == 32
    config = config_of(*with_set, "--num-envs", "2")
    assert (config["num_envs"], config["lr"], config["network"]["kind"]) == (2, 0.03, "rnn")


def test_a_stage_without_a_task_inherits_its_parents_and_a_method_wins_over_its_command(folder: Path) -> None:
    for command in (["train-teacher", "toy.yaml"], ["collect"]):
        assert main([*command, "--quiet"]) == 0
    assert config_of("distill")["epochs"] == 7
    assert config_of("distill", "--method", "slow")["epochs"] == 9
    assert config_of("distill", "--method=slow", "--epochs", "2")["epochs"] == 2


def test_a_method_passes_over_what_a_task_says_for_another_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "toy.yaml").write_text(TASK.replace("epochs: 7", "epochs: 7, slow_weight: 4"))
    for command in (["train-teacher", "toy.yaml"], ["collect"]):
        assert main([*command, "--quiet"]) == 0
    assert "slow_weight" not in config_of("distill")
    assert config_of("distill", "--method", "slow")["slow_weight"] == 4
    (folder / "toy.yaml").write_text(TASK.replace("epochs: 7", "epochs: 7, slow_wait: 4"))
    assert 'unknown setting "slow_wait" in task toy, stages.distill' in error_of(capsys, "distill")


def test_the_shorthand_of_a_network_keeps_the_scripts_other_choices() -> None:
    network = config_of("train-teacher", "bare.yaml", "--network", "rnn")["network"]
    assert (network["kind"], network["hidden"]) == ("rnn", [8])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lrr: 1", 'unknown setting "lrr" in own.yaml: did you mean "lr"'),
        ("network: {hiden: 3}", 'unknown setting "network.hiden" in own.yaml'),
        ("network: rnnn", "own.yaml: network.kind 'rnnn'"),
        ("lr: 7", "own.yaml: lr 7: input should be less than or equal to 1"),
        ("- lr", "must be `name: value` pairs"),
        ("lr: [", "is not valid YAML"),
    ],
)
def test_a_wrong_settings_file_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (folder / "own.yaml").write_text(text)
    assert words in error_of(capsys, "train-teacher", "bare.yaml", "--config", "own.yaml")


def test_a_tasks_settings_for_scripts_of_ones_own_do_not_stop_other_commands(folder: Path) -> None:
    (folder / "train_techer.py").touch()  # nearly ours, but it is here
    (folder / "toy.yaml").write_text(TASK.replace("stages:", "stages:\n  my-method: {x: 1}\n  train-techer: {x: 1}"))
    assert config_of("train-teacher", "toy.yaml")["lr"] == 0.01


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("train-teacher: {lr", "train-techer: {lr", 'unknown command "train-techer" in task toy, stages: did you mean'),
        ("{lr: 0.01", "{lrr: 0.01", 'unknown setting "lrr" in task toy, stages.train-teacher: did you mean "lr"'),
        ("{lr: 0.01", "{lr: 9", "task toy, stages.train-teacher: lr 9: input should be less"),
    ],
)
def test_a_wrong_task_file_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    (folder / "toy.yaml").write_text(TASK.replace(old, new))
    assert words in error_of(capsys, "train-teacher", "toy.yaml")

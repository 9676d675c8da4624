"""`tscli diagnose`, and the checks before a distillation."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diagnose_data import ARM, EFFORT, PUSH, sample_of, teacher_of, view
from rich.console import Console
from stage_tools import ADVISOR, BC, COLLECT, DAGGER, ONLINE, SMALL, TEACHER, call, error_of, fingerprint

from tscli.cli.app import main
from tscli.config import NetworkConfig, StudentConfig
from tscli.diagnose import diagnosis
from tscli.runs import Session, list_runs
from tscli.streams import generator


@pytest.mark.parametrize(
    ("settings", "window"),
    [
        ({"window": 8, "bptt": 4}, ("window", 8)),
        ({"gradient_length": 15}, ("gradient-length", 15)),
        ({"bptt": 4}, ("bptt", 4)),
    ],
)
def test_advice_on_memory_names_the_option_that_the_stage_has(
    settings: dict[str, int], window: tuple[str, int]
) -> None:
    assert diagnosis.window_of(settings) == window


def test_nothing_is_found_where_all_is_fine() -> None:
    teacher = teacher_of("state", hidden=())
    sample = sample_of(teacher, "state + lone")
    found = diagnosis.sample_findings(teacher, sample, True, NetworkConfig(), EFFORT, 1, ("window", 16))
    assert [finding for finding in found if finding.level != "fine"] == []


def test_random_actions_are_uniform_choices_or_of_half_the_range() -> None:
    obs = {"vector": torch.randn(1, 20_000, 3)}
    for action, deviations in ((PUSH, [0.5]), (ARM, [1.0, 2.0])):
        policy = diagnosis.random_policy(view("state", action), action)
        dist, _ = policy(obs, policy.initial_hidden(20_000))
        drawn = dist.sample(generator(0, "test")).float().reshape(20_000, -1)
        torch.testing.assert_close(drawn.std(0), torch.tensor(deviations), atol=0.02, rtol=0)
        middle = torch.tensor([0.5] if action is PUSH else [0.0, 1.0])
        torch.testing.assert_close(drawn.mean(0), middle, atol=0.05, rtol=0)


# --- the command ------------------------------------------------------------------------------------------------------

DIAGNOSE = ("diagnose", "--episodes", "10", "--steps", "300")


def as_json(capsys: pytest.CaptureFixture[str], *args: str) -> dict:
    capsys.readouterr()
    assert main([*DIAGNOSE, *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_says_what_it_found_and_writes_no_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = as_json(capsys)
    assert data["teacher"] == list_runs(runs)[0].name and data["pairs"] == list_runs(runs)[1].name
    assert data["view"] == "partial" and len(list_runs(runs)) == 2
    levels = {finding["about"]: finding["level"] for finding in data["findings"]}
    assert list(levels) == ["teacher", "labels", "normaliser", "actions", "inputs", "range", "view", "memory"]
    assert levels["teacher"] == "problem" and levels["labels"] == "fine"  # 384 steps make no teacher
    assert main([*DIAGNOSE]) == 0
    text = capsys.readouterr().out
    assert "The greedy teacher's return is" in text and "problem" in text and "Train it longer" in text


def test_without_pairs_the_teacher_is_rolled_out(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = as_json(capsys, "--pairs", "none", "--obs", "full", "--seed", "4")
    assert data["pairs"] is None and data["view"] == "full" and data["steps"] >= 300
    assert "labels" not in {finding["about"] for finding in data["findings"]}
    assert data == as_json(capsys, "--pairs", "none", "--obs", "full", "--seed", "4")


def test_pictures_and_gymnasiums_envs_are_diagnosed_as_well(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("train-teacher", "toy_envs:toy/Dict-v0", *TEACHER[2:], "--obs", "body")
    data = as_json(capsys, "--obs", "camera")
    assert data["view"] == "camera"
    assert all(finding["level"] != "problem" for finding in data["findings"] if finding["about"] == "view")


def test_pairs_without_a_group_are_passed_over_unless_they_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("train-teacher", "toy_envs:toy/Dict-v0", *TEACHER[2:], "--obs", "body")
    call(*COLLECT, "--groups", "body")
    assert as_json(capsys, "--obs", "goal")["pairs"] is None
    assert as_json(capsys, "--obs", "body[0]")["pairs"] is not None
    assert "did not record" in error_of(capsys, *DIAGNOSE, "--obs", "goal", "--pairs", "2")


def test_what_is_not_there_is_refused_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no finished run" in error_of(capsys, *DIAGNOSE)
    call(*TEACHER)
    call(*COLLECT)
    call(*TEACHER, "--seed", "5")
    assert "another teacher" in error_of(capsys, *DIAGNOSE, "--teacher", "3", "--pairs", "2")
    assert 'did you mean "partial"' in error_of(capsys, *DIAGNOSE, "--obs", "partail")
    assert "no run" in error_of(capsys, *DIAGNOSE, "--teacher", "77")
    assert "--resume" in error_of(capsys, *DIAGNOSE, "--resume")


# --- before a distillation --------------------------------------------------------------------------------------------

METHODS = {
    "bc": BC,
    "dagger": DAGGER,
    "dagger without pairs": (*DAGGER, "--pairs", "none"),
    "online": ONLINE,
    "advisor": ADVISOR,
}


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("method", METHODS)
def test_a_student_is_the_same_bit_for_bit_with_and_without_the_checks(
    runs: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    assert main([*METHODS[method], *SMALL]) == 0
    said = capsys.readouterr().err
    assert main([*METHODS[method], *SMALL, "--no-diagnose"]) == 0
    assert "The greedy teacher's return is" in said and "did not work" not in said
    assert "The greedy teacher's return is" not in capsys.readouterr().err
    checked, unchecked = list_runs(runs)[-2:]
    assert fingerprint(checked) == fingerprint(unchecked)


@pytest.mark.usefixtures("no_plots")
def test_a_check_that_fails_does_not_keep_the_student_from_learning(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(diagnosis, "imitation_gap", fail)
    assert main([*BC, *SMALL]) == 0
    assert "checks before distillation did not work" in capsys.readouterr().err


@pytest.mark.usefixtures("no_plots")
def test_who_wants_quiet_and_who_resumes_is_told_nothing(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(diagnosis, "_quick_findings", lambda *args: calls.append(args) or [])
    call(*BC, *SMALL)
    assert calls == []
    assert main([*BC, *SMALL]) == 0
    assert len(calls) == 1


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(("method", "told"), [(ONLINE, True), (ADVISOR, False)], ids=["online", "advisor"])
def test_who_learns_from_rewards_too_is_not_told_that_the_view_hides_something(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, method: tuple[str, ...], told: bool
) -> None:
    hidden = diagnosis.Finding("problem", "view", "The view hides the door.")
    still = diagnosis.Finding("note", "inputs", "An input stands still.")
    monkeypatch.setattr(diagnosis, "_quick_findings", lambda *args: [hidden, still])
    assert main([*method, *SMALL]) == 0
    said = capsys.readouterr().err
    assert ("The view hides the door." in said) is told and "An input stands still." in said


@pytest.mark.parametrize("processes", [1, 2])
def test_processes_that_train_together_are_not_kept_waiting_by_checks_of_one(
    processes: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    session, nothing = Session(log=Console()), SimpleNamespace(runs=[None])  # with which no check can do its work
    diagnosis.before_distillation(session, StudentConfig(), nothing, None, None, None)  # type: ignore[arg-type]
    assert ("did not work" in capsys.readouterr().out) == (processes == 1)

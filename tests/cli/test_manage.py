"""Runs removed and noted from the command line."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
from toy_scripts import RUNS, config_of, error_of

from tscli.cli.app import main
from tscli.runs import list_runs
from tscli.runs.locks import lock_folder


@pytest.fixture(autouse=True)
def made(folder: Path) -> None:
    for command in ("train-teacher bare.yaml", "collect", "distill"):
        assert main([*command.split(), "--quiet"]) == 0


def numbers() -> list[int]:
    return [run.number for run in list_runs(RUNS)]


def test_a_run_that_others_descend_from_is_kept_unless_that_is_forced(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, "runs", "rm", "2", "--yes")
    assert "0003-distill-quick-bare-seed1 descend from it" in error
    assert main(["runs", "rm", "2", "3", "--yes"]) == 0
    assert numbers() == [1]
    assert main(["collect", "--quiet"]) == 0
    assert main(["runs", "rm", "1", "--yes", "--force"]) == 0
    assert numbers() == [4], "a number is not given again"


def test_removing_asks_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nobody to ask: add --yes" in error_of(capsys, "runs", "rm", "3")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer, left in (("n", 3), ("", 3), ("y", 2)):
        monkeypatch.setattr("builtins.input", lambda _, said=answer: said)
        assert main(["runs", "rm", "3"]) == 0
        assert len(numbers()) == left
    lock = lock_folder(list_runs(RUNS)[-1].path)
    assert "another process is at work" in error_of(capsys, "runs", "rm", "2", "--yes")
    lock.close()


def test_a_note_is_shown_with_the_runs_and_taken_away_by_no_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "note", "1", "the [good]", "one"]) == 0
    capsys.readouterr()
    assert main(["runs"]) == 0
    assert "the [good] one" in capsys.readouterr().out
    assert main(["runs", "note", "1"]) == 0
    assert [run.note for run in list_runs(RUNS)] == ["", "", ""]
    assert "are more than a line" in error_of(capsys, "runs", "note", "1", "x" * 201)


def test_a_teacher_is_named_without_a_flag_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-teacher", "bare.yaml", "--quiet"]) == 0
    assert config_of("collect", "1")["teacher"] == "1"
    assert list_runs(RUNS)[-1].parents == ["0001-train-teacher-bare-seed1"]
    assert "are two teachers: give one" in error_of(capsys, "collect", "1", "--teacher", "4")

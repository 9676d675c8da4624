"""A full disk at a real stage: one line wherever it is met, and nothing half-written left behind."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from stage_tools import COLLECT, DAGGER, RUNS, SMALL, TEACHER, at_call, call, error_of

from tscli.runs import list_runs

pytestmark = pytest.mark.usefixtures("no_plots")


def disk_is_full(*args: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8])
def test_a_full_disk_is_one_line_wherever_it_is_met(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    fsync = os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", at_call(fsync, number, disk_is_full))
        error = error_of(capsys, *TEACHER, "--checkpoint-every", "0")
    assert "No space left on device" in error and "free some space" in error
    # Nothing could be written, so that the manifest, if there is one, is the one from before.
    for run in list_runs(RUNS):
        assert run.status == "stopped"
        assert not list(run.path.glob(".*.tmp"))
        assert call("train-teacher", "--resume").status == "finished"


@pytest.mark.parametrize("command", [COLLECT, (*DAGGER, *SMALL)])
def test_a_dataset_that_does_not_fit_onto_the_disk_is_refused_when_it_is_begun(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", disk_is_full)
    error = error_of(capsys, *command)
    assert "no space" in error.lower() or "disk is full" in error.lower()
    assert list_runs(RUNS)[-1].manifest["status"] == "failed"


def test_a_film_that_does_not_fit_onto_the_disk_is_refused_and_leaves_no_half_of_it(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        # After config.yaml, manifest.json, and what was measured, which is not lost.
        patch.setattr(os, "fsync", at_call(os.fsync, 4, disk_is_full))
        error = error_of(capsys, "eval", "--episodes", "2", "--render", "gif")
    assert "film.gif: No space left on device" in error
    folder = list_runs(RUNS)[-1].path
    assert not list(folder.glob("*film*")) and "policies" in json.loads((folder / "report.json").read_text())

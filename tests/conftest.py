"""Fixtures for the tests of the stages: an empty folder to stand in, and finished runs to continue from."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest

from tscli import scripts

_read_script = functools.cache(scripts.read_script)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with no runs yet. Scripts are read once, not anew for every command."""
    monkeypatch.setattr(scripts, "read_script", _read_script)
    monkeypatch.delenv("TSCLI_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures of metrics, which take longer than a tiny run."""
    from tscli import plots

    monkeypatch.setattr(plots, "draw_curves", lambda path, *args, columns=3: path)


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: 1 is a tiny CartPole teacher, 2 are its pairs. To be copied, not changed."""
    from stage_tools import COLLECT, TEACHER, call

    work = tmp_path_factory.mktemp("finished")
    before = Path.cwd()
    os.chdir(work)
    try:
        call(*TEACHER)
        call(*COLLECT)
    finally:
        os.chdir(before)
    return work / "runs"


@pytest.fixture
def runs(folder: Path, finished_runs: Path) -> Path:
    """The folder to stand in, with a copy of `finished_runs` in it."""
    shutil.copytree(finished_runs, folder / "runs")
    return folder / "runs"

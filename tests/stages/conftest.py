"""A finished student to continue from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stage_tools import DAGGER, RUNS, SMALL, make_runs

from tscli.runs import Run, find_run


@pytest.fixture(scope="session")
def finished_student(finished_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: beside those of `finished_runs` a student, with memory, as run 3. To be copied, not changed."""
    work = tmp_path_factory.mktemp("student")
    shutil.copytree(finished_runs, work / "runs")
    return make_runs(work, (*DAGGER, *SMALL, "--student", "rnn", "--obs", "partial"))


@pytest.fixture
def student(folder: Path, finished_student: Path) -> Run:
    """The student, in a copy of the folder, which is the one to stand in."""
    shutil.copytree(finished_student, folder / "runs")
    return find_run(RUNS, "3")

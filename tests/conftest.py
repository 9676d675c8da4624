"""Fixtures for the tests of the stages: an empty folder to stand in, and finished runs to continue from."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """What `just damage` takes."""
    parser.addoption("--cases", type=int, default=100_000, help="of tests/test_damage.py's slow part")
    parser.addoption("--first-case", type=int, default=0, help="of the same, to go on or to see one again")
    parser.addoption("--damage-seed", type=int, default=2, help="of the same")


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What this user has named is kept here, and not among the real user's."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    return Path(os.environ["XDG_STATE_HOME"])


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """What only a power cut would lose need not reach the disk: that takes a third of a tiny run's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with no runs yet."""
    monkeypatch.delenv("TSCLI_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the pictures of metrics, which take longer than a tiny run."""
    from tscli.pictures import curves
    from tscli.training import latents

    monkeypatch.setattr(curves, "draw_curves", lambda path, *args: path)
    monkeypatch.setattr(latents, "_draw", lambda path, *args: path)


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: 1 is a tiny CartPole teacher, 2 are its pairs. To be copied, not changed."""
    from stage_tools import COLLECT, TEACHER, make_runs

    return make_runs(tmp_path_factory.mktemp("finished"), TEACHER, COLLECT)


@pytest.fixture
def runs(folder: Path, finished_runs: Path) -> Path:
    """The folder to stand in, with a copy of `finished_runs` in it."""
    shutil.copytree(finished_runs, folder / "runs")
    return folder / "runs"


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of four shards, three envs and 60 steps of made-up data. To be copied, not changed."""
    from pairs_data import write

    folder = tmp_path_factory.mktemp("recorded") / "pairs"
    write(folder, num_envs=3, steps=60)
    return folder


@pytest.fixture
def dataset(recorded: Path, tmp_path: Path) -> Path:
    """A copy of `recorded`, to be damaged."""
    return Path(shutil.copytree(recorded, tmp_path / "pairs"))

"""Fixtures for the tests of comparisons: toy methods, and what need not be done to test the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparisons import LEARN, MEASURE, METHODS

from tscli.cli.app import main
from tscli.compare import pictures
from tscli.compare.crew import Crew


@pytest.fixture
def toys(folder: Path) -> Path:
    """The folder to stand in, with the toy scripts and a file of methods."""
    (folder / "learn.py").write_text(LEARN)
    (folder / "measure.py").write_text(MEASURE)
    (folder / "methods.yaml").write_text(METHODS)
    return folder


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes longer than the cells."""
    monkeypatch.setattr(pictures, "draw", lambda results, folder: ())


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run cells one after the other in this process, for tests of what is made of them."""

    def run(crew: Crew) -> None:
        for cell in crew.waiting:
            cell.folder.mkdir(parents=True)
            cell.prepare()
            assert main([*cell.words(resume=False), "--quiet"]) == 0

    monkeypatch.setattr(Crew, "run", run)

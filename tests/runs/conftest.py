"""A place for runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tscli.runs import Session


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Of a stage that was called in an empty folder."""
    return Session(runs_dir=tmp_path / "runs")

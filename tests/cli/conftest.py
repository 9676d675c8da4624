"""Fixtures for the tests of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from toy_scripts import stand_among


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with toy scripts instead of the shipped ones."""
    return stand_among(tmp_path, monkeypatch)

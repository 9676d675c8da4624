"""Writing a run's page into its folder."""

from __future__ import annotations

from pathlib import Path

from tscli.files import atomic_write
from tscli.report.single import run_page
from tscli.runs import Run

PAGE = "report.html"


def write_page(run: Run) -> Path:
    """Write the page of a run, or of a comparison, into its folder."""
    path = run.path / PAGE
    atomic_write(path, run_page(run))
    return path

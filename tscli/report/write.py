"""Writing a run's page into its folder."""

from __future__ import annotations

from pathlib import Path

from tscli.files import atomic_write
from tscli.report.comparison import comparison_page, measured_runs
from tscli.report.sensors import sensors_page
from tscli.report.single import LIMIT, run_page
from tscli.runs import Run, Session

PAGE, COMPARE, SENSORS = "report.html", "compare", "sensors"


def write_page(run: Run, limit: int = LIMIT, path: Path | None = None) -> Path:
    """Write the page of a run into its folder, with a comparison's those that it links to; or elsewhere, alone.

    Args:
        run: what it is about.
        limit: bytes that a run's page should not exceed.
        path: where it is written instead, without links.
    """
    if run.command == COMPARE:
        page = comparison_page(run, alone=path is not None)
        for cell in measured_runs(run) if path is None else ():
            if not (cell.path / PAGE).exists():  # of a finished run, which stays as it is
                atomic_write(cell.path / PAGE, run_page(cell))
    else:
        page = sensors_page(run) if run.command == SENSORS else run_page(run, limit)
    path = path or run.path / PAGE
    atomic_write(path, page)
    return path


def announce_page(run: Run, session: Session) -> None:
    """Write the page and say where it is; one that cannot be made costs a remark, and not what has been trained."""
    try:
        session.note(f"page:   {write_page(run)}")
    except Exception as error:
        session.note(f"no page could be made of {run.name}: {error!r}")

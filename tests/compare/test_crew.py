"""Cells that cannot go on, that others work on, and that have failed."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import pytest
from comparisons import LEARN, calls, crew_of

from tscli.compare.crew import Crew, last_error
from tscli.runs import list_runs
from tscli.runs.locks import lock_folder

pytestmark = pytest.mark.usefixtures("folder")


def test_a_cell_that_cannot_be_resumed_is_started_anew(toys: Path) -> None:
    crew, _ = crew_of(toys)
    crew.run()
    (run,) = list_runs(crew.cells[0].folder)
    manifest = {**run.manifest, "status": "stopped", "config_hash": "of other settings"}
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    again, said = crew_of(toys)
    again.run()
    assert "have changed since" in said[0] and "starting it anew" in said[0]
    assert again.failed == {} and calls(toys) == ["1/0", "1/0"]


def test_a_cell_whose_process_cannot_begin_keeps_what_was_made(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crew, _ = crew_of(toys)
    crew.run()
    (run,) = list_runs(crew.cells[0].folder)
    (run.path / "manifest.json").write_text(json.dumps({**run.manifest, "status": "stopped"}))
    monkeypatch.setattr(sys, "executable", "/bin/false")
    again, said = crew_of(toys)
    again.run()
    assert list(again.failed) == [again.cells[0].key] and "anew" not in " ".join(said)
    assert run.path.is_dir()


def test_a_cell_that_another_process_works_on_is_waited_for(toys: Path) -> None:
    crew, _ = crew_of(toys)
    first = crew.cells[0]
    first.folder.mkdir(parents=True)
    lock = lock_folder(first.folder, name=".cell.lock")
    seen = []

    def show(crew: Crew) -> None:
        seen.append((len(crew.working), crew.elsewhere))
        if len(seen) == 3:
            lock.close()

    Crew(crew.cells, 1, lambda text: None, show).run()
    assert seen[:3] == [(0, {first.key})] * 3
    assert calls(toys) == ["1/0"]


def test_a_script_that_changes_in_the_middle_is_not_run_under_its_old_name(toys: Path) -> None:
    crew, _ = crew_of(toys)
    (toys / "learn.py").write_text(LEARN.replace("90 +", "91 +"))
    crew.run()
    assert "has changed since the comparison began" in crew.failed[crew.cells[0].key]
    assert not (toys / "calls.txt").exists()


def test_the_error_of_a_log_is_its_last_since_the_start(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("error: of an earlier try\nerror: the one\nrun again with --debug for the traceback\n")
    assert last_error(log, 25, 1) == "the one"
    assert last_error(log, log.stat().st_size, 3) == "it ended with code 3"
    assert last_error(log, 0, -signal.SIGKILL) == "its process was ended by SIGKILL"

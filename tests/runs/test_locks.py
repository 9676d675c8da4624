"""Several processes and one run: who is at work there."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_runs import stopped

from tscli.config import StageConfig, UserError
from tscli.runs import Session, find_run, find_unfinished, locks
from tscli.runs.locks import Lock

CHILD = """
import sys
from pathlib import Path
from tscli.config import StageConfig
from tscli.runs.session import Session
with Session(runs_dir=Path(sys.argv[1])).start(StageConfig(seed=3), "train-teacher", "cartpole") as run:
    print(run.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def child(session: Session) -> Iterator[subprocess.Popen[str]]:
    """Another process with a run of its own at work."""
    command = [sys.executable, "-c", CHILD, str(session.runs_dir)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_killed_process_leaves_a_stopped_run(session: Session, child: subprocess.Popen[str]) -> None:
    run = find_run(session.runs_dir, "1")
    assert run.status == "running" and run.manifest["pid"] == child.pid
    with pytest.raises(UserError, match=f"is still running \\(process {child.pid}\\)"):
        find_unfinished(session.runs_dir, "train-teacher", None, "1")
    child.kill()
    child.wait()
    assert run.status == "stopped"
    assert find_unfinished(session.runs_dir, "train-teacher", None, "").name == run.name


def test_two_processes_cannot_hold_one_run(session: Session, child: subprocess.Popen[str]) -> None:
    held = Session(runs_dir=session.runs_dir, resume=find_run(session.runs_dir, "1"))
    with pytest.raises(UserError, match="another process is at work in 0001-"):
        held.start(StageConfig(seed=3), "train-teacher", "cartpole")
    assert find_run(session.runs_dir, "1").manifest["pid"] == child.pid
    assert child.poll() is None


def test_those_who_only_look_do_not_take_each_other_for_the_owner(session: Session) -> None:
    run = stopped(session)
    (run.path / "manifest.json").write_text(json.dumps({**run.manifest, "status": "running"}))
    lookers = [Lock(run.path, shared=True) for _ in range(2)]
    assert find_run(session.runs_dir, "1").status == "stopped"
    for looker in lookers:
        looker.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there it is how a lock is refused")
def test_a_folder_where_nothing_may_be_written_is_not_said_to_be_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(locks, "Lock", refuse)
    with pytest.raises(UserError, match="you may not write there"):
        locks.lock_folder(tmp_path)

"""`tscli watch`: which run it takes, and how it ends."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from stage_tools import RUNS, error_of
from toy_runs import start

from tscli.cli.app import main
from tscli.launch.scripts import find_script, load_script
from tscli.runs import Session

WATCH = load_script(find_script("watch"))


def test_in_a_pipe_it_prints_once(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with start(Session(RUNS)):
        assert main(["watch", "1"]) == 0
        out = capsys.readouterr().out
        assert (
            out.startswith("0001-train-teacher-cartpole-seed1  finished  384 of 384 steps") and "rollout/return" in out
        )
        assert main(["watch", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["run"].startswith("0003-") and found["status"] == "running", "the one at work"
    assert main(["watch", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "failed", "or the newest"


def test_there_has_to_be_a_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there are no runs in runs" in error_of(capsys, "watch")


def test_on_a_terminal_it_draws_until_the_run_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, height=30, color_system=None)
    session = Session(RUNS, console=console)
    with start(Session(RUNS)) as run:
        looks = []

        def sleep(seconds: float) -> None:
            """In the meantime the run goes on."""
            looks.append(seconds)
            if len(looks) == 3:
                run.finish({"eval/return": 5.0})
                run._lock.close()
            else:
                run.log({"step": len(looks), "rollout/return": float(len(looks))})

        monkeypatch.setattr(WATCH, "time", SimpleNamespace(sleep=sleep))
        WATCH.main(WATCH.Config(run="1", every=0.5), session)
    assert looks == [0.5] * 3
    assert "rollout/return 2" in out.getvalue() and "finished" in out.getvalue()


def test_ctrl_c_is_the_way_to_end_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(WATCH, "time", SimpleNamespace(sleep=sleep))
    with start(Session(RUNS)):
        WATCH.main(WATCH.Config(), Session(RUNS, console=Console(file=io.StringIO(), force_terminal=True)))

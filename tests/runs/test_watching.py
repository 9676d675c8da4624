"""What is seen of a run while it goes: read piece by piece, drawn as wide as there is room."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from toy_runs import start

from tscli.runs import Run, Session, read_run
from tscli.runs.watching import Log, Watched, cells_of, returns_of, trend


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "runs")


def printed(seen: Watched, width: int, height: int = 40) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height, force_terminal=True, color_system=None).print(seen)
    return out.getvalue().splitlines()


def run_of(session: Session, **kinds: list[float]) -> Run:
    """A finished run that logged these."""
    with start(session, role="teacher") as run:
        for i, values in enumerate(zip(*kinds.values(), strict=True)):
            line = {name.replace("_", "/"): value for name, value in zip(kinds, values, strict=True)}
            run.log({"step": 1000 * (i + 1), "steps_per_second": 5e3, "loop_seconds": 61.0, **line})
        return run.finish({"eval/return": 7.0})


def test_a_log_is_read_line_by_line_as_it_grows_and_anew_when_it_was_cut_back(tmp_path: Path) -> None:
    log, path = Log(tmp_path), tmp_path / "metrics.jsonl"
    assert log.refresh() == []
    path.write_text('{"step": 1}\n{"st')
    assert log.refresh() == [{"step": 1}]
    with path.open("a") as file:
        file.write('ep": 2}\nrubbish\n[3]\n')
    assert log.refresh() == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n')
    assert log.refresh() == [{"step": 1}]


def test_a_trend_is_of_the_returns_of_training_or_of_greedy_ones_where_there_are_more(session: Session) -> None:
    run = run_of(session, rollout_return=[0.0, 1.0, 2.0], eval_return=[5.0, 5.0, 5.0])
    assert trend(run) == "▁▅█"
    assert returns_of([{"eval/return": 1.0}, {"eval/return": 2.0}, {"rollout/return": None}]) == [1.0, 2.0]
    assert returns_of([]) == []


def test_curves_stand_side_by_side_where_there_is_room_and_under_each_other_where_not(session: Session) -> None:
    run = run_of(session, rollout_return=[0.0, 1.0, 2.0], loss_policy=[3.0, 2.0, 1.5], lr=[1.0, 1.0, 1.0])
    for width in (30, 60, 100, 200):
        lines = printed(Watched(run), width)
        assert max(map(len, lines)) <= width
        together = [line for line in lines if "rollout/return 2" in line and "loss/policy 1.5" in line]
        assert bool(together) == (width >= 76)
    text = "\n".join(lines)
    assert "3k steps, 5k/s, 1m01s, return 7.000" in text and "lr" not in text
    assert len(printed(Watched(run), 100, height=12)) <= 12


def test_of_a_comparison_the_cells_are_seen_those_at_work_first(session: Session) -> None:
    with start(session, "compare", checkpoints=False) as run:
        listed = [{"title": f"learn seed {i} [of state[0]]", "folder": f"cell{i}"} for i in range(3)]
        (run.path / "cells.json").write_text(json.dumps({"cells": listed}))
        done = run_of(Session(session.runs_dir / "cells" / "cell1"), rollout_return=[0.0, 3.0])
        with start(Session(session.runs_dir / "cells" / "cell0")) as cell:
            for step in (1, 2):
                cell.log({"step": step, "rollout/return": 4.0 * step})
            whole = read_run(run.path)
            assert [(title[:12], one and one.name) for title, one in cells_of(whole)] == [
                ("learn seed 0", cell.name),
                ("learn seed 1", done.name),
                ("learn seed 2", None),
            ]
            lines = printed(Watched(whole), 90)
    assert "1 of 3 cells" in lines[0]
    assert [line.split()[2] for line in lines[2:4]] == ["0", "1"] and "running" in lines[2] and "▁█" in lines[2]
    assert lines[4].split()[:2] == ["1", "more"]
    assert any("learn seed 0 [of state[0]] 8" in line for line in lines[5:]), "the curve of the one at work"
    plain = Watched(whole).plain()
    assert [cell["status"] for cell in plain["cells"]] == ["failed", "finished", "waiting"]


@pytest.mark.parametrize("text", ["", "[]", '{"cells": 3}', '{"cells": [{"title": 1}]}'])
def test_a_list_of_cells_that_cannot_be_read_is_none(session: Session, text: str) -> None:
    with start(session, "compare", checkpoints=False) as run:
        (run.path / "cells.json").write_text(text)
    assert cells_of(read_run(run.path)) == []

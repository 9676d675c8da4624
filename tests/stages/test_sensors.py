"""`tscli sensors`: what it distills, measures and leaves behind, and how it goes on after a stop."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage_tools import RUNS, SITT, call, error_of

from tscli.cli.app import main
from tscli.compare.crew import Crew
from tscli.runs import Run, list_runs
from tscli.sensors import bearing, knowing, picture
from tscli.sensors.students import Measure

_DISTILL = "total_steps=64 num_envs=4 round_steps=8 updates_per_round=1 batch_size=8 window=4 eval_episodes=2"
SENSORS = (
    *("sensors", "cartpole", "--episodes", "4", "--steps", "400", "--sensors", "state[angle] + state[position]"),
    *(word for one in _DISTILL.split() for word in ("--set", f"stages.distill.{one}")),
    *("--memory.hidden", "8", "--memory.memory", "8", "--memory", "rnn", "--memoryless.hidden", "8"),
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, no_plots: None) -> None:
    """Cells in this process, one after the other, hasty probes and few levels of disturbance."""

    def run(crew: Crew) -> None:
        for cell in crew.waiting:
            cell.folder.mkdir(parents=True)
            cell.prepare()
            assert main([*cell.words(resume=False), "--quiet"]) == 0

    monkeypatch.setattr(Crew, "run", run)
    monkeypatch.setattr(knowing, "EFFORT", knowing.EFFORT._replace(fit_rows=100, test_rows=50, units=8, updates=5))
    monkeypatch.setattr(bearing, "LEVELS", {"noise": (0.1, 1.0), "delay": (1, 30), "dropout": (0.1, 0.9)})


def cells() -> list[Path]:
    return sorted(path.parent for path in (RUNS / "cells").glob("*/cell.json"))


def results(run: Run) -> dict[str, Any]:
    return json.loads((run.path / "sensors.json").read_text())


def test_a_search_leaves_figures_a_picture_and_a_page_and_is_never_made_twice(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = call(*SENSORS)
    assert first.status == "finished" and set(first.parents) == {run.name for run in list_runs(RUNS)[:2]}
    found = results(first)
    assert [one["name"] for one in found["sensors"]] == ["state[angle]", "state[position]"]
    full = [one for one in found["candidates"] if len(one["sensors"]) == 2]
    assert [(one["memory"], one["body"], one["view"]) for one in full] == [
        (True, "rnn", "state[angle] + state[position] + previous_action"),
        (False, "mlp", "state[angle] + state[position]"),
    ]
    students = [list_runs(path)[-1] for path in cells()]
    assert {run.config["obs"] for run in students} == {one["view"] for one in found["candidates"]}
    for name in ("table.md", "sensors.png", "report.html", "cells.json"):
        assert (first.path / name).stat().st_size > 100
    assert found["sentence"] in (first.path / "table.md").read_text()
    assert first.manifest["next"].startswith('distill --teacher 0001-train-teacher-cartpole-seed1 --obs "state[')
    before = {path: path.stat().st_mtime_ns for path in (RUNS / "cells").rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main([*SENSORS, "--json", "--quiet"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert {path: path.stat().st_mtime_ns for path in before} == before and again == found


def test_returns_are_those_of_tscli_eval_on_the_same_episodes(runs: Path) -> None:
    run = call(*SENSORS, "--modes", "memoryless", "--no-bearing")
    student = next(one for one in map(lambda path: list_runs(path)[-1], cells()) if "position" in one.config["obs"])
    measured = call("eval", str(student.path), "--episodes", "4", "--num-envs", "4")
    report = json.loads((measured.path / "report.json").read_text())["policies"]
    candidate = next(one for one in results(run)["candidates"] if one["view"] == student.config["obs"])
    assert candidate["return"] == pytest.approx(report["student"]["greedy"]["return"]["mean"])
    assert results(run)["teacher"] == pytest.approx(report["teacher"]["greedy"]["return"]["mean"])


def test_without_a_teacher_it_trains_one_and_collects_and_a_stopped_search_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"train-teacher": "total_steps=64 num_envs=4 rollout_steps=16 num_minibatches=2 eval_episodes=2"}
    small |= {"collect": "episodes=3"}
    args = [f"--set=stages.{stage}.{one}" for stage, text in small.items() for one in text.split()]
    args += ["--modes", "memoryless", "--no-bearing"]
    with monkeypatch.context() as stop:
        stop.setattr(Measure, "of_cells", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main([*SENSORS, *args, "--quiet"]) == 130
    (run,) = list_runs(RUNS)
    assert run.status == "stopped" and len(cells()) == 3
    assert main(["sensors", "--resume", "--quiet"]) == 0
    (run,) = list_runs(RUNS)
    assert run.status == "finished" and run.parents == []
    commands = [list_runs(path)[-1].command for path in cells()]
    assert commands.count("train-teacher") == commands.count("collect") == 1
    assert "--teacher runs/cells/" in run.manifest["next"]


def test_the_newest_teacher_may_have_been_trained_with_a_student(folder: Path) -> None:
    joint = call(*SITT)
    run = call(*SENSORS, "--set=stages.collect.episodes=3", "--modes", "memoryless", "--no-bearing")
    assert run.parents == [joint.name]


def test_what_is_needed_is_kept_and_said(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_policy(self: Measure, policy: Any, greedy: bool = True) -> np.ndarray:
        """With the angle all is well; late by 30 steps or lost nine times of ten it is not."""
        parts = policy.spec.view.parts
        sees = any(p.index == (2,) and p.delay < 30 and p.dropout < 0.9 and p.noise < 0.05 for p in parts)
        return np.full(4, 500.0 if greedy and (sees or parts[0].index is None) else 20.0)

    monkeypatch.setattr(Measure, "of_policy", of_policy)
    run = call(*SENSORS, "--modes", "memoryless")
    found = results(run)
    assert [one["sensors"] for one in found["candidates"] if one["kept"]] == [["state[angle]"]]
    assert found["sentence"] == ("Without memory state[angle] is enough (return 500.0, of all 2 sensors 500.0).")
    (borne,) = found["bearings"]
    assert [(one["kind"], one["bears"], one["falls"]) for one in borne["rows"]] == [
        ("noise", 0.1, 1.0),
        ("delay", 1, 30),
        ("dropout", 0.1, 0.9),
    ]
    assert picture.NAME in (run.path / "table.md").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--sensors", "state[angel]"), 'no entry "angel"'),
        (("--cost", "camera=2"), 'there is no sensor "camera"'),
        (("--cost", "state"), "write sensor=cost"),
        (("--loss", "1"), "--loss"),
        (("--set", "stages.distil.lr=1"), "write stage.key, of the stages train-teacher, collect, distill"),
        (("--set", "stages.distill.lrr=1"), 'unknown setting "lrr"'),
        (("--modes", "none"), "--modes"),
        (("--teacher", "2"), "does not hold a teacher's policy"),
    ],
)
def test_a_mistake_is_refused_before_anything_is_distilled(
    runs: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    assert message in error_of(capsys, "sensors", "cartpole", *args)
    assert not cells() and len(list_runs(RUNS)) == 2

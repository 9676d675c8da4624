"""`tscli tasks` and `tscli runs`."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import sys

import pytest
from toy_scripts import error_of

from tscli.cli import show
from tscli.cli.app import main


def test_runs_are_shown_as_a_tree_and_one_in_detail(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("train-teacher bare.yaml", "collect", "distill", "train-teacher bare.yaml --seed 2"):
        assert main([*command.split(), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["runs"]) == 0
    out = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in out.splitlines() if "bare" in line]
    assert rows == ["1 train-teacher", "└─ 2 collect", "", "4 train-teacher"]
    assert "   └─ 3 distill quick" in out and "return 50.0" in out
    assert main(["runs", "3"]) == 0
    out = capsys.readouterr().out
    assert "0002-collect-bare-seed1" in out and "student.kind" in out and "manifest.json" in out
    assert main(["runs", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [run["parents"] for run in listed][1] == ["0001-train-teacher-bare-seed1"]
    assert main(["runs", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["seed"] == 2


def test_what_has_no_result_is_listed_with_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-teacher", "bare.yaml", "--quiet", "--lr", "0.5"]) == 130
    assert main(["train-teacher", "bare.yaml", "--quiet", "--lr", "0.25"]) == 2
    capsys.readouterr()
    assert main(["runs"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if "bare" in line]
    assert [row[4] for row in rows] == ["stopped", "failed"]


def test_a_number_that_no_run_has_names_the_newest_ones(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(5):
        assert main(["train-teacher", "bare.yaml", "--quiet"]) == 0
    error = error_of(capsys, "runs", "77")
    newest = ", ".join(f"000{number}-train-teacher-bare-seed1" for number in (5, 4, 3))
    assert f'no run "77" in runs: it has 5, the newest are {newest}; `tscli runs` lists all' in error


def test_a_task_is_described_with_the_sizes_of_its_views(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "cartpole", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert {name: view["size"] for name, view in described["views"].items()}["partial"] == 3
    assert described["groups"]["state"]["shape"] == [4]
    assert main(["tasks"]) == 0
    assert "partial (3)" in capsys.readouterr().out


def test_a_task_whose_package_is_missing_does_not_hide_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "task_names", lambda: ["cartpole", "lunar_lander"])
    monkeypatch.setitem(sys.modules, "Box2D", None)
    for module in [name for name in sys.modules if name.startswith("gymnasium.envs.box2d")]:
        monkeypatch.delitem(sys.modules, module)
    assert main(["tasks"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "partial (3)" in out and "lunar_lander" in out and "needs a package" in out
    assert "pip install" in error_of(capsys, "tasks", "lunar_lander")

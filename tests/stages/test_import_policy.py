"""`tscli import`: a teacher like any other comes of it."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from pathlib import Path

from foreign_policies import cleanrl, saved
from stage_tools import BC, COLLECT, SMALL, call


def test_the_other_stages_go_on_from_an_imported_teacher(folder: Path, no_plots: None) -> None:
    saved(folder, cleanrl("ppo")[0])
    teacher = call("import", "model.pt", "--task", "cartpole", "--activation", "tanh", "--eval-episodes", "2")
    assert call(*COLLECT).parents == [teacher.name]
    student = call(*BC, *SMALL, "--student", "rnn", "--obs", "partial")
    assert teacher.name in student.parents
    report = json.loads((call("eval", "--episodes", "4").path / "report.json").read_text())
    assert list(report["policies"]) == ["student", "teacher"]

"""Runs to make pages of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy_runs

from tscli.runs import Run, Session

HOSTILE = "\"><script>document.title='owned'</script>\n'&<b>"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Of a stage that was called in an empty folder."""
    return Session(runs_dir=tmp_path / "runs")


def figures(mean: float) -> dict[str, dict[str, float]]:
    """Of one policy in one mode, as `tscli eval` writes them."""
    found = {"mean": mean, "sd": 1.0, "low": mean - 2, "high": mean + 2, "count": 5}
    return {"return": found, "length": found}


@pytest.fixture
def measured(session: Session) -> Run:
    """An evaluation of a student of a teacher; hostile text stands wherever others can put some."""
    with toy_runs.start(session, role="teacher") as run:
        run.save_policy(toy_runs.make_policy())
        teacher = run.finish({"eval/return": 480.0})
    with toy_runs.start(session, "distill", method="dagger", role="student", parents={"teacher": teacher}) as run:
        run.save_policy(toy_runs.make_policy(1))
        for step, value in ((64, 20.0), (128, None), (192, 300.0)):
            run.log({"step": step, "rollout/return": value, f"loss/{HOSTILE}": 0.5})
        student = run.finish({"eval/return": 300.0})
    (student.path / "note.txt").write_text(HOSTILE)
    with toy_runs.start(session, "eval", parents={"policy": student}) as run:
        both = {"greedy": figures(320.0), "sampled": figures(310.0)}
        policies = {"student": {"view": HOSTILE, **both}, "teacher": {"view": "full", **both}}
        report = {"task": HOSTILE, "episodes": 5, "policies": policies, "gap": 160.0, "gap_interval": [150.0, 170.0]}
        report["student_states"] = {"action_agreement": 0.75, HOSTILE: 1.0}
        (run.path / "report.json").write_text(json.dumps(report))
        return run.finish({"eval/return": 320.0}, holds=("report",))

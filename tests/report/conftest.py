"""Runs to make pages of."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import toy_runs
from fake_env import FakeEnv
from PIL import Image

from tscli.files import file_hash
from tscli.networks import Policy
from tscli.runs import Run, Session
from tscli.training.recording import Recorded, write_episodes

HOSTILE = "\"><script>document.title='owned'</script>\n'&<b>"


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """Of a stage that was called in an empty folder."""
    return Session(runs_dir=tmp_path / "runs")


def figures(mean: float) -> dict[str, dict[str, float]]:
    """Of one policy in one mode, as `tscli eval` writes them."""
    found = {"mean": mean, "sd": 1.0, "low": mean - 2, "high": mean + 2, "count": 5}
    return {"return": found, "length": found}


def episode(steps: int = 40) -> Recorded:
    """Of the policies of `with_policies`, further apart from step to step."""
    picture = io.BytesIO()
    Image.new("RGB", (90, 60), (20, 90, 160)).save(picture, format="WEBP")
    found = Recorded(HOSTILE, pictures=[picture.getvalue()] * steps, shown_at=list(range(steps)), ended="truncated")
    for role, logits in (("student", [math.log(3), 0.0]), ("teacher", [0.0, 0.0])):
        found.steps[f"{role}/vector"] = [np.array([0.1, step]) for step in range(steps)]
        found.steps[f"{role}/logits"] = [np.array(logits)] * steps
        found.steps[f"{role}/action"] = [np.array(0)] * steps
    found.steps["kl"] = [np.array(0.01 * step) for step in range(steps)]
    found.steps["reward"] = [np.array(1.0)] * steps
    return found


def with_policies() -> tuple[dict[str, Policy], dict[str, str]]:
    """By role: policies, and the names of their runs."""
    return {role: toy_runs.make_policy() for role in ("student", "teacher")}, {"student": HOSTILE, "teacher": "run 1"}


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
        path = write_episodes(run.path, [episode()], *with_policies(), FakeEnv([[1]]))
        run.manifest["artifacts"][path.name] = file_hash(path)
        return run.finish({"eval/return": 320.0}, holds=("report",))

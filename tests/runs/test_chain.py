"""Which run is meant where none is named, or a task, or the best."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from typing import Any

import pytest
from toy_runs import collected, make_policy, start, stopped, teacher

from tscli.config import UserError
from tscli.runs import Run, Session, newest_run, parent_task


def student(session: Session, of: Run) -> Run:
    with start(session, "distill", method="bc", role="student", parents={"teacher": of}) as run:
        run.save_policy(make_policy())
        return run.finish({"eval/return": 400.0})


def test_the_newest_fitting_run_is_taken(session: Session) -> None:
    first = teacher(session)
    pairs = collected(session, first)
    second = teacher(session)
    with start(session, "distill", method="bc", role="student") as run:
        run.save_policy(make_policy())
        student = run.finish({})
    stopped(session)
    where = session.runs_dir
    assert newest_run(where, "", "policy", "run").name == student.name
    assert newest_run(where, "", "policy", "teacher", role="teacher").name == second.name
    assert newest_run(where, "1", "policy", "teacher", role="teacher").name == first.name
    assert (
        newest_run(
            where, "", "pairs", "pairs", fits=lambda run: run.teachers == [first.name], commands=("collect",)
        ).name
        == pairs.name
    )
    assert pairs.parents == [first.name]
    wrongs: list[dict[str, Any]] = [{"fits": lambda run: run.teachers == [second.name]}, {"commands": ("distill",)}]
    for wrong in wrongs:
        with pytest.raises(UserError, match=r"no finished run in .* holds pairs: run `tscli collect` first"):
            newest_run(where, "", "pairs", "pairs", **wrong)


def test_a_named_run_that_does_not_fit_is_refused(session: Session) -> None:
    run = teacher(session)
    pairs, unfinished = collected(session, run), stopped(session)
    manifest = {**unfinished.manifest, "holds": ["policy"], "role": "teacher"}
    (unfinished.path / "manifest.json").write_text(json.dumps(manifest))
    where = session.runs_dir
    with pytest.raises(UserError, match=f"--teacher 2: {pairs.name} is a collect run, which does not hold a teacher's"):
        newest_run(where, "2", "policy", "teacher", role="teacher")
    with pytest.raises(UserError, match=r"--teacher 1: .* does not hold a student's policy"):
        newest_run(where, "1", "policy", "teacher", role="student")
    with pytest.raises(UserError, match="is stopped, not finished: resume it first"):
        newest_run(where, "3", "policy", "teacher", role="teacher")
    with pytest.raises(UserError, match=r"holds a student's policy: run .* or name one with --run"):
        newest_run(where, "", "policy", "run", role="student")


def test_a_stage_without_a_task_inherits_its_parents(session: Session) -> None:
    where = session.runs_dir
    assert parent_task(where, "collect", {}) is None
    pairs = collected(session, teacher(session, "acrobot"))
    teacher(session, "pendulum")
    assert parent_task(where, "collect", {}) == "pendulum"
    assert parent_task(where, "collect", {"teacher": "1"}) == "acrobot"
    assert parent_task(where, "distill", {"pairs": pairs.name}) == "cartpole"


def test_the_chain_goes_before_what_is_newer_beside_it(session: Session) -> None:
    where, said = session.runs_dir, []
    first, second = teacher(session), teacher(session)
    pairs = collected(session, first)
    found = newest_run(where, "", "policy", "teacher", role="teacher", say=said.append)
    assert found.name == first.name
    assert said == [f"going on from {pairs.name}; --teacher 2 takes {second.name} instead"]
    learnt = student(session, second)
    assert newest_run(where, "", "policy", "teacher", role="teacher", say=said.append).name == second.name
    assert newest_run(where, "", "policy", "").name == learnt.name
    assert len(said) == 1
    assert newest_run(where, "", "pairs", "pairs", say=said.append).name == pairs.name
    assert said[1] == f"{learnt.name} is newer than {pairs.name}, but neither it nor what it was made from holds pairs"


def test_a_run_is_named_by_its_task_or_as_the_best_of_one(session: Session) -> None:
    where, said = session.runs_dir, []
    best = teacher(session)
    worse, other = teacher(session, metrics={"eval/return": 9.0}), teacher(session, "acrobot")
    how: dict[str, Any] = {"role": "teacher", "say": said.append}
    assert newest_run(where, "cartpole", "policy", "teacher", **how).name == worse.name
    assert newest_run(where, "best", "policy", "teacher", **how).name == other.name
    assert newest_run(where, "best", "policy", "teacher", task="cartpole", **how).name == best.name
    assert said[-1] == f"best of 2 in task cartpole: {best.name}, return 500"
    assert parent_task(where, "collect", {"teacher": "cartpole"}) == "cartpole"
    with pytest.raises(UserError, match='no run "pendulum" in'):
        newest_run(where, "pendulum", "policy", "teacher", **how)
    with pytest.raises(UserError, match=r"--teacher best: no run .* has a return: name one"):
        newest_run(where, "best", "policy", "teacher", task="pendulum", **how)


def test_the_task_of_what_begins_with_pairs_is_theirs(session: Session) -> None:
    where = session.runs_dir
    pairs = collected(session, teacher(session))
    teacher(session, "acrobot")
    assert parent_task(where, "distill", {}) == "acrobot"
    assert parent_task(where, "distill", {}, from_pairs=True) == pairs.task == "cartpole"

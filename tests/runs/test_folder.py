"""Run folders: found, chosen, and refused where something has changed."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy_runs import collected, start, stopped, teacher

from tscli.config import UserError
from tscli.runs import Session, find_run, find_unfinished, list_runs

# --- finding ----------------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_number_name_and_path(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = teacher(session), teacher(session)
    for ref in ("2", "0002", second.name, str(second.path), str(second.path) + "/"):
        assert find_run(session.runs_dir, ref).name == second.name
    assert [run.name for run in list_runs(session.runs_dir)] == [first.name, second.name]
    monkeypatch.chdir(session.runs_dir)
    assert find_run(Path("elsewhere"), first.name).name == first.name


def test_a_run_that_is_not_there_is_one_line(session: Session, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there are no runs in .*; start with"):
        find_run(session.runs_dir, "7")
    run = teacher(session)
    with pytest.raises(UserError, match=f'did you mean "{run.name}"'):
        find_run(session.runs_dir, "train-teacher-cartpole")
    with pytest.raises(UserError, match=r"is no run folder: it has no manifest.json"):
        find_run(session.runs_dir, str(tmp_path))


def test_a_damaged_or_newer_manifest_is_passed_over_in_lists_and_named_when_asked_for(session: Session) -> None:
    good, bad, new = teacher(session), teacher(session), teacher(session)
    (bad.path / "manifest.json").write_text('{"schema": 1, "nu')
    (new.path / "manifest.json").write_text(json.dumps({**new.manifest, "schema": 99}))
    assert [run.name for run in list_runs(session.runs_dir)] == [good.name]
    with pytest.raises(UserError, match=r"manifest.json is damaged"):
        find_run(session.runs_dir, str(bad.path))
    with pytest.raises(UserError, match="has schema 99, this tscli reads up to 1: upgrade"):
        find_run(session.runs_dir, str(new.path))


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        ("{}", "schema is required"),
        ('{"schema": "a"}', "schema 'a': input should be a valid integer"),
        ('{"schema": 1}', "number is required"),
        ("[1]", "no JSON object"),
        ("7", "no JSON object"),
        ('"' + "x" * 9 + '"', "no JSON object"),
    ],
)
def test_a_manifest_of_something_else_is_passed_over_and_named_when_asked_for(
    session: Session, content: str, missing: str
) -> None:
    good, bad = teacher(session), teacher(session)
    (bad.path / "manifest.json").write_text(content)
    assert [run.name for run in list_runs(session.runs_dir)] == [good.name]
    assert find_run(session.runs_dir, "1").name == good.name
    with pytest.raises(UserError, match=f"manifest.json is damaged \\({missing}.*\\): restore it"):
        find_run(session.runs_dir, str(bad.path))


@pytest.mark.parametrize(
    "change", [{"number": "1"}, {"holds": None}, {"metrics": []}, {"parents": {"teacher": "0001"}}, {"artifacts": 1}]
)
def test_a_manifest_with_an_entry_of_another_type_is_passed_over(session: Session, change: dict[str, Any]) -> None:
    run = teacher(session)
    (run.path / "manifest.json").write_text(json.dumps(run.manifest | change))
    assert list_runs(session.runs_dir) == []


def test_only_an_unfinished_run_of_that_command_is_resumed(session: Session) -> None:
    where = session.runs_dir
    teacher(session)
    with pytest.raises(UserError, match="no unfinished train-teacher run"):
        find_unfinished(where, "train-teacher", None, "")
    with pytest.raises(UserError, match="is finished, there is nothing to resume"):
        find_unfinished(where, "train-teacher", None, "1")
    run = stopped(session, "distill", method="bc")
    assert find_unfinished(where, "distill", "bc", "").name == run.name
    assert find_unfinished(where, "distill", None, "2").name == run.name
    with pytest.raises(UserError, match="no unfinished distill run"):
        find_unfinished(where, "distill", "dagger", "")
    with pytest.raises(UserError, match="is a distill run: use `tscli distill --resume 2`"):
        find_unfinished(where, "collect", None, "2")


def test_a_run_is_one_line_and_in_a_notebook_a_table(session: Session) -> None:
    run = teacher(session)
    assert repr(run) == f"<Run {run.name}, finished, return 500.0>"
    assert "<td>eval/return</td><td>500</td>" in run._repr_html_()


# --- parents ----------------------------------------------------------------------------------------------------------


def test_a_parent_that_has_changed_or_gone_is_refused(session: Session) -> None:
    run = teacher(session)
    pairs = collected(session, run)
    assert pairs.parent("teacher").name == run.name
    with pytest.raises(UserError, match="was not made from a student"):
        pairs.parent("student")
    manifest = {**run.manifest, "artifacts": {"policy.safetensors": "0" * 64}}
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"{run.name} has changed since {pairs.name} was made from it"):
        pairs.parent("teacher")
    (run.path / "manifest.json").unlink()
    with pytest.raises(UserError, match=f"{run.name}, which {pairs.name} was made from, is gone"):
        pairs.parent("teacher")


def test_a_parent_may_live_in_another_folder_of_runs(session: Session, tmp_path: Path) -> None:
    other = Session(runs_dir=tmp_path / "other")
    run = teacher(other)
    assert collected(session, run).parent("teacher").path.resolve() == run.path.resolve()


@pytest.mark.parametrize("name", ["report.json", "metrics.jsonl"])
def test_figures_that_have_changed_are_refused(session: Session, name: str) -> None:
    with start(session, "eval") as writer:
        writer.log({"step": 0, "eval/return": 2})
        (writer.path / "report.json").write_text('{"policies": {}}')
        run = writer.finish({}, holds=("report",))
    assert (run.report, run.points) == ({"policies": {}}, [{"step": 0, "eval/return": 2}])
    (run.path / name).write_text("{}")
    with pytest.raises(UserError, match=f"{name} has changed since its run finished"):
        run.report, run.points  # noqa: B018
    (run.path / name).unlink()
    with pytest.raises(UserError, match=f"{name} has changed since its run finished"):
        run.report, run.points  # noqa: B018


def test_points_that_a_crash_has_cut_or_that_are_no_numbers_are_passed_over(session: Session) -> None:
    run = stopped(session)
    (run.path / "metrics.jsonl").write_bytes(b'{"step": 1, "x": null, "y": "z"}\n[1]\n' + b"[" * 9000 + b'\n\xff\n{"st')
    assert run.points == [{"step": 1, "x": None}]
    (run.path / "metrics.jsonl").unlink()
    assert (run.points, run.report) == ([], {})


def test_a_policy_whose_file_has_changed_is_refused(session: Session) -> None:
    run = teacher(session)
    path = run.policy_path()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="has changed since its run finished"):
        run.policy_path()
    path.unlink()
    with pytest.raises(UserError, match="has changed since its run finished"):
        run.policy_path()
    with pytest.raises(UserError, match="holds no policy: name one made by train-teacher or distill"):
        collected(session, run).policy_path()
    with pytest.raises(UserError, match=r"--which last: run .* has no such policy: choose policy$"):
        run.policy_path("last")

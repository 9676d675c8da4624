"""The pipeline: one description, checked before it starts, continued after a stop, reported at the end."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from stage_tools import at_call, signal_once
from toy_scripts import RUNS, TASK, stand_among

from tscli.cli.app import main
from tscli.runs import Run, RunWriter, list_runs

PIPELINE = """
task: toy.yaml
seed: 3
stages:
  - train-teacher: {num_envs: 2}
  - collect
  - distill: {method: slow, student: rnn}
  - eval: {render: gif}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, with toy scripts, tasks and a pipeline."""
    work = stand_among(tmp_path, monkeypatch)
    (work / "mine.yaml").write_text(PIPELINE)
    return work


def made() -> list[Run]:
    return list_runs(RUNS)


def test_a_tasks_name_runs_the_default_stages_each_from_the_one_before(capsys: pytest.CaptureFixture[str]) -> None:
    # A newer run of somebody else's must not be taken.
    assert main(["train-teacher", "toy.yaml", "--quiet"]) == 0
    assert main(["pipeline", "bare.yaml", "--quiet"]) == 0
    teacher, pairs, student, report = made()[1:]
    assert [run.command for run in (teacher, pairs, student, report)] == ["train-teacher", "collect", "distill", "eval"]
    assert pairs.config["teacher"] == teacher.name
    assert student.config["pairs"] == pairs.name and student.method == "quick"
    assert report.config["run"] == student.name and report.config["render"] == "gif"
    assert "distill-quick" in capsys.readouterr().out


def test_a_file_chooses_task_seed_methods_and_settings() -> None:
    assert main(["pipeline", "mine.yaml", "--quiet"]) == 0
    teacher, _, student, report = made()
    assert [run.seed for run in made()] == [3, 3, 3, 3]
    assert (teacher.config["lr"], teacher.config["num_envs"]) == (0.01, 2)
    assert (student.method, student.config["epochs"], student.config["student"]["kind"]) == ("slow", 9, "rnn")
    assert report.task_name == "toy"


def test_brackets_in_a_folders_name_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "bare.yaml", "--runs-dir", "[/]"]) == 0
    assert "report: [/]/0004-" in capsys.readouterr().err


def test_flags_win_over_the_file() -> None:
    args = ["--seed", "9", "--set", "train-teacher.num_envs=6", "--set", "distill.student.memory=5", "--preset", "big"]
    assert main(["pipeline", "mine.yaml", "--quiet", *args]) == 0
    teacher, _, student, _ = made()
    assert (teacher.seed, teacher.config["num_envs"], teacher.config["network"]["kind"]) == (9, 6, "rnn")
    assert student.config["student"]["memory"] == 5


def test_a_task_may_bring_its_own_pipeline(folder: Path) -> None:
    (folder / "toy.yaml").write_text(TASK + "pipeline: [{train-teacher: {lr: 0.04}}, {eval: {}}]\n")
    assert main(["pipeline", "toy.yaml", "--quiet"]) == 0
    assert [(run.command, run.config.get("lr")) for run in made()] == [("train-teacher", 0.04), ("eval", None)]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("collect", "colect", 'there is no command "colect": did you mean "collect"'),
        ("slow", "slwo", 'did you mean "slow"'),
        ("{num_envs: 2}", "{num_env: 2}", 'unknown setting "num_env" in mine.yaml, train-teacher: did you mean'),
        ("render: gif", "render: gift", "mine.yaml, eval: render 'gift'"),
        ("render: gif", "run: [", "is not valid YAML"),
        ("seed: 3", "seeds: 3", 'mine.yaml: unknown setting "seeds": did you mean "seed"'),
        ("- collect", "- [collect]", "a stage is one command with its settings"),
        ("toy.yaml", "carpole", 'did you mean "cartpole"'),
    ],
)
def test_every_mistake_is_found_before_the_first_stage(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    (folder / "mine.yaml").write_text(PIPELINE.replace(old, new))
    assert main(["pipeline", "mine.yaml"]) == 2
    err = capsys.readouterr().err
    assert words in err and len(err.strip().splitlines()) == 1
    assert not made()


@pytest.mark.parametrize("value", ["colect.episodes=3", "collect", "collect.episode=3", "episodes=3"])
def test_a_misspelt_set_is_refused(capsys: pytest.CaptureFixture[str], value: str) -> None:
    assert main(["pipeline", "mine.yaml", "--set", value]) == 2
    assert not made()


def test_a_stop_that_comes_too_late_for_its_stage_ends_the_pipeline_after_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RunWriter, "finish", at_call(RunWriter.finish, 2, signal_once(2)))
        assert main(["pipeline", "bare.yaml", "--quiet"]) == 130
    assert [(run.command, run.status) for run in made()] == [("train-teacher", "finished"), ("collect", "finished")]
    assert main(["pipeline", "bare.yaml", "--quiet", "--resume"]) == 0
    assert [run.command for run in made()] == ["train-teacher", "collect", "distill", "eval"]


def test_a_stopped_pipeline_goes_on_where_it_was(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = ["pipeline", "mine.yaml", "--set", "distill.epochs=0"]
    assert main(stop) == 130
    again = "tscli pipeline mine.yaml --set distill.epochs=0 --resume"
    assert f"to go on: {again}" in capsys.readouterr().err
    assert [run.status for run in made()] == ["finished", "finished", "stopped"]
    assert main([]) == 0
    assert f"Next: {again}" in capsys.readouterr().out
    assert main(["pipeline", "mine.yaml", "--resume"]) == 2
    assert "has other settings" in capsys.readouterr().err
    assert main([*stop, "--resume"]) == 0
    assert [(run.number, run.status) for run in made()] == [
        (1, "finished"),
        (2, "finished"),
        (3, "finished"),
        (4, "finished"),
    ]
    assert main([*stop, "--resume"]) == 2
    assert "is finished" in capsys.readouterr().err


def test_a_stage_that_ended_without_being_noted_is_not_made_twice(folder: Path) -> None:
    assert main(["pipeline", "mine.yaml", "--quiet"]) == 0
    state = json.loads((RUNS / "pipeline.json").read_text())
    state["status"] = "running"
    for entry in state["stages"][1:]:  # killed between the last write of collect and that of pipeline.json
        entry["run"] = None
    for run in made()[2:]:
        shutil.rmtree(run.path)
    (RUNS / "pipeline.json").write_text(json.dumps(state))
    assert main(["pipeline", "mine.yaml", "--quiet", "--resume"]) == 0
    assert [run.command for run in made()] == ["train-teacher", "collect", "distill", "eval"]


@pytest.mark.parametrize(
    ("content", "words"), [(None, "there is no pipeline"), ("{", "is damaged"), ("[]", "is damaged")]
)
def test_resume_needs_a_readable_note(capsys: pytest.CaptureFixture[str], content: str | None, words: str) -> None:
    RUNS.mkdir()
    if content is not None:
        (RUNS / "pipeline.json").write_text(content)
    assert main(["pipeline", "mine.yaml", "--resume"]) == 2
    assert words in capsys.readouterr().err


def test_the_report_stands_beside_the_last_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "mine.yaml"]) == 0
    captured = capsys.readouterr()
    assert "return 49.5" in captured.out and "runs/0004-eval-toy-seed3.report.md" in "".join(captured.err.split())
    report = json.loads((RUNS / "0004-eval-toy-seed3.report.json").read_text())
    assert [stage["run"] for stage in report["stages"]] == [run.name for run in made()]
    text = (RUNS / "0004-eval-toy-seed3.report.md").read_text()
    assert "| eval | 0004-eval-toy-seed3 |" in text and "(0004-eval-toy-seed3/episode.gif)" in text


def test_with_json_nothing_but_the_report_is_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pipeline", "mine.yaml", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["stages"][3]["result"] == "return 49.5"
    assert "a table on stdout" in captured.err

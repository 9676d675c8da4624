"""`tscli compare`: what it refuses, what it runs again and what it does not, and how it goes on after a stop."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from comparisons import TOYS, calls, report_of
from stage_tools import RUNS, error_of

from tscli.cli.app import main
from tscli.compare.command import describe, words
from tscli.compare.crew import Crew
from tscli.runs import list_runs
from tscli.runs.watching import cells_of

pytestmark = pytest.mark.usefixtures("folder")


def test_the_words_of_a_comparison_describe_it_again(toys: Path) -> None:
    given = {"episodes": 9, "metric": "length", "budget": 5000, "assignments": {"learn.level": "2"}}
    given["sweeps"] = {"learn.total_steps": ("5", "6")}
    comparison = describe("cartpole", "weak", "4,", Path("methods.yaml"), given)
    said = words(comparison)
    for option in ("--seeds=4,", "--episodes=9", "--metric=length", "--set=learn.level=2"):
        name, _, value = option.partition("=")
        assert said[said.index(name) + 1] == value
    assert main([*said, "--jobs", "0"]) == 2, "the words are understood as far as to the jobs"


@pytest.fixture
def no_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is taken for good input, and should not be, must not run for minutes."""
    monkeypatch.setattr(Crew, "run", lambda crew: pytest.fail("the cells were started"))


@pytest.mark.usefixtures("no_cells")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "TASK is missing"),
        (("color_mase",), 'did you mean "color_maze"'),
        (("cartpole", "--methods", "bc,dager"), 'no method "dager": did you mean "dagger"'),
        (("cartpole", "--methods", "bc,bc"), "twice"),
        (("cartpole", "--methods", ","), "choose from: advisor, asymmetric, bc"),
        (("cartpole", "--seeds", "many"), '--seeds "many"'),
        (("cartpole", "--jobs", "0"), "--jobs 0"),
        (("cartpole", "--episodes", "0"), "--episodes 0"),
        (("cartpole", "--metric", "fun"), "--metric 'fun'"),
        (("pendulum", "--metric", "success_rate"), "tells no success"),
        (("cartpole", "--preset", "published"), 'no preset "published"'),
        (("cartpole", "--set", "distil.lr=1"), 'no stage "distil" here: did you mean "distill"'),
        (("cartpole", "--set", "sitt"), "is no assignment"),
        (("cartpole", "--set", "sitt.penalty=1"), 'unknown setting "penalty" in --set'),
        (("cartpole", "--methods", "no-align", "--set", "sitt.penalty_coef=1"), "sets it itself"),
        (("cartpole", "--set", "sitt.num_envs=-1"), "--set: num_envs '-1'"),
        (("cartpole", "--sweep", "sitt.penalty_coef=0,x"), "--sweep: penalty_coef 'x'"),
        (("cartpole", "--sweep", "sitt.penalty_coef"), "stage.key=value,value"),
        (("cartpole", "--set", "sitt.seed=5"), "--set sitt.seed=5: that is for --seeds to say"),
        (("cartpole", "--set", "eval.episodes=3"), "--set eval.episodes=3: that is for --episodes to say"),
        (
            ("cartpole", "--set", "sitt.penalty_coef=1", "--sweep", "sitt.penalty_coef=1,2"),
            "--sweep sitt.penalty_coef goes through its values: leave one of them out",
        ),
        (("cartpole", "--budget", "0"), "--budget 0"),
        (("cartpole", "--methods-file", "none.yaml"), "cannot read none.yaml"),
        (("cartpole", "--set", "collect.teacher=12"), 'no run "12"'),
        (("--resume",), "no unfinished compare run"),
        (("--resume", "--episodes", "30"), "TASK is missing: give it with the settings, or --resume without any"),
        (("--resume", "--seeds", "5"), "TASK is missing: give it with the settings, or --resume without any"),
    ],
)
def test_a_mistake_is_refused_before_any_cell(
    capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    assert message in error_of(capsys, "compare", *args)
    assert not (RUNS / "cells").exists()
    assert list_runs(RUNS) == []


@pytest.mark.usefixtures("no_cells")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no methods"),
        ("mine: {stages: [sitt], abut: It.}", 'mine: unknown setting "abut": did you mean "about"'),
        ("mine: 3", "mine: stages 3: stages is a list"),
        ("mine: [[sitt]]", "a stage is one command"),
        ("mine: [sit]", 'no command "sit"'),
        ("mine: [{sitt: {penalty: 1}}]", 'unknown setting "penalty" in method mine, sitt'),
        ("mine: [describe]", "makes no run"),
        ("mine: [gone.py]", "there is no such script"),
    ],
)
def test_a_mistake_in_a_file_of_methods_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    (folder / "mine.yaml").write_text(content)
    args = ("compare", "cartpole", "--methods-file", "mine.yaml", "--methods", "mine")
    assert message in error_of(capsys, *args)


def test_methods_of_a_task_win_over_the_bundled_and_a_file_over_these(folder: Path) -> None:
    task = {"env": {"kind": "cartpole"}, "views": {"full": ["state"]}, "methods": {"bc": ["collect"], "own": ["sitt"]}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(task))
    (folder / "more.yaml").write_text("own: [collect]")
    found = describe("mine.yaml", "bc,own,sitt", "1", Path("more.yaml"), {}).methods
    assert [next(iter(method.stages[0])) for method in found.values()] == ["collect", "collect", "sitt"]


@pytest.mark.usefixtures("no_pictures", "in_process")
def test_a_finished_cell_is_used_again_and_an_equal_one_is_never_made_twice(toys: Path) -> None:
    assert main([*TOYS, "--methods", "weak", "--seeds", "2"]) == 0
    assert calls(toys) == ["1/0", "1/1"]
    seen = [(title, run and run.status) for title, run in cells_of(list_runs(RUNS)[0])]
    assert seen == [(f"weak: {name} seed {i}", "finished") for i in (0, 1) for name in ("learn", "eval")]
    # Another seed, another method, and a sweep over what has been there before.
    assert main([*TOYS, "--methods", "weak,strong", "--seeds", "0,2"]) == 0
    assert main([*TOYS, "--methods", "weak", "--seeds", "1", "--sweep", "learn.level=1,3"]) == 0
    assert calls(toys) == ["1/0", "1/1", "1/2", "3/0", "3/2"]
    assert [run.name for run in list_runs(RUNS)] == [f"000{n}-compare-cartpole" for n in (1, 2, 3)]
    folders = [path for path in (RUNS / "cells").iterdir() if (path / "cell.json").exists()]
    assert len(folders) == 10 and all(len(list_runs(path)) == 1 for path in folders)


@pytest.mark.usefixtures("no_pictures")
def test_a_failing_cell_is_reported_and_the_others_finish(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [arg for arg in TOYS if arg != "--quiet"]
    args += ["--methods", "weak", "--seeds", "1,0", "--set", "learn.fails=1"]
    assert main(args) == 1
    out, err = capsys.readouterr()
    assert "failed weak, learn seed 1: the lamp is off: switch it on" in err
    assert "1 of 2" in out
    (run,) = list_runs(RUNS)
    assert run.status == "failed" and "1 of 4 cells failed" in run.manifest["error"]
    report = report_of(run.path)
    assert [(row["seeds_in"], row["mean"]) for row in report["rows"]] == [(1, 1.0)]
    assert [outcome["problem"] != "" for outcome in report["outcomes"]] == [True, False]
    assert calls(toys) == ["1/0", "1/1"]
    # The same command tries the failed ones again, in the same run.
    (toys / "mended").touch()
    assert main(args) == 0
    (run,) = list_runs(RUNS)
    assert run.status == "finished" and [row["seeds_in"] for row in report_of(run.path)["rows"]] == [2]
    assert calls(toys) == ["1/0", "1/1", "1/1"]


def start_and_wait_for_it(toys: Path) -> tuple[subprocess.Popen[str], Any]:
    """A comparison in a process of its own whose second seed waits; with what is open as long as that cell lives."""
    for name in ("started", "never"):
        os.mkfifo(toys / name)
    args = [*TOYS[:-1], "--methods", "weak", "--seeds", "2", "--set", "learn.waits=1", "--jobs", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tscli", *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return process, open(toys / "started")


@pytest.mark.skipif(sys.platform == "win32", reason="needs FIFOs and SIGKILL")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_comparison_that_was_killed_goes_on_without_redoing_a_finished_cell(
    toys: Path, no_pictures: None, how: signal.Signals
) -> None:
    process, cell_lives = start_and_wait_for_it(toys)
    process.send_signal(how)
    said = process.communicate()[0]
    assert process.returncode == (-how if how == signal.SIGKILL else 130), said
    with cell_lives:
        assert cell_lives.read() == "", "no process is left behind"
    (run,) = list_runs(RUNS)
    assert run.status == "stopped"
    if how != signal.SIGKILL:
        assert "2 of 4 cells are finished and kept; to go on: tscli compare cartpole" in said
        assert "continue with --resume" in said
    before = {path: path.stat().st_mtime_ns for path in (RUNS / "cells").glob("*/*/report.json")}
    assert len(before) == 1 and calls(toys) == ["1/0", "1/1"]
    assert main(["compare", "--resume", "--quiet"]) == 0
    assert calls(toys) == ["1/0", "1/1", "1/1"], "the stopped cell alone was run again"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (run,) = list_runs(RUNS)
    assert run.status == "finished" and report_of(run.path)["rows"][0]["mean"] == 1.5


@pytest.mark.usefixtures("no_pictures", "no_plots", "in_process")
def test_a_real_chain_hands_teacher_and_pairs_on_and_is_measured_beside_its_teacher() -> None:
    small = {"train-teacher": "num_envs=4 rollout_steps=16 num_minibatches=2 eval_episodes=2", "collect": "episodes=2"}
    small |= {"distill": "num_epochs=1 eval_episodes=2", "eval": "num_envs=2"}
    settings = [f"--set={stage}.{one}" for stage, text in small.items() for one in text.split()]
    args = ["--methods", "bc", "--seeds", "3,", "--budget", "64", "--episodes", "2", "--metric", "return"]
    assert main(["compare", "cartpole", "--quiet", *args, *settings]) == 0
    (run,) = list_runs(RUNS)
    (outcome,) = report_of(run.path)["outcomes"]
    paths = [Path(outcome[f"{name} cell"]) for name in ("train-teacher", "collect", "distill", "eval")]
    teacher, pairs, student, evaluation = (list_runs(path.parent)[0] for path in paths)
    assert student.parents == [pairs.name, teacher.name] and student.parent("teacher").path == teacher.path.resolve()
    assert [each.seed for each in (teacher, pairs, student, evaluation)] == [3] * 4
    measured = json.loads((evaluation.path / "report.json").read_text())["policies"]
    assert outcome["return"] == measured["student"]["greedy"]["return"]["mean"]
    assert outcome["teacher_return"] == measured["teacher"]["greedy"]["return"]["mean"]
    assert outcome["env_steps"] == teacher.metrics["step"] + pairs.metrics["env_steps"]

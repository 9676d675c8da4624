"""`tscli compare`: what it plans, what it runs again and what it does not, and what its report says."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from stage_tools import RUNS, error_of

from tscli.cli.app import main
from tscli.compare import pictures
from tscli.compare.cells import Cell
from tscli.compare.command import describe, words
from tscli.compare.crew import Crew, last_error
from tscli.compare.plan import Layout, lay_out, parse_seeds, parse_sweep
from tscli.compare.results import METRICS, Curve, mean_curve
from tscli.config import UserError
from tscli.runs import list_runs
from tscli.runs.locks import lock_folder

pytestmark = pytest.mark.usefixtures("folder")

# Two scripts of the user's own, which need no torch: a stage that fails, waits or finishes as its settings say, and
# one that measures it.
_HEAD = """
import json
from pathlib import Path
from pydantic import Field
from tscli.config import StageConfig, UserError, positional
from tscli.runs import Run, find_run
from tscli.runs.session import Session
"""
LEARN = f'''"""Learn."""{_HEAD}

class Config(StageConfig):
    task: str = positional(description="The task.")
    total_steps: int = Field(100, description="Env steps at the most.")
    level: float = Field(1.0, ge=0, description="How good it gets.")
    fails: int = Field(-1, description="The seed that fails.")
    waits: int = Field(-1, description="The seed that waits until it is told to stop, the first time.")


def main(config: Config, session: Session) -> Run:
    with session.start(config, "learn", config.task, role="student", checkpoints=False) as run:
        with open("calls.txt", "a") as calls:
            calls.write(f"{{config.level:g}}/{{config.seed}} ")
        if config.seed == config.fails and not Path("mended").exists():
            raise UserError("the lamp is off: switch it on")
        if config.seed == config.waits and session.resume is None:
            with open("started", "w") as started, open("never") as never:
                never.read()
        for step in (50, 100):
            run.log({{"step": step, "eval/return": config.level * step, "eval_teacher/return": 2.0 * step}})
        return run.finish({{"step": 90 + config.seed}}, holds=("policy",))


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)
'''
MEASURE = f'''"""Measure."""{_HEAD}
COMMAND = "eval"


class Config(StageConfig):
    run: str = positional("", description="The run.")
    episodes: int = Field(1, description="Episodes.")


def main(config: Config, session: Session) -> Run:
    learnt = find_run(session.runs_dir, config.run)
    with session.start(config, "eval", learnt.task, parents={{"policy": learnt}}) as run:
        values = {{"student": learnt.config["level"] * (1 + config.seed), "teacher": 20.0}}
        report = {{k: {{"greedy": {{"return": {{"mean": v}}, "length": {{"mean": 7.0}}}}}} for k, v in values.items()}}
        (run.path / "report.json").write_text(json.dumps({{"policies": report, "student_states": {{"near": 0.5}}}}))
        return run.finish({{}}, holds=("report",))
'''
METHODS = """
weak: {about: Learns a little., stages: [learn.py, measure.py]}
strong: [{learn.py: {level: 3}}, measure.py]
"""
TOYS = ("compare", "cartpole", "--methods-file", "methods.yaml", "--quiet")


@pytest.fixture
def toys(folder: Path) -> Path:
    """The folder to stand in, with the toy scripts and a file of methods."""
    (folder / "learn.py").write_text(LEARN)
    (folder / "measure.py").write_text(MEASURE)
    (folder / "methods.yaml").write_text(METHODS)
    return folder


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes longer than the cells."""
    monkeypatch.setattr(pictures, "draw", lambda results, folder: ())


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run cells one after the other in this process, for tests of what is made of them."""

    def run(crew: Crew) -> None:
        for cell in crew.waiting:
            cell.folder.mkdir(parents=True)
            cell.prepare()
            assert main([*cell.words(resume=False), "--quiet"]) == 0

    monkeypatch.setattr(Crew, "run", run)


def calls(folder: Path) -> list[str]:
    """`level/seed` of every time that `learn.py` was run, in no order."""
    return sorted((folder / "calls.txt").read_text().split())


def report_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


# --- planning ---------------------------------------------------------------------------------------------------------


def plan(methods: str, seeds: str = "2", task: str = "color_maze", **settings: Any) -> Layout:
    return lay_out(describe(task, methods, seeds, None, settings), RUNS)


def cells_of(layout: Layout, label: str, seed: int = 0) -> tuple[Cell, ...]:
    (found,) = (row.cells for row in layout.rows if (row.variant.label, row.seed) == (label, seed))
    return found


def test_bc_and_dagger_share_their_teacher_and_its_pairs() -> None:
    layout = plan("bc,dagger,no-align,sitt")
    bc, dagger = cells_of(layout, "bc"), cells_of(layout, "dagger")
    assert [cell.script.name for cell in bc] == ["train-teacher", "collect", "distill-bc", "eval"]
    assert bc[:2] == dagger[:2] and not {*bc[2:]} & {*dagger[2:]}
    assert bc[0].serves == ["bc", "dagger"] and bc[0].takes == ()
    assert bc[1].takes == ("teacher",) and set(dagger[2].takes) == {"teacher", "pairs"} and bc[3].takes == ("run",)
    assert len(layout.cells) == 2 * (2 + 4 + 2 + 2)
    order = [cell.key for cell in layout.cells]
    assert all(order.index(cell.before.key) < order.index(cell.key) for cell in layout.cells if cell.before)
    no_align, sitt = cells_of(layout, "no-align")[0].settings, cells_of(layout, "sitt")[0].settings
    assert [no_align[name] for name in ("penalty_coef", "gradient_coef", "feature_coef")] == [0, 0, 0]
    assert sitt["penalty_coef"] > 0


def test_cells_differ_where_a_setting_or_a_seed_does_and_only_from_there_on() -> None:
    before, after = plan("bc"), plan("bc", assignments={"distill.lr": "0.5"})
    same = [a.key == b.key for a, b in zip(cells_of(before, "bc"), cells_of(after, "bc"), strict=True)]
    assert same == [True, True, False, False]
    assert len({cell.key for seed in (0, 1) for cell in cells_of(before, "bc", seed)}) == 8
    assert cells_of(after, "bc")[2].settings["lr"] == 0.5
    # How often a checkpoint is written, what is said beforehand, and a value that is the default change nothing.
    for assignment in ({"distill.checkpoint_every": "7"}, {"distill.diagnose": "false"}, {"distill.loss": "kl"}):
        again = plan("bc", assignments=assignment)
        assert [cell.key for cell in again.cells] == [cell.key for cell in before.cells]


def test_the_content_of_a_tasks_file_and_the_code_of_a_script_count(toys: Path) -> None:
    def keys() -> list[str]:
        comparison = describe("mine.yaml", "weak", "1", Path("methods.yaml"), {})
        return [cell.key for cell in lay_out(comparison, RUNS).cells]

    task = toys / "mine.yaml"
    task.write_text("env: {kind: cartpole}\nviews: {full: [state]}\n")
    first = keys()
    task.write_text("about: The same.\nenv: {kind: cartpole}\nviews: {full: [state]}\n")
    assert keys() == first
    (toys / "learn.py").write_text(LEARN + "\n\n# a comment\n")
    assert keys() == first
    (toys / "learn.py").write_text(LEARN.replace("90 +", "91 +"))
    assert not {*keys()} & {*first}
    (toys / "learn.py").write_text(LEARN)
    task.write_text('env: {kind: cartpole}\nviews: {full: ["state[0]"]}\n')
    assert not {*keys()} & {*first}


def test_sweeps_are_multiplied_and_leave_alone_what_makes_a_method() -> None:
    sweeps = {"sitt.penalty_coef": ("0", ".1"), "sitt.align_every": ("1", "2", "5")}
    layout = plan("bc,no-align,sitt", "1", sweeps=sweeps)
    labels = [row.variant.label for row in layout.rows]
    assert labels[0] == "bc" and labels[1:4] == [f"no-align align_every={n}" for n in (1, 2, 5)]
    assert labels[4:] == [f"sitt penalty_coef={p} align_every={n}" for p in ("0", ".1") for n in (1, 2, 5)]
    cell = cells_of(layout, "sitt penalty_coef=.1 align_every=5")[0]
    assert (cell.settings["penalty_coef"], cell.settings["align_every"]) == (0.1, 5)
    assert cells_of(layout, "no-align align_every=5")[0].settings["penalty_coef"] == 0
    assert layout.notes == ["--sweep sitt.penalty_coef: method no-align, sitt, sets it itself and stays as it is"]
    # What a sweep has made serves a plain comparison of one of its values.
    plain = plan("sitt", "1", assignments={"sitt.penalty_coef": ".1"})
    assert {cell.key for cell in plain.cells} < {cell.key for cell in layout.cells}


def test_a_setting_of_one_method_of_a_family_is_given_to_that_one() -> None:
    layout = plan("bc,dagger", "1", assignments={"distill.total_steps": "77", "distill-bc.num_epochs": "3"})
    assert "total_steps" not in cells_of(layout, "bc")[2].settings
    assert cells_of(layout, "dagger")[2].settings["total_steps"] == 77
    assert cells_of(layout, "bc")[2].settings["num_epochs"] == 3


def test_a_budget_is_that_of_everything_that_starts_from_the_task() -> None:
    layout = plan("bc,dagger,sitt,asymmetric", "1", budget=12345)
    allowed = {row.variant.label: [cell.allowed_steps for cell in row.cells] for row in layout.rows}
    assert [steps[0] for steps in allowed.values()] == [12345] * 4
    assert allowed["dagger"][2] != 12345 and allowed["bc"][2] == 0


def test_views_and_network_of_a_role_are_those_of_the_task() -> None:
    settings = cells_of(plan("asymmetric", task="cartpole"), "asymmetric")[0].settings
    assert (settings["obs"], settings["critic_obs"]) == ("partial", "full")
    assert settings["network"]["kind"] == "rnn" and settings["network"]["memory"] == 32
    without = cells_of(plan("asymmetric", task="color_maze"), "asymmetric")[0].settings
    assert without["network"]["kind"] == "mlp"


def test_seeds_and_sweeps_are_read() -> None:
    assert parse_seeds("3") == (0, 1, 2) and parse_seeds("3,4, 7") == (3, 4, 7) and parse_seeds("7,") == (7,)
    assert parse_sweep(["a.b=1, 2", "c.d=8,8;16"]) == {"a.b": ("1", "2"), "c.d": ("8,8", "16")}
    for text in ("", "0", "x", "-1", "1,1", "1,,2", "2147483648,", "1.5"):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(text)
    for text in ("a.b", "a.b=", "a.b=1,1"):
        with pytest.raises(UserError, match="--sweep"):
            parse_sweep([text])


def test_the_words_of_a_comparison_describe_it_again(toys: Path) -> None:
    given = {"episodes": 9, "metric": "length", "budget": 5000, "assignments": {"learn.level": "2"}}
    given["sweeps"] = {"learn.total_steps": ("5", "6")}
    comparison = describe("cartpole", "weak", "4,", Path("methods.yaml"), given)
    said = words(comparison)
    for option in ("--seeds=4,", "--episodes=9", "--metric=length", "--set=learn.level=2"):
        name, _, value = option.partition("=")
        assert said[said.index(name) + 1] == value
    assert main([*said, "--jobs", "0"]) == 2, "the words are understood as far as to the jobs"


# --- bad input --------------------------------------------------------------------------------------------------------


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


# --- running ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_pictures")
def test_a_finished_cell_is_used_again_and_an_equal_one_is_never_made_twice(toys: Path) -> None:
    assert main([*TOYS, "--methods", "weak", "--seeds", "2"]) == 0
    assert calls(toys) == ["1/0", "1/1"]
    # Another seed, another method, and a sweep over what has been there before.
    assert main([*TOYS, "--methods", "weak,strong", "--seeds", "0,2"]) == 0
    assert main([*TOYS, "--methods", "weak", "--seeds", "1", "--sweep", "learn.level=1,3"]) == 0
    assert calls(toys) == ["1/0", "1/1", "1/2", "3/0", "3/2"]
    assert [run.name for run in list_runs(RUNS)] == [f"000{n}-compare-cartpole" for n in (1, 2, 3)]
    folders = [path for path in (RUNS / "cells").iterdir() if (path / "cell.json").exists()]
    assert len(folders) == 10 and all(len(list_runs(path)) == 1 for path in folders)


@pytest.mark.usefixtures("in_process")
def test_the_report_has_the_figures_of_the_cells(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TOYS, "--methods", "weak,strong", "--seeds", "5"]) == 0
    table = capsys.readouterr().out
    (run,) = list_runs(RUNS)
    assert run.status == "finished" and run.holds == ("report",)
    report = report_of(run.path)
    weak, strong = report["rows"]
    # weak: level x (1 + seed) = 1, 2, 3, 4, 5; the teacher has 20
    assert (weak["mean"], weak["sd"], weak["iqm"]) == (3.0, pytest.approx(math.sqrt(2.5)), 3.0)
    assert (weak["teacher"], weak["gap"], weak["env_steps"]) == (20.0, 17.0, 92.0)
    assert (strong["mean"], strong["gap"], strong["allowed_steps"]) == (9.0, 11.0, 100)
    assert 1 <= weak["interval"][0] < 3 < weak["interval"][1] <= 5
    assert "3.00 ± 1.58" in table and "9.00 ± 4.74" in table
    assert run.metrics == {"return/weak": 3.0, "return/strong": 9.0}
    with open(run.path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["method"], row["seed"], row["return"]) for row in rows[5:7]] == [
        ("strong", "0", "3.0"),
        ("strong", "1", "6.0"),
    ]
    assert rows[0]["near"] == "0.5" and rows[0]["success_rate"] == ""
    assert (Path(rows[9]["learn cell"]) / "manifest.json").exists()
    text = (run.path / "table.md").read_text()
    assert "| weak | 5 | 3.00 ± 1.58 |" in text and "tscli compare cartpole --methods weak,strong" in text
    for name in ("bars.png", "curves.png"):
        assert f"]({name})" in text
        with Image.open(run.path / name) as image:
            assert image.format == "PNG" and image.width > 500


@pytest.mark.usefixtures("in_process")
def test_the_sweep_is_drawn_and_the_report_is_printed_as_json(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ("--methods", "weak,strong", "--seeds", "1", "--sweep", "learn.level=1,2", "--json")
    assert main([*TOYS, *args]) == 0
    printed = json.loads(capsys.readouterr().out)
    (run,) = list_runs(RUNS)
    assert printed == report_of(run.path)
    assert [row["label"] for row in printed["rows"]] == ["weak level=1", "weak level=2", "strong"]
    assert [row["interval"] for row in printed["rows"]] == [None] * 3, "one seed says nothing about others"
    assert (run.path / "sweep.png").stat().st_size > 0


@pytest.mark.usefixtures("no_pictures")
def test_a_failing_cell_is_reported_and_the_others_finish(toys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = [arg for arg in TOYS if arg != "--quiet"]
    args += ["--methods", "weak,strong", "--seeds", "1,0", "--set", "learn.fails=1"]
    assert main(args) == 1
    out, err = capsys.readouterr()
    assert "failed weak, learn seed 1: the lamp is off: switch it on" in err
    assert "1 of 2" in out
    (run,) = list_runs(RUNS)
    assert run.status == "failed" and "2 of 8 cells failed" in run.manifest["error"]
    report = report_of(run.path)
    assert [(row["seeds_in"], row["mean"]) for row in report["rows"]] == [(1, 1.0), (1, 3.0)]
    assert [outcome["problem"] != "" for outcome in report["outcomes"]] == [True, False] * 2
    assert calls(toys) == ["1/0", "1/1", "3/0", "3/1"]
    # The same command tries the failed ones again, in the same run.
    (toys / "mended").touch()
    assert main(args) == 0
    (run,) = list_runs(RUNS)
    assert run.status == "finished" and [row["seeds_in"] for row in report_of(run.path)["rows"]] == [2, 2]
    assert calls(toys) == ["1/0", "1/1", "1/1", "3/0", "3/1", "3/1"]


def start_and_wait_for_it(toys: Path) -> tuple[subprocess.Popen[str], Any]:
    """A comparison in a process of its own whose second seed waits; with what is open as long as that cell lives."""
    for name in ("started", "never"):
        os.mkfifo(toys / name)
    args = [*TOYS[:-1], "--methods", "weak", "--seeds", "3", "--set", "learn.waits=1", "--jobs", "1"]
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
        assert "2 of 6 cells are finished and kept; to go on: tscli compare cartpole" in said
        assert "continue with --resume" in said
    before = {path: path.stat().st_mtime_ns for path in (RUNS / "cells").glob("*/*/report.json")}
    assert len(before) == 1 and calls(toys) == ["1/0", "1/1"]
    assert main(["compare", "--resume", "--quiet"]) == 0
    assert calls(toys) == ["1/0", "1/1", "1/1", "1/2"], "the stopped cell alone was run again"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    (run,) = list_runs(RUNS)
    assert run.status == "finished" and report_of(run.path)["rows"][0]["mean"] == 2.0


def crew_of(toys: Path, *names: str) -> tuple[Crew, list[str]]:
    """A crew for the toy method with seed 0, and what it says."""
    comparison = describe("cartpole", "weak", "1", Path("methods.yaml"), {})
    said: list[str] = []
    return Crew(lay_out(comparison, RUNS).cells, 1, said.append, lambda crew: None), said


def test_a_cell_that_cannot_be_resumed_is_started_anew(toys: Path) -> None:
    crew, _ = crew_of(toys)
    crew.run()
    (run,) = list_runs(crew.cells[0].folder)
    manifest = {**run.manifest, "status": "stopped", "config_hash": "of other settings"}
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    again, said = crew_of(toys)
    again.run()
    assert "have changed since" in said[0] and "starting it anew" in said[0]
    assert again.failed == {} and calls(toys) == ["1/0", "1/0"]


def test_a_cell_that_another_process_works_on_is_waited_for(toys: Path) -> None:
    crew, _ = crew_of(toys)
    first = crew.cells[0]
    first.folder.mkdir(parents=True)
    lock = lock_folder(first.folder, name=".cell.lock")
    seen = []

    def show(crew: Crew) -> None:
        seen.append((len(crew.working), crew.elsewhere))
        if len(seen) == 3:
            lock.close()

    Crew(crew.cells, 1, lambda text: None, show).run()
    assert seen[:3] == [(0, {first.key})] * 3
    assert calls(toys) == ["1/0"]


def test_a_script_that_changes_in_the_middle_is_not_run_under_its_old_name(toys: Path) -> None:
    crew, _ = crew_of(toys)
    (toys / "learn.py").write_text(LEARN.replace("90 +", "91 +"))
    crew.run()
    assert "has changed since the comparison began" in crew.failed[crew.cells[0].key]
    assert not (toys / "calls.txt").exists()


def test_the_error_of_a_log_is_its_last_since_the_start(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("error: of an earlier try\nerror: the one\nrun again with --debug for the traceback\n")
    assert last_error(log, 25, 1) == "the one"
    assert last_error(log, log.stat().st_size, 3) == "it ended with code 3"
    assert last_error(log, 0, -signal.SIGKILL) == "its process was ended by SIGKILL"


@pytest.mark.usefixtures("no_pictures")
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
    assert outcome["env_steps"] == teacher.metrics["step"] + pairs.metrics["steps"]


# --- figures ----------------------------------------------------------------------------------------------------------


def test_curves_are_averaged_where_all_seeds_have_one_and_a_seed_that_stopped_keeps_its_last_value() -> None:
    curves = [
        Curve(np.array([10, 20, 30]), np.array([0.0, 2.0, 4.0])),
        Curve(np.array([20, 25]), np.array([10.0, 20.0])),
    ]
    steps, band = mean_curve(curves)
    assert steps.tolist() == [20, 25, 30]
    assert band.value.tolist() == [6.0, 11.5, 12.0]
    assert (band.low <= band.value).all() and (band.value <= band.high).all()


def test_methods_without_steps_of_their_own_are_a_point_at_their_mean() -> None:
    steps, band = mean_curve([Curve(np.array([10]), np.array([1.0])), Curve(np.array([30]), np.array([3.0]))])
    assert (steps.tolist(), band.value.tolist()) == ([20.0], [2.0])


def test_a_share_is_said_in_percent() -> None:
    assert METRICS["success_rate"].text(0.987) == "98.7"
    assert METRICS["return"].text(-77.25) == "-77.2" and METRICS["return"].text(math.nan) == "-"

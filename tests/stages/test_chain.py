"""The commands one after the other, with no path typed, for every kind of env and student."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import make_checkpoint
from stage_tools import BC, COLLECT, DAGGER, ONLINE, RUNS, SITT, SMALL, TEACHER, call

import tscli
from tscli.cli import pages
from tscli.cli.app import main
from tscli.launch.scripts import find_script
from tscli.runs import Run, list_runs

TINY = TEACHER[2:]


def say(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[str, list[str]]:
    """Run a command that succeeds; give its stdout and the remarks on stderr."""
    capsys.readouterr()
    assert main(list(args)) == 0
    out, err = capsys.readouterr()
    return out, err.splitlines()


def test_four_commands_find_each_others_runs_and_say_which(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [
        "0001-train-teacher-cartpole-seed1",
        "0002-collect-cartpole-seed1",
        "0003-distill-dagger-cartpole-seed1",
        "0004-eval-cartpole-seed1",
    ]
    out, said = say(capsys, *TEACHER)
    assert out == "" and said[-1] == "next: tscli collect"
    assert said[-2].startswith(f"wrote runs/{names[0]}, return ") and said[-2].endswith(" over 3 episodes")
    out, said = say(capsys, *COLLECT)
    assert out == "" and said[0] == f"teacher: {names[0]}"
    assert said[-2].startswith(f"wrote runs/{names[1]}, 6 episodes") and "tscli distill" in said[-1]
    out, said = say(capsys, *DAGGER, *SMALL, "--student", "rnn", "--obs", "partial")
    assert out == "" and said[0] == f"teacher: {names[0]}; pairs: {names[1]}"
    assert said[-2].startswith(f"wrote runs/{names[2]}, return ") and "tscli eval" in said[-1]
    teacher, learnt = list_runs(RUNS)[0], list_runs(RUNS)[-1]
    assert learnt.metrics["teacher_return"] == teacher.metrics["eval/return"]
    out, said = say(capsys, "eval", "--episodes", "4", "--render", "gif")
    assert said[0] == f"policy: {names[2]}" and "student" in out and "teacher" in out
    assert [run.name for run in list_runs(RUNS)] == names
    assert [run.status for run in list_runs(RUNS)] == ["finished"] * 4
    for name, files in zip(names, (["curves.png"], [], ["curves.png"], ["film.gif", "report.json"]), strict=True):
        here = {path.name for path in (RUNS / name).iterdir()}
        assert here >= {"config.yaml", "metrics.jsonl", "manifest.json", *files}
        assert "checkpoint.pt" not in here
        assert not [file for file in here if file.endswith(".tmp")]


def test_a_student_of_a_teacher_that_had_one_before_is_measured_by_the_teacher(folder: Path) -> None:
    joint = call(*SITT, "--total-steps", "512", "--student-obs", "partial")
    assert joint.metrics["eval/return"] != joint.metrics["eval_teacher/return"]
    learnt = call(*DAGGER, *SMALL, "--pairs", "none")
    assert learnt.parents == [joint.name]
    assert learnt.metrics["teacher_return"] == joint.metrics["eval_teacher/return"]


@pytest.mark.parametrize("how", ["by itself", "by torchrun"])
def test_a_script_runs(folder: Path, how: str) -> None:
    if how == "by itself":
        start = [str(find_script("train-teacher").path)]
    else:
        start = [*("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1"), "-m", "tscli", TEACHER[0]]
    done = subprocess.run([sys.executable, *start, *TEACHER[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "next: tscli collect" in done.stderr
    assert [(run.command, run.status) for run in list_runs(RUNS)] == [("train-teacher", "finished")]


@pytest.mark.usefixtures("no_plots")
def test_the_newest_fitting_run_is_taken_and_another_one_when_it_is_named(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*TEACHER, "--seed", "2")
    assert call(*COLLECT).parents == ["0003-train-teacher-cartpole-seed2"]
    assert call(*COLLECT, "--teacher", "1").parents == ["0001-train-teacher-cartpole-seed1"]
    # Neither what is newest of another kind, nor a student, is taken for a teacher.
    student = call(*DAGGER, *SMALL, "--teacher", "3")
    assert student.parents == ["0003-train-teacher-cartpole-seed2", "0004-collect-cartpole-seed1"]
    _, said = say(capsys, "eval", "--episodes", "2", "--seed", "5")
    assert said[0] == f"policy: {student.name}"
    assert call(*COLLECT).parents == ["0003-train-teacher-cartpole-seed2"]


@pytest.mark.usefixtures("no_plots")
def test_a_stage_goes_on_from_the_chain_that_the_user_is_on_and_names_what_else_there_is(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newer = call(*TEACHER, "--seed", "2")
    first, pairs = (run.name for run in list_runs(RUNS)[:2])
    _, said = say(capsys, *COLLECT, "--teacher", "1")
    assert said[-1] == "next: tscli distill"
    again = list_runs(RUNS)[-1].name
    _, said = say(capsys, *DAGGER, *SMALL)
    assert said[:2] == [
        f"going on from {again}; --teacher 3 takes {newer.name} instead",
        f"teacher: {first}; pairs: {again}",
    ]
    assert call("eval", "--episodes", "2").parents == ["0005-distill-dagger-cartpole-seed1"]
    call(*BC, *SMALL, "--pairs", "2", "--max-updates", "1")
    _, said = say(capsys, *BC, *SMALL, "--max-updates", "1")
    assert said[:2] == [
        f"going on from 0007-distill-bc-cartpole-seed1; --pairs 4 takes {again} instead",
        f"pairs: {pairs}, labelled by {first}",
    ]
    call("train-teacher", "acrobot", *TINY, "--total-steps", "64", "--eval-episodes", "1")
    _, said = say(capsys, *BC, *SMALL, "--max-updates", "1")
    assert said[1].startswith("0009-train-teacher-acrobot-seed1 is newer than 0002-collect-cartpole-seed1, but neither")
    assert call(*COLLECT, "--teacher", "cartpole").parents == [newer.name]


def test_what_is_next_names_its_run_and_folder_where_another_would_be_taken(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = list_runs(RUNS)
    assert [pages.next_step(made, run) for run in made] == ["tscli collect --teacher 1", "tscli distill"]
    other = Path(shutil.move("runs", "elsewhere/runs"))
    made = list_runs(other)
    expected = [
        "tscli collect --teacher 1 --runs-dir elsewhere/runs",
        "tscli distill --runs-dir elsewhere/runs",
    ]
    assert [pages.next_step(made, run) for run in made] == expected


def chain(teacher: tuple[str, ...], students: tuple[tuple[str, ...], ...]) -> tuple[Run, Run, list[Run], list[Run]]:
    """All four stages: one teacher, its pairs, some students, and a report on each."""
    teacher_run = call("train-teacher", *teacher)
    pairs_run = call(*COLLECT, "--episodes", "3")
    assert pairs_run.parents == [teacher_run.name]
    student_runs, reports = [], []
    for student in students:
        student_runs.append(call(*student, *SMALL))
        reports.append(call("eval", "--episodes", "2"))
        assert set(student_runs[-1].parents) == {teacher_run.name, pairs_run.name}
        assert reports[-1].parents == [student_runs[-1].name]
    return teacher_run, pairs_run, student_runs, reports


@pytest.mark.usefixtures("no_plots")
def test_acrobot_goes_through_all_stages(folder: Path) -> None:
    short = ("--total-steps", "64", "--eval-episodes", "1")
    _, _, (student,), _ = chain(("acrobot", *TINY, *short), ((*DAGGER, *short, "--student", "rnn"),))
    assert tscli.load_policy(student).spec.view.name == "partial"


@pytest.mark.usefixtures("no_plots")
def test_continuous_actions_go_through_all_stages(folder: Path) -> None:
    view = ("--obs", "0,1", "--student", "rnn", "--eval-episodes", "1")
    teacher = ("Pendulum-v1", *TINY, "--eval-episodes", "1")
    _, pairs, students, reports = chain(teacher, ((*DAGGER, *view), (*BC, *view)))
    assert [tscli.load_policy(student).spec.view.vector_size for student in students] == [2, 2]
    assert {"teacher_mean", "teacher_std"} <= set(tscli.open_pairs(pairs).fields)
    assert all(report.metrics["action_distance"] >= 0 for report in reports)


@pytest.mark.usefixtures("no_plots")
def test_a_dict_of_vectors_and_pictures_goes_through_all_stages(folder: Path) -> None:
    view = ("--obs", "camera + body[1] + previous_action", "--student", "gru")
    teacher = ("toy_envs:toy/Dict-v0", *TINY, "--obs", "body + goal")
    _, _, students, _ = chain(teacher, ((*DAGGER, *view), (*BC, *view)))
    for student in students:
        spec = tscli.load_policy(student).spec.view
        assert (spec.images, spec.vector_size) == ({"camera": (12, 10, 3)}, 2)


@pytest.mark.usefixtures("no_plots")
def test_a_frozen_encoder_goes_through_all_stages(folder: Path) -> None:
    make_checkpoint(Path("dino"))
    view = ("--obs", "camera + body[1]", "--student.image", "dinov2", "--student.image.path", "dino")
    call("train-teacher", "toy_envs:toy/Dict-v0", *TINY, "--obs", "body + goal")
    pairs_run = call(*COLLECT, "--episodes", "3")
    made = [call(*BC, *view, *SMALL), call(*DAGGER, *view, "--student", "gru", *SMALL)]
    shutil.rmtree("dino")
    # Features of what was collected are made once; those of what DAgger adds lie with it.
    (kept,) = (pairs_run.path / "pairs" / "features").iterdir()
    assert [path.name for path in sorted(kept.iterdir())] == ["camera-00000.json", "camera-00000.npy"]
    added = tscli.open_pairs(made[1]).shards[0]
    assert added.fields[f"features/{kept.name}/camera"].shape == (added.rows, 3 * 2 * 8)
    call("eval", "--episodes", "2")
    if all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        call("export", made[0].name)


@pytest.mark.usefixtures("no_plots")
def test_a_frozen_encoder_goes_through_the_loops_that_store_nothing(folder: Path) -> None:
    make_checkpoint(Path("dino"))
    image, task = ("--student.image", "dinov2", "--student.image.path", "dino"), "toy_envs:toy/Dict-v0"
    sitt = tuple(task if word == "cartpole" else word for word in SITT)
    joint = call(
        *sitt, "--total-steps", "128", "--obs", "body", "--student-obs", "camera", *image, "--student.hidden", "8"
    )
    call(*ONLINE, "--teacher", joint.name, "--total-steps", "80", "--obs", "camera", *image, *SMALL)
    for run in list_runs(RUNS):
        assert tscli.load_policy(run).encoder.frozen["camera"].features == 3 * 2 * 8


@pytest.mark.usefixtures("no_plots")
def test_pictures_alone_go_through_all_stages(folder: Path) -> None:
    _, pairs, (student,), _ = chain(("toy_envs:toy/Image-v0", *TINY), ((*DAGGER, "--student", "mlp"),))
    assert tscli.load_policy(student).encoder.norm is None
    assert tscli.open_pairs(pairs).schema.groups["image"].dtype == "uint8"


@pytest.mark.usefixtures("no_plots")
def test_several_discrete_actions_go_through_all_stages(folder: Path) -> None:
    view = ("--obs", "0 + previous_action", "--student", "gru")
    _, pairs, _, reports = chain(("toy_envs:toy/Multi-v0", *TINY), ((*DAGGER, *view), (*BC, *view)))
    assert tscli.open_pairs(pairs).schema.action.nvec == (3, 2)
    assert all(0 <= report.metrics["action_agreement"] <= 1 for report in reports)


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("student", ["mlp", "rnn", "gru", "history"])
def test_a_student_of_any_kind_goes_from_cloning_to_dagger_to_evaluation(runs: Path, student: str) -> None:
    for method in (BC, DAGGER):
        learnt = call(*method, *SMALL, "--student", student, "--obs", "partial")
        report = call("eval", "--episodes", "2")
        assert report.parents == [learnt.name]
        policy = tscli.load_policy(learnt)
        assert (policy.spec.network.kind, policy.spec.view.name) == (student, "partial")
        assert policy.is_recurrent == (student != "mlp")
        assert set(json.loads((report.path / "report.json").read_text())["policies"]) == {"student", "teacher"}


@pytest.mark.usefixtures("no_plots")
def test_a_view_that_is_noisy_late_and_lossy_goes_through_all_stages(folder: Path) -> None:
    Path("rough.yaml").write_text(
        "env: {kind: cartpole}\n"
        "views:\n"
        "  full: [state]\n"
        '  rough: [{group: state, index: [0, 2], noise: 0.1, delay: 2, dropout: 0.1}, "state[1]", previous_action]\n'
        "student: rough\n"
    )
    teacher, _, students, _ = chain(("rough.yaml", *TINY), ((*DAGGER, "--student", "gru"), BC))
    assert [tscli.load_policy(student).spec.view.name for student in students] == ["rough", "rough"]
    assert Path(teacher.task).resolve() == (folder / "rough.yaml").resolve()


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("change", ["none", "edited", "gone"])
def test_a_tasks_own_file_is_found_from_another_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    study, elsewhere = folder / "study", folder / "elsewhere"
    study.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(study)
    task = "env: {kind: cartpole, max_episode_steps: 30}\nviews: {full: [state]}\n"
    Path("own.yaml").write_text(task)
    call("train-teacher", "own.yaml", *TINY)
    if change == "edited":  # the user's file counts, as long as it is there
        Path("own.yaml").write_text(task.replace("30", "3"))
    elif change == "gone":
        Path("own.yaml").unlink()
        study = study.rename(folder / "moved")
    monkeypatch.chdir(elsewhere)
    runs_dir = study / "runs"
    for command in (COLLECT, BC, ("eval", "--episodes", "2")):
        assert main([*command, "--runs-dir", str(runs_dir), "--quiet"]) == 0
    made = list_runs(runs_dir)
    assert [run.name[5:] for run in made[1:]] == ["collect-own-seed1", "distill-bc-own-seed1", "eval-own-seed1"]
    assert (made[-1].metrics["eval/length"] <= 3) == (change == "edited")


@pytest.mark.usefixtures("no_plots")
def test_all_stages_run_from_python_and_their_results_open(folder: Path) -> None:
    tiny: dict[str, Any] = {"num_envs": 4, "eval_episodes": 3, "num_minibatches": 2, "network": {"hidden": (8,)}}
    teacher = tscli.run("train-teacher", task="cartpole", seed=7, total_steps=384, rollout_steps=16, **tiny)
    pairs_run = tscli.run("collect", episodes=4, num_envs=2)
    student = tscli.run("distill", method="bc", student="rnn", obs="partial", num_epochs=1, eval_episodes=3)
    report = tscli.run("eval", episodes=4, run=str(student.number))
    assert (teacher.seed, pairs_run.parents, student.method) == (7, [teacher.name], "bc")
    assert report.metrics["eval/return"] > 0

    policy = tscli.load_policy(student)
    obs = {"vector": torch.zeros(5, policy.spec.view.vector_size)}
    with torch.no_grad():
        dist, hidden = policy.step(obs, policy.initial_hidden(5), torch.ones(5, dtype=torch.bool))
    assert dist.mode().shape == (5,) and hidden.shape[0] == 5
    pairs = tscli.open_pairs(pairs_run)
    windows = pairs.sample_windows(np.random.default_rng(0), batch=3, length=4)
    assert pairs.gather(windows, ["obs/state"])["obs/state"].shape == (4, 3, 4)
    assert tscli.load_policy("1").spec.view.name == "full"


@pytest.mark.usefixtures("no_plots")
def test_a_student_learns_on_top_of_what_another_one_shared_in_acting(runs: Path) -> None:
    student = call(*DAGGER, *SMALL, "--student", "rnn")
    mixed = call(*COLLECT, "--student", student.name, "--beta", "0.5")
    assert set(mixed.parents) == {"0001-train-teacher-cartpole-seed1", student.name}
    again = call(*BC, *SMALL, "--student", "gru")
    assert set(again.parents) == {mixed.name, "0001-train-teacher-cartpole-seed1"}

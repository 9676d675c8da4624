"""One student of several teachers, from the command line: who labels what, what is noted, and what is refused."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from stage_tools import (
    ADVISOR,
    BC,
    COLLECT,
    DAGGER,
    FINETUNE,
    ONLINE,
    SMALL,
    TEACHER,
    at_call,
    call,
    error_of,
    fingerprint,
    make_runs,
    signal_once,
)

import tscli
from tscli.cli.app import main
from tscli.files import file_hash
from tscli.networks.files import load_policy_file
from tscli.pairs.writer import PairsWriter
from tscli.runs import Run, list_runs, read_run

pytestmark = pytest.mark.usefixtures("no_plots")

MIXED = ("--teacher", "1,2", "--task", "cartpole_mixed")


@pytest.fixture(scope="session")
def two_teachers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: 1 is a teacher of CartPole, 2 one of CartPole with swapped actions. To be copied."""
    swapped = (
        "train-teacher",
        "cartpole_swapped",
        *TEACHER[2:],
        "--network",
        "rnn",
        "--obs",
        "state + previous_action",
    )
    return make_runs(tmp_path_factory.mktemp("teachers"), TEACHER, swapped)


@pytest.fixture
def teachers(folder: Path, two_teachers: Path) -> Path:
    """The folder to stand in, with a copy of `two_teachers` in it."""
    shutil.copytree(two_teachers, folder / "runs")
    return folder / "runs"


def labels(run: Run) -> dict[str, torch.Tensor]:
    """Of every recorded step: state, task and the logits of the teacher."""
    pairs = tscli.open_pairs(run)
    found = pairs.gather(pairs.windows(1, start="tile")[:], ["obs/state", "obs/task", "teacher_logits"])
    return {name: torch.from_numpy(found[name][0]) for name in ("obs/state", "obs/task", "teacher_logits")}


@pytest.mark.parametrize("command", [(*DAGGER, *SMALL), COLLECT], ids=["dagger", "collect"])
def test_a_row_is_labelled_by_the_teacher_of_its_task(teachers: Path, command: tuple[str, ...]) -> None:
    run = call(*command, *MIXED)
    found = labels(run)
    memoryless = load_policy_file(next(teachers.glob("0001-*")) / "policy.safetensors")
    state = {"vector": found["obs/state"]}
    expected = memoryless.step(state, memoryless.initial_hidden(len(found["obs/state"])), torch.ones(1))[0].params()
    close = torch.isclose(expected["logits"], found["teacher_logits"], atol=1e-6).all(1)
    first = found["obs/task"][:, 0] == 1
    assert first.any() and (~first).any()
    assert close[first].all() and not close[~first].any()


@pytest.mark.parametrize(
    "command",
    [(*DAGGER, *SMALL), (*ONLINE, *SMALL), (*ADVISOR, *SMALL), COLLECT],
    ids=["dagger", "online", "advisor", "collect"],
)
def test_all_teachers_are_named_with_their_hashes_and_what_tells_them_apart(
    teachers: Path, command: tuple[str, ...]
) -> None:
    run = call(*command, *MIXED)
    parents = run.manifest["parents"]
    assert list(parents) == ["teacher", "teacher-2"]
    for parent in parents.values():
        assert parent["sha256"] == file_hash(teachers / parent["name"] / "policy.safetensors")
    assert (run.task, run.teacher_by) == ("cartpole_mixed", "task")
    if "pairs" in run.holds:
        schema = tscli.open_pairs(run).schema
        assert schema.teacher == ", ".join(run.teachers) and schema.extra["teacher_by"] == "task"


@pytest.mark.parametrize("command", [(*DAGGER, "--beta", "0.5", "--pairs", "none"), ONLINE], ids=["dagger", "online"])
def test_one_teacher_named_twice_is_the_same_as_that_teacher(runs: Path, command: tuple[str, ...]) -> None:
    alone = fingerprint(call(*command, *SMALL, "--teacher", "1"))
    twice = fingerprint(call(*command, *SMALL, "--teacher", "1,1", "--teacher-by", "state[0:2]"))
    for what in ("metrics", "weights", "final"):
        assert alone[what] == twice[what]


def test_pairs_of_several_teachers_are_cloned_merged_and_begun_with_by_who_has_the_same(teachers: Path) -> None:
    first, second = call(*COLLECT, *MIXED), call(*COLLECT, *MIXED, "--seed", "2")
    student = call(*BC, *SMALL)
    assert set(student.parents) == {second.name, *first.teachers}
    assert (student.task, student.teacher_by) == ("cartpole_mixed", "task")
    assert set(call(*BC, *SMALL, "--teacher", "1,2").parents) == set(student.parents)
    assert second.name in call(*DAGGER, *SMALL, *MIXED).parents
    assert second.name in call(*DAGGER, *SMALL, "--pairs", second.name).parents
    for other in (
        ("--teacher", "1"),
        ("--teacher", "2,1", "--task", "cartpole_mixed"),
        (*MIXED, "--teacher-by", "state[0:2]"),
    ):
        assert second.name not in call(*DAGGER, *SMALL, *other).parents
    merged = call("merge", first.name, second.name)
    assert (merged.teachers, merged.teacher_by, merged.task) == (first.teachers, "task", "cartpole_mixed")
    assert call(*BC, *SMALL, "--pairs", merged.name).teachers == first.teachers


def test_everyone_is_measured_on_each_task_and_each_row_beside_its_own_teacher(
    teachers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = call(*DAGGER, *SMALL, *MIXED)
    assert main(["eval", "--episodes", "7", "--num-envs", "4"]) == 0
    table = capsys.readouterr().out
    run = list_runs(teachers)[-1]
    report = json.loads((run.path / "report.json").read_text())
    assert report["policies"]["teacher"]["run"] == ", ".join(student.teachers)
    for entry in report["policies"].values():
        for mode in ("greedy", "sampled"):
            tasks = entry[mode]["tasks"]
            counts = [tasks[name]["return"]["count"] for name in ("cartpole", "cartpole_swapped")]
            assert counts == [4, 3]  # four slots of two episodes, of which the last one is not counted
            total = sum(part["return"]["mean"] * part["return"]["count"] for part in tasks.values())
            assert total / 7 == pytest.approx(entry[mode]["return"]["mean"])
    assert "cartpole_swapped" in table and "gap" in table
    # A teacher does on its own task what the two together do there.
    own = report["policies"]["teacher"]["greedy"]["tasks"]["cartpole"]
    alone = call("eval", "1", "--task", "cartpole_mixed", "--episodes", "7", "--num-envs", "4")
    alone_report = json.loads((alone.path / "report.json").read_text())
    assert alone_report["policies"]["teacher"]["greedy"]["tasks"]["cartpole"] == own


def test_a_film_shows_every_task(teachers: Path) -> None:
    call("eval", "1", "--task", "cartpole_mixed", "--episodes", "2", "--render", "gif")
    run = call("eval", "1", "--episodes", "2", "--render", "gif")
    mixed, alone = (Image.open(path) for path in sorted(teachers.glob("*/film.gif")))
    assert run.name in str(alone.filename)  # type: ignore[attr-defined]
    assert mixed.size == (2 * alone.size[0] + 8, alone.size[1])


def test_a_student_of_several_teachers_is_fine_tuned_near_all_of_them(teachers: Path) -> None:
    student = call(*DAGGER, *SMALL, *MIXED)
    run = call(*FINETUNE, "--teacher-kl-coef", "0.1")
    assert run.teachers == student.teachers and run.teacher_by == "task"
    assert run.parents[0] == student.name


def test_a_run_with_several_teachers_goes_on_as_if_it_had_not_been_stopped(
    teachers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(*COLLECT, *MIXED)
    command = (*DAGGER, *SMALL, "--student", "rnn", "--beta", "0.5", "--pairs", "3")
    shutil.copytree(teachers, "kept")
    expected = fingerprint(call(*command))
    shutil.rmtree(teachers)
    Path("kept").rename(teachers)
    with monkeypatch.context() as patch:
        patch.setattr(PairsWriter, "append", at_call(PairsWriter.append, 43, signal_once(15)))
        assert main([*command, "--quiet"]) == 130
    assert fingerprint(call("distill", "--resume")) == expected


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "tasks": (("--teacher", "1,2"), "they are of cartpole and cartpole_swapped: name the student's task with --task"),
    "no group": (
        (*MIXED, "--teacher-by", "tsk"),
        '--teacher-by tsk: view "tsk": the env has no group "tsk": did you mean "task"',
    ),
    "entries": ((*MIXED, "--teacher-by", "state"), "--teacher-by state: it has 4 entries and there are 2 teachers"),
    "number": (("--teacher", "1,2,1", "--task", "cartpole_mixed"), "it has 2 entries and there are 3 teachers"),
    "not mixed": (("--teacher", "1,1"), '--teacher-by task: view "task": the env has no group "task"'),
    "actions": (("--teacher", "1,2", "--task", "acrobot"), 'sees the group "state" as (4,), this env gives (6,)'),
    "comma": (("--teacher", "1,", "--task", "cartpole_mixed"), '--teacher "1," has a comma without a run beside it'),
    "no run": (("--teacher", "1,9", "--task", "cartpole_mixed"), 'no run "9"'),
    "index": ((*MIXED, "--teacher-by", "state[position]"), "a row says -0.0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(
    teachers: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    more, message = REFUSED[case]
    before = sorted(teachers.iterdir())
    assert message in error_of(capsys, *DAGGER, *SMALL, *more)
    assert sorted(teachers.iterdir()) == before, "refused before a run began"


def test_an_unfinished_or_changed_teacher_is_refused(teachers: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = call(*DAGGER, *SMALL, *MIXED)
    path = next(teachers.glob("0002-*"))
    manifest = read_run(path).manifest
    (path / "manifest.json").write_text(json.dumps(manifest | {"status": "stopped"}))
    assert f"--teacher 2: {path.name} is stopped, not finished" in error_of(capsys, *ONLINE, *SMALL, *MIXED)
    (path / "manifest.json").write_text(json.dumps(manifest | {"artifacts": {"policy.safetensors": "other"}}))
    assert f"{path.name} has changed since {student.name} was made" in error_of(capsys, "eval", student.name)


def test_named_pairs_of_another_task_or_told_apart_otherwise_are_refused(
    teachers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*COLLECT, "--teacher", "1")
    error = error_of(capsys, *DAGGER, "--teacher", "1", "--task", "cartpole_mixed", "--pairs", "3")
    assert "is of cartpole, and the student learns cartpole_mixed: collect there, or give --pairs none" in error
    call(*COLLECT, *MIXED)
    error = error_of(capsys, *DAGGER, *MIXED, "--pairs", "4", "--teacher-by", "state[0:2]")
    assert "--teacher-by was task, not state[0:2]" in error

"""Bad input to the real stages: one line, exit code 2, no env step before, no half-made run after."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_tools import COLLECT, DAGGER, RUNS, SMALL, TEACHER, at_call, call, error_of, signal_once

from tscli.cli.app import main
from tscli.learning.optim import FlatAdam
from tscli.learning.rollout import ViewedEnv
from tscli.pairs.writer import PairsWriter
from tscli.runs import list_runs

pytestmark = pytest.mark.usefixtures("no_plots")


class Refusal:
    """Run a command that must refuse its input before any env step and without leaving a run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *args: str) -> str:
        """Give the error line."""

        def never(*args: Any) -> None:
            raise AssertionError("an env step was made")

        before = sorted(RUNS.glob("*")) if RUNS.exists() else []
        with self._monkeypatch.context() as patch:
            patch.setattr(ViewedEnv, "step", never)
            error = error_of(self._capsys, *args)
        assert (sorted(RUNS.glob("*")) if RUNS.exists() else []) == before
        return error


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    return Refusal(monkeypatch, capsys)


# --- words that are not known -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train-teacher", "cartpol"], 'unknown task "cartpol": did you mean "cartpole"'),
        (["train-teacher", "Pendulum-v9"], 'did you mean "Pendulum-v1"'),
        (["train-teacher", "none.yaml"], "cannot read none.yaml"),
        (["train-teacher", "no_such_module:Env-v0"], "module no_such_module cannot be imported"),
        (["train-teacher", "cartpole", "--obs", "partal"], 'has no view "partal": did you mean "partial"'),
        (["train-teacher", "cartpole", "--obs", "stat"], 'has no group "stat": did you mean "state"'),
        (["train-teacher", "cartpole", "--obs", "state[angel]"], 'no entry "angel": did you mean "angle"'),
        (["train-teacher", "cartpole", "--obs", "0,4"], "entry 4 is outside"),
        (["train-teacher", "cartpole", "--obs", "state["], "cannot be read"),
        (["train-teacher", "cartpole", "--critic-obs", "fulll"], 'did you mean "full"'),
        (["train-teacher", "cartpole", "--network", "rn"], "--network.kind 'rn'"),
        (["train-teacher", "cartpole", "--num-env", "3"], 'did you mean "--num-envs"'),
        (["train-teacher", "cartpole", "--set", "gama=0.9"], 'did you mean "gamma"'),
        (["train-teacher", "cartpole", "--set", "network.kid=rnn"], 'did you mean "network.kind"'),
        (["train-teacher", "cartpole", "--gamma", "1.5"], "less than or equal to 1"),
        (["train-teacher", "cartpole", "--lr", "fast"], "--lr 'fast'"),
        (["train-teacher", "cartpole", "--seed", "-1"], "--seed '-1'"),
        (["train-teacher", "cartpole", "--device", "cuda:99"], 'device "cuda:99" cannot be used here'),
        (["train-teacher", "cartpole", "--device", "tpu9"], 'device "tpu9" cannot be used here'),
        (["train-teacher", "cartpole", "--num-envs", "5", "--rollout-steps", "5"], "does not divide"),
        (["train-teacher", "cartpole", "--num-envs", "2147483648"], "less than or equal to 1048576"),
        (["train-teacher", "cartpole", "--rollout-steps", "1000000000000"], "less than or equal to 65536"),
        (["train-teacher", "cartpole", "--eval-episodes", "1000001"], "less than or equal to 1000000"),
        (["train-teacher", "cartpole", "--threads", "2147483648"], "less than or equal to 1024"),
        (
            ["train-teacher", "cartpole", "--num-envs", "2", "--rollout-steps", "16", "--network", "rnn"],
            "does not divide the 2 sequences of 16 steps",
        ),
        (
            ["train-teacher", "cartpole", "--num-envs", "1", "--rollout-steps", "8", "--num-minibatches", "8"],
            "a minibatch of one step",
        ),
        (["collect"], "no finished run in runs holds a teacher's policy"),
        (["distill"], "no finished run in runs holds a teacher's policy"),
        (["distill", "--method", "bc"], "no finished run in runs holds pairs"),
        (["distill", "--method", "daggr"], 'did you mean "dagger"'),
        (["eval"], "no finished run in runs holds a policy"),
        (["eval", "3"], 'no run "3"'),
    ],
)
def test_what_is_not_known_or_out_of_bounds_is_refused(
    folder: Path, refused: Refusal, args: list[str], words: str
) -> None:
    assert words in refused(*args)


@pytest.mark.parametrize("words", ["total_stpes: 1", "total_steps: 1, network: {kind: lstm}"])
def test_a_task_is_shown_once_what_it_says_of_commands_is_right(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    Path("mine.yaml").write_text(f"extends: cartpole\nstages: {{train-teacher: {{{words}}}}}\n")
    assert main(["tasks", "mine.yaml"]) == 2
    out, err = capsys.readouterr()
    assert not out and "task mine, stages.train-teacher" in err and len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["collect", "--groups", "stat"], 'has no group "stat": did you mean "state"'),
        (["collect", "--beta", "0.5"], "needs a student to share the acting"),
        (["collect", "--student", "1", "--beta", "2"], "--beta '2'"),
        (["collect", "--student", "3"], "give --beta below 1 as well"),
        (["collect", "--teacher", "2"], "is a collect run, which does not hold a teacher's policy"),
        (["distill", "--teacher", "2"], "is a collect run, which does not hold a teacher's policy"),
        (["distill", "--pairs", "1"], "which does not hold pairs: `tscli collect --teacher 1` makes some"),
        (["distill", "--student", "transformer"], "--student.kind 'transformer'"),
        (["distill", "--student.kid", "rnn"], 'did you mean "--student.kind"'),
        (["distill", "--obs", "partail"], 'did you mean "partial"'),
        (["distill", "--method", "bc", "--obs", "statee[0]"], 'has no group "statee"'),
        (["distill", "--loss", "l2"], "--loss 'l2'"),
        (["eval", "2"], "which does not hold a policy: its teacher is 0001-train-teacher-cartpole-seed1"),
        (["eval", "1", "--teacher", "3"], "(3) (--teacher: on or off, without a value): see tscli eval --help"),
        (["distill", "--method", "bc", "--total-steps", "3"], "see tscli distill --method bc --help"),
        (["eval", "--task", "pendulum"], "this env"),
        (["eval", "--render", "gfi"], "--render 'gfi'"),
    ],
)
def test_runs_groups_and_students_that_do_not_fit_are_refused(
    runs: Path, refused: Refusal, args: list[str], words: str
) -> None:
    assert words in refused(*args)


def test_a_yaml_key_that_is_not_known_is_refused_with_its_file(folder: Path, refused: Refusal) -> None:
    Path("own.yaml").write_text("num_envs: 4\nlearning_rate: 3\n")
    error = refused("train-teacher", "cartpole", "--config", "own.yaml")
    assert 'unknown setting "learning_rate" in own.yaml' in error
    Path("task.yaml").write_text("env: {kind: cartpole}\nviews: {full: [state]}\nteachr: full\n")
    assert 'did you mean "teacher"' in refused("train-teacher", "task.yaml")
    Path("task.yaml").write_text("env: {kind: cartpol}\nviews: {full: [state]}\n")
    assert 'unknown env kind "cartpol": did you mean "cartpole"' in refused("train-teacher", "task.yaml")
    Path("task.yaml").write_text("env: {kind: gym, id: Pendulum-v1, kwargz: {}}\nviews: {full: [state]}\n")
    assert 'did you mean "kwargs"' in refused("train-teacher", "task.yaml")


def test_a_view_needs_groups_that_the_dataset_has(folder: Path, refused: Refusal) -> None:
    call("train-teacher", "toy_envs:toy/Dict-v0", *TEACHER[2:], "--obs", "body")
    call(*COLLECT, "--groups", "body")
    for method in ("bc", "dagger"):
        error = refused("distill", "--method", method, "--obs", "body + goal")
        assert 'needs the group "goal"' in error and "it has body" in error


def test_a_squashed_student_of_a_plain_teacher_is_refused_where_the_kl_is_the_loss(
    folder: Path, refused: Refusal
) -> None:
    call("train-teacher", "Pendulum-v1", *TEACHER[2:], "--total-steps", "64", "--eval-episodes", "1")
    call(*COLLECT, "--episodes", "1")
    for method in ("bc", "dagger"):
        assert "use --no-student.squash" in refused("distill", "--method", method, "--student.squash")


# --- runs that are unfinished, changed or gone ------------------------------------------------------------------------


def test_an_unfinished_parent_is_refused_when_named_and_passed_over_when_not(
    runs: Path, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 14, signal_once(signal.SIGTERM)))
        assert main([*TEACHER, "--quiet"]) == 130
    assert "is stopped, not finished: resume it first" in refused("collect", "--teacher", "3")
    assert call(*COLLECT).parents == ["0001-train-teacher-cartpole-seed1"]


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flipped", "another", "gone"])
def test_a_teacher_that_changed_since_it_finished_is_refused(runs: Path, refused: Refusal, how: str) -> None:
    student = call(*DAGGER, *SMALL)
    policy = RUNS / "0001-train-teacher-cartpole-seed1" / "policy.safetensors"
    if how == "flipped":
        flip(policy, -5)
    elif how == "another":
        other = call(*TEACHER, "--seed", "2")
        shutil.copy(other.path / "policy.safetensors", policy)
        shutil.rmtree(other.path)
    else:
        policy.unlink()
    for command in (["collect"], ["distill"], ["distill", "--method", "bc"], ["eval", student.name], ["eval", "1"]):
        assert "has changed since its run finished" in refused(*command)


def test_a_teacher_that_was_trained_anew_in_its_place_is_not_that_of_the_pairs(runs: Path, refused: Refusal) -> None:
    other = call(*TEACHER, "--seed", "2")
    first = RUNS / "0001-train-teacher-cartpole-seed1"
    shutil.rmtree(first)
    other.path.rename(first)
    assert "has changed since 0002-collect-cartpole-seed1 was made" in refused("distill", "--method", "bc")
    shutil.rmtree(first)
    assert "is gone" in refused("distill", "--method", "bc")


def test_a_resumed_student_keeps_its_teacher_whatever_was_trained_since(
    runs: Path, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 5, signal_once(signal.SIGTERM)))
        assert main([*DAGGER, *SMALL, "--quiet"]) == 130
    call(*TEACHER, "--seed", "2")
    call(*COLLECT)
    resumed = call("distill", "--resume")
    assert list_runs(RUNS)[2].status == "finished"
    assert list_runs(RUNS)[2].parents == ["0001-train-teacher-cartpole-seed1", "0002-collect-cartpole-seed1"]
    assert list_runs(RUNS)[2].config["teacher"] == "0001-train-teacher-cartpole-seed1"
    assert resumed is not None


# --- damaged files ----------------------------------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    if how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "flipped":
        flip(path, path.stat().st_size // 2)
    elif how == "foreign":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(1000))
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut", "flipped", "foreign", "missing"])
@pytest.mark.parametrize("method", ["bc", "dagger"])
def test_a_damaged_dataset_is_refused(runs: Path, refused: Refusal, how: str, method: str) -> None:
    (shard,) = (RUNS / "0002-collect-cartpole-seed1" / "pairs" / "shards").glob("*.h5")
    damage(shard, how)
    assert str(shard) in refused("distill", "--method", method)


@pytest.mark.parametrize("method", ["bc", "dagger"])
def test_a_damaged_header_of_a_dataset_is_refused(runs: Path, refused: Refusal, method: str) -> None:
    header = RUNS / "0002-collect-cartpole-seed1" / "pairs" / "pairs.json"
    flip(header, header.stat().st_size // 2)
    assert str(header) in refused("distill", "--method", method)


class Program:
    """A pickle that runs a program when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch proof",)


@pytest.fixture
def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stopped run of `train-teacher`."""
    with monkeypatch.context() as patch:
        patch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 6, signal_once(signal.SIGTERM)))
        assert main([*TEACHER, "--quiet"]) == 130
    return RUNS / "0001-train-teacher-cartpole-seed1"


@pytest.mark.parametrize("how", ["cut", "flipped", "foreign"])
def test_a_damaged_checkpoint_is_refused(stopped: Path, refused: Refusal, how: str) -> None:
    manifest = (stopped / "manifest.json").read_bytes()
    metrics = (stopped / "metrics.jsonl").read_bytes()
    damage(stopped / "checkpoint.pt", how)
    assert "is damaged" in refused("train-teacher", "--resume")
    assert (stopped / "manifest.json").read_bytes() == manifest
    assert (stopped / "metrics.jsonl").read_bytes() == metrics


@pytest.mark.parametrize("form", ["pickle", "torch", "sealed"])
def test_a_checkpoint_that_would_run_a_program_is_refused(stopped: Path, refused: Refusal, form: str) -> None:
    path = stopped / "checkpoint.pt"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Program(), protocol=2))
    else:
        torch.save({"values": Program()}, path)
    if form == "sealed":  # as one of ours, whose hash is right
        data = path.read_bytes()
        path.write_bytes(b"tscli checkpoint 1 " + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
    assert "is damaged" in refused("train-teacher", "--resume")
    assert not Path("proof").exists()


def test_the_checkpoint_of_another_run_is_refused(
    stopped: Path, refused: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 6, signal_once(signal.SIGTERM)))
        assert main([*TEACHER, "--seed", "2", "--quiet"]) == 130
    shutil.copy(list_runs(RUNS)[-1].path / "checkpoint.pt", stopped)
    assert "is another run's" in refused("train-teacher", "--resume", "1")


def test_a_changed_config_of_a_stopped_run_is_refused(stopped: Path, refused: Refusal) -> None:
    path = stopped / "config.yaml"
    path.write_text(path.read_text().replace("num_epochs: 2", "num_epochs: 3"))
    assert "config.yaml has changed since the run began" in refused("train-teacher", "--resume")


# --- numbers that are none --------------------------------------------------------------------------------------------

FAULTS = {
    "reward": (".nan", "the env gave nan as reward", 20),
    "observation": ("-.inf", "the env gave -inf as state", 21),
    "last": (".inf", "the env gave inf as state", 23),  # seen by the critic alone
}


def faulty_task(what: str, at: int, value: str) -> None:
    kwargs = f"{{what: {what}, at: {at}, value: {value}}}"
    env = f"{{kind: gym, id: toy_envs:toy/Faulty-v0, kwargs: {kwargs}}}"
    Path("faulty.yaml").write_text(f"env: {env}\nviews: {{full: [state]}}\n")


@pytest.mark.parametrize("what", FAULTS)
def test_a_number_that_is_none_from_the_env_ends_a_run_and_names_the_step(
    folder: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    value, words, at = FAULTS[what]
    faulty_task(what, 1000, value)
    call("train-teacher", "faulty.yaml", *TEACHER[2:])
    faulty_task(what, 21, value)  # the first one is 0 in what tscli says
    commands = [["train-teacher", "faulty.yaml", *TEACHER[2:]]]
    if what != "last":
        commands += [
            [*COLLECT, "--episodes", "15"],
            [*DAGGER, "--pairs", "none"],
            ["eval", "--episodes", "12", "--num-envs", "3"],
        ]
    for command in commands:
        error = error_of(capsys, *command)
        assert f"{words} (env 0, its step {at})" in error
        run = list_runs(RUNS)[-1]
        assert run.manifest["status"] == "failed" and run.manifest["error"] in error


def test_a_number_that_is_none_is_never_recorded(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty_task("reward", 1000, ".nan")
    call("train-teacher", "faulty.yaml", *TEACHER[2:])
    faulty_task("reward", 21, ".nan")
    rewards: list[float] = []
    append = PairsWriter.append

    def watched(self: PairsWriter, obs: Any, action: Any, label: Any, params: Any, reward: Any, *rest: Any) -> Any:
        rewards.extend(reward.tolist())
        return append(self, obs, action, label, params, reward, *rest)

    monkeypatch.setattr(PairsWriter, "append", watched)
    error_of(capsys, *COLLECT, "--episodes", "15")
    assert len(rewards) == 20 * 3 and all(reward == reward for reward in rewards)


# --- runs that cannot be read or made ---------------------------------------------------------------------------------


def test_a_manifest_that_is_no_json_is_no_run(runs: Path, refused: Refusal) -> None:
    manifest = RUNS / "0001-train-teacher-cartpole-seed1" / "manifest.json"
    manifest.write_text(manifest.read_text()[:-50])
    assert "is damaged" in refused("collect")  # which goes on with the newest pairs and their teacher
    assert "is damaged" in refused("collect", "--teacher", str(manifest.parent))


def test_a_run_of_a_newer_schema_asks_for_an_upgrade(runs: Path, refused: Refusal) -> None:
    manifest = RUNS / "0001-train-teacher-cartpole-seed1" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": 99}))
    assert "upgrade tscli" in refused("collect", "--teacher", str(manifest.parent))


def test_a_runs_folder_that_cannot_be_made_is_refused(folder: Path, refused: Refusal) -> None:
    Path("file").write_text("")
    assert "cannot create a run in file/runs" in refused(*TEACHER, "--runs-dir", "file/runs")

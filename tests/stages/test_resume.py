"""`--resume` after any kind of end continues a run as if it had never been interrupted."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import forks
import pytest
import torch
import toy_envs
from stage_tools import (
    ADVISOR,
    BC,
    COLLECT,
    DAGGER,
    FINETUNE,
    GPO,
    LATENT,
    LATENT_TEACHER,
    ONLINE,
    RUNS,
    SITT,
    SMALL,
    TEACHER,
    TINY_LATENT,
    at_call,
    call,
    error_of,
    fingerprint,
    metrics_of,
    signal_once,
)

import tscli
from tscli import streams
from tscli.cli.app import main
from tscli.learning.optim import FlatAdam
from tscli.pairs.writer import PairsWriter
from tscli.runs import Run, list_runs
from tscli.runs.checkpoint import load_state, save_state

pytestmark = pytest.mark.usefixtures("no_plots")

RECURRENT = (
    *(*TEACHER, "--network", "rnn", "--network.memory", "8", "--bptt", "8", "--normalize-reward"),
    *("--obs", "state[0,2] + previous_action", "--critic-obs", "full", "--critic", "gru", "--lr-schedule", "linear"),
)
# Shards of eleven steps, so that some are finished before the kill and some after the checkpoint.
DAGGER_RNN = (
    *(*DAGGER, *SMALL, "--student", "rnn", "--beta", "0.8", "--memory", "300", "--clear-every", "7"),
    *("--shard-mb", "0.002", "--lr-schedule", "linear"),
)
SHARDED = (*COLLECT, "--episodes", "9", "--shard-mb", "0.002", "--noise", "0.1")
BC_NOISY = (*BC, *SMALL, "--student", "gru", "--window", "4", "--lr-schedule", "linear")

ONLINE_RNN = (*ONLINE, *SMALL, "--student", "rnn", "--num-epochs", "2", "--noise", "0.2", "--lr-schedule", "linear")

SITT_RNN = ("--paired", "envs", "--student", "gru", "--student.hidden", "8", "--student.memory", "8")

STAGES = {
    "train-teacher": (RECURRENT, "tscli.learning.optim:FlatAdam.step", 14),
    "collect": (SHARDED, "tscli.pairs.writer:PairsWriter.append", 40),
    "collect-some": ((*SHARDED, "--min-return", "15"), "tscli.pairs.selection:Selection.append", 60),
    "distill-bc": (BC_NOISY, "tscli.learning.optim:FlatAdam.step", 5),
    "distill-dagger": (DAGGER_RNN, "tscli.pairs.writer:PairsWriter.append", 43),
    "distill-advisor": ((*ADVISOR, *SMALL, "--student", "rnn"), "tscli.learning.optim:FlatAdam.step", 14),
    "gpo": ((*GPO, *SMALL, "--student", "gru", "--normalize-reward"), "tscli.learning.optim:FlatAdam.step", 30),
    "distill-online": (ONLINE_RNN, "tscli.learning.optim:FlatAdam.step", 30),
    "distill-online-short": ((*ONLINE_RNN, "--short-steps", "120"), "tscli.learning.optim:FlatAdam.step", 12),
    "sitt": ((*SITT, "--align-every", "2", "--normalize-reward"), "tscli.learning.optim:FlatAdam.step", 27),
    "sitt-memory": (
        (*SITT, "--student-envs", "2", "--memory", "40", "--lr-schedule", "adaptive", "--critic-warmup", "100"),
        *("tscli.learning.optim:FlatAdam.step", 27),
    ),
    "sitt-recurrent": ((*SITT, *SITT_RNN, "--penalty-warmup", "300"), "tscli.learning.optim:FlatAdam.step", 27),
    "ts": (("ts", *TINY_LATENT, "--normalize-reward"), "tscli.learning.optim:FlatAdam.step", 11),
    "cts": (("cts", *TINY_LATENT, "--student-rl-gradient"), "tscli.learning.optim:FlatAdam.step", 15),
    "distill-online-after-short": ((*ONLINE_RNN, "--short-steps", "120"), "tscli.learning.optim:FlatAdam.step", 30),
}


def kill_run(command: tuple[str, ...], where: str, number: int) -> Run:
    """Start a command in a process of its own, which is killed at the number-th call of a function."""
    process = forks.start(*command, "--quiet", "--checkpoint-every", "0", kill_at=(where, number), err="said")
    assert forks.wait(process) == [-signal.SIGKILL], Path("said").read_text()
    return list_runs(RUNS)[-1]


def interrupt(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], owner: type, name: str, number: int) -> Run:
    """Run a command that is asked to stop by SIGTERM at the number-th call of a method."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, at_call(getattr(owner, name), number, signal_once(signal.SIGTERM)))
        assert main([*command, "--quiet"]) == 130
    return list_runs(RUNS)[-1]


@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(runs: Path, stage: str) -> None:
    command, where, number = STAGES[stage]
    shutil.copytree(runs, "kept")
    expected = fingerprint(call(*command))
    shutil.rmtree(runs)
    Path("kept").rename(runs)

    killed = kill_run(command, where, number)
    assert killed.status == "stopped"
    assert (killed.path / "checkpoint.pt").exists()
    made_before = metrics_of(killed)
    resumed = call(command[0], "--resume")

    assert resumed.name == killed.name
    assert fingerprint(resumed) == expected
    assert not (resumed.path / "checkpoint.pt").exists()
    if command[0] != "collect":  # which logs nothing
        assert 0 < len(made_before) < len(expected["metrics"])


PICTURES = ("--augment.shift", "2", "--augment.brightness", "0.4", "--augment.contrast", "0.4")


def of_pictures(command: tuple[str, ...]) -> tuple[str, ...]:
    """The command on an env that has a camera."""
    return tuple("toy_envs:toy/Dict-v0" if word == "cartpole" else word for word in command)


def test_augmented_pictures_go_on_where_they_were(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(*of_pictures(TEACHER), "--obs", "body")
    call(*COLLECT)
    command = (*BC, *SMALL, "--obs", "camera", "--no-diagnose")
    shutil.copytree(RUNS, "kept")
    expected = fingerprint(call(*command, *PICTURES))
    assert fingerprint(call(*command))["weights"] != expected["weights"]
    shutil.rmtree(RUNS)
    Path("kept").rename(RUNS)
    interrupt(monkeypatch, (*command, *PICTURES), FlatAdam, "step", 5)
    assert fingerprint(call("distill", "--resume")) == expected


@pytest.mark.parametrize("method", ["dagger", "online", "sitt"])
def test_what_augments_pictures_is_kept(folder: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    if method == "sitt":
        command = (*of_pictures(SITT), "--obs", "body", "--student-obs", "camera + body", *PICTURES)
    else:
        call(*of_pictures(TEACHER), "--total-steps", "64", "--obs", "body")
        command = ONLINE if method == "online" else (*DAGGER, "--pairs", "none")
        command = (*command, *SMALL, "--obs", "camera", "--no-diagnose", *PICTURES)
    stopped = interrupt(monkeypatch, command, FlatAdam, "step", 8)
    drawn_from = load_state(stopped.path / "checkpoint.pt")["parts"]["augment"]
    assert not torch.equal(drawn_from, streams.generator(1, f"{method}/augment").get_state())


def test_a_latent_student_goes_on_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(*LATENT_TEACHER)
    command = (*LATENT, "--actor", "own", "--noise", "0.1")
    shutil.copytree(RUNS, "kept")
    expected = fingerprint(call(*command))
    shutil.rmtree(RUNS)
    Path("kept").rename(RUNS)
    interrupt(monkeypatch, command, FlatAdam, "step", 3)
    assert fingerprint(call("distill", "--resume")) == expected


def test_fine_tuning_goes_on_with_the_student_to_beat(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(*DAGGER, *SMALL, "--student", "rnn")
    command = (*FINETUNE, "--teacher-kl-coef", "0.1", "--lr-schedule", "linear")
    shutil.copytree(runs, "kept")
    expected = fingerprint(call(*command))
    shutil.rmtree(runs)
    Path("kept").rename(runs)
    stopped = interrupt(monkeypatch, command, FlatAdam, "step", 20)
    assert 0 < len(metrics_of(stopped)) < len(expected["metrics"])
    assert fingerprint(call("finetune", "--resume")) == expected


def test_a_run_that_was_stopped_after_its_warm_up_goes_on_with_the_beta_that_was_due(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = ("--pairs", "none", "--teacher-episodes", "2", "--beta", "0.8", "--beta-decay", "0.9")
    shutil.copytree(runs, "kept")
    expected = fingerprint(call(*DAGGER, *SMALL, *begins))
    shutil.rmtree(runs)
    Path("kept").rename(runs)
    stopped = interrupt(monkeypatch, (*DAGGER, *SMALL, *begins), PairsWriter, "append", 60)
    betas = [line["beta"] for line in metrics_of(stopped)]
    assert betas[0] == 1.0 and 0 < betas[-1] < 0.8
    assert fingerprint(call("distill", "--resume")) == expected


@pytest.mark.parametrize("command", [TEACHER, (*BC, *SMALL), (*DAGGER, *SMALL)], ids=["teacher", "bc", "dagger"])
def test_the_seconds_of_a_loop_count_on(runs: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    stopped = interrupt(monkeypatch, command, FlatAdam, "step", 2)
    path = stopped.path / "checkpoint.pt"
    state = load_state(path)
    logged = [json.loads(line) for line in (stopped.path / "metrics.jsonl").read_text().splitlines()]
    assert logged[-1]["loop_seconds"] <= state["parts"]["frame"]["seconds"]
    state["parts"]["frame"]["seconds"] = 1000.0
    save_state(path, state)
    run = call(command[0], "--resume")
    assert 1000 < run.metrics["loop_seconds"] < 2000


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew_in_its_folder(runs: Path) -> None:
    shutil.copytree(runs, "kept")
    expected = fingerprint(call(*SHARDED))
    shutil.rmtree(runs)
    Path("kept").rename(runs)
    killed = kill_run(SHARDED, "tscli.pairs.writer:PairsWriter.append", 1)
    assert not (killed.path / "checkpoint.pt").exists()
    assert fingerprint(call("collect", "--resume")) == expected


def test_a_run_may_be_stopped_and_resumed_several_times(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fingerprint(call(*TEACHER))
    shutil.rmtree(RUNS)
    for command in (TEACHER, ("train-teacher", "--resume")):
        stopped = interrupt(monkeypatch, command, FlatAdam, "step", 5)
        assert stopped.status == "stopped"
    # In its last iteration there is nothing left to stop.
    monkeypatch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 5, signal_once(signal.SIGTERM)))
    resumed = call("train-teacher", "--resume", "1")
    assert list_runs(RUNS) == [resumed]
    assert fingerprint(resumed) == expected
    assert [line["iteration"] for line in metrics_of(resumed)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_leave_a_stopped_run_with_a_loadable_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    monkeypatch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 6, signal_once(number)))
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert main([*TEACHER]) == 130
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    (run,) = list_runs(RUNS)
    assert run.manifest["status"] == "stopped"
    assert load_state(run.path / "checkpoint.pt")["parts"]["frame"]["iteration"] == len(metrics_of(run)) == 2
    error = capsys.readouterr().err.splitlines()
    assert "stopping after this iteration; once more to stop at once" in error
    assert error[-1] == f"stopped {run.name}: continue with --resume"


def test_a_second_ctrl_c_ends_at_once_and_the_run_still_resumes_exactly(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(runs, "kept")
    expected = fingerprint(call(*DAGGER_RNN))
    shutil.rmtree(runs)
    Path("kept").rename(runs)
    calls: list[int] = []

    def twice() -> None:
        calls.append(1)
        os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(PairsWriter, "append", at_call(PairsWriter.append, 29, twice))
        assert main([*DAGGER_RNN, "--checkpoint-every", "0", "--quiet"]) == 130
    assert len(calls) == 2
    run = list_runs(RUNS)[-1]
    assert run.manifest["status"] == "stopped"
    assert len(metrics_of(run)) == 3
    assert fingerprint(call("distill", "--resume")) == expected


def test_ctrl_c_ends_an_evaluation_at_once(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        from tscli.learning.rollout import ViewedEnv

        patch.setattr(ViewedEnv, "step", at_call(ViewedEnv.step, 3, signal_once(signal.SIGINT)))
        assert main(["eval", "--episodes", "3", "--quiet"]) == 130
    assert list_runs(RUNS)[-1].status == "stopped"
    assert call("eval", "--resume").status == "finished"


GYM_TEACHER = ("train-teacher", "toy_envs:toy/Multi-v0", *TEACHER[2:])


def test_on_gymnasium_envs_a_resumed_run_begins_new_episodes_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "this env cannot be restored, so its episodes start anew"
    teacher = (*GYM_TEACHER, "--network", "rnn", "--normalize-reward")
    stages = (
        (teacher, FlatAdam, "step", 6),
        ((*COLLECT, "--noise", "0.2"), PairsWriter, "append", 9),
        ((*DAGGER, "--student", "gru"), PairsWriter, "append", 10),
    )
    for command, owner, name, number in stages:
        stopped = interrupt(monkeypatch, command, owner, name, number)
        capsys.readouterr()
        assert main([command[0], "--resume"]) == 0
        assert note in capsys.readouterr().err
        run = list_runs(RUNS)[-1]
        assert (run.name, run.status) == (stopped.name, "finished")
        # The episodes that the stop cut short are not stuck to those that follow.
        assert {line["rollout/length"] for line in metrics_of(run)} <= {toy_envs.STEPS, None}
        if "pairs" in run.holds:
            episodes = tscli.open_pairs(run).episodes()
            assert set(episodes["length"][episodes["finished"]]) == {toy_envs.STEPS}
            assert not episodes["finished"].all()
    assert tscli.open_pairs("2").episodes()["finished"].sum() == 6


def test_behaviour_cloning_has_no_env_in_its_loop_and_resumes_exactly_on_any(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*GYM_TEACHER)
    call(*COLLECT)
    expected = fingerprint(call(*BC, *SMALL))
    interrupt(monkeypatch, (*BC, *SMALL), FlatAdam, "step", 6)
    capsys.readouterr()
    assert main(["distill", "--method", "bc", "--resume"]) == 0
    assert "start anew" not in capsys.readouterr().err
    assert fingerprint(list_runs(RUNS)[-1]) == expected


def test_the_number_of_threads_is_that_of_the_interrupted_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.setattr(os, "cpu_count", lambda: 2)
        interrupt(monkeypatch, (*TEACHER, "--threads", "0"), FlatAdam, "step", 6)
        seen: list[int] = []
        monkeypatch.setattr(os, "cpu_count", lambda: 1)
        monkeypatch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 1, lambda: seen.append(torch.get_num_threads())))
        call("train-teacher", "--resume")
        assert set(seen) == {2}
    finally:
        torch.set_num_threads(before)


def test_a_resumed_run_keeps_its_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = interrupt(monkeypatch, TEACHER, FlatAdam, "step", 6)
    error = error_of(capsys, "train-teacher", "--resume", "--lr", "0.5")
    assert "lr is 0.001" in error and "0.5" in error
    assert list_runs(RUNS)[-1].manifest == run.manifest


TASK_FILE = "env: {kind: cartpole, max_episode_steps: 50}\nviews: {full: [state]}\n"


@pytest.mark.parametrize("change", ["kept", "edited", "deleted"])
def test_a_run_resumes_with_the_tasks_file_as_it_was_from_whatever_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    file = folder / "own.yaml"
    file.write_text(TASK_FILE)
    args = ("train-teacher", "own.yaml", *TEACHER[2:])
    expected = fingerprint(call(*args))
    run = interrupt(monkeypatch, args, FlatAdam, "step", 6)
    if change == "edited":
        file.write_text(TASK_FILE.replace("50", "7"))
    elif change == "deleted":
        file.unlink()
    (folder / "else" / "where").mkdir(parents=True)
    monkeypatch.chdir(folder / "else" / "where")
    assert main(["train-teacher", "--resume", run.name, "--runs-dir", str(folder / "runs"), "--quiet"]) == 0
    found = list_runs(folder / "runs")[-1]
    assert found.config["task"] == str(file)
    assert fingerprint(found) == expected


def test_there_must_be_something_to_resume(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no unfinished train-teacher run" in error_of(capsys, "train-teacher", "--resume")
    assert "is finished, there is nothing to resume" in error_of(capsys, "train-teacher", "--resume", "1")
    assert 'no run "7"' in error_of(capsys, "train-teacher", "--resume", "7")

"""Several processes learn what one learns, go on exactly, and end together."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import os
import shutil
import signal
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path

import forks
import pytest
import torch
from stage_tools import ONLINE, RUNS, SMALL, TEACHER, call, fingerprint, metrics_of

from tscli.launch.processes import wanted_processes
from tscli.learning.optim import FlatAdam
from tscli.runs import list_runs

WHERE = "tscli.learning.optim:FlatAdam.step"
pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="torch has no gloo here")


def together(*command: str, killed_at: int | None = None) -> list[BaseProcess]:
    """A command in two processes, of which the second is killed at a call of the optimiser's step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    children = []
    for rank in range(2):
        kill_at = (WHERE, killed_at) if rank == 1 and killed_at is not None else None
        env = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        whole = (*command, "--quiet", "--checkpoint-every", "0")
        children.append(forks.start(*whole, kill_at=kill_at, env=env, err=f"said-{rank}"))
    return children


def test_two_processes_with_half_the_envs_each_learn_what_one_learns(runs: Path) -> None:
    settings = (*ONLINE, *SMALL, "--student", "gru", "--noise", "0", "--no-diagnose")
    one = metrics_of(call(*settings))
    assert forks.wait(*together(*settings)) == [0, 0]
    run = list_runs(RUNS)[-1]
    assert run.manifest["processes"] == 2
    two = metrics_of(run)
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for line, expected in zip(two, one, strict=True):
        for name in ("loss/imitation", "rollout/return"):
            assert line[name] == pytest.approx(expected[name], rel=1e-4)


def test_what_envs_tell_is_the_mean_over_processes_also_where_one_alone_tells_it(folder: Path) -> None:
    call("train-teacher", "quadrotor", "--num-envs", "4", "--total-steps", "128", "--eval-every", "0", "--quiet")
    act = ("--num-envs", "4", "--rollout-steps", "30", "--noise", "0", "--lr", "1e-6", "--no-diagnose")
    command = ("distill", "--method", "online", "--total-steps", "720", "--eval-every", "0", *act)
    expected = metrics_of(call(*command))
    assert forks.wait(*together(*command)) == [0, 0]
    found = metrics_of(list_runs(RUNS)[-1])
    told = ["env/crashes" in line for line in found]
    assert any(told) and told == ["env/crashes" in line for line in expected]
    for line, one in zip(found, expected, strict=True):
        assert line["env/speed"] == pytest.approx(one["env/speed"], rel=1e-3)


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_killed_process_ends_the_other_in_one_line_and_both_go_on_as_if_nothing_had_happened(folder: Path) -> None:
    command = (*TEACHER, "--network", "gru", "--bptt", "8", "--normalize-reward", "--lr-schedule", "adaptive")
    assert forks.wait(*together(*command)) == [0, 0]
    expected = fingerprint(list_runs(RUNS)[-1])
    shutil.rmtree(RUNS)
    assert forks.wait(*together(*command, killed_at=14)) == [2, -signal.SIGKILL]
    (line,) = Path("said-0").read_text().splitlines()
    assert line.startswith("error: another process of this training has ended") and line.endswith("go on with --resume")
    (run,) = list_runs(RUNS)
    assert 0 < len(metrics_of(run)) < len(expected["metrics"])
    assert forks.wait(*together("train-teacher", "--resume")) == [0, 0]
    resumed = list_runs(RUNS)[-1]
    assert resumed.name == run.name and fingerprint(resumed) == expected
    assert not list(resumed.path.glob("checkpoint*"))


def test_a_run_goes_on_with_as_many_processes_as_it_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from stage_tools import at_call, signal_once

    from tscli.cli.app import main

    with monkeypatch.context() as patch:
        patch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 6, signal_once(signal.SIGTERM)))
        assert main([*TEACHER, "--quiet"]) == 130
    assert main(["train-teacher", "--resume", "--num-processes", "2", "--quiet"]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error")][:1]
    assert "was begun by 1 processes, not 2" in line


def test_what_cannot_be_shared_out_is_refused_before_any_work(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from tscli.cli.app import main

    assert forks.wait(*together(*TEACHER, "--num-envs", "3")) == [2, 2]
    assert "--num-envs 3 cannot be shared out evenly over 2 processes" in Path("said-0").read_text()
    assert forks.wait(*together("collect")) == [2, 2]
    assert "works in one process" in Path("said-0").read_text()
    assert main([*TEACHER, "--num-processes", "two"]) == 2
    assert 'error: --num-processes "two": give a number from 1 to' in capfd.readouterr().err
    assert list_runs(RUNS) == []


def test_the_number_of_processes_is_taken_out_of_the_words() -> None:
    assert wanted_processes(["sitt", "--num-processes", "4", "--lr", "1"]) == (4, ["sitt", "--lr", "1"])
    assert wanted_processes(["sitt", "--num-processes=1"]) == (1, ["sitt"])
    assert wanted_processes(["sitt"]) == (1, ["sitt"])

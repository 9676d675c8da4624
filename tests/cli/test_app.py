"""The command line: its words, its exit codes, its errors in one line, and what it loads."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from toy_scripts import RUNS, config_of, error_of

from tscli.cli import app as cli
from tscli.cli.app import main, normalize
from tscli.runs import list_runs


def test_flags_may_be_written_with_underscores() -> None:
    assert config_of("train-teacher", "bare.yaml", "--num_envs=3")["num_envs"] == 3


def test_resume_takes_a_run_only_where_one_follows(folder: Path) -> None:
    assert normalize(["x", "--resume"]) == ["x", "--resume="]
    assert normalize(["x", "--resume", "--lr", "1"]) == ["x", "--resume=", "--lr", "1"]
    assert normalize(["x", "--resume", "cartpole"]) == ["x", "--resume=", "cartpole"]
    assert normalize(["x", "--resume", "0007-x", "--a_b=c_d"]) == ["x", "--resume=0007-x", "--a-b=c_d"]
    (folder / "elsewhere").mkdir()
    assert normalize(["--resume", "elsewhere"]) == ["--resume=elsewhere"]
    assert normalize(["--", "--a_b"]) == ["--", "--a_b"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["trian-teacher"], 'did you mean "train-teacher"'),
        (["teacher"], 'did you mean "train-teacher"'),
        (["mine.py"], "tscli run mine.py"),
        (["train-teacher"], "TASK is missing"),
        (["train-teacher", "carpole"], 'did you mean "cartpole"'),
        (["train-teacher", "a", "b"], "unexpected extra argument"),
        (["train-teacher", "bare.yaml", "--lrr", "1"], 'did you mean "--lr"'),
        (["train-teacher", "bare.yaml", "--critic.memmory", "1"], 'did you mean "--critic.memory"'),
        (["train-teacher", "bare.yaml", "--lr"], "requires an argument"),
        (["train-teacher", "bare.yaml", "--lr", "-1"], "--lr '-1': input should be greater than 0"),
        (["train-teacher", "bare.yaml", "--network.kind", "rnnn"], "--network.kind 'rnnn'"),
        (["train-teacher", "bare.yaml", "--set", "lr"], "is no assignment"),
        (["train-teacher", "bare.yaml", "--set", "lrr=1"], 'unknown setting "lrr" in --set: did you mean "lr"'),
        (["train-teacher", "bare.yaml", "--set", "lr=2"], "--set: lr '2': input should be less than or equal to 1"),
        (["train-teacher", "bare.yaml", "--set", "lr.x=2"], "lr has no settings of its own"),
        (["train-teacher", "bare.yaml", "--set", "network.hiden=2"], 'did you mean "network.hidden"'),
        (["train-teacher", "bare.yaml", "--config", "no.yaml"], "cannot read no.yaml"),
        (["train-teacher", "bare.yaml", "--preset", "x"], 'has no preset "x"'),
        (["train-teacher", "toy.yaml", "--preset", "bigg"], 'did you mean "big"'),
        (["distill", "--method", "slwo"], 'did you mean "slow"'),
        (["distill", "--set", "method=slow"], "use --method"),
        (["collect"], "no finished run in runs holds a teacher's policy"),
        (["collect", "--preset", "x"], "--preset x needs a task"),
        (["train-teacher", "--resume"], "no unfinished train-teacher run"),
        (["runs", "7"], "there are no runs in runs"),
        (["cp", "distil", "x.py"], 'did you mean "distill"'),
        (["cp", "collect", "x.txt"], "does not end in .py"),
        (["run", "--help-me"], "unknown option --help-me"),
        (["train-teacher", "bare.yaml", "--lr", "0.25"], "the lamp is off"),
    ],
)
def test_bad_input_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str], args: list[str], words: str) -> None:
    assert words in error_of(capsys, *args)


def test_a_crash_is_code_1_and_its_traceback_comes_with_debug(capsys: pytest.CaptureFixture[str]) -> None:
    crash = ["train-teacher", "bare.yaml", "--lr", "0.666", "--quiet"]
    assert main(crash) == 1
    err = capsys.readouterr().err
    assert re.fullmatch(
        r"error: .*\.py, line \d+: ValueError: a bug in the script\nrun again with --debug for the traceback\n", err
    )
    assert main([*crash, "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_code_130_and_the_run_can_be_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-teacher", "bare.yaml", "--lr", "0.5", "--quiet"]) == 130
    assert capsys.readouterr().err == "stopped\n"
    assert list_runs(RUNS)[-1].status == "stopped"
    line = error_of(capsys, "train-teacher", "--resume", "--lr", "0.4", "--quiet")
    assert "lr is 0.5 in 0001-train-teacher-bare-seed1, not 0.4" in line.splitlines()[-1]
    assert main(["train-teacher", "bare.yaml", "--resume", "1", "--quiet"]) == 0
    assert [(run.number, run.status, run.config["lr"]) for run in list_runs(RUNS)] == [(1, "finished", 0.5)]


def test_ctrl_c_in_the_middle_of_an_import_ends_the_process_whatever_the_module_makes_of_it(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(
        "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
    )
    code = "import signal\nfrom tscli.cli.app import _interrupt\nsignal.signal(signal.SIGINT, _interrupt)\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "import stubborn\nprint('it went on')"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])},
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "stopped\n")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9"),
        OSError(12, "Cannot allocate memory"),
    ],
)
def test_too_little_memory_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def short(*args: object) -> None:
        raise error

    monkeypatch.setattr(cli, "_dispatch", short)
    assert error_of(capsys, "runs").startswith("error: there is not enough memory (")


def test_a_full_disk_is_one_line_wherever_it_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/film.gif")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "_dispatch", full)
        error = error_of(capsys, "runs")
    assert (
        error.strip() == "error: the disk is full (/data/film.gif): free some space or choose another place, then go on"
    )


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom tscli.cli.app import main\n"
        "assert main(['--help']) == 0\nfirst = set(sys.modules)\n"
        "assert main(['train-teacher', '--help']) == 0\n"
        "assert main(['compare', '--help']) == 0\n"
        "assert main(['train-teacher', 'cartpole', '--lr', '-1']) == 2\n"
        "heavy = {'torch', 'gymnasium', 'h5py', 'numpy', 'matplotlib'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)), sorted({'pydantic', 'typer'} & first))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded: [] []"


def test_a_closed_pipe_is_no_crash() -> None:
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run(
        [sys.executable, "-m", "tscli", "--help"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")

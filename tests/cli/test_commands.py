"""A command for each script, those of a user included, and tscli's own."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
from toy_scripts import RUNS, config_of, error_of

from tscli.cli.app import main
from tscli.cli.commands import app
from tscli.cli.pages import OWN_COMMANDS
from tscli.runs import list_runs


def test_a_command_without_runs_takes_several_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "1", "2", "3", "--scale", "10"]) == 0
    assert capsys.readouterr().out == "60\n"


def test_resume_takes_the_method_of_the_run() -> None:
    for command in (["train-teacher", "bare.yaml"], ["collect"]):
        assert main([*command, "--quiet"]) == 0
    assert main(["distill", "--method", "slow", "--epochs", "0", "--quiet"]) == 130
    assert main(["distill", "--resume", "--quiet"]) == 0
    newest = list_runs(RUNS)[-1]
    assert (newest.method, newest.status, newest.number) == ("slow", "finished", 3)


def test_help_of_a_family_is_that_of_the_method(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--quick-weight" in out and "--method quick|slow" in out
    assert main(["distill", "--method", "slow", "--help"]) == 0
    assert "--slow-weight" in capsys.readouterr().out


def test_the_list_of_our_own_commands_is_that_of_the_first_page() -> None:
    described = {
        str(info.name or info.callback.__name__): str(info.callback.__doc__).splitlines()[0]
        for info in app.registered_commands
        if info.callback is not None
    }
    assert described == OWN_COMMANDS


def test_a_copied_script_runs_with_its_flags_and_is_never_overwritten(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cp", "train-teacher", "mine.py"]) == 0
    assert "tscli run mine.py" in capsys.readouterr().out
    mine = folder / "mine.py"
    mine.write_text(mine.read_text().replace("Envs.", "Changed."))
    assert "exists" in error_of(capsys, "cp", "train-teacher", "mine.py")
    assert main(["run", "mine.py", "--help"]) == 0
    assert "Changed." in capsys.readouterr().out
    assert "TASK is missing: tscli run mine.py TASK" in error_of(capsys, "run", "mine.py")
    assert config_of("run", "mine.py", "bare.yaml", "--num-envs", "5")["num_envs"] == 5
    assert config_of("run", "mine.py", "toy.yaml")["num_envs"] == 8, "a copy keeps what tasks say about its command"
    assert main(["cp", "train-teacher", "mine.py", "--force"]) == 0
    assert "Changed." not in mine.read_text()


def test_a_setting_named_like_a_common_flag_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "from tscli.config import Config as Base\nclass Config(Base):\n    quiet: bool = False\n"
    (folder / "mine.py").write_text(text)
    assert 'cannot be called "quiet"' in error_of(capsys, "run", "mine.py")

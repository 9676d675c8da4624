"""The first page, and what a command says at its end."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pytest

from tscli.cli.app import main
from tscli.cli.pages import OWN_COMMANDS


def test_the_first_page_lists_commands_in_order_and_says_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    expected = ["train-teacher", "collect", "distill", "eval", "describe", *OWN_COMMANDS]
    assert main([]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines() if line.startswith("  ")] == expected
    assert "Next: tscli train-teacher cartpole" in out
    for command, following in (("train-teacher bare.yaml", "collect"), ("collect", "distill"), ("distill", "eval")):
        assert main([*command.split(), "--quiet"]) == 0
        capsys.readouterr()
        assert main([]) == 0
        assert f"Next: tscli {following}" in capsys.readouterr().out


def test_a_command_says_what_it_wrote_and_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-teacher", "bare.yaml"]) == 0
    err = " ".join(capsys.readouterr().err.split())
    assert err.endswith("wrote runs/0001-train-teacher-bare-seed1, return 0.100 next: tscli collect")

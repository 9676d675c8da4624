"""Flags from settings: their help, and what becomes of their values."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pytest
from toy_scripts import config_of, error_of

from tscli.cli.app import main


def test_strings_become_what_the_config_says() -> None:
    config = config_of(
        *("train-teacher", "bare.yaml", "--network.hidden", "32,16", "--no-anneal-lr", "--target-kl", "none"),
        *("--critic", "gru", "--critic.memory", "5", "--set", "network.kind=history", "--network.normalize"),
    )
    assert (config["network"]["hidden"], config["network"]["kind"]) == ([32, 16], "history")
    assert (config["anneal_lr"], config["target_kl"]) == (False, None)
    assert (config["critic"]["kind"], config["critic"]["memory"]) == ("gru", 5)


def test_an_lstm_is_called_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, "train-teacher", "bare.yaml", "--network", "lstm")
    assert "--network.kind 'lstm': the LSTM is called rnn here" in error


def test_help_has_every_flag_with_default_and_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-teacher", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "tscli train-teacher TASK [options]",
        "--lr X Learning rate. [default 0.001; above 0; at most 1]",
        "--[no-]anneal-lr Whether lr falls. [default on]",
        "--loss CHOICE The loss. [default mse; or huber]",
        "--network.hidden N,N",
        "[default 8; at least 1]",
        "With --critic.hidden and all the others of --network. [default none; "
        "one of gru, history, mingru, mlp, rnn, tcn, tcn_flat]",
        "--resume [RUN]",
        "--seed N",
        "tscli cp train-teacher mine.py",
    ):
        assert words in out, words
    assert "--critic.memory" not in out

"""Stages started from Python."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
from toy_scripts import stand_among

import tscli
from tscli.config import UserError
from tscli.runs import find_run


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return stand_among(tmp_path, monkeypatch)


def test_a_stage_runs_from_python() -> None:
    run = tscli.run("train-teacher", task="bare.yaml", seed=3, network={"kind": "gru"}, runs_dir="elsewhere")
    assert (run.status, run.seed, run.config["network"]["kind"]) == ("finished", 3, "gru")
    assert find_run(Path("elsewhere"), "1").path == run.path
    with pytest.raises(UserError, match=r"tscli.run\('train-teacher'\): did you mean \"seed\""):
        tscli.run("train-teacher", task="bare.yaml", sed=3)
    with pytest.raises(UserError, match="makes no run"):
        tscli.run("describe", numbers=[1])


def test_the_package_has_a_version_and_no_other_attributes() -> None:
    assert tscli.__version__[0].isdigit()
    assert dir(tscli) == ["__version__", "load_policy", "open_pairs", "run"]
    with pytest.raises(AttributeError, match="nothing"):
        _ = tscli.nothing

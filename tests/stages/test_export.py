"""`tscli export`: writes, checks, reports, and overwrites nothing unasked."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from pathlib import Path

import pytest
from exported_policies import FORMATS
from stage_tools import TEACHER, call, error_of, weights_hash

from tscli.cli.app import main
from tscli.interop import torchscript


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_writes_checks_and_reports(format: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["export", "--format", format, "--output", "mine.bin", "--check-steps", "20", "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert "policy: 0001-train-teacher" in err and "wrote runs/0003-export-cartpole" in err
    assert report["max_error"] < 1e-5 and report["checked_steps"] == 80
    assert report["latency_us"]["median"] <= report["latency_us"]["p95"]
    assert report["metadata"]["role"] == "teacher" and report["metadata"]["control_rate_hz"] == 50
    assert Path("mine.bin").stat().st_size == report["bytes"]
    manifest = json.loads((runs / "0003-export-cartpole-seed1" / "manifest.json").read_text())
    assert report["sha256"] in manifest["artifacts"].values()
    assert manifest["parents"]["policy"]["name"] == report["run"]


def test_a_file_that_differs_is_refused(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = torchscript.load
    monkeypatch.setattr(torchscript, "load", lambda path: lambda x: [*load(path)(x)[:-1], load(path)(x)[-1] + 1])
    error = error_of(capsys, "export", "--format", "torchscript", "--output", "mine.pt")
    assert "differs from 0001-train-teacher" in error
    assert not Path("mine.pt").exists()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("mine.bin", "--output mine.bin exists: name another file, or give --force"),
        ("mine.onnx", "--output mine.onnx would hold torchscript: end it in .pt, or use --format onnx"),
        ("runs/0001-train-teacher-cartpole-seed1/policy.safetensors", "is among the files of a run"),
        ("runs/0001-train-teacher-cartpole-seed1/new.pt", "is among the files of a run"),
        ("nowhere/p", "there is no folder nowhere"),
    ],
)
def test_nothing_is_overwritten_unasked(
    runs: Path, capsys: pytest.CaptureFixture[str], output: str, words: str
) -> None:
    Path("mine.bin").write_text("dear to somebody")
    before = weights_hash(Path("runs/0001-train-teacher-cartpole-seed1/policy.safetensors"))
    assert words in error_of(capsys, "export", "--format", "torchscript", "--output", output)
    assert weights_hash(Path("runs/0001-train-teacher-cartpole-seed1/policy.safetensors")) == before
    assert Path("mine.bin").read_text() == "dear to somebody"


def test_a_file_is_overwritten_where_that_is_asked_for(runs: Path) -> None:
    Path("mine.bin").write_text("dear to nobody")
    call("export", "--format", "torchscript", "--output", "mine.bin", "--force", "--check-steps", "5")
    assert Path("mine.bin").stat().st_size > 1000


def test_the_last_policy_and_a_teachers_are_exported_too(folder: Path) -> None:
    call(*TEACHER)
    run = call("export", "--which", "last", "--format", "torchscript", "--check-steps", "5")
    assert json.loads((run.path / "report.json").read_text())["metadata"]["which"] == "last"

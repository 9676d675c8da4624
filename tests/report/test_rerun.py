"""Episodes for Rerun's viewer."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from stage_tools import error_of

from tscli.cli.app import main
from tscli.runs import Run

needs_rerun = pytest.mark.skipif(importlib.util.find_spec("rerun") is None, reason="rerun-sdk is not installed")


def printed(path: Path, *options: str) -> str:
    """What Rerun's own reader says of a file."""
    command = [sys.executable, "-m", "rerun", "rrd", "print", *options, str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env={"RERUN_ANALYTICS": "0"}).stdout


@needs_rerun
def test_every_step_and_picture_of_an_episode_is_in_the_file(measured: Run, tmp_path: Path) -> None:
    path = tmp_path / "episodes.rrd"
    assert main(["report", measured.name, "--rerun", str(path), "--runs-dir", str(measured.path.parent)]) == 0
    rows = re.findall(r"with (\d+) rows .* - (/episode_0/\S+) - data columns: \[([^]]*)\]", printed(path))
    found = {(name, what): int(count) for count, name, what in rows if "Series" not in what}
    roles = [(role, what) for role in ("student", "teacher") for what in ("vector", "logits", "action")]
    numbers = [f"/episode_0/{role}/{what}" for role, what in roles] + ["/episode_0/kl", "/episode_0/reward"]
    wanted = {(name, "Scalars:scalars"): 40 for name in numbers}
    pictures = {key: count for key, count in found.items() if "EncodedImage" in key[1]}
    assert found == wanted | pictures and [*pictures.values()] == [40]
    values = re.findall(r"\[(0\.\d+)\]", printed(path, "-vvv", "--entity", "/episode_0/kl"))
    assert [float(value) for value in values][-2:] == pytest.approx([0.38, 0.39])


@needs_rerun
def test_a_run_without_kept_episodes_is_refused_before_a_page_is_written(
    measured: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (measured.path / "episodes.h5").unlink()
    words = ("report", measured.name, "--rerun", str(tmp_path / "e.rrd"), "--runs-dir", str(measured.path.parent))
    assert "no evaluation has kept episodes" in error_of(capsys, *words)
    assert not (measured.path / "report.html").exists() and not (tmp_path / "e.rrd").exists()


def test_a_missing_package_is_named(
    measured: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    words = ("report", measured.name, "--rerun", str(tmp_path / "e.rrd"), "--runs-dir", str(measured.path.parent))
    assert "pip install 'tscli[rerun]'" in error_of(capsys, *words)

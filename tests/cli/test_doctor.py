"""`tscli doctor`."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest

from tscli.cli import doctor
from tscli.cli.app import main
from tscli.cli.doctor import Finding, version_fits


def test_versions_are_compared_by_number() -> None:
    assert version_fits("2.13.0+cpu", ">=2.6") and version_fits("2.6", ">=2.6,<3")
    assert not version_fits("2.5.9", ">=2.6") and not version_fits("3.0", ">=2.6,<3")
    assert version_fits("1.4.2", "~=1.4.0") and not version_fits("1.5", "~=1.4.0")


def test_what_is_broken_is_one_line_after_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_speed", lambda: iter([Finding("ok", "speed", "not measured")]))
    assert main(["doctor", "--runs-dir", str(tmp_path)]) == 0
    assert "Everything that tscli needs works." in capsys.readouterr().out
    (tmp_path / "file").touch()
    assert main(["doctor", "--runs-dir", str(tmp_path / "file")]) == 2
    out, err = capsys.readouterr()
    assert "packages" in out and err.startswith("error: runs: cannot write in ") and len(err.splitlines()) == 1

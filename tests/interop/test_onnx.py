"""ONNX files need their packages, and are refused where they are damaged."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from stage_tools import error_of

from tscli.config import UserError
from tscli.interop import onnx


def test_an_empty_onnx_file_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    Path("empty.onnx").touch()
    assert "empty.onnx holds no network: export it again" in error_of(
        capsys, "import", "empty.onnx", "--task", "cartpole"
    )


def test_missing_packages_are_named_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"onnx, onnxscript, onnxruntime: pip install 'tscli\[export\]'"):
        onnx.require()

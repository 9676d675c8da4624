"""Whose code an error came from: the last line on its way that is neither ours nor an installed package's."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = [_PACKAGE.parent / name for name in ("stages", "datasets") if (_PACKAGE.parent / "pyproject.toml").exists()]
_LIBRARY = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib")]
_OTHERS = tuple(f"{path}{os.sep}" for path in (_PACKAGE, *_CHECKOUT, *_LIBRARY))
_INSTALLED = {"site-packages", "dist-packages"}


def own_line(error: BaseException) -> str:
    """`mine.py, line 12` for an error from a user's own file; "" where it is from none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = os.path.abspath(frame.filename)
        if (
            not frame.filename.startswith("<")
            and not file.startswith(_OTHERS)
            and _INSTALLED.isdisjoint(Path(file).parts)
        ):
            return f"{os.path.relpath(file) if file.startswith(os.getcwd() + os.sep) else file}, line {frame.lineno}"
    return ""


def brief(error: BaseException) -> str:
    """`ValueError: what it says`, on one line of 300 characters at most."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__

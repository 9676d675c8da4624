"""Whose code an error came from: the last line on its way that is neither ours nor an installed package's."""

from __future__ import annotations

import contextlib
import os
import signal
import sysconfig
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@contextlib.contextmanager
def blamed_on(owner: str, *, doing: str) -> Iterator[None]:
    """Turn what goes wrong in other people's code into one line: whose, doing what, and where.

    Raises:
        UserError: it raised anything, or called for the process's end.
    """
    from tscli.config import UserError

    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        line = own_line(error)
        what = "it ended the process (sys.exit)" if isinstance(error, SystemExit) else brief(error)
        raise UserError(f"{owner} failed {doing}{f' ({line})' if line else ''}: {what}") from error


@contextlib.contextmanager
def at_most(seconds: float, owner: str, *, doing: str) -> Iterator[None]:
    """Stop what takes longer, where it can be told: in the main thread, and not on Windows.

    Raises:
        UserError: says whose code it was, doing what, and where it was then.
    """
    from tscli.config import UserError

    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*args: Any) -> None:
        raise TimeoutError(f"no end within {seconds:g} s (its setting step_seconds)")

    before = signal.signal(signal.SIGALRM, ring)
    left = signal.setitimer(signal.ITIMER_REAL, seconds)[0]
    try:
        yield
    except TimeoutError as error:
        line = own_line(error)
        raise UserError(f"{owner} is stuck {doing}{f' ({line})' if line else ''}: {brief(error)}") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, before)


def brief(error: BaseException) -> str:
    """`ValueError: what it says`, on one line of 300 characters at most."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__

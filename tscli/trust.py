"""Whose code may run: what this user named on this machine and, with --trust, what somebody else's run names.

What was named is kept by hashes in a file of the user's own (`record`), where no received folder can put any.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import json
import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

from tscli.config import UserError

TRUST = "TSCLI_TRUST"  # the environment variable behind --trust, so that processes started from here follow
_allowed: set[str] = set()


def record() -> Path:
    """The file that keeps, over all processes, the hashes of what this user has named."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "tscli" / "trusted"


def allow(sha256: str, keep: bool = True) -> None:
    """Take note of something that the user named: of the content of a file, or of code (`named_code`).

    With `keep` False it counts in this process alone: what --trust lets run once is not the user's own by that.
    """
    if _is_allowed(sha256):
        return
    _allowed.add(sha256)
    if not keep:
        return
    with contextlib.suppress(OSError, RuntimeError):  # without a home they are asked again in the next process
        record().parent.mkdir(parents=True, exist_ok=True)
        with open(record(), "a", encoding="ascii") as file:
            file.write(f"{sha256}\n")


def check(code: str, sha256: str, owner: str) -> None:
    """Refuse to run code that a run names, unless the user has named it or trusts all.

    Args:
        code: a file or a module, for the error line.
        sha256: what `allow` was told of it.
        owner: what names it.

    Raises:
        UserError: says whose code would run, and what to do.
    """
    if os.environ.get(TRUST) != "1" and not _is_allowed(sha256):
        advice = "read it, then add --trust (in Python: trust=True, or TSCLI_TRUST=1 in the environment)"
        raise UserError(f"{owner} would run code of its own, {code}: {advice}")


def _is_allowed(sha256: str) -> bool:
    if sha256 not in _allowed:
        with contextlib.suppress(OSError, RuntimeError, UnicodeDecodeError):
            _allowed.update(record().read_text(encoding="ascii").split())
    return sha256 in _allowed


def in_run(path: Path) -> bool:
    """Whether a file lies in a run folder: a run names it then, whoever wrote its path."""
    return any((folder / "manifest.json").exists() for folder in path.absolute().parents)


def named_code(env: dict[str, Any], folder: Path | None) -> tuple[str, str] | None:
    """Code that the settings of an env name, as `check` takes it: its name, and the hash of how it would be called.

    The hash is of all these settings that name code or are handed to it, and of the folders where the modules would be
    found: a module of the same name that somebody else has put elsewhere is another one.

    Args:
        env: with its `kind`.
        folder: of the task's file, where modules may lie beside it.
    """
    kind, names = str(env.get("kind")), _names(env)
    if not names:
        return None
    called = {key: value for key, value in sorted(env.items()) if key in ("entry_point", "id", "kwargs", "wrappers")}
    places = {name: _place(name, folder) for name in names}
    content = json.dumps([kind, called, places], sort_keys=True, default=str)
    return ", ".join(names), hashlib.sha256(content.encode()).hexdigest()


def own_modules(env: dict[str, Any], folder: Path | None) -> set[Path]:
    """The modules that such settings name, by their files or folders; no installed ones."""
    return {Path(one) for name in _names(env) for one in (_place(name, folder) or "").split(os.pathsep) if one}


def _names(env: dict[str, Any]) -> list[str]:
    """What of an env's settings names code."""
    kind, wrappers = str(env.get("kind")), env.get("wrappers")
    written = texts([env[key] for key in ("entry_point", "id", "wrappers") if key in env])
    # Gymnasium's GymV21Environment and GymV26Environment import what their arguments name.
    names = {text for text in written if ":" in text or (kind == "gym" and text.startswith("GymV2"))}
    names |= {text for text in _words_of(wrappers) if "." in text}  # of wrappers with their modules
    return sorted(names) if kind in ("gym", "rsl") else []


def _words_of(wrappers: Any) -> list[str]:
    """The names of an env's wrappers, of which each may have arguments."""
    listed = wrappers if isinstance(wrappers, (list, tuple)) else ()
    return [str(name) for one in listed for name in (one if isinstance(one, dict) else [one])]


def texts(value: Any) -> list[str]:
    """All texts in plain data."""
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    return [text for part in value for text in texts(part)] if isinstance(value, (list, tuple)) else [str(value)]


def _place(name: str, folder: Path | None) -> str | None:
    """Where the package of what is named would be imported from; None for an installed one. Imports nothing."""
    package = name.replace(":", ".").partition(".")[0]
    with contextlib.suppress(ValueError, ImportError, OSError):
        spec = importlib.machinery.PathFinder.find_spec(package, [*sys.path, *([str(folder)] if folder else [])])
        if spec is not None:
            found = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
            place = sorted({str(Path(one).resolve()) for one in found})
            installed = [str(Path(sysconfig.get_path(name)).resolve()) for name in ("purelib", "platlib", "stdlib")]
            if not all(one.startswith(tuple(f"{folder}{os.sep}" for folder in installed)) for one in place):
                return os.pathsep.join(place)
    return None

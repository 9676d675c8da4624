"""What tells a file that is no longer as it was written: checksums in JSON, and a running one of a file that grows."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from tscli.config import UserError

_CHECK, _PREFIX = "check", "sha256:"


def content_hash(data: Any) -> str:
    """The sha256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def seal(data: dict[str, Any]) -> dict[str, Any]:
    """The same with a checksum of its content."""
    return {_CHECK: _PREFIX + content_hash(data), **data}


def unseal(data: dict[str, Any]) -> dict[str, Any]:
    """Undo `seal`; what has no checksum at all is older than these and stays as it is.

    Raises:
        ValueError: the content is not what the checksum is of.
    """
    # A damaged key must not make it look older: the value shows by itself what it is.
    if not any(name == _CHECK or str(value).startswith(_PREFIX) for name, value in data.items()):
        return data
    rest = {name: value for name, value in data.items() if name != _CHECK}
    if data.get(_CHECK) != _PREFIX + content_hash(rest):
        raise ValueError("its content does not match its checksum")
    return rest


class Journal:
    """A file that is appended to, and known up to any length: its hash goes along and never starts again."""

    def __init__(self, path: Path, size: int = 0, sha256: str | None = None) -> None:
        """Open it with its first `size` bytes; what a killed process wrote after them is cut off.

        Raises:
            UserError: these are not there, or others than the hash is of; None takes any.
        """
        self.path, self._digest, missing = path, hashlib.sha256(), size
        path.touch()
        with open(path, "rb") as file:
            while chunk := file.read(min(1 << 20, missing)):
                self._digest.update(chunk)
                missing -= len(chunk)
        if missing or sha256 not in (None, self._digest.hexdigest()):
            raise UserError(f"{path} has changed since the checkpoint: restore it, or start anew without --resume")
        os.truncate(path, size)
        self._file = open(path, "ab")  # noqa: SIM115 - open for the run's life

    def append(self, data: bytes) -> None:
        """Write and flush."""
        self._file.write(data)
        self._file.flush()
        self._digest.update(data)

    def committed(self) -> tuple[int, str]:
        """Wait until all is on the disk; its size and hash by then."""
        os.fsync(self._file.fileno())
        return self._file.tell(), self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()

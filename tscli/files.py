"""Files that are written whole or not at all, and modules that are found by what they define."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

__all__ = ["atomic_write", "defining", "file_hash"]


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write beside the target, flush to the disk, rename: a reader sees the old file or the new one, never half.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    data = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        from tscli.config import UserError  # which needs `defining`

        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror}: free some space or choose another --runs-dir"
        ) from None


def file_hash(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def defining(folder: Path, name: str) -> list[Path]:
    """The Python files of a folder that define a class of that name; read as text, since importing may cost a lot."""
    return [path for path in sorted(folder.glob("*.py")) if f"\nclass {name}(" in path.read_text(encoding="utf-8")]

"""Files that are written whole or not at all, and modules that are found by what they define."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tscli.config import UserError


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write beside the target, flush to the disk, rename: a reader sees the old file or the new one, never half.

    Raises:
        UserError: the disk is full, or the folder cannot be written to.
    """
    data = data.encode() if isinstance(data, str) else data
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_bytes(data)
        sync_file(temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(
            f"cannot write {path}: {error.strerror}: free some space or choose another --runs-dir"
        ) from None


@contextlib.contextmanager
def disk_errors(path: Path, num_bytes: int = 0) -> Iterator[None]:
    """Turn a full or read-only disk into one line that says how much was needed."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # HDF5 gives the number in its text alone, and a flush that fails as a RuntimeError.
        said = re.search(r"errno = (\d+)", str(error))
        number = getattr(error, "errno", None) or (int(said[1]) if said else None)
        full = number in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        if not full and number not in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        what = "the disk is full" if full else "it cannot be written"
        need = f" ({num_bytes / 2**20:.0f} MiB needed)" if num_bytes else ""
        raise UserError(f"{path}: {what}{need}; free space or choose another place, then go on") from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system lets a folder be opened."""
    if os.name != "nt":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside a file to write under; what is there in the end is brought to the disk and takes its place."""
    temporary = path.with_suffix(".tmp")
    yield temporary
    sync_file(temporary)
    os.replace(temporary, path)


def file_hash(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()

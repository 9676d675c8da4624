"""Advisory locks on folders: who is at work there. This module does not import torch."""

from __future__ import annotations

import sys
from pathlib import Path

from tscli.config import UserError


class Lock:
    """An advisory lock on a folder, held until closed or until the process is gone, however it goes."""

    def __init__(self, path: Path, wait: bool = False, shared: bool = False, name: str = ".lock"):
        self._file = open(path / name, "a+b")  # noqa: SIM115 - held for the lock's life
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            self._file.close()
            raise

    def fileno(self) -> int:
        """What a child process must inherit to hold the lock too, where there is such a thing."""
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def lock_folder(path: Path, wait: bool = False, name: str = ".lock") -> Lock:
    """Lock a folder, by a file of that name in it, until the lock is closed.

    Raises:
        UserError: another process has it, and `wait` is False; or nothing may be written there.
    """
    try:
        return Lock(path, wait, name=name)
    except (BlockingIOError, PermissionError) as error:
        if isinstance(error, PermissionError) and sys.platform != "win32":  # where it is how a lock is refused
            raise UserError(f"{path} cannot be locked: you may not write there; ask its owner, or copy it") from None
        raise UserError(f"another process is at work in {path.name}: wait for it to end") from None


def is_locked(path: Path) -> bool:
    """Whether a process is at work in a folder."""
    if not (path / ".lock").exists():
        return False
    try:
        Lock(path, shared=True).close()  # shared, so that two who look at once do not take each other for the owner
    except OSError:
        return True
    return False

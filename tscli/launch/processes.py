"""Several processes on this machine for one training, as torchrun would start them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from tscli.config import UserError

_GRACE = 10.0  # seconds that the others have to notice that one has ended


def wanted_processes(args: Sequence[str]) -> tuple[int, list[str]]:
    """The number after `--num-processes`, and the words without it.

    Raises:
        UserError: it is no number from 1 on.
    """
    words = [part for word in args for part in (word.split("=", 1) if word.startswith("--num-processes=") else [word])]
    if "--num-processes" not in words:
        return 1, list(args)
    at = words.index("--num-processes")
    value = words[at + 1] if at + 1 < len(words) else ""
    most = 4 * (os.cpu_count() or 1)
    if not value.isdecimal() or not 1 <= int(value) <= most:
        raise UserError(f'--num-processes "{value}": give a number from 1 to {most}, four for each core')
    return int(value), [*words[:at], *words[at + 2 :]]


def run_processes(number: int, args: Sequence[str]) -> int:
    """Run a command in so many processes that train together; gives rank 0's exit code, or that of one that failed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "tscli", *args]
    children = [
        subprocess.Popen(command, env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(number)
    ]

    def pass_on(number: int, frame: object) -> None:
        for child in children:  # Ctrl-C has reached them already, as it reaches all that run in a terminal
            if number != signal.SIGINT:
                child.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return _wait(children)
    finally:
        for child in children:
            with contextlib.suppress(OSError):
                child.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(children: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all; those that go on after one has failed are ended."""
    failed_at = None
    while any(child.poll() is None for child in children):
        if failed_at is None and any(child.poll() for child in children):
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _GRACE:
            for child in children:
                child.kill()
        time.sleep(0.05)
    codes = [child.returncode for child in children]
    if codes[0] < 0:  # it could not say so itself
        print(f"error: the first process was ended by signal {-codes[0]}: go on with --resume", file=sys.stderr)
    return next((abs(code) for code in codes if code), 0)

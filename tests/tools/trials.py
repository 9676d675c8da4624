"""A command tried within bounds of time and memory, and its answer judged.

Each is tried in a fork of this process, which is `warm`, so that a try costs milliseconds: what it does to memory,
signals and modules ends with it. `cold` tries it as a user would, in a process of its own.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import multiprocessing
import os
import pkgutil
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest
import typer

import tscli
from tscli.cli import commands
from tscli.cli.app import main
from tscli.launch import scripts

SECONDS = 5  # of a command's own processor time, which other people's work does not take from it
PATIENCE = 150.0  # seconds in which it neither works nor waits for a processor
MEGABYTES = 1024  # more than this process has
HANG, ROOT = 124, Path(__file__).resolve().parents[2]
_FORK = multiprocessing.get_context("fork")
_NO_MEMORY = re.compile(
    "MemoryError|Unable to allocate|can't allocate memory|bad_alloc|Cannot allocate memory|out of memory"
)


class Answer(NamedTuple):
    """Exit code (negative: the signal that ended it), stdout, stderr, and whether a run was begun."""

    code: int
    out: str
    err: str
    begun: bool = False


class Verdict(NamedTuple):
    """What a case came to: "answered", "refused", "working" (at what was asked for), or what is wrong with it."""

    kind: str
    detail: str = ""


def warm(patch: pytest.MonkeyPatch) -> None:
    """Import what commands import, and build once what each builds of the scripts that come with tscli.

    That is most of what a refused command costs. What a fork makes of it ends with the fork.
    """
    for module in pkgutil.walk_packages(tscli.__path__, "tscli."):
        if module.name.split(".")[1] not in ("stages", "datasets", "__main__"):
            with contextlib.suppress(ImportError):  # an extra that is not installed
                importlib.import_module(module.name)
    patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
    patch.setattr(commands, "script_command", _once(commands.script_command, lambda script, family: script.path))
    run_whole = _once(scripts.execute, lambda path, code, kind: path if kind == "full" else None)
    patch.setattr(scripts, "execute", run_whole)
    for script in scripts.find_scripts():
        scripts.load_script(script)
        commands.script_command(script, scripts.methods_of(script.command, scripts.find_scripts()))
    typer.main.get_command(commands.app)
    gc.collect()
    gc.freeze()  # a fork would copy what its collector looks at


def _once(function: Callable[..., Any], path_of: Callable[..., Path | None]) -> Callable[..., Any]:
    """The same with its results kept, by path, for the scripts that come with tscli: others may change."""
    kept: dict[Path, Any] = {}
    folders = scripts.script_folders()

    def call(*args: Any) -> Any:
        path = path_of(*args)
        if path is None or path.parent not in folders:
            return function(*args)
        if path not in kept:
            kept[path] = function(*args)
        return kept[path]

    return call


def ask(words: Sequence[str], cold: bool = False) -> Answer:
    """Call a command in the current folder; what it leaves there stays."""
    before = _runs()
    out, err = Path(".out"), Path(".err")
    try:
        code = (_cold if cold else _warm)(list(words), out, err)
        said = [path.read_bytes()[: 2**20].decode(errors="backslashreplace") for path in (out, err)]
    finally:
        out.unlink(missing_ok=True)
        err.unlink(missing_ok=True)
    return Answer(code, *said, begun=_runs() != before)


def _runs() -> set[str]:
    with contextlib.suppress(OSError):
        return set(os.listdir("runs"))
    return set()


def _warm(words: list[str], out: Path, err: Path) -> int:
    child = _FORK.Process(target=_answer, args=(words, out, err, _room()))
    child.start()
    _wait(child.pid or 0, child.join)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid or 0, signal.SIGKILL)  # and what it has started
    child.join()
    return HANG if child.exitcode is None or -child.exitcode in (signal.SIGKILL, signal.SIGXCPU) else child.exitcode


def _wait(pid: int, join: Callable[[float], Any]) -> None:
    """Until it ends, or has done nothing for too long: what other people's work takes from it does not count."""
    begun = time.monotonic()
    for seconds in (PATIENCE / 10, *[5.0] * 10_000):
        with contextlib.suppress(subprocess.TimeoutExpired):
            join(seconds)
        worked = _worked(pid)
        if worked is None or time.monotonic() - begun - worked > PATIENCE:
            return


def _worked(pid: int) -> float | None:
    """Seconds that it had a processor or waited for one; None once it has ended."""
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return None
        spent, waited, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
    except OSError:
        return None if sys.platform == "linux" else 0.0
    return (int(spent) + int(waited)) / 1e9


def _answer(words: list[str], out: Path, err: Path, room: int) -> NoReturn:
    os.setpgid(0, 0)
    for number, path, flags in ((0, os.devnull, os.O_RDONLY), (1, out, _NEW), (2, err, _NEW)):
        os.dup2(os.open(path, flags), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the end
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    signal.signal(signal.SIGXCPU, _ring)
    _bound(room)
    try:
        code = main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


def _ring(number: int, frame: Any) -> NoReturn:
    """Say where it was, and end: what tidies up would take more of the time."""
    while frame is not None and not frame.f_code.co_filename.startswith(str(ROOT)):
        frame = frame.f_back
    if frame is not None:
        place = f"{Path(frame.f_code.co_filename).relative_to(ROOT)}: {frame.f_code.co_name}"
        os.write(2, f"\nwas at {place}\n".encode())
    os._exit(HANG)


def _room() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    return pages * resource.getpagesize() + MEGABYTES * 2**20


def _bound(room: int) -> None:
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (room, room))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 2))


def _cold(words: list[str], out: Path, err: Path) -> int:
    room = _room()
    with open(out, "wb") as output, open(err, "wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "tscli", *words],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            preexec_fn=lambda: _bound(room),
            start_new_session=True,
        )
        _wait(child.pid, child.wait)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        code = child.wait()
    return HANG if -code in (signal.SIGKILL, signal.SIGXCPU) else code


# What may differ between two answers to one question.
_VARIES = re.compile(
    r'"(run|bytes|seconds|loop_seconds|\w+_per_second|created|path|[\w/.-]+\.\w+)": [\d"]\S*|\d{4}-\w+\S+'
)


def judge(answer: Answer, expected: Answer | None) -> Verdict:
    """What a command made of its words and files; `expected` is what it said when nothing was damaged."""
    lines = [line for line in answer.err.splitlines() if line.startswith("error:")]
    said = ascii(answer.err[-300:])
    if answer.code == HANG:
        place = answer.err.rpartition("was at ")[2].strip() or "a place unknown"
        return Verdict("working" if answer.begun else "hang", f"more than {SECONDS} s, at {place}")
    if answer.code != 2 and _NO_MEMORY.search(answer.err):
        return Verdict("memory", f"more than {MEGABYTES} MB: {said}")
    if answer.code == 1 and answer.err.startswith("error: mine.py, line "):
        return Verdict("refused", lines[0])  # a damaged script of one's own: its own error, with its line
    if answer.code not in (0, 2) or "Traceback" in answer.err or (answer.code == 2 and len(lines) != 1):
        return Verdict("crash", f"exit code {answer.code}: {said}")
    if answer.code == 2:
        return Verdict("refused", lines[0])
    if expected is not None and _VARIES.sub("", answer.out) != _VARIES.sub("", expected.out):
        return Verdict("silent", f"another answer: {answer.out[:200]!a}")
    return Verdict("answered")

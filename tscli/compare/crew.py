"""Running cells in processes of their own, several at a time, each after those that it needs.

A cell's folder stays locked while somebody works on it: the lock is inherited by the cell's process, so it holds as
long as either is alive. A second comparison that needs the same cell waits for it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape

from tscli.compare.cells import Cell
from tscli.config import UserError
from tscli.runs import Run
from tscli.runs.locks import Lock, lock_folder

LOCK = ".cell.lock"  # not the runs folder's own lock, which its command takes to number its run
PAUSE = 0.05  # seconds between looks at the processes
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class CellsStopped(Exception):  # noqa: N818 - no error: the user asked for it
    """Ctrl-C or SIGTERM. No process is left, and what is finished is kept."""


@dataclass
class Worker:
    """A cell's process."""

    cell: Cell
    process: subprocess.Popen[bytes]
    lock: Lock
    resumes: bool
    log_start: int
    started: float


class Crew:
    """Works through cells, each after those that it needs, `jobs` at a time.

    Args:
        say: takes one line for the user.
        show: called again and again while it works, to draw how far it is.
        sinks: where the cells' metrics go besides their files; None: nowhere, or on as before a resume.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        jobs: int,
        say: Callable[[str], None],
        show: Callable[[Crew], None],
        sinks: Sequence[str] | None = None,
    ):
        self._jobs, self._say, self._show = jobs, say, show
        self._log_to = [] if sinks is None else ["--log-to", ",".join(sinks) or "none"]
        self.cells = list(cells)
        self.finished: dict[str, Run] = {}
        for cell in cells:
            self._take_over(cell)
        self.reused = len(self.finished)
        self.failed: dict[str, str] = {}
        self.working: dict[str, Worker] = {}
        self.elsewhere: set[str] = set()
        self._signals = 0
        self._asked = 0  # what the processes have been told of that

    def _take_over(self, cell: Cell) -> bool:
        """Whether it is finished, by this crew or before."""
        run = cell.finished_run()
        if run is not None:
            self.finished[cell.key] = run
        return run is not None

    @property
    def waiting(self) -> list[Cell]:
        """Cells whose turn will come."""
        over = self.finished.keys() | self.failed.keys() | self.working.keys()
        return [cell for cell in self.cells if cell.key not in over and not self._is_blocked(cell)]

    def _is_blocked(self, cell: Cell) -> bool:
        return any(earlier.key in self.failed for earlier in cell.chain[:-1])

    def run(self) -> None:
        """Work until every cell is finished, has failed, or cannot be started because one before it failed.

        Raises:
            CellsStopped: after Ctrl-C or SIGTERM, once no process is left.
            UserError: the disk is full.
        """
        handlers = {}
        with contextlib.suppress(ValueError):  # signals reach the main thread alone
            for number in SIGNALS:
                handlers[number] = signal.signal(number, self._on_signal)
        try:
            while True:
                for worker in list(self.working.values()):
                    if worker.process.poll() is not None:
                        self._end(worker)
                if self._signals > self._asked:
                    self._stop()
                if not self._signals:
                    self._start()
                self._show(self)
                if not self.working and (self._signals or not self.waiting):
                    break
                time.sleep(PAUSE)
        finally:
            for worker in self.working.values():
                _kill(worker.process)
                worker.lock.close()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self._signals:
            raise CellsStopped

    def _on_signal(self, number: int, frame: object) -> None:
        self._signals += 1

    def _stop(self) -> None:
        """At first ask the processes to stop, which write their checkpoints; from then on end them."""
        end = subprocess.Popen.terminate if self._asked == 0 else _kill
        for worker in self.working.values():
            end(worker.process)
        if self._asked == 0 and self.working:
            count = len(self.working)
            self._say(f"stopping {count} cell{'s' if count > 1 else ''}; once more to end them at once")
        self._asked = self._signals

    def _start(self) -> None:
        """Give every free place to the next cell whose turn it is."""
        self.elsewhere = set()
        for cell in self.waiting:
            if len(self.working) >= self._jobs:
                return
            if cell.before is None or cell.before.key in self.finished:
                cell.folder.mkdir(parents=True, exist_ok=True)
                try:
                    lock = lock_folder(cell.folder, name=LOCK)
                except UserError:
                    self.elsewhere.add(cell.key)
                    continue
                if self._take_over(cell):  # from another comparison, in the meantime
                    lock.close()
                else:
                    self._begin(cell, lock, cell.run() is not None)

    def _begin(self, cell: Cell, lock: Lock, resumes: bool) -> None:
        try:
            if not resumes:
                cell.clear()
                cell.prepare()
            self.working[cell.key] = _worker(cell, [*cell.words(resumes), *self._log_to], lock, resumes)
        except (OSError, UserError) as error:
            lock.close()
            self._fail(cell, str(error))

    def _fail(self, cell: Cell, reason: str) -> None:
        self.failed[cell.key] = reason
        self._say(self.line(cell, f"[red]failed[/]: {reason}"))

    def _end(self, worker: Worker) -> None:
        """Note how a process has ended."""
        cell, process = worker.cell, worker.process
        del self.working[cell.key]
        assert process.stdin is not None
        process.stdin.close()
        if self._take_over(cell):
            self._say(self.line(cell, f"finished in {time.monotonic() - worker.started:.0f}s"))
        elif self._signals:
            pass  # stopped, as it was asked to
        elif worker.resumes and process.returncode == 2 and not _worked_on(cell, process.pid):
            # It refused before it began to work on its run, so that cannot be continued.
            self._say(
                f"{escape(cell.title)}: {last_error(cell.log, worker.log_start, process.returncode)}; starting it anew"
            )
            self._begin(cell, worker.lock, resumes=False)
            return
        else:
            self._fail(cell, last_error(cell.log, worker.log_start, process.returncode))
        worker.lock.close()

    def line(self, cell: Cell, text: str) -> str:
        """A line about a cell, with how far all are."""
        return f"\\[{len(self.finished)}/{len(self.cells)}] {escape(cell.title)}: {text}"


def _worked_on(cell: Cell, pid: int) -> bool:
    """Whether that process has got as far as to open the cell's run."""
    run = cell.run()
    return run is not None and run.manifest.get("pid") == pid


def _worker(cell: Cell, words: Sequence[str], lock: Lock, resumes: bool) -> Worker:
    with open(cell.log, "ab") as log:
        log.write(f"$ tscli {shlex.join(words)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "tscli.cli.leash", *words],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches us alone, and we tell them
            pass_fds=() if sys.platform == "win32" else (lock.fileno(),),
        )
        return Worker(cell, process, lock, resumes, log.tell(), time.monotonic())


def _environment() -> dict[str, str]:
    """`python -m` looks for modules in the current folder, which `tscli` does not."""
    here = {"", str(Path.cwd())}
    return {**os.environ, **({} if here & set(sys.path) else {"PYTHONSAFEPATH": "1"})}


def _kill(process: subprocess.Popen[Any]) -> None:
    """End a process, and with it those that it has started."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def last_error(log: Path, start: int, code: int) -> str:
    """Why a cell failed: the last error line of its log from byte `start` on, or its last line."""
    with open(log, "rb") as file:
        file.seek(start)
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"its process was ended by {name}"
    return (errors or lines or [f"it ended with code {code}"])[-1].removeprefix("error: ")


def usable_cpus() -> int:
    """CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def default_jobs(cells: Sequence[Cell]) -> int:
    """As many processes as there are CPUs for; a stage with `threads` 0 takes all."""
    threads = max(int(cell.settings.get("threads", 1)) or usable_cpus() for cell in cells)
    return max(1, usable_cpus() // threads)

"""How a stage was called: where runs live, what is resumed, and how to speak to the user. Does not import torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tscli import ranks
from tscli.config import Config
from tscli.runs.folder import Run
from tscli.runs.follower import Follower
from tscli.runs.writer import RunWriter

if TYPE_CHECKING:
    from rich.console import Console

    from tscli.terminal.progress import Progress


@dataclass
class Session:
    """How a stage was called: where runs live, and how to speak to the user."""

    runs_dir: Path = field(default_factory=lambda: Path(os.environ.get("TSCLI_RUNS", "runs")))
    resume: Run | None = None
    quiet: bool = False
    json: bool = False
    log: Console | None = None  # progress and remarks; stderr on the command line
    console: Console | None = None  # results; stdout on the command line
    command: str = ""  # of the script that runs, and its method
    method: str | None = None
    sinks: tuple[str, ...] | None = None  # where metrics go besides their file; None: nowhere, or on as before a resume
    stop_asked: bool = False  # a stage was told to stop, and may have ended before it could

    def say(self, text: str) -> None:
        """One remark, such as which run was taken."""
        if not self.quiet and self.log is not None:
            self.log.print(text, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """`say` of a text that others have written, in which brackets are no markup."""
        from rich.markup import escape

        self.say(escape(text))

    def show(self, result: Any, data: Any) -> None:
        """A result on stdout: something that rich can print or, with --json, the same as plain data."""
        if self.json:
            print(json.dumps(data, indent=1))
        elif self.console is not None:
            self.console.print(result)

    def start(
        self,
        config: Config,
        command: str,
        task: str,
        *,
        method: str | None = None,
        role: str | None = None,
        parents: dict[str, Run] | None = None,
        checkpoints: bool = True,
    ) -> RunWriter:
        """Open the run folder, or with `resume` the one to continue. Use it as a context manager.

        Without `checkpoints` Ctrl-C ends the stage at once, since there is none to wait for.
        """
        if ranks.rank():
            return Follower(resumed=self.resume is not None)  # type: ignore[return-value]
        return RunWriter(self, config, command, task, method, role, parents or {}, checkpoints)

    def progress(self, total: int, unit: str = "steps") -> Progress:
        """A live line on a terminal, plain lines in a pipe, nothing when quiet."""
        from tscli.terminal.progress import Progress

        return Progress(None if self.quiet else self.log, total, unit)

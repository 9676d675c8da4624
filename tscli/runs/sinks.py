"""Where else a run's metrics go, besides metrics.jsonl: TensorBoard, Weights & Biases.

A sink gets the lines of metrics.jsonl as they are logged, the settings at the start, and at the end the final metrics
and the pictures. metrics.jsonl stays the truth: a resumed run cuts it back to its checkpoint, and what a sink shows is
then built anew from it, so that no point is there twice or missing. A sink that fails is dropped with one warning.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tscli.config import UserError, did_you_mean

SINKS = ("tensorboard", "wandb")  # each is also the name of its package and of the extra that brings it

Line = Mapping[str, Any]


def parse_sinks(words: Iterable[str]) -> tuple[str, ...]:
    """The sinks that a user names: one or several in a word, separated by commas; `none` is none of them.

    Raises:
        UserError: unknown, or its package is not installed.
    """
    names = dict.fromkeys(part.strip().lower() for word in words for part in word.split(",") if part.strip())
    names.pop("none", None)
    for name in names:
        if name not in SINKS:
            raise UserError(f'--log-to "{name}": {did_you_mean(name, [*SINKS, "none"])}')
        if importlib.util.find_spec(name) is None:
            raise UserError(f"--log-to {name}: its package is not installed: pip install 'tscli[{name}]'")
    return tuple(names)


class _Sink(Protocol):
    def log(self, step: int, values: dict[str, float]) -> None:
        """One logged point."""

    def finish(self, step: int, final: dict[str, float], pictures: Sequence[Path]) -> None:
        """The run's last words, once it is finished; `step` is that of the last point."""

    def close(self, finished: bool) -> None:
        """No more comes."""


class Sinks:
    """The sinks of one run.

    Args:
        names: which.
        folder: the run's.
        settings: the run's, as in its config.yaml.
        about: its entry in the manifest, of which `command` and `task` are used; `sinks` is written here: name -> what
            a resumed run must know to go on with it.
        lines: what metrics.jsonl holds already, of a resumed run.
        say: tells the user one line.
    """

    def __init__(
        self,
        names: Iterable[str],
        folder: Path,
        settings: dict[str, Any],
        about: dict[str, Any],
        lines: Sequence[Line],
        say: Callable[[str], None],
    ) -> None:
        self._say, self._folder = say, folder
        self._count, self._step = len(lines), 0
        self._sinks: dict[str, _Sink] = {}
        known = about.setdefault("sinks", {})
        for name in names:
            known.setdefault(name, uuid.uuid4().hex[:12])
            self._guard(name, lambda n=name: self._open(n, settings, about))
        for position, line in enumerate(lines):
            self._send(position, line)

    def _open(self, name: str, settings: dict[str, Any], about: dict[str, Any]) -> None:
        if name == "tensorboard":
            self._sinks[name] = _TensorBoard(self._folder / name, settings)
        else:
            sink = _WandB(self._folder, about["sinks"][name], settings, about)
            self._say(f"wandb: {sink.place}")
            self._sinks[name] = sink

    def _guard(self, name: str, action: Callable[[], None]) -> None:
        """A sink is a convenience: whatever goes wrong in it must not end a training."""
        try:
            action()
        except Exception as error:
            self._sinks.pop(name, None)
            reason = " ".join(str(error).split()) or "no reason given"
            self._say(f"warning: no more is sent to {name} ({type(error).__name__}: {reason})")

    def log(self, line: Line) -> None:
        """One line of metrics.jsonl; what is null there is left out."""
        self._send(self._count, line)
        self._count += 1

    def _send(self, position: int, line: Line) -> None:
        # Env steps or, of a stage that takes none, gradient steps: what the curves are drawn over, too.
        self._step = int(line.get("step", line.get("updates", position)))
        values = {name: float(v) for name, v in line.items() if name != "step" and isinstance(v, (int, float))}
        for name, sink in list(self._sinks.items()):
            self._guard(name, lambda s=sink: s.log(self._step, values))

    def close(self, final: Line, finished: bool) -> None:
        """The final metrics and the run's pictures where it is finished, then the end."""
        numbers = {name: float(value) for name, value in final.items() if isinstance(value, (int, float))}
        pictures = sorted(self._folder.glob("*.png"))

        def end(sink: _Sink) -> None:
            try:
                if finished:
                    sink.finish(self._step, numbers, pictures)
            finally:
                sink.close(finished)

        for name, sink in list(self._sinks.items()):
            self._guard(name, lambda s=sink: end(s))
        self._sinks.clear()


class _TensorBoard:
    """Event files in `<run>/tensorboard`."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob("events.out.tfevents.*"):  # of a resumed run, whose lines come again
            old.unlink()
        # A TensorBoard that has read the old file forgets its points when it meets this.
        self._writer = SummaryWriter(str(folder), purge_step=0)
        self._text("config", settings, 0)

    def _text(self, tag: str, data: dict[str, Any], step: int) -> None:
        self._writer.add_text(tag, f"```\n{json.dumps(data, indent=1)}\n```", step)

    def log(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()  # a killed run shows all that it logged

    def finish(self, step: int, final: dict[str, float], pictures: Sequence[Path]) -> None:
        import numpy as np
        from PIL import Image

        self._text("result", final, step)
        for path in pictures:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._writer.add_image(path.stem, pixels, step, dataformats="HWC")

    def close(self, finished: bool) -> None:
        self._writer.close()


class _WandB:
    """A Weights & Biases run of the same name; its files are in `<run>/wandb`."""

    def __init__(self, folder: Path, identity: str, settings: dict[str, Any], about: dict[str, Any]) -> None:
        self._wandb: Any = importlib.import_module("wandb")  # not installed with tscli itself
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "tscli"),
            id=identity,
            name=folder.name,
            job_type=about["command"],
            tags=[Path(about["task"]).stem],
            dir=str(folder),
            config=settings,
            resume="allow",
            # The terminal is ours; and a question for the API key must not hold up a run for ever.
            settings=self._wandb.Settings(console="off", silent=True, login_timeout=60),
        )
        # What the server has of a resumed run it keeps, and refuses to have a step twice. Offline each attempt has a
        # folder of its own, and the newest holds all.
        self._sent = self._run.step if self._run.resumed else 0
        kept = Path(self._run.dir).parent
        self.place = f"offline, `wandb sync {kept}` sends it later" if self._run.offline else self._run.url

    def log(self, step: int, values: dict[str, float]) -> None:
        if step >= self._sent:
            self._run.log(values, step=step)

    def finish(self, step: int, final: dict[str, float], pictures: Sequence[Path]) -> None:
        self._run.summary.update({f"final/{name}": value for name, value in final.items()})
        if pictures:
            self._run.log({path.stem: self._wandb.Image(str(path)) for path in pictures}, step=step)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)

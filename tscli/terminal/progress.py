"""A live line that says how far a stage is and how well it goes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live


def short_count(value: float) -> str:
    """1234567 -> "1.23M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def short_time(seconds: float) -> str:
    """3725 -> "1h02m"."""
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes = int(seconds // 60)
    return f"{minutes}m{int(seconds % 60):02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


class Progress:
    """Steps done, steps/s of the loop, the share of time that evaluations take, chosen metrics and the time left.

    On a terminal one line is redrawn a few times a second; in a pipe a plain line comes every few seconds. It is drawn
    from the caller's thread, so that it costs nothing between updates.

    Args:
        console: None says nothing.
        total: steps until the stage ends at the latest.
        unit: what is counted.
    """

    def __init__(self, console: Console | None, total: int, unit: str = "steps"):
        self._console, self._total, self._unit = console, total, unit
        self._live: Live | None = None
        self._start = time.monotonic()
        self._first: int | None = None
        self._next = self._start
        self._unsaid: tuple[int, float, Mapping[str, float | None], float | None, float] | None = None

    def __enter__(self) -> Progress:
        if self._console is not None and self._console.is_terminal:
            from rich.live import Live

            self._live = Live("", console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._unsaid is not None:  # a log ends with how far it came
            self._say(*self._unsaid)

    def update(
        self, done: int, metrics: Mapping[str, float | None], end: float | None = None, evaluating: float = 0.0
    ) -> None:
        """Say that `done` steps are done. Cheap: what would not be drawn is not formatted.

        Args:
            done: steps.
            metrics: what to show beside them.
            end: steps at which the stage will probably end, where that is known better than by `total`.
            evaluating: seconds of all this time that went into evaluations.
        """
        if self._first is None:
            self._first = done
        now = time.monotonic()
        self._unsaid = done, now, metrics, end, evaluating
        if self._console is not None and now >= self._next:
            self._next = now + (0.15 if self._live is not None else 5.0)
            self._say(*self._unsaid)

    def _say(self, *what: Any) -> None:
        self._unsaid = None
        if self._console is None:
            return
        text = self._line(*what)
        if self._live is not None:
            self._live.update(text, refresh=True)
        else:
            self._console.print(text, highlight=False, soft_wrap=True)

    def _line(
        self, done: int, now: float, metrics: Mapping[str, float | None], end: float | None, evaluating: float
    ) -> str:
        elapsed, new = max(now - self._start, 1e-9), done - (self._first or 0)
        speed = new / elapsed
        parts = [f"{short_count(done)}/{short_count(max(done, self._total))} {self._unit}"]
        if speed > 0:
            parts.append(f"{short_count(new / max(elapsed - evaluating, 1e-9))}/s")
        if (share := evaluating / elapsed) >= 0.01:
            parts.append(f"evaluation {share:.0%} of the time")
        parts += [
            f"{name} {value:.4g}" for name, value in metrics.items() if value is not None and math.isfinite(value)
        ]
        if end is not None and end < self._total and speed > 0:
            parts.append(f"about {short_time(max(end - done, 0) / speed)} left")
        elif speed > 0 and done < self._total:
            parts.append(f"at most {short_time((self._total - done) / speed)} left")
        return "  ".join(parts)

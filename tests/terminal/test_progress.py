"""The line that says how far a stage is."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from tscli.terminal.progress import Progress


class Clock:
    """Stands in for `time.monotonic`."""

    now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(time, "monotonic", found)
    return found


def pipe() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=110), out


def test_what_is_done_is_never_more_than_all(clock: Clock) -> None:
    console, out = pipe()
    with Progress(console, 40_000) as progress:
        progress.update(40_960, {})
    assert out.getvalue().startswith("41k/41k steps")


def test_in_a_pipe_the_last_line_says_how_far_it_came(clock: Clock) -> None:
    console, out = pipe()
    with Progress(console, 40, "episodes") as progress:
        for done in range(0, 41, 10):
            progress.update(done, {"return": float(done)})
            clock.now += 1
    assert out.getvalue().splitlines() == ["0/40 episodes  return 0", "40/40 episodes  10/s  return 40"]


def test_nothing_is_said_twice(clock: Clock) -> None:
    console, out = pipe()
    with Progress(console, 2) as progress:
        progress.update(2, {})
    assert out.getvalue().splitlines() == ["2/2 steps"]
    with Progress(None, 2) as progress:
        progress.update(2, {})


def test_the_loop_and_its_evaluations_are_told_apart(clock: Clock) -> None:
    console, out = pipe()
    with Progress(console, 1000) as progress:
        progress.update(0, {})
        clock.now += 10
        progress.update(100, {}, evaluating=7.5)
    assert out.getvalue().splitlines()[1] == "100/1k steps  40/s  evaluation 75% of the time  at most 1m30s left"


def test_time_left_is_that_of_the_nearer_end(clock: Clock) -> None:
    console, out = pipe()
    with Progress(console, 1000) as progress:
        for end in (None, 300, 5000):
            progress.update(int(clock.now) * 10, {}, end)
            clock.now += 5
    lines = out.getvalue().splitlines()
    assert lines[1] == "50/1k steps  10/s  about 25s left"
    assert lines[2] == "100/1k steps  10/s  at most 1m30s left"

"""On a GPU nothing in a loop waits for it: no value is read on the host per env step, or per minibatch."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from stage_tools import FINETUNE, GPO, ONLINE, SITT, SMALL, TEACHER, call, metrics_of
from waits import count_waits

from tscli import devices
from tscli.training import Training

pytestmark = pytest.mark.usefixtures("no_plots")
WHOLE = ("--stop-return", "none")
LOOPS = {
    "train-teacher": (TEACHER, ()),
    "train-teacher-adaptive": ((*TEACHER, "--lr-schedule", "adaptive", "--action-noise", "0.2"), ()),
    "train-teacher-recurrent": ((*TEACHER, "--network", "gru", "--bptt", "8", "--normalize-reward"), ()),
    "distill-online": ((*ONLINE, *SMALL, "--student", "gru"), ()),
    "finetune": ((*FINETUNE, "--critic-warmup", "0"), (*ONLINE, *SMALL, "--student", "gru")),
    "gpo": (GPO, ()),
    "sitt": (SITT, ()),
}


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the ways that other devices take, on the CPU."""
    monkeypatch.setattr(devices, "host_may_look", lambda device: False)


def in_iterations(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> Counter[str]:
    """Waits inside the iterations of a loop, without those of `log`, which measures and writes."""
    found: Counter[str] = Counter()
    iterations, log = Training.iterations, Training.log

    def watched(self: Training) -> Any:
        for iteration in iterations(self):
            with count_waits() as waits:
                self.waits = waits  # type: ignore[attr-defined]
                yield iteration
            found.update(waits)

    def unwatched(self: Training, *args: Any, **options: Any) -> None:
        before = Counter(self.waits)  # type: ignore[attr-defined]
        log(self, *args, **options)
        self.waits.clear()  # type: ignore[attr-defined]
        self.waits.update(before)  # type: ignore[attr-defined]

    with monkeypatch.context() as patch:
        patch.setattr(Training, "iterations", watched)
        patch.setattr(Training, "log", unwatched)
        call(*command)
    return found


def larger(command: tuple[str, ...], factor: dict[str, int]) -> tuple[str, ...]:
    """The command with some of its numbers multiplied."""
    words = list(command)
    for i, word in enumerate(words[:-1]):
        if word in factor:
            words[i + 1] = str(int(words[i + 1]) * factor[word])
    return tuple(words)


@pytest.mark.parametrize("stage", LOOPS)
def test_the_number_of_waits_depends_neither_on_steps_nor_on_minibatches(
    runs: Path, monkeypatch: pytest.MonkeyPatch, as_on_a_gpu: None, stage: str
) -> None:
    command, before = LOOPS[stage]
    if before:
        call(*before)
    few = in_iterations(monkeypatch, (*command, *WHOLE))
    # As many iterations, of twice the steps each; and twice the minibatches.
    more_steps = in_iterations(monkeypatch, (*larger(command, {"--rollout-steps": 2, "--total-steps": 2}), *WHOLE))
    more = [more_steps]
    if "online" not in stage:
        more.append(in_iterations(monkeypatch, (*command, "--num-minibatches", "4", *WHOLE)))
    assert few, "reads once per iteration are counted"
    for many in more:
        grown = {where: (few[where], n) for where, n in many.items() if n > few[where]}
        assert not grown


def test_what_is_learnt_is_what_is_learnt_on_the_cpu(
    folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    usual = metrics_of(call(*TEACHER))
    request.getfixturevalue("as_on_a_gpu")
    found = metrics_of(call(*TEACHER))
    assert found[0] == usual[0], "all that is rolled out and computed before the first step is equal"
    for line, expected in zip(found[:3], usual, strict=False):  # the optimiser rounds in another order
        assert line == pytest.approx(expected, rel=1e-3, abs=1e-5)

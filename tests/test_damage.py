"""Damaged files and careless words: an answer as before, or one line and exit code 2; no crash, no hang, no silence."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import collections
import random
from pathlib import Path

import pytest
from damage import Harness

pytestmark = pytest.mark.usefixtures("no_plots")
FINE = {"answered", "refused"}


def count_cases(harness: Harness, seed: int, cases: int) -> collections.Counter[str]:
    """How many cases came to what; each case has random numbers of its own, so that one can be had again alone."""
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for case in range(cases):
        draw = random.Random(f"{seed}/{case}")
        what, verdict = (harness.careless if case % 3 == 0 else harness.damaged)(draw)
        counts[verdict.kind] += 1
        if verdict.kind not in FINE:
            wrong.append(f"{seed}/{case} {what}: {verdict.kind}, {verdict.detail}")
            print(wrong[-1], flush=True)
        if case % 1000 == 999:
            print(case + 1, dict(counts), flush=True)
    assert not wrong, "\n".join(wrong[:20])
    return counts


def test_what_is_damaged_or_careless_is_answered_as_before_or_refused_in_one_line(
    folder: Path, finished_runs: Path
) -> None:
    counts = count_cases(Harness(folder, finished_runs), 1, 150)
    assert set(counts) == FINE


@pytest.mark.slow
def test_a_hundred_thousand_cases(folder: Path, finished_runs: Path, request: pytest.FixtureRequest) -> None:
    options = request.config.option
    print(count_cases(Harness(folder, finished_runs), options.damage_seed, options.cases))

"""Damaged files and careless words: an answer as before, or one line and exit code 2; no crash, no hang, no silence."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import collections
import random
import shutil
from pathlib import Path

import pytest
from damage import Harness, make_originals
from trials import warm

from tscli.compare.crew import Crew

pytestmark = pytest.mark.usefixtures("no_plots")
FINE = {"answered", "refused", "working"}


@pytest.fixture
def harness(
    folder: Path, finished_runs: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Harness:
    def go(crew: Crew) -> None:  # what is asked of cells ends here: each is a process
        raise SystemExit(0)

    monkeypatch.setattr(Crew, "run", go)
    monkeypatch.setattr("webbrowser.open", lambda *args: False)
    work = tmp_path_factory.mktemp("originals")
    shutil.copytree(finished_runs, work / "runs")
    with monkeypatch.context() as patch:
        patch.chdir(work)
        make_originals(work)
    warm(monkeypatch)
    return Harness(folder, work)


def count_cases(harness: Harness, seed: int, first: int, cases: int, cold_every: int) -> collections.Counter[str]:
    """How many cases came to what; each has random numbers of its own, so that one can be had again alone.

    One in `cold_every` is a process of its own.
    """
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for case in range(first, first + cases):
        draw = random.Random(f"{seed}/{case}")
        cold = case % cold_every == cold_every - 1
        what, verdict = (harness.careless if case % 3 == 0 else harness.damaged)(draw, cold)
        counts[verdict.kind] += 1
        if verdict.kind not in FINE:
            wrong.append(f"{seed}/{case} {what}: {verdict.kind}, {verdict.detail}")
        if verdict.kind not in ("answered", "refused"):
            print(f"{seed}/{case} {what}: {verdict.kind}, {verdict.detail}", flush=True)
        if case % 500 == 499:
            print(case + 1, dict(counts), flush=True)
    assert not wrong, "\n".join(wrong[:20])
    return counts


def test_what_is_damaged_or_careless_is_answered_as_before_or_refused_in_one_line(harness: Harness) -> None:
    counts = count_cases(harness, 1, 0, 60, 1000)
    assert counts.keys() >= {"answered", "refused"}


@pytest.mark.slow
def test_a_hundred_thousand_cases(harness: Harness, request: pytest.FixtureRequest) -> None:
    options = request.config.option
    print(count_cases(harness, options.damage_seed, options.first_case, options.cases, 200))

"""What is said of a search."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console
from sensor_results import results_of

from tscli.sensors.search import Measured
from tscli.sensors.words import next_command, plain, screen, sentence, tables

FOUND = {"abc": 100.0, "ab": 99.0, "a": 90.0, "b": 5.0}


@pytest.mark.parametrize(
    ("with_memory", "without", "words"),
    [
        (
            FOUND,
            {"abc": 98.0, "bc": 20.0, "ac": 90.0, "ab": 12.0},
            "With memory (rnn) a, b are enough (return 99.0, of all 3 sensors 100.0), and without a nothing works; "
            "without memory it takes all a, b, c (return 98.0), and without c 12 % is left.",
        ),
        (
            {"ab": 40.0},
            {"ab": 60.0, "a": 60.0},
            "With memory (rnn) students reach 40.0 even with all sensors, too little to tell (try longer distillations)"
            "; without memory a is enough (return 60.0, of all 2 sensors 60.0).",
        ),
        (
            {},
            {"ab": 99.0, "b": 9.0, "a": -7.0},
            "Without memory it takes all a, b (return 99.0), and without a or b nothing works.",
        ),
        ({}, {"a": 100.0}, "Without memory it takes a (return 100.0)."),
    ],
)
def test_one_sentence_says_what_is_needed_and_what_for(
    with_memory: dict[str, float], without: dict[str, float], words: str
) -> None:
    assert sentence(results_of(with_memory, without)) == words


def test_the_cheapest_set_is_the_one_to_go_on_with_and_of_equal_ones_the_one_without_memory() -> None:
    assert next_command(results_of(FOUND, FOUND), "7") == 'distill --teacher 7 --obs "a + b" --student mlp'
    dear = results_of({"ab": 100.0, "a": 99.0}, {"ab": 100.0, "b": 99.0}, b=9.0)
    assert next_command(dear, "7") == 'distill --teacher 7 --obs "a + previous_action" --student rnn'
    failed = results_of({"ab": 1.0}, {"ab": 60.0})
    assert failed.best == failed.full[1] and failed.kept == [failed.full[1]]


def test_tables_show_what_is_kept_what_is_left_and_what_is_borne() -> None:
    found = results_of(FOUND, {})
    probes, lengths, students, borne = tables(found)
    assert "50 % from nothing" in probes.heading and probes.rows[0] == ["a", "60 %", "70 %", "-", "-"]
    assert lengths.titles == ["sensors", "now", "last 8"]
    assert students.rows[1] == ["with", "2", "a, b", "99.0", "86.3 to 111.7", "99 %", "kept"]
    assert borne.rows[0] == ["a", "0.5 sd (0.02 rad), not 0.7", "none, not 1", "90 %"]
    assert "cost" in tables(results_of(FOUND, {}, c=5.0))[2].titles
    assert json.loads(json.dumps(plain(found, "tscli sensors toy")))["candidates"][1]["kept"] is True


def test_the_heading_says_what_the_intervals_are_over() -> None:
    one = results_of(FOUND, {})
    two = replace(one, found={key: Measured(np.tile(found.returns, (2, 1))) for key, found in one.found.items()})
    assert tables(one)[2].heading.startswith("Students over 2 episodes; teacher 100.0")
    assert tables(two)[2].heading.startswith("Students, 2 of each with an interval over these, over 2 episodes;")


@pytest.mark.parametrize("width", [50, 80, 120])
def test_they_fit_the_terminal(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(screen(results_of(FOUND, FOUND)))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width and any("99.0" in line and "kept" in line for line in lines)

"""The elimination on returns that are known beforehand."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pytest

from tscli.sensors.search import Measured, Scale, kept, wanted
from tscli.sensors.sets import Candidate, Sensor

SCALE = Scale(chance=-100.0, teacher=100.0, loss=0.05)


def full(names: str, memory: bool = False, **costs: float) -> Candidate:
    return Candidate(tuple(Sensor(name, costs.get(name, 1.0)) for name in names), memory)


def letters(candidate: Candidate) -> str:
    return "".join(sensor.name for sensor in candidate.sensors)


def search(
    start: Candidate, value: Callable[[str], float], score: Callable[[str], float] = lambda s: 0.0, width: int = 1
) -> tuple[str, list[list[str]]]:
    """What is kept, and what was measured round by round."""
    found: dict[Candidate, Measured] = {}
    rounds = []
    while todo := wanted(start, found, SCALE, lambda candidate: score(letters(candidate)), width):
        rounds.append([letters(one) for one in todo])
        assert not set(todo) & set(found), "nothing is measured twice"
        found |= {one: Measured(np.full((1, 3), value(letters(one)))) for one in todo}
    return letters(kept(start, found, SCALE)), rounds


def needs(*sets: str) -> Callable[[str], float]:
    """100 where one of these sets of sensors is there, else -100."""
    return lambda seen: 100.0 if any(set(one) <= set(seen) for one in sets) else -100.0


def prefers(order: Iterable[str]) -> Callable[[str], float]:
    """Probes that say to leave out these sensors first."""
    return lambda seen: -sum(2.0**-i for i, name in enumerate(order) if name in seen)


def test_it_goes_down_where_the_probes_point_and_ends_with_every_kept_sensor_left_out_once() -> None:
    found, rounds = search(full("abcd"), needs("ac"), prefers("bdac"))
    assert found == "ac"
    # "acd" and "ac" lose nothing, of one sensor alone both are tried.
    assert rounds == [["abcd"], ["acd"], ["ac"], ["c"], ["a"]]


def test_probes_that_mislead_cost_a_round_and_nothing_else() -> None:
    found, rounds = search(full("abc"), needs("b"), prefers("bac"), width=2)
    assert found == "b" and rounds == [["abc"], ["ac", "bc"], ["c", "b"]]
    assert search(full("abc"), needs("b"), prefers("bac"), width=1)[0] == "b"


def test_what_costs_most_is_left_out_first() -> None:
    found, rounds = search(full("abc", b=10.0), needs("a", "b"), prefers("ac"))
    assert found == "a" and rounds[1] == ["ac"]


def test_all_are_kept_where_each_is_needed() -> None:
    found, rounds = search(full("ab"), needs("ab"))
    assert found == "ab" and rounds == [["ab"], ["b"], ["a"]]


def test_nothing_is_searched_where_even_all_sensors_are_of_no_use() -> None:
    assert search(full("ab"), lambda seen: -10.0) == ("ab", [["ab"]])


def test_a_loss_is_a_share_of_what_is_gained_over_chance() -> None:
    assert SCALE.share(0.0) == 0.5
    assert SCALE.share(0.0, full=50.0) == pytest.approx(100 / 150)
    assert SCALE.share(0.0, full=1000.0) == 0.5, "no more is asked for than the teacher has"
    assert SCALE.holds(42.6, full=50.0) and not SCALE.holds(42.4, full=50.0)


def test_an_interval_is_over_students_where_there_are_several_else_over_episodes() -> None:
    one, two = Measured(np.array([[1.0, 3.0, 5.0]])), Measured(np.array([[1.0, 3.0], [5.0, 7.0]]))
    assert one.estimate[:2] == (3.0, 2.0) and one.estimate.count == 3
    assert two.estimate[:2] == (4.0, pytest.approx(8**0.5)) and two.estimate.count == 2

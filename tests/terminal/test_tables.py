"""Tables that give way where a terminal is narrow, and never cut a number."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import io

import pytest
from rich.console import Console

from tscli.terminal.tables import FitTable, decimals


def printed(table: FitTable, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    return out.getvalue().splitlines()


@pytest.fixture
def table() -> FitTable:
    found = FitTable(("run", "task", "return", "took"), right=("return",), give_way={"took": 0, "task": 5})
    found.add("[bold]1[/]", "cartpole_mine", "-1226.1", "4s")
    found.add("12", "maze", "0.5", "1m02s")
    return found


def test_where_there_is_room_columns_stand_wide_and_aligned(table: FitTable) -> None:
    assert printed(table, 80) == [
        "run    task              return    took",
        "1      cartpole_mine    -1226.1    4s",
        "12     maze                 0.5    1m02s",
    ]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (34, ["run  task            return  took", "1    cartpole_mine  -1226.1  4s"]),
        (33, ["run    task              return", "1      cartpole_mine    -1226.1"]),
        (26, ["run  task           return", "1    cartpole_mi…  -1226.1"]),
        (19, ["run  task    return", "1    cart…  -1226.1"]),
        (17, ["run task   return", "1   cart… -1226.1"]),
    ],
)
def test_gaps_then_columns_give_way_in_order(table: FitTable, width: int, lines: list[str]) -> None:
    assert printed(table, width)[:2] == lines


def test_title_and_caption_stand_around_it() -> None:
    table = FitTable(("a",), title="above [x]", caption="below")
    table.add("1")
    assert printed(table, 20) == ["above [x]", "a", "1", "below"]


@pytest.mark.parametrize(("scale", "places"), [(500.0, 1), (-10.0, 1), (9.99, 3), (-0.4, 3)])
def test_small_returns_are_shown_with_more_decimals(scale: float, places: int) -> None:
    assert decimals(scale) == places

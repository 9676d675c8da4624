"""A view written out on the command line."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pytest

from tscli.config import UserError, parse_view


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("camera", [("camera", ())]),
        ("0,2", [("", ("0", "2"))]),
        ("0:3, 5", [("", ("0:3", "5"))]),
        ("7", [("", ("7",))]),
        ("state[0,2] + previous_action", [("state", ("0", "2")), ("previous_action", ())]),
        (" state[ position , 1:3 ]+sensors.camera ", [("state", ("position", "1:3")), ("sensors.camera", ())]),
        ("state[]", [("state", ())]),
        ("0 + previous_action", [("", ("0",)), ("previous_action", ())]),
    ],
)
def test_a_views_expression_is_read(text: str, parts: list[tuple[str, tuple[str, ...]]]) -> None:
    assert [(part.group, part.index) for part in parse_view(text)] == parts


@pytest.mark.parametrize("text", ["", "state[0", "a +", "a b", "state]0[", "a+[1]", "state[0][1]"])
def test_what_is_no_view_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="cannot be read: write it like"):
        parse_view(text)

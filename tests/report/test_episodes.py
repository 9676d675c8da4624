"""Episodes on a page."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import base64
import html
import json
import re
from typing import Any

import numpy as np

from tscli.report import episodes
from tscli.runs import Run


def data_of(run: Run, room: int = 1_000_000) -> dict[str, Any]:
    """What the page's script is given."""
    (written,) = re.findall(r'data-player="([^"]*)"', episodes.player(run, room))
    return json.loads(html.unescape(written))


def values_of(one: dict[str, Any]) -> np.ndarray:
    """As the page's script reads them."""
    most = one.get("most", 65535)
    packed = np.frombuffer(base64.b64decode(one["data"]), "<u2" if most == 65535 else np.uint8)
    return one["low"] + packed / most * (one["high"] - one["low"])


def test_a_page_has_every_step_of_an_episode(measured: Run) -> None:
    (episode,) = data_of(measured)["episodes"]
    assert episode["steps"] == 40 and episode["at"] == list(range(40))
    kl, reward = episode["strips"]
    assert (kl["name"], reward["name"]) == ("KL", "reward")
    np.testing.assert_allclose(values_of(kl)[:3], [0.0, 0.01, 0.02], atol=1e-4)
    np.testing.assert_allclose(values_of(reward), 1.0)
    (left, right) = episode["actions"]
    np.testing.assert_allclose(values_of(left["by"]["student"]), 0.75, atol=1e-4)
    np.testing.assert_allclose(values_of(right["by"]["teacher"]), 0.5, atol=1e-4)
    assert [one["name"] for one in episode["seen"]["student"]["entries"]] == ["env", "episode"]


def test_the_worst_moments_are_apart_from_each_other_and_above_the_rest() -> None:
    apart = np.zeros(200)
    apart[[30, 31, 120]] = 5.0, 4.0, 7.0
    assert episodes.worst_moments(apart) == [120, 30]
    assert episodes.worst_moments(np.ones(50)) == []


def test_pictures_become_smaller_and_fewer_until_they_fit_and_numbers_stay(measured: Run) -> None:
    (whole,) = data_of(measured)["episodes"]
    room = len(episodes.player(measured)) - sum(map(len, whole["pictures"])) // 2
    (episode,) = data_of(measured, room)["episodes"]
    assert len(episodes.player(measured, room)) <= room
    assert episode["steps"] == 40 and len(episode["pictures"]) == len(episode["at"]) == 20
    assert episode["strips"] == whole["strips"]


def test_where_numbers_take_too_much_what_was_seen_loses_digits(measured: Run) -> None:
    (whole,), (coarse,) = (data_of(measured, room)["episodes"] for room in (1_000_000, 1_000))
    fine, short = (values_of(one["seen"]["student"]["entries"][1]) for one in (whole, coarse))
    assert len(fine) == len(short) == 40 and 0 < np.abs(fine - short).max() <= np.ptp(fine) / 500
    assert coarse["actions"] == whole["actions"]


def test_a_file_that_has_changed_is_left_out(measured: Run) -> None:
    path = measured.path / "episodes.h5"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert episodes.player(measured) == ""

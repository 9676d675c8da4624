"""Episodes held back until they have ended: those that are dropped never reach a dataset."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pairs_data import ARM, SCHEMA, digest, expected_episodes, make_step

from tscli.config import UserError
from tscli.pairs import Pairs, PairsWriter, Selection
from tscli.pairs import selection as module

STEPS = 150


@pytest.fixture(autouse=True)
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queues that have to grow, with rows in them."""
    monkeypatch.setattr(module, "_ROOM", 4)


def fill(folder: Path, begin: int = 0, end: int = STEPS, state: Any = None, **wanted: Any) -> Selection:
    """Append steps of three envs; shards are of 18 steps."""
    selection = Selection(SCHEMA, 3, **{"only_successful": False, "min_return": None, **wanted})
    if state is None:
        selection.writer = PairsWriter(folder, SCHEMA, 3, shard_bytes=70_000)
    else:
        selection.load_state_dict(state["selection"])
        selection.writer = PairsWriter.resume(folder, state["writer"])
    for t in range(begin, end):
        selection.append(**make_step(SCHEMA, 3, t))
    return selection


@pytest.mark.parametrize("wanted", [{"only_successful": True}, {"min_return": 1.5}, {}])
def test_wanted_episodes_stand_whole_in_the_dataset_and_no_row_of_another(
    tmp_path: Path, wanted: dict[str, Any]
) -> None:
    selection = fill(tmp_path, **wanted)
    selection.close()
    finished = {key: one for key, one in expected_episodes(SCHEMA, 3, STEPS).items() if one["finished"]}
    least = wanted.get("min_return", -np.inf)
    kept = {
        key: one
        for key, one in finished.items()
        if one["return"] >= least and (one["success"] or not wanted.get("only_successful"))
    }
    assert selection.kept == len(kept) > 8 and selection.dropped == len(finished) - len(kept)
    pairs = Pairs(tmp_path)
    assert len(pairs.shards) > 3
    assert pairs.num_steps == selection.num_steps == sum(one["length"] for one in kept.values())
    found = {(episode.info["env"], episode.info["index"]): episode for episode in pairs.iter_episodes()}
    assert found.keys() == kept.keys()
    for key, episode in found.items():
        assert episode.info["finished"] and episode.info["return"] == pytest.approx(kept[key]["return"])
        assert episode.info["success"] == kept[key]["success"]
        for name, values in episode.rows.items():
            np.testing.assert_array_equal(values, np.stack([row[name] for row in kept[key]["rows"]]))


@pytest.mark.parametrize("stop", [1, 61, 120])
def test_a_selection_goes_on_where_its_state_was_taken(tmp_path: Path, stop: int) -> None:
    whole = fill(tmp_path / "whole", only_successful=True)
    whole.close()
    first = fill(tmp_path / "parts", end=stop, only_successful=True)
    state = {"selection": first.state_dict(), "writer": first.writer.state_dict()}
    for t in range(stop, stop + 20):  # what a kill throws away
        first.append(**make_step(SCHEMA, 3, t))
    again = fill(tmp_path / "parts", begin=stop, state=state, only_successful=True)
    again.close()
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    assert (again.kept, again.dropped) == (whole.kept, whole.dropped)


def test_an_env_that_is_left_out_is_not_held(tmp_path: Path) -> None:
    selection = fill(tmp_path, end=0, min_return=-1e9)
    quota = np.array([1, 2, 0])
    count = np.zeros(3, np.int64)
    for t in range(STEPS):
        count += selection.append(**make_step(SCHEMA, 3, t), keep=count < quota)
    selection.close()
    assert count.tolist() == quota.tolist() and selection.kept == 3 and selection.dropped == 0
    assert sorted(Pairs(tmp_path).episodes()["env"].tolist()) == [0, 1, 1]


def test_envs_that_were_reset_from_outside_lose_what_had_not_ended(tmp_path: Path) -> None:
    selection = Selection(ARM, 2, False, -1e9)
    selection.writer = PairsWriter(tmp_path, ARM, 2)
    for t, ended in enumerate([(0, 1), (0, 0), (1, 1)]):
        step = make_step(ARM, 2, t) | {"terminated": np.array(ended, bool), "truncated": np.zeros(2, bool)}
        selection.append(**step)
        if t == 1:
            selection.restart()
    selection.close()
    table = Pairs(tmp_path).episodes()
    assert sorted(zip(*(table[name].tolist() for name in ("env", "index", "length")), strict=True)) == [
        (0, 1, 1),
        (1, 0, 1),
        (1, 2, 1),
    ]


def test_what_nothing_fulfils_is_given_up_and_what_never_ends_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_IN_A_ROW", 20)
    with pytest.raises(UserError, match=r"the last \d+ episodes were all dropped, 0 were kept before; the best return"):
        fill(tmp_path / "a", min_return=1e6)
    monkeypatch.setattr(module, "_MOST_BYTES", 400_000)
    selection = fill(tmp_path / "b", end=0)
    with pytest.raises(UserError, match="now 64 steps long, would take"):
        for t in range(100):
            step = make_step(SCHEMA, 3, t)
            selection.append(**{**step, "terminated": np.zeros(3, bool), "truncated": np.zeros(3, bool)})

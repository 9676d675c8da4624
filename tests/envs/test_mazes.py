"""How mazes are drawn: by the rules, from their seed and place alone, and held out."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tscli.envs.mazes import LAVA, PATH, _trace_paths, draw_distinct, draw_mazes


def test_a_path_is_traced_as_its_draws_say():
    draws = np.zeros((1, 16))
    draws[0, 0] = 0.124  # column 3 of 3 to 10
    draws[0, 1:4] = 0.49, 0.67, 0.49  # 3 down; 3 to the left, which would leave: so to the right
    draws[0, 4:7] = 0.5, 0.33, 0.5  # 4 down; 1 to the right
    draws[0, 7:10] = 0.49, 0.66, 0.49  # 3 down; 2 to the left
    draws[0, 10:13] = 0.5, 0.9, 0.9  # 4 down to the last row: the end
    left, right = _trace_paths(draws, 15)
    assert left[0].tolist() == [3, 3, 3, 3, 6, 6, 6, 6, 7, 7, 5, 5, 5, 5, 5]
    assert right[0].tolist() == [3, 3, 3, 6, 6, 6, 6, 7, 7, 7, 7, 5, 5, 5, 5]


def test_every_maze_is_lava_with_one_path_of_the_rules_from_top_to_bottom():
    mazes = draw_mazes(15, 400, 0, "train")
    assert mazes.shape == (400, 15, 15) and np.isin(mazes, (LAVA, PATH)).all()
    firsts = []
    for path in mazes == PATH:
        columns = [np.flatnonzero(row) for row in path]
        assert all(len(cells) and np.ptp(cells) == len(cells) - 1 for cells in columns)
        assert len(columns[0]) == len(columns[-1]) == 1
        assert min(cells[0] for cells in columns) >= 3 and max(cells[-1] for cells in columns) <= 10
        turns = [y for y, cells in enumerate(columns) if len(cells) > 1]
        assert all(len(columns[y]) in (2, 3, 4) for y in turns)
        assert set(np.diff([0, *turns])) <= {3, 4} and 14 - turns[-1] in (1, 2, 3, 4)
        for above, below in itertools.pairwise(columns):
            assert len(np.intersect1d(above, below)) == 1, "it goes straight down from one row to the next"
            assert above[0] == above[-1] or below[0] in (above[0], above[-1])
        firsts.append(columns[0][0])
    counts = np.bincount(firsts, minlength=11)[3:]
    assert counts.sum() == 400 and counts.min() > 25 and counts.max() < 80  # 50 each, were they equal


@pytest.mark.parametrize("size", range(6, 12))
def test_small_mazes_stay_within_their_columns_too(size):
    for split in ("train", "select", "report"):
        maze = draw_mazes(size, 200, 0, split)
        columns = (maze == PATH).any(axis=(0, 1)).nonzero()[0]
        assert columns[0] >= size // 4 and columns[-1] < 3 * size // 4
        assert (maze == PATH).any(axis=2).all()


def test_a_maze_depends_on_the_seed_of_the_list_and_its_place_alone():
    many = draw_mazes(15, 50, 0, "train")
    assert np.array_equal(draw_mazes(15, 7, 0, "train"), many[:7])
    other = draw_mazes(15, 50, 1, "train")
    assert (other != many).any(axis=(1, 2)).mean() > 0.9


def test_no_maze_to_measure_on_is_ever_trained_on_or_chosen_by_whatever_the_seeds():
    def layouts(split: str, seed: int) -> set[bytes]:
        return {maze.tobytes() for maze in draw_mazes(15, 3000, seed, split)}

    parts = [layouts(split, 0) | layouts(split, 1) for split in ("train", "select", "report")]
    for one, other in itertools.combinations(parts, 2):
        assert not one & other
    assert min(map(len, parts)) > 1000
    assert layouts("train", 0) & layouts("train", 1), "within a part they do coincide"


def test_mazes_to_measure_on_are_the_lists_without_its_doubles():
    listed = [maze.tobytes() for maze in draw_mazes(15, 400, 3, "report")]
    distinct = list(dict.fromkeys(listed))
    assert len(distinct) < 390
    assert [maze.tobytes() for maze in draw_distinct(15, 300, 3, "report")] == distinct[:300]
    few = draw_distinct(6, 100, 0, "report")
    assert 0 < len(few) < 100 and len(np.unique(few, axis=0)) == len(few), "as many as there are"

"""Pictures that put methods side by side."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from tscli.compare.plots import Final, Line, colour, draw_finals, draw_lines
from tscli.learning.statistics import Band


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    figures: list[Figure] = []
    savefig = Figure.savefig

    def keep(figure: Figure, *args: Any, **kwargs: Any) -> None:
        figures.append(figure)
        savefig(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def line(label: str, *values: float, start: float = 0) -> Line:
    mean = np.array(values)
    return Line(label, colour(0), start + np.arange(len(mean)) * 1000.0, Band(mean, mean - 0.1, mean + 0.1))


def test_every_line_is_named_and_no_name_lies_on_another(tmp_path: Path, drawn: list[Figure]) -> None:
    lines = [line(name, 0.1, 0.9 + offset) for name, offset in (("a", 0.0), ("b", 0.001), ("c", -0.001), ("d", 0.05))]
    path = draw_lines(
        tmp_path / "x.png", [("left", lines), ("right", [line("e", 0.5)])], "title", "steps", "success", percent=True
    )
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 800
    left, right = drawn[0].axes
    assert np.asarray(left.lines[0].get_ydata()).tolist() == [0.1, 0.9]
    names = {text.get_text(): text.xyann[1] for text in left.texts}  # type: ignore[attr-defined]
    assert [*names] == ["a", "b", "c", "d"] and [text.get_text() for text in right.texts] == ["e"]
    heights = sorted(names.values())
    assert np.diff(heights).min() > 0.06
    assert sorted(names, key=lambda name: names[name]) == ["c", "a", "b", "d"], "in the order of the lines' ends"
    assert left.get_ylim() == right.get_ylim() == (-0.03, 1.03)


def test_values_that_are_words_stand_at_equal_distances(tmp_path: Path, drawn: list[Figure]) -> None:
    words = ["mlp", "rnn", "gru"]
    both = Line("s", colour(1), np.arange(3), Band(*(np.arange(3.0) + d for d in (0, -1, 1))), marked=True)
    draw_lines(tmp_path / "x.png", [("", [both])], "t", "student", "return", x_names=words)
    assert [tick.get_text() for tick in drawn[0].axes[0].get_xticklabels()] == words
    draw_lines(tmp_path / "x.png", [("", [both._replace(x=np.array([0.01, 0.1, 1.0]))])], "t", "k", "r", log_x=True)
    assert drawn[1].axes[0].get_xscale() == "log"


def test_final_figures_have_their_seeds_and_their_teacher(tmp_path: Path, drawn: list[Figure]) -> None:
    finals = [
        Final("one", colour(0), 2.0, 1.0, 3.0, [1.0, 3.0], 4.0),
        Final("two", colour(1), 5.0, 5.0, 5.0, [5.0], None),
    ]
    draw_finals(tmp_path / "x.png", finals, "title", "return")
    (axis,) = drawn[0].axes
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["one", "two"]
    assert np.asarray(axis.collections[0].get_offsets())[:, 0].tolist() == [1.0, 3.0]
    xs = [np.asarray(drawn_line.get_xdata()).tolist() for drawn_line in axis.lines]
    assert xs == [[1.0, 3.0], [2.0], [4.0], [5.0, 5.0], [5.0]]
    assert [patch.get_width() for patch in axis.patches] == [2.0, 5.0]  # type: ignore[attr-defined]


def test_returns_below_zero_have_no_bar(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_finals(tmp_path / "x.png", [Final("one", colour(0), -80.0, -90.0, -70.0, [-90.0, -70.0], -75.0)], "t", "r")
    assert len(drawn[0].axes[0].patches) == 0

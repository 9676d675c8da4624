"""Pictures of a run's metrics."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from tscli.pictures.curves import Panel, draw_curves
from tscli.pictures.maps import draw_visits

LINES: list[dict[str, Any]] = [
    {"step": 1000, "updates": 1, "loss": 2.0, "eval": None},
    {"step": 2000, "updates": 2, "loss": 1.0},
    {"step": 3000, "updates": 4, "loss": None, "eval": 50.0},
]


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


def points(axis: Axes) -> list[list[float]]:
    return np.asarray(axis.lines[0].get_xydata()).tolist()


def test_each_panel_shows_the_points_that_were_logged(tmp_path: Path, drawn: list[Figure]) -> None:
    panels = (Panel("loss", "the loss"), Panel("never", "not logged"), Panel("eval", "evaluation", "updates"))
    marks = {"eval": ("teacher", 7.5)}
    path = draw_curves(tmp_path / "curves.png", LINES, panels, "a title", None, marks)
    with Image.open(path) as image:
        assert image.format == "PNG" and image.width > 500
    axes = drawn[0].axes
    assert [len(axis.lines) for axis in axes] == [1, 2], "the teacher's return beside the student's"
    assert set(np.asarray(axes[1].lines[1].get_ydata())) == {7.5}
    assert [axis.get_title(loc="left") for axis in axes] == ["the loss", "evaluation"]
    assert points(axes[0]) == [[1000, 2], [2000, 1]]
    assert points(axes[1]) == [[4, 50]]
    assert [axis.get_xlabel() for axis in axes] == ["env steps", "gradient steps"]
    assert drawn[0].get_suptitle() == "a title"


def test_an_axis_is_named_once_per_column(tmp_path: Path, drawn: list[Figure]) -> None:
    panels = (Panel("loss", "a"), Panel("loss", "b"), Panel("loss", "c"), Panel("loss", "d", "updates"))
    draw_curves(tmp_path / "curves.png", LINES, panels, "", columns=2)
    assert [axis.get_xlabel() for axis in drawn[0].axes] == ["", "env steps", "env steps", "gradient steps"]


def test_a_run_that_logged_nothing_gets_an_empty_picture(tmp_path: Path) -> None:
    assert draw_curves(tmp_path / "curves.png", [], (Panel("loss", "a"),), "t").stat().st_size > 0


def test_visits_are_drawn_with_their_marks(tmp_path: Path) -> None:
    counts = torch.zeros(6, 9)
    counts[2, 3:7] = 0.5
    path = draw_visits(tmp_path / "visits.png", {"student": counts, "teacher": counts * 0}, {"start": 21}, "a maze")
    with Image.open(path) as picture:
        assert picture.width > picture.height > 300

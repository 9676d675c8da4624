"""Pictures and films that are made to fit."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tscli.pictures.film import write_gif
from tscli.report.fitting import Size, film, fitting


def noisy(count: int, width: int = 480) -> list[np.ndarray]:
    """Pictures [H, W, 3] that compress badly."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (width // 4, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.fixture
def gif(tmp_path: Path) -> Path:
    """Four seconds, 10 pictures in each."""
    return write_gif(tmp_path / "film.gif", noisy(40), 10)


def test_a_film_that_fits_is_shown_as_it_is(gif: Path) -> None:
    assert base64.b64encode(gif.read_bytes()).decode() in film(gif, "all", 10_000_000)


@pytest.mark.parametrize(("room", "is_cut"), [(200_000, False), (15_000, True)])
def test_a_film_that_does_not_fit_becomes_smaller_and_then_shorter(gif: Path, room: int, is_cut: bool) -> None:
    shown = film(gif, "<all>", room)
    assert len(shown) <= 1.1 * room
    assert "&lt;all&gt;" in shown and ("The first" in shown) == is_cut
    (data,) = re.findall(r"data:image/webp;base64,([^\"]*)", shown)
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.width <= 300 and 1 < image.n_frames < 40
        image.load()
        assert image.info["duration"] % 100 == 0, "its clock is the film's"


@pytest.mark.parametrize("suffix", ["gif", "mp4"])
def test_one_that_cannot_be_made_to_fit_is_named(gif: Path, suffix: str) -> None:
    path = gif.rename(gif.with_suffix(f".{suffix}"))
    assert f"film.{suffix} beside it" in film(path, "all", 1000)


def test_sizes_fall_with_the_room() -> None:
    images = [Image.fromarray(one) for one in noisy(3)]
    size = [fitting(images, 100, room) for room in (1e9, 8e5, 1e3)]
    assert size[0] == Size(1, 360, 60)
    assert size[0].every < size[2].every and size[0].width > size[1].width > size[2].width
    assert fitting(images, 100, 1e9, scale=2).width == 720, "of two beside each other"

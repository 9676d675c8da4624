"""Films and the live window."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tscli.config import UserError
from tscli.pictures.film import Window, caption, require_ffmpeg, write_gif, write_mp4


def frames(count: int = 4, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """A white bar that moves over blue."""
    out = []
    for i in range(count):
        frame = np.zeros((*size, 3), np.uint8)
        frame[..., 2] = 200
        frame[:, 10 * i : 10 * i + 10] = 255
        out.append(frame)
    return out


def test_a_gif_has_every_frame_in_order_at_its_speed(tmp_path: Path) -> None:
    shown = frames()
    path = write_gif(tmp_path / "film.gif", shown, fps=25)
    with Image.open(path) as gif:
        assert getattr(gif, "n_frames", 1) == 4 and gif.info["duration"] == 40 and gif.info["loop"] == 0
        for i, frame in enumerate(shown):
            gif.seek(i)
            np.testing.assert_allclose(np.asarray(gif.convert("RGB")).astype(int), frame, atol=8)
    assert [p.name for p in tmp_path.iterdir()] == ["film.gif"]


@pytest.mark.parametrize(("fps", "milliseconds"), [(1000, 20), (28, 40), (2, 500)])
def test_a_gifs_clock_ticks_in_hundredths_and_no_faster_than_viewers_show(
    tmp_path: Path, fps: float, milliseconds: int
) -> None:
    with Image.open(write_gif(tmp_path / "film.gif", frames(2), fps)) as gif:
        assert gif.info["duration"] == milliseconds


def test_a_caption_is_written_into_the_top_and_leaves_the_frame_as_it_is() -> None:
    frame = np.zeros((200, 320, 3), np.uint8)
    found, other = caption(frame, "return 3.0"), caption(frame, "return 4.0")
    assert found.shape == frame.shape and found.dtype == np.uint8 and not frame.any()
    assert found[:40].any() and not found[40:].any()
    assert (found != other).any()
    large = caption(np.zeros((400, 640, 3), np.uint8), "return 3.0")
    assert large.any(-1).sum() > 1.5 * found.any(-1).sum()  # its size follows the frame's


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_an_mp4_is_written_also_for_odd_sizes(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "film.mp4", frames(size=(49, 65)), fps=10)
    assert path.read_bytes()[4:8] == b"ftyp"
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]


def test_without_ffmpeg_an_mp4_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"needs the program ffmpeg: install it .* or use --render gif"):
        require_ffmpeg()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_what_ffmpeg_cannot_write_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ffmpeg could not write") as caught:
        write_mp4(tmp_path / "none" / "film.mp4", frames(), fps=10)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the screen is not named by DISPLAY")
def test_a_window_without_a_screen_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(UserError, match=r"--render human needs a screen .*: use --render gif") as caught:
        Window(30)
    assert "\n" not in str(caught.value)


def test_a_window_without_tkinter_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(UserError, match=r"needs a screen .*tkinter"):
        Window(30)

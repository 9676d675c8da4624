"""Films of a policy at work: GIF by pillow, MP4 where ffmpeg is installed."""

from __future__ import annotations

import io
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tscli.config import UserError
from tscli.files import atomic_write

if TYPE_CHECKING:
    import tkinter


_SMALL, _BESIDE, _LINE = 240, 112, 14  # pixels: a width that a caption would cover, and its place beside it


def caption(frame: np.ndarray, text: str) -> np.ndarray:
    """Write a line into the top of a frame, uint8 [H, W, 3], or beside a small one; its size follows the frame's.

    Args:
        frame: a picture.
        text: of parts that three spaces divide, which stand below each other beside a small picture.
    """
    if frame.shape[1] < _SMALL:
        return _beside(frame, text.split("   "))
    image = Image.fromarray(frame)
    draw = ImageDraw.Draw(image)
    size = max(10, frame.shape[1] // 32)
    font = ImageFont.load_default(size)
    left, top, right, bottom = draw.textbbox((size // 2, size // 2), text, font=font)
    draw.rectangle((left - size // 3, top - size // 4, right + size // 3, bottom + size // 4), fill=(255, 255, 255))
    draw.text((size // 2, size // 2), text, fill=(31, 41, 55), font=font)
    return np.asarray(image)


def _beside(frame: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Five lines' room at the least, so that all frames of a film are of one size."""
    height = max(frame.shape[0], 5 * _LINE)
    image = Image.new("RGB", (frame.shape[1] + _BESIDE, height), (255, 255, 255))
    image.paste(Image.fromarray(frame))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    for i, line in enumerate(lines):
        draw.text((frame.shape[1] + 6, i * _LINE + 1), line, fill=(31, 41, 55), font=font)
    return np.asarray(image)


def narrowed(frame: np.ndarray, width: int | None) -> np.ndarray:
    """A picture made smaller where it is wider than that; None leaves it."""
    if width is None or frame.shape[1] <= width:
        return frame
    height = round(frame.shape[0] * width / frame.shape[1])
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BOX))


def tiled(reels: Sequence[Sequence[np.ndarray]], columns: int, gap: int = 8) -> list[np.ndarray]:
    """Films of one frame size in rows of so many, `gap` pixels apart; those that end early stand still."""
    height, width = reels[0][0].shape[:2]
    rows = -(-len(reels) // columns)
    empty = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    frames = []
    for i in range(max(map(len, reels))):
        whole = empty.copy()
        for place, reel in enumerate(reels):
            y, x = (place // columns) * (height + gap), (place % columns) * (width + gap)
            whole[y : y + height, x : x + width] = reel[min(i, len(reel) - 1)]
        frames.append(whole)
    return frames


def write_gif(path: Path, frames: Sequence[np.ndarray], fps: float) -> Path:
    """Write frames as an endlessly repeating GIF. Its clock ticks in hundredths of a second.

    Raises:
        UserError: the disk is full.
    """
    # One palette for all frames: a palette per frame flickers and doubles the size.
    images = [Image.fromarray(frame) for frame in frames]
    palette = images[len(images) // 2].quantize(64, dither=Image.Dither.NONE)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    duration = max(20, round(100 / fps) * 10)
    buffer = io.BytesIO()
    images[0].save(buffer, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
    atomic_write(path, buffer.getvalue())
    return path


def require_ffmpeg() -> str:
    """The ffmpeg program.

    Raises:
        UserError: it is not installed.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise UserError("--render mp4 needs the program ffmpeg: install it (apt install ffmpeg), or use --render gif")
    return program


def write_mp4(path: Path, frames: Sequence[np.ndarray], fps: float) -> Path:
    """Write frames as H.264, which every browser plays.

    Raises:
        UserError: ffmpeg is missing or fails.
    """
    height, width = frames[0].shape[:2]
    height, width = height - height % 2, width - width % 2  # H.264's chroma needs even sizes
    temporary = path.with_name(f".{path.name}.tmp")
    command = [require_ffmpeg(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "-", "-pix_fmt", "yuv420p", "-f", "mp4"]
    data = b"".join(np.ascontiguousarray(frame[:height, :width]).tobytes() for frame in frames)
    result = subprocess.run([*command, str(temporary)], input=data, capture_output=True)
    if result.returncode:
        temporary.unlink(missing_ok=True)
        raise UserError(f"ffmpeg could not write {path}: {' '.join(result.stderr.decode().split())[:200]}")
    temporary.replace(path)
    return path


def _screen() -> tkinter.Tk:
    try:
        import tkinter

        return tkinter.Tk()
    except Exception as error:  # no module, or TclError without a screen
        raise UserError(f"--render human needs a screen ({error}): use --render gif") from None


def require_screen() -> None:
    """Make sure that there is a screen to show a window on.

    Raises:
        UserError: there is none, or Python came without tkinter.
    """
    _screen().destroy()


class Window:
    """Shows frames live, in the standard library's window.

    Raises:
        UserError: there is no screen, or Python came without tkinter.
    """

    def __init__(self, fps: float, title: str = "tscli"):
        self._root = _screen()
        import tkinter  # which is there, or there would be no screen

        self._root.title(title)
        self._root.protocol("WM_DELETE_WINDOW", self.close)
        self._label = tkinter.Label(self._root)
        self._label.pack()
        self._open, self._pause, self._next = True, 1 / fps, time.monotonic()

    def show(self, frame: np.ndarray) -> bool:
        """Show a frame at its time; False once the user has closed the window."""
        if not self._open:
            return False
        from PIL import ImageTk

        self._photo = ImageTk.PhotoImage(Image.fromarray(frame))
        self._label.configure(image=self._photo)
        self._root.update()
        self._next = max(self._next + self._pause, time.monotonic() - self._pause)
        time.sleep(max(0.0, self._next - time.monotonic()))
        return self._open

    def close(self) -> None:
        """Close the window; again does nothing."""
        if self._open:
            self._open = False
            self._root.destroy()

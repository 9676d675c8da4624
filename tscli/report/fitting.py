"""Pictures and films made smaller until they fit into the room that a page has for them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence

from tscli.report.markup import Html, escape, picture, tag

_SAMPLE = 12  # pictures that tell how large all would be
_SHORTEST = 1.0  # s; a film that has no room for as much is left out


@dataclass(frozen=True)
class Size:
    """Every so many-th picture, at most so many pixels wide, as WebP of that quality."""

    every: int = 1
    width: int = 100_000
    quality: int = 60

    def still(self, image: Image.Image) -> bytes:
        """A picture encoded."""
        buffer = io.BytesIO()
        self.narrowed(image).save(buffer, format="WEBP", quality=self.quality, method=2)
        return buffer.getvalue()

    def narrowed(self, image: Image.Image) -> Image.Image:
        """A picture made smaller where it is wider."""
        image = image.convert("RGB")
        if image.width <= self.width:
            return image
        height = round(image.height * self.width / image.width)
        return image.resize((self.width, height), Image.Resampling.BOX)


# Widths of pictures that are looked at alone; what stands beside each other in a film is wider in all.
_SIZES = ((1, 360, 60), (1, 300, 50), (2, 300, 50), (2, 240, 40), (3, 240, 40), (4, 240, 40), (6, 240, 35))


def fitting(images: Sequence[Image.Image], count: int, room: float, beside: float = 0.0, scale: int = 1) -> Size:
    """The best size at which pictures take no more than so many bytes; the smallest where none does.

    Args:
        images: some of the pictures.
        count: how many there are in all.
        room: bytes for all of them.
        beside: further bytes that each picture brings with it.
        scale: how many pictures stand beside each other in each.
    """
    size = Size()
    for every, width, quality in _SIZES:
        size = Size(every, width * scale, quality)
        each = sum(len(size.still(image)) for image in images) / max(1, len(images))
        if (each + beside) * count / every <= room:
            break
    return size


def sample(count: int) -> range:
    """Which of so many pictures tell how large they are."""
    return range(0, count, max(1, count // _SAMPLE))


def film(path: Path, caption: str, room: int, beside: int = 1) -> Html:
    """A film in the page itself: as it is, or as an animated WebP that fits, where need be of its beginning alone.

    Args:
        path: GIF, or an MP4, which is left out where it is larger.
        caption: words below it.
        room: bytes of the page.
        beside: how many pictures stand beside each other.
    """
    if path.stat().st_size * 4 / 3 <= room:
        return picture(path, caption)
    if path.suffix != ".gif":
        return tag("p", f"The film is too large for this page: {path.name} beside it.", class_="note")
    with Image.open(path) as gif:
        count = int(getattr(gif, "n_frames", 1))
        tick = int(gif.info.get("duration", 40))  # ms
        every = sample(count).step
        some = list(_frames(gif, Size(every)))
        size = fitting(some, count, room * 3 / 4, scale=beside)
        each = sum(len(size.still(image)) for image in some) / len(some)
        kept = min(-(-count // size.every), int(room * 3 / 4 / each))
        seconds = kept * size.every * tick / 1000
        if seconds < _SHORTEST:
            return tag("p", f"The film is too large for this page: {path.name} beside it.", class_="note")
        frames = [frame for frame, _ in zip(_frames(gif, size), range(kept), strict=False)]
    buffer = io.BytesIO()
    how = {"save_all": True, "append_images": frames[1:], "duration": tick * size.every, "loop": 0}
    frames[0].save(buffer, format="WEBP", quality=size.quality, method=2, **how)
    if kept * size.every < count - size.every:
        caption += f" The first {seconds:.0f} s of it; all of it is in {path.name}."
    source = f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    return tag("figure", tag("img", src=source, alt=path.stem), tag("figcaption", escape(caption)))


def _frames(gif: Image.Image, size: Size) -> Iterator[Image.Image]:
    every: Iterable[Image.Image] = ImageSequence.Iterator(gif)
    return (size.narrowed(frame) for i, frame in enumerate(every) if i % size.every == 0)

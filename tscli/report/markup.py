"""HTML made of nested calls, in which text is always escaped, and the page around it."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from pathlib import Path

_HERE = Path(__file__).parent
_TYPES = {".gif": "image/gif", ".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4"}
_VOID = ("img", "br", "line", "circle", "rect", "path", "polyline", "input", "meta")


class Html(str):
    """Markup. Any other text becomes markup by being escaped, wherever it is put in."""

    __slots__ = ()


def escape(part: object) -> Html:
    """Markup as it is; everything else as the text that a reader sees."""
    return part if isinstance(part, Html) else Html(html.escape(str(part)))


def join(parts: Iterable[object]) -> Html:
    """Parts one after the other."""
    return Html("".join(map(escape, parts)))


def tag(name: str, /, *parts: object, **attributes: object) -> Html:
    """An element. Of attributes None is left out; `class_` is `class`, and `data_x` is `data-x`."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{words}/>" if name in _VOID and not parts else f"<{name}{words}>{join(parts)}</{name}>")


def table(titles: Iterable[object], rows: Iterable[Iterable[object]], class_: str | None = None) -> Html:
    """A table that scrolls by itself where the window is narrow."""
    head = tag("thead", tag("tr", *(tag("th", title) for title in titles)))
    body = tag("tbody", *(tag("tr", *(tag("td", cell) for cell in row)) for row in rows))
    return tag("div", tag("table", head, body, class_=class_), class_="scroll")


def facts(rows: Iterable[tuple[object, object]]) -> Html:
    """Names and what they stand for."""
    return tag("dl", *(part for name, value in rows for part in (tag("dt", name), tag("dd", value))))


def section(title: str, *parts: object, intro: object = "") -> Html:
    """A section with its heading; empty where there is nothing in it."""
    shown = [part for part in parts if part]
    if not shown:
        return Html()
    return tag("section", tag("h2", title), tag("p", intro, class_="intro") if intro else "", *shown)


def grid(*parts: object) -> Html:
    """Charts in as many columns as there is room for."""
    return tag("div", *parts, class_="grid")


def picture(path: Path, caption: object) -> Html:
    """A picture or film, in the page itself."""
    kind = _TYPES[path.suffix]
    source = f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    shown = (
        tag("video", src=source, controls="", loop="", muted="")
        if kind.startswith("video")
        else tag("img", src=source, alt=path.stem)
    )
    return tag("figure", shown, tag("figcaption", caption))


def page(title: str, *parts: object) -> str:
    """The whole document. Its policy lets nothing be fetched, and no script run but the page's own."""
    style, script, more = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js", "player.js"))
    script += more
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    )
    head = join(
        [
            tag("meta", charset="utf-8"),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{rules}"/>'),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", title),
            tag("link", rel="icon", href="data:,"),
            tag("style", Html(style)),
        ]
    )
    body = tag("body", tag("main", *parts), tag("div", id="tip", hidden=""), tag("script", Html(script)))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>{body}</html>\n'

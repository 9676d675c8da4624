"""Charts as inline SVG: curves, histograms, figures with their intervals.

A chart is 360 units wide, so that its letters have the size of the page's on a telephone and in a column of a desk's.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tscli.report.markup import Html, join, tag

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 360, 200, 42, 8, 8, 30
MOST_POINTS = 160  # of a curve; more cannot be told apart


@dataclass(frozen=True)
class Series:
    """A curve: its points [K], the number of its colour, and how it is drawn.

    `low` and `high` [K] bound a band around it; with `dots` each point is marked; `level` is a line across the chart.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    dashed: bool = False
    dots: bool = False

    def thinned(self) -> Series:
        """At most MOST_POINTS of the points that have a value, the last one among them."""
        keep = [i for i, value in enumerate(self.y) if math.isfinite(value) and math.isfinite(self.x[i])]
        if len(keep) > MOST_POINTS:
            keep = [keep[i] for i in np.linspace(0, len(keep) - 1, MOST_POINTS).round().astype(int)]
        parts = {name: [float(values[i]) for i in keep] if len(values) else () for name, values in self._points()}
        return Series(self.label, colour=self.colour, dashed=self.dashed, dots=self.dots, **parts)

    def _points(self) -> list[tuple[str, Sequence[float]]]:
        return [(name, getattr(self, name)) for name in ("x", "y", "low", "high")]


def number(value: float) -> str:
    """A value in few letters: 12k, 1.5M, 0.034."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= max(size, 1e4 if unit == "k" else 0):
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round values between two bounds."""
    rough = (high - low) / wanted
    if not rough > 0 or not math.isfinite(rough):
        return [low]
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


class _Axes:
    """Where values lie."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int = HEIGHT, left: int = LEFT) -> None:
        self.x0, self.x1 = x if x[1] > x[0] else (x[0] - 0.5, x[0] + 0.5)
        self.y0, self.y1 = y if y[1] > y[0] else (y[0] - 0.5, y[0] + 0.5)
        self.left, self.span, self.height = left, WIDTH - left - RIGHT, height

    def at_x(self, value: float) -> float:
        return round(self.left + (value - self.x0) / (self.x1 - self.x0) * self.span, 1)

    def at_y(self, value: float) -> float:
        return round(self.height - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (self.height - BOTTOM - TOP), 1)

    def frame(self, x_label: str, rows: bool = True) -> Html:
        parts = []
        for value in ticks(self.y0, self.y1) if rows else ():
            y = self.at_y(value)
            parts.append(tag("line", x1=self.left, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid-line"))
            parts.append(tag("text", number(value), x=self.left - 5, y=y + 3.5, text_anchor="end"))
        foot = self.height - BOTTOM
        for value in ticks(self.x0, self.x1):
            x = self.at_x(value)
            parts.append(tag("line", x1=x, x2=x, y1=foot if rows else TOP, y2=foot + 4, class_="grid-line"))
            parts.append(tag("text", number(value), x=x, y=foot + 15, text_anchor="middle"))
        parts.append(tag("text", x_label, x=WIDTH - RIGHT, y=self.height - 2, text_anchor="end"))
        return join(parts)


def _figure(title: str, picture: Html, below: object = "") -> Html:
    return tag("figure", tag("h3", title), picture, below)


def _colour(index: int) -> str:
    return f"var(--c{index % 8})"


def legend(series: Iterable[Series]) -> Html:
    """Which colour is whose."""
    names = (
        tag(
            "span",
            tag("i", class_="dashed" if s.dashed else None, style=f"border-top-color:{_colour(s.colour)}"),
            s.label,
        )
        for s in series
    )
    return tag("div", *names, class_="key")


def curves(title: str, x_label: str, series: Iterable[Series], bounds: tuple[float, float] | None = None) -> Html:
    """Curves over common axes, with their values under the pointer; empty where none has a point.

    `bounds` are those of the vertical axis; None takes them from the values.
    """
    shown = [one for one in (s.thinned() for s in series) if len(one.x)]
    if not shown:
        return Html()
    every = [value for s in shown for part in (s.y, s.low, s.high) for value in part]
    low, high = bounds or (min(every), max(every))
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 0.5
    axes = _Axes((min(min(s.x) for s in shown), max(max(s.x) for s in shown)), (low - pad, high + pad))
    parts = [axes.frame(x_label), *(_curve(axes, s) for s in shown)]
    parts.append(tag("line", class_="pointer", y1=TOP, y2=HEIGHT - BOTTOM, stroke="var(--soft)", visibility="hidden"))
    points = {"x0": axes.x0, "x1": axes.x1, "left": axes.left, "span": axes.span, "width": WIDTH, "x_label": x_label}
    points["series"] = [{"label": s.label, "x": [_brief(v) for v in s.x], "y": [_brief(v) for v in s.y]} for s in shown]
    text = json.dumps(points, separators=(",", ":"))
    drawn = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=title, data_points=text)
    return _figure(title, drawn, legend(shown) if len(shown) > 1 else "")


def _brief(value: float) -> float:
    """In few letters."""
    short = float(f"{value:.5g}")
    return int(short) if short.is_integer() else short


def _curve(axes: _Axes, s: Series) -> Html:
    parts = []
    places = [(axes.at_x(x), axes.at_y(y)) for x, y in zip(s.x, s.y, strict=True)]
    if len(s.low):
        there = [f"{axes.at_x(x)},{axes.at_y(y)}" for x, y in zip(s.x, s.high, strict=True)]
        back = [f"{axes.at_x(x)},{axes.at_y(y)}" for x, y in zip(s.x, s.low, strict=True)]
        parts.append(tag("path", d=f"M{' '.join([*there, *back[::-1]])}Z", fill=_colour(s.colour), opacity=0.15))
    line = " ".join(f"{x},{y}" for x, y in places)
    dash = "5 4" if s.dashed else None
    parts.append(
        tag("polyline", points=line, fill="none", stroke=_colour(s.colour), stroke_width=1.7, stroke_dasharray=dash)
    )
    if s.dots or len(places) == 1:
        parts += [tag("circle", cx=x, cy=y, r=2.6, fill=_colour(s.colour)) for x, y in places]
    return join(parts)


def level(label: str, value: float, like: Iterable[Series], colour: int = 1) -> Series:
    """A dashed line across the range of other curves."""
    xs = [x for s in like for x in s.x]
    ends = [min(xs, default=0.0), max(xs, default=1.0)]
    return Series(label, ends, [value, value], colour, dashed=True)


def histogram(title: str, values: np.ndarray, unit: str = "", colour: int = 0, bins: int = 24) -> Html:
    """How often values [K] occur; empty where there are none."""
    values = np.asarray(values, dtype=np.float64).ravel()
    values = values[np.isfinite(values)]
    if not len(values):
        return Html()
    counts, edges = np.histogram(values, min(bins, max(1, len(np.unique(values[:100_000])))))
    height = 120
    axes = _Axes((float(edges[0]), float(edges[-1])), (0, float(counts.max())), height)
    bars = []
    for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True):
        x, y = axes.at_x(float(start)), axes.at_y(float(count))
        text = tag("title", f"{number(float(start))} to {number(float(end))}: {count}")
        wide = max(axes.at_x(float(end)) - x - 1, 0.5)
        bars.append(tag("rect", text, x=x, y=y, width=wide, height=round(height - BOTTOM - y, 1), fill=_colour(colour)))
    drawn = tag("svg", axes.frame(unit), *bars, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=title)
    mean, sd = values.mean(), values.std()
    return _figure(title, drawn, tag("figcaption", f"mean {number(float(mean))}, sd {number(float(sd))}"))


@dataclass(frozen=True)
class Bar:
    """A figure with its interval, and the single ones behind it as dots."""

    label: str
    value: float
    low: float
    high: float
    colour: int = 0
    dots: Sequence[float] = ()


def intervals(title: str, x_label: str, bars: Sequence[Bar], caption: str = "") -> Html:
    """Figures under each other on one axis, each with its interval and dots."""
    every = [v for bar in bars for v in (bar.value, bar.low, bar.high, *bar.dots) if math.isfinite(v)]
    if not every:
        return Html()
    pad = 0.04 * (max(every) - min(every)) or 0.05 * abs(every[0]) or 0.5
    height = TOP + BOTTOM + 34 * len(bars)
    axes = _Axes((min(every) - pad, max(every) + pad), (0, 1), height, 8)
    parts = [axes.frame(x_label, rows=False)]
    for i, bar in enumerate(bars):
        y, colour = TOP + 34 * i + 22, _colour(bar.colour)
        parts.append(tag("text", f"{bar.label}: {number(bar.value)}", x=axes.left, y=y - 9, class_="strong"))
        ends = {"x1": axes.at_x(bar.low), "x2": axes.at_x(bar.high)}
        parts.append(tag("line", **ends, y1=y, y2=y, stroke=colour, stroke_width=3))
        parts += [
            tag("circle", tag("title", number(v)), cx=axes.at_x(v), cy=y, r=3, fill=colour, opacity=0.5)
            for v in bar.dots
        ]
        place = axes.at_x(bar.value)
        parts.append(tag("line", x1=place, x2=place, y1=y - 6, y2=y + 6, stroke=colour, stroke_width=3))
    drawn = tag("svg", *parts, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=title)
    return _figure(title, drawn, tag("figcaption", caption) if caption else "")

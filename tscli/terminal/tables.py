"""Tables that give way where a terminal is narrow, column by column, so that no number is cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

WIDE_GAP, NARROW_GAP, LEAST_GAP = 4, 2, 1


def decimals(scale: float) -> int:
    """Decimals that tell returns of this size apart: 1 from 10 on, else 3 (many rewards add up to 1 at the most)."""
    return 1 if abs(scale) >= 10 else 3


def interval(low: float, high: float, text: Callable[[float], str]) -> str:
    """`-3.1 to 4.0`; where all values were alike nobody knows how far others would be off, and so it says."""
    return "all alike" if math.isclose(low, high, rel_tol=1e-9) else f"{text(low)} to {text(high)}"


class FitTable:
    """A table without lines that finds its form when it is printed, from the width that it then has.

    Where it is too wide, the gaps between columns shrink first, then the columns of `give_way` make room, one after the
    other, until it fits.

    Args:
        titles: of the columns.
        right: titles of those that are aligned to the right.
        give_way: title -> the width down to which the column is shortened; 0 drops it. In this order.
        title: a line above; "" for none.
        caption: a line below; "" for none.
        gap: columns between two columns, where there is room.
    """

    def __init__(
        self,
        titles: Sequence[str],
        right: Sequence[str] = (),
        give_way: Mapping[str, int] | None = None,
        title: str = "",
        caption: str = "",
        gap: int = WIDE_GAP,
    ) -> None:
        self._titles, self._right, self._give_way = list(titles), frozenset(right), dict(give_way or {})
        self._title, self._caption, self._gap = title, caption, gap
        self._rows: list[list[str]] = []

    def add(self, *cells: str) -> None:
        """A row; cells may hold rich markup."""
        self._rows.append(list(cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Print as much as the width allows."""
        from rich.text import Text

        columns = {
            title: [Text(title, style="bold"), *(Text.from_markup(row[i]) for row in self._rows)]
            for i, title in enumerate(self._titles)
        }
        widths = {title: max(cell.cell_len for cell in cells) for title, cells in columns.items()}
        gap = self._fit(widths, options.max_width)
        if self._title:
            yield Text(self._title, style="italic")
        shown = [self._column(columns[title], title, width) for title, width in widths.items()]
        for cells in zip(*shown, strict=True):
            line = Text(" " * gap, no_wrap=True, overflow="ellipsis").join(cells)
            line.rstrip()
            yield line
        if self._caption:
            yield Text.from_markup(self._caption, style="dim")

    def _fit(self, widths: dict[str, int], room: int) -> int:
        """Shorten and drop columns of `widths` until they fit, and give the gap between them."""
        for title, least in self._give_way.items():
            surplus = sum(widths.values()) + NARROW_GAP * (len(widths) - 1) - room
            if surplus <= 0:
                break
            if least:
                widths[title] = min(widths[title], max(least, widths[title] - surplus))
            else:
                del widths[title]
        gaps = range(LEAST_GAP, self._gap + 1)
        return max((gap for gap in gaps if sum(widths.values()) + gap * (len(widths) - 1) <= room), default=LEAST_GAP)

    def _column(self, cells: list[Text], title: str, width: int) -> list[Text]:
        """The column's cells, each of that width."""
        for cell in cells:
            cell.truncate(width, overflow="ellipsis")
            cell.align("right" if title in self._right else "left", width)
        return cells

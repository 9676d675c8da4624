"""What becomes of a policy where its env is another: a small plot per figure and varied setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tscli.pictures.curves import INK, new_figure, save_png, style_axis

_COLORS = ("#2563eb", "#9ca3af")


def draw_varied(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> Path:
    """A row of plots per figure, a column per setting, a line with its interval per policy.

    Args:
        path: PNG file to write.
        rows: of the report's "varied": a setting, its value, and each policy's figures there.
        title: above all.
    """
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    told = [entry.get("measures", {}) for row in rows for entry in row["policies"].values()]
    names = ["return", *(name for name in told[0] if all(name in each for each in told))]
    figure = new_figure(1.2 + 2.5 * len(settings), 0.9 + 1.35 * len(names))
    figure.suptitle(title, fontsize=10, color=INK)
    axes = figure.subplots(len(names), len(settings), squeeze=False, sharey="row", sharex="col")
    figure.subplots_adjust(left=0.9 / figure.get_figwidth(), right=0.97, bottom=0.5 / figure.get_figheight(),
                           top=1 - 0.35 / figure.get_figheight(), hspace=0.25, wspace=0.1)  # fmt: skip
    for column, setting in enumerate(settings):
        mine = [row for row in rows if row["setting"] == setting]
        values = [row["value"] for row in mine]
        at = values if all(isinstance(value, (int, float)) for value in values) else list(map(str, values))
        for line, name in enumerate(names):
            axis = axes[line, column]
            for role, color in zip(mine[0]["policies"], _COLORS, strict=False):
                found = [{**p, **p.get("measures", {})}[name] for p in (row["policies"][role] for row in mine)]
                axis.plot(at, [f["mean"] for f in found], color=color, marker="o", ms=3, lw=1.2, label=role)
                axis.fill_between(at, [f["low"] for f in found], [f["high"] for f in found], color=color, alpha=0.15)
            style_axis(axis, 7)
            if column == 0:
                axis.set_ylabel(name.replace(" [", "\n["), fontsize=7, color=INK)
        axes[-1, column].set_xlabel(setting, fontsize=8, color=INK)
    axes[0, 0].legend(fontsize=7, frameon=False)
    return save_png(path, figure)

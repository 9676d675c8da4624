"""Where policies go, on a map of the env's places: counted while they act, and drawn side by side."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tscli.envs import VecEnv
from tscli.pictures import curves

_MARKS = "os^vDP*"  # one for each place that the env names
_LEAST = 1e-3  # visits per episode that still have a colour


class Visits:
    """Counts the cells in which an env's agents stand. Call it before each step, with the slots that count."""

    def __init__(self, env: VecEnv) -> None:
        assert env.map_shape is not None
        self._env = env
        rows, columns = env.map_shape
        self.counts = torch.zeros(rows * columns, dtype=torch.int64, device=env.device)

    def __call__(self, running: Tensor) -> None:
        """Count those of the slots `running`, bool [N]."""
        self.counts.index_add_(0, self._env.map_cells(), running.long())

    def per_episode(self, episodes: int) -> Tensor:
        """Visits of each cell per episode: float [rows, columns]."""
        assert self._env.map_shape is not None
        return (self.counts / episodes).view(self._env.map_shape).cpu()


def draw_visits(path: Path, visits: Mapping[str, Tensor], marks: Mapping[str, int], title: str) -> Path:
    """A map per policy, all with one scale of colours, which is logarithmic.

    Args:
        path: PNG file to write.
        visits: of each policy, by its name: float [rows, columns], visits per episode.
        marks: cells to mark, by name, as row * columns + column.
        title: above them all.
    """
    from matplotlib.colors import LogNorm

    figure = curves.new_figure(3.1 * len(visits) + 0.9, 3.7)
    axes = figure.subplots(1, len(visits), squeeze=False)[0]
    figure.subplots_adjust(left=0.02, right=1 - 0.8 / figure.get_figwidth(), top=0.84, bottom=0.08, wspace=0.06)
    figure.suptitle(title, fontsize=10, color=curves.INK, y=0.97)
    most = max(float(value.max()) for value in visits.values())
    scale = LogNorm(_LEAST, max(most, 10 * _LEAST))
    image: Any = None
    for axis, (name, value) in zip(axes, visits.items(), strict=True):
        image = axis.imshow(value.masked_fill(value == 0, float("nan")).numpy(), cmap="viridis", norm=scale)
        axis.set_title(name, fontsize=9, color=curves.INK)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_color(curves.FAINT)
        for (label, cell), mark in zip(marks.items(), _MARKS, strict=False):
            row, column = divmod(cell, value.shape[1])
            axis.plot(column, row, mark, ms=7, mfc="none", mec="#dc2626", mew=1.4, label=label, ls="none")
    if marks:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="lower left", fontsize=8, ncols=len(labels), frameon=False)
    bar = figure.colorbar(image, ax=list(axes), fraction=0.03, pad=0.015)
    bar.set_label("visits per episode", fontsize=8, color=curves.INK)
    bar.ax.tick_params(labelsize=7, colors=curves.INK)
    return curves.save_png(path, figure)

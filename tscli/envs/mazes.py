"""How the colour maze's mazes are drawn at random; the docstring of `color_maze` says by what rules."""

from __future__ import annotations

import math

import numpy as np
import torch

from tscli.streams import stream_id, uniform

WHITE, LAVA, PATH, BORDER = range(4)

_SPLIT = stream_id("color_maze/split")
_PARTS = {"train": (0.0, 0.5), "select": (0.5, 0.75), "report": (0.75, 1.0)}  # of the hash, in [0, 1)


def draw_mazes(size: int, num_mazes: int, seed: int, split: str) -> np.ndarray:
    """A list of mazes from one part of all of them, LAVA and PATH in their own cells: uint8 [num_mazes, y, x]."""
    left, right = np.empty((2, num_mazes, size), np.int64)
    stream, (low, high) = stream_id(f"color_maze/{split}"), _PARTS[split]
    missing, attempt = torch.arange(num_mazes), 0
    while len(missing):
        draws = uniform(seed, stream, missing, torch.full_like(missing, attempt), 1 + 3 * _legs(size))
        lefts, rights = _trace_paths(draws.numpy(), size)
        score = _split_score(lefts, rights)
        fits = np.logical_and(low <= score, score < high)
        left[missing[fits]], right[missing[fits]] = lefts[fits], rights[fits]
        missing, attempt = missing[~fits], attempt + 1
    columns = np.arange(size)
    on_path = (columns >= left[..., None]) & (columns <= right[..., None])
    return np.where(on_path, PATH, LAVA).astype(np.uint8)


def draw_distinct(size: int, num_mazes: int, seed: int, split: str) -> np.ndarray:
    """The first `num_mazes` different ones that `draw_mazes` would list; fewer where more draws bring no other."""
    draws, known = num_mazes, 0
    while True:
        draws += -(-draws // 2)
        mazes = draw_mazes(size, draws, seed, split)
        _, places = np.unique(mazes.reshape(draws, -1), axis=0, return_index=True)
        if len(places) >= num_mazes or len(places) == known or draws > 1 << 18:
            return mazes[np.sort(places)[:num_mazes]]
        known = len(places)


def _legs(size: int) -> int:
    """The most times that a path goes down."""
    return math.ceil((size - 1) / 3)


def _trace_paths(draws: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Paths from uniform numbers [K, 1 + 3 * legs], row by row: from column left[k, y] to right[k, y], both [K, size].

    The numbers decide on the first column, then for each leg on the way down, the way sideways, and its side.
    """
    low, high = size // 4, 3 * size // 4
    column = low + (draws[:, 0] * (high - low)).astype(np.int64)
    y = np.zeros_like(column)
    left = np.repeat(column[:, None], size, axis=1)
    right = left.copy()
    rows = np.arange(size)
    for leg in range(_legs(size)):
        down, along, side = draws[:, 1 + 3 * leg : 4 + 3 * leg].T
        y = np.minimum(y + 3 + (down >= 0.5), size - 1)
        cells = np.minimum(1 + (3 * along).astype(np.int64), np.maximum(column - low, high - column) - 1)
        cells = np.where(side < 0.5, -cells, cells)
        leaves = (column + cells < low) | (column + cells >= high)
        target = np.where(leaves, column - cells, column + cells)
        target = np.where(y == size - 1, column, target)  # it has arrived
        turn, below = rows == y[:, None], rows > y[:, None]
        np.copyto(left, np.minimum(column, target)[:, None], where=turn)
        np.copyto(right, np.maximum(column, target)[:, None], where=turn)
        np.copyto(left, target[:, None], where=below)
        np.copyto(right, target[:, None], where=below)
        column = target
    return left, right


def _split_score(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Where each path lies among all paths: float [K] in [0, 1), a hash of its cells alone."""
    size = left.shape[1]
    key = np.zeros(len(left), np.int64)
    for y in range(size):
        key = key * 1_000_003 + left[:, y] * size + right[:, y]  # arrays of int64 wrap around
    keys = torch.from_numpy(key)
    return uniform(0, _SPLIT, keys, torch.zeros_like(keys), 1)[:, 0].numpy()

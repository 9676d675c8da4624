"""The colour maze: reach the other side of a grid, through a maze of lava or around it.

Written from the description in "Student-Informed Teacher Training" (Messikommer et al., ICLR 2025). A teacher that can
tell the path from the lava takes it, for it is short and pays. A student for whom both have one colour cannot follow,
and would have to be shown the way around.

The grid has `grid_size` x `grid_size` cells; positions are (x, y), and y grows downwards. In its middle, `margin` cells
from each border, lies the maze: lava, with one path from its top row to its bottom row. All other cells are white. With
the default sizes the maze takes 15 x 15 of 21 x 21 cells, the start is (10, 19) below it and the goal (10, 1) above it.

Actions: 0 right, 1 down, 2 left, 3 up, by one cell; a move into the border leaves the agent where it is.
Reward and ends, by the cell that is entered:

    goal    +10    terminated, success
    lava    -0.1   terminated, no success
    path    +0.5   for the first time in the episode
    path    -0.5   again
    white    0

An episode is truncated after `max_episode_steps`.

Groups, all float32 (entries of `colors` with `encoding: numeric` in brackets):

    goal_offset    [2]       goal minus position (x, y), in grid sizes; in cells with `scale_offset: false`
    colors         [20] [5]  kind of the own cell and of the ones below, right, above and left of it, privileged:
                             for each the one-hot of white, lava, path, border (or one number: 0, 1, 2, 4)
    masked_colors  [15] [5]  the same where lava and path have one colour:
                             for each the one-hot of white, colored, border (or one number: 0, 2, 4)
    last_move      [2]       position minus the position one step before, in cells; zeros at an episode's start

The path, in the maze's own n x n cells (n = 15): it starts in the top row, in a column drawn uniformly from
n//4 .. 3n//4 - 1. It goes down by 3 or 4 cells, at most to the last row, where it ends; else it goes sideways by 1 to 3
cells, but by no more than max(x - n//4, 3n//4 - x) - 1, to the left or to the right (a fair coin), turned around where
it would leave those columns; and so on. All draws are uniform.

Mazes: `maze_seed` names a list of `num_mazes` of them. With `redraw: episode` each episode takes one at random, by
(seed, env, episode); with `redraw: never` env i keeps maze i modulo `num_mazes`. All possible mazes are divided into
two halves by a hash of their cells; `held_out` says from which half the list is drawn. So no held-out maze is ever one
of those trained on, whatever the seeds. Maze k of a list is a function of (maze_seed, held_out, k) alone.

The published environment differs in what looks like oversights: its last move was two steps old and went on from one
episode to the next, and a death in the lava counted as a success. Its numeric colours, its unscaled offset and its
fixed mazes are the settings `encoding: numeric`, `scale_offset: false` and `redraw: never`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tscli.config import Config, UserError, did_you_mean
from tscli.envs import EnvStep, VecEnv
from tscli.spaces import ActionSpec, Group
from tscli.streams import stream_id, uniform

__all__ = ["BORDER", "LAVA", "PATH", "WHITE", "Env", "EnvConfig", "draw_mazes"]

Array = Any  # np.ndarray on a CPU, torch.Tensor elsewhere

WHITE, LAVA, PATH, BORDER = range(4)
_GOAL = 4  # the goal's cell is white; only the table of what is entered tells it apart

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # (x, y) of each action
_STILL = 4
_MIN_MAZE = 6  # narrower mazes have too few columns to turn in

_AHEAD = 32  # episodes per env whose mazes are drawn at once, since a small hash costs as much as a large one
_TRAIL = 64  # positions that a picture shows
_NEVER = -1  # no episode's number

_DRAW = stream_id("color_maze/draw")
_HALF = stream_id("color_maze/half")
_LISTS = {False: stream_id("color_maze/train"), True: stream_id("color_maze/held_out")}


class EnvConfig(Config):
    """Settings of the colour maze."""

    grid_size: int = Field(default=21, ge=10, le=99, description="Cells along each side of the grid.")
    margin: int = Field(default=3, ge=2, le=40, description="White cells between the maze and each border.")
    max_episode_steps: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Steps after which an episode is truncated; none: one per cell."
    )
    num_mazes: int = Field(default=1000, ge=1, le=200_000, description="Mazes in the list that episodes draw from.")
    redraw: Literal["episode", "never"] = Field(
        default="episode", description="Whether each episode draws a maze, or env i keeps maze i modulo num_mazes."
    )
    maze_seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the list of mazes.")
    held_out: bool = Field(default=False, description="Take mazes that are never trained on, for evaluation.")
    encoding: Literal["one_hot", "numeric"] = Field(
        default="one_hot", description="Colours as one-hot vectors, or as the published numbers 0, 1, 2, 4."
    )
    scale_offset: bool = Field(default=True, description="Give the goal's offset in grid sizes; false: in cells.")

    @model_validator(mode="after")
    def _maze_fits(self) -> EnvConfig:
        if self.maze_size < _MIN_MAZE:
            raise ValueError(
                f"margin {self.margin} leaves {self.maze_size} of grid_size {self.grid_size} cells for the maze, which "
                f"needs {_MIN_MAZE}: give a margin of at most {(self.grid_size - _MIN_MAZE) // 2} or a larger grid"
            )
        return self

    @property
    def maze_size(self) -> int:
        """Cells along each side of the maze."""
        return self.grid_size - 2 * self.margin


def draw_mazes(config: EnvConfig) -> np.ndarray:
    """The list of mazes: kind of each cell, uint8 [num_mazes, grid_size (y), grid_size (x)]."""
    size, first, last = config.maze_size, config.margin, config.grid_size - config.margin
    left, right = _draw_paths(config)
    columns = np.arange(size)
    on_path = (columns >= left[..., None]) & (columns <= right[..., None])
    kinds = np.full((config.num_mazes, config.grid_size, config.grid_size), WHITE, np.uint8)
    kinds[:, first:last, first:last] = np.where(on_path, PATH, LAVA)
    return kinds


def _draw_paths(config: EnvConfig) -> tuple[np.ndarray, np.ndarray]:
    """The path of each maze, row by row: columns left[k, y] to right[k, y], both [num_mazes, maze_size]."""
    size = config.maze_size
    left, right = np.empty((2, config.num_mazes, size), np.int64)
    missing, attempt = torch.arange(config.num_mazes), 0
    while len(missing):
        draws = uniform(
            config.maze_seed, _LISTS[config.held_out], missing, torch.full_like(missing, attempt), 1 + 3 * _legs(size)
        )
        lefts, rights = _trace_paths(draws.numpy(), size)
        fits = _in_held_out_half(lefts, rights) == config.held_out
        left[missing[fits]], right[missing[fits]] = lefts[fits], rights[fits]
        missing, attempt = missing[~fits], attempt + 1
    return left, right


def _legs(size: int) -> int:
    """The most times that a path goes down."""
    return math.ceil((size - 1) / 3)


def _trace_paths(draws: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Paths from uniform numbers [K, 1 + 3 * legs], as `_draw_paths` gives them.

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


def _in_held_out_half(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Whether each path belongs to the held-out half of all paths: bool [K], a function of its cells alone."""
    size = left.shape[1]
    key = np.zeros(len(left), np.int64)
    for y in range(size):
        key = key * 1_000_003 + left[:, y] * size + right[:, y]  # arrays of int64 wrap around
    keys = torch.from_numpy(key)
    return uniform(0, _HALF, keys, torch.zeros_like(keys), 1)[:, 0].numpy() < 0.5

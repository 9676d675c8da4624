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

Groups, all float32; the sizes are those with `encoding: one_hot`, and in brackets those with `encoding: numeric`:

    goal_offset    [2]         goal minus position (x, y), in grid sizes; in cells with `scale_offset: false`
    colors         [20] ([5])  kind of the own cell and of the ones below, right, above and left of it, privileged:
                               for each the one-hot of white, lava, path, border (or one number: 0, 1, 2, 4)
    masked_colors  [15] ([5])  the same where lava and path have one colour:
                               for each the one-hot of white, colored, border (or one number: 0, 2, 4)
    last_move      [2]         position minus the position one step before, in cells; zeros at an episode's start

The path, in the maze's own n x n cells (n = 15): it starts in the top row, in a column drawn uniformly from
n//4 .. 3n//4 - 1. It goes down by 3 or 4 cells, at most to the last row, where it ends; else it goes sideways by 1 to 3
cells, but by no more than max(x - n//4, 3n//4 - x) - 1, to the left or to the right (a fair coin), turned around where
it would leave those columns; and so on. All draws are uniform.

Mazes: `maze_seed` names a list of `num_mazes` of them. With `redraw: episode` each episode takes one at random, by
(seed, env, episode); with `redraw: never` env i keeps maze i modulo `num_mazes`. All possible mazes are divided by a
hash of their cells: a half to train on, a quarter to select a policy on, a quarter to report on; `split` says from
which part the list is drawn. So no maze that a policy is measured on is ever one of those that it was trained on or
chosen by, whatever the seeds. (Another seed alone would not do: there are about 25 000 different mazes of 15 x 15
cells, not equally likely, and one in nine would be among 1000 others.) Maze k of a list is a function of
(maze_seed, split, k) alone.

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
from tscli.envs.spaces import ActionSpec, Group
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
_SPLIT = stream_id("color_maze/split")
_PARTS = {"train": (0.0, 0.5), "select": (0.5, 0.75), "report": (0.75, 1.0)}  # of the hash, in [0, 1)
_LISTS = {split: stream_id(f"color_maze/{split}") for split in _PARTS}


_COLORS = {WHITE: "#f7f8fa", LAVA: "#e4572e", PATH: "#5b9bd5"}
_NAVY = (46, 64, 87)


def _copy(array: Array) -> Array:
    return array.copy() if isinstance(array, np.ndarray) else array.clone()


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
    split: Literal["train", "select", "report"] = Field(
        default="train", description="Which mazes: to train on, to choose a policy by, or to measure it on."
    )
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
            config.maze_seed, _LISTS[config.split], missing, torch.full_like(missing, attempt), 1 + 3 * _legs(size)
        )
        lefts, rights = _trace_paths(draws.numpy(), size)
        low, high = _PARTS[config.split]
        score = _split_score(lefts, rights)
        fits = np.logical_and(low <= score, score < high)
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


def _split_score(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Where each path lies among all paths: float [K] in [0, 1), a hash of its cells alone."""
    size = left.shape[1]
    key = np.zeros(len(left), np.int64)
    for y in range(size):
        key = key * 1_000_003 + left[:, y] * size + right[:, y]  # arrays of int64 wrap around
    keys = torch.from_numpy(key)
    return uniform(0, _SPLIT, keys, torch.zeros_like(keys), 1)[:, 0].numpy()


# What stands in a cell's number: its own kind in 3 bits, then those of the cells below, right, above, left in 2 each.
_SHIFTS = (0, 3, 5, 7, 9)
_MASKS = (7, 3, 3, 3, 3)
_AROUND = ("own", "below", "right", "above", "left")


def _number_cells(kinds: np.ndarray, goal: tuple[int, int]) -> np.ndarray:
    """Each cell's kind and its neighbours' in one number: int16 [num_mazes, y, x] from kinds of that shape."""
    padded = np.pad(kinds, ((0, 0), (1, 1), (1, 1)), constant_values=BORDER)
    size = kinds.shape[1]
    numbers = kinds.astype(np.int16)
    numbers[:, goal[1], goal[0]] = _GOAL
    for (dx, dy), shift in zip(((0, 1), (1, 0), (0, -1), (-1, 0)), _SHIFTS[1:], strict=True):
        neighbour = padded[:, 1 + dy : 1 + dy + size, 1 + dx : 1 + dx + size]
        numbers |= neighbour.astype(np.int16) << shift
    return numbers


def _color_table(values: np.ndarray) -> np.ndarray:
    """What is seen of each number of `_number_cells`: float32 [2048, 5 * D], given what is seen of a kind, [4, D]."""
    of_kind = np.concatenate([values, values[[WHITE] * 4]])  # the goal is white, and there are no kinds 5 to 7
    numbers = np.arange(1 << 11)
    parts = [of_kind[(numbers >> shift) & mask] for shift, mask in zip(_SHIFTS, _MASKS, strict=True)]
    return np.concatenate(parts, axis=1).astype(np.float32)


def _moves(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Next cell, and the move that led there (its action, or none), of cell * 4 + action: both [size**2 * 4]."""
    cells = np.arange(size * size, dtype=np.int64)
    x, y = cells % size, cells // size
    after, moved = np.empty((2, size * size, 4), np.int64)
    for action, (dx, dy) in enumerate(_STEPS):
        inside = (x + dx >= 0) & (x + dx < size) & (y + dy >= 0) & (y + dy < size)
        after[:, action] = np.where(inside, cells + dx + dy * size, cells)
        moved[:, action] = np.where(inside, action, _STILL)
    return after.ravel(), moved.ravel()


def _groups(config: EnvConfig) -> dict[str, Group]:
    one_hot = config.encoding == "one_hot"

    def colors(kinds: tuple[str, ...], privileged: bool, about: str) -> Group:
        fields = tuple(f"{where}_{kind}" for where in _AROUND for kind in kinds) if one_hot else _AROUND
        high = 1.0 if one_hot else 4.0
        return Group((len(fields),), fields=fields, low=0.0, high=high, privileged=privileged, about=about)

    reach, unit = (1.0, "grid sizes") if config.scale_offset else (float(config.grid_size), "cells")
    return {
        "goal_offset": Group(
            (2,), fields=("x", "y"), units=(unit,), low=-reach, high=reach, about="Goal minus position; y grows down."
        ),
        "colors": colors(
            ("white", "lava", "path", "border"), True, "Kinds of the own cell and the four next to it, all told apart."
        ),
        "masked_colors": colors(
            ("white", "colored", "border"), False, "The same cells where lava and path have one colour."
        ),
        "last_move": Group(
            (2,), fields=("x", "y"), units=("cells",), low=-1.0, high=1.0, about="Position minus the one a step before."
        ),
    }


class Env(VecEnv):
    """N colour mazes; the module's docstring is the specification.

    A step looks up and computes little: a position is one number (y * grid_size + x), each cell of each maze has a
    number that stands for what is seen there, and every group is a row of a table. On a CPU NumPy does it, whose
    operations on small arrays cost a third of torch's; on a GPU torch does, by the same lines.
    """

    has_success = True
    action = ActionSpec("discrete", nvec=(4,), names=("right", "down", "left", "up"))

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.max_episode_steps: int = config.max_episode_steps or config.grid_size**2
        self.groups = _groups(config)
        self._config = config
        self._start = (config.grid_size - 2) * config.grid_size + config.grid_size // 2
        self.map_shape = config.grid_size, config.grid_size
        self.map_marks = {"start": self._start, "goal": config.grid_size + config.grid_size // 2}
        self._build(np if self.device.type == "cpu" else torch)

    def _build(self, xp: Any) -> None:
        """Make the tables as arrays of NumPy or torch, and stand as after `reset(0)`."""
        self._xp = xp
        config, size = self._config, self._config.grid_size
        self._num_cells = size * size
        goal = (size // 2, 1)
        self._kinds = self._array(_number_cells(draw_mazes(config), goal).ravel())
        self._after, self._moved = (self._array(table) for table in _moves(size))
        # Of the cell that is entered: its kind, plus 8 where the episode was there before.
        self._reward = self._array(np.array([0, -0.1, 0.5, 0, 10, 0, 0, 0, 0, -0.1, -0.5, 0, 10], np.float32))
        cells = np.arange(self._num_cells, dtype=np.int64)
        offset = np.array(goal) - np.stack([cells % size, cells // size], axis=1)
        one_hot, masked = np.eye(4), np.eye(3)[[0, 1, 1, 2]]
        if config.encoding == "numeric":
            one_hot, masked = np.array([[0], [1], [2], [4]]), np.array([[0], [2], [2], [4]])
        tables = {
            "goal_offset": (offset / size if config.scale_offset else offset).astype(np.float32),
            "colors": _color_table(one_hot),
            "masked_colors": _color_table(masked),
            "last_move": np.array([*_STEPS, (0, 0)], np.float32),
        }
        self._tables = {name: self._array(table) for name, table in tables.items()}
        self._first_visit = self._array(np.arange(self.num_envs, dtype=np.int64) * self._num_cells)
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._seed = seed
        self._steps = self._array(np.zeros(self.num_envs, np.int32))
        self._episode = self._array(np.zeros(self.num_envs, np.int32))
        # Number of the episode that was last in a cell, so that a new episode has nothing to clear.
        self._visited = self._array(np.full(self.num_envs * self._num_cells, _NEVER, np.int32))
        cell = self._array(np.full(self.num_envs, self._start, np.int64))
        self._begin(cell, self._array(np.full(self.num_envs, _STILL, np.int64)))

    def start_part_way(self, generator: torch.Generator) -> None:
        steps = torch.randint(self.max_episode_steps, (self.num_envs,), generator=generator, device=generator.device)
        self._steps = self._array(steps.to(torch.int32))

    def _begin(self, cell: Array, move: Array) -> None:
        """Stand there, in the mazes of the current episodes."""
        self._draw_ahead()
        self._stand_at(cell, move, self._ahead[:, 0])
        self._final = self._cell, self._move, self._maze
        self._time = 0
        self._trail = self._array(np.zeros((_TRAIL, self.num_envs), np.int16))
        self._trail[0] = cell

    def step(self, action: Tensor) -> EnvStep:
        choice = self._cell * 4 + self._array(action)
        cell, move = self._after.take(choice), self._moved.take(choice)
        kind = self._kinds.take(self._maze + cell) & 7
        visit = self._first_visit + cell
        before = self._visited.take(visit) == self._episode
        self._visited[visit] = self._episode
        reward = self._reward.take(kind + 8 * before)
        success = kind == _GOAL
        terminated = success | (kind == LAVA)
        self._steps += 1
        truncated = (self._steps >= self.max_episode_steps) & ~terminated  # terminated wins
        done = terminated | truncated
        self._stand_at(cell, move, self._maze)
        self._final = cell, move, self._maze
        if done.any():
            self._restart(done)
        self._time += 1
        self._trail[self._time % _TRAIL] = self._cell
        return EnvStep(*(self._tensor(part) for part in (reward, terminated, truncated, success)))

    def observe(self, group: str, rows: Tensor | None = None) -> Tensor:
        self._check(group)
        if group in self._seen:
            return self._seen[group] if rows is None else self._seen[group][rows]
        here = self._cell, self._move, self._maze
        if rows is not None:
            index = self._array(rows)
            return self._look(group, *(part[index] for part in here))
        self._seen[group] = self._look(group, *here)
        return self._seen[group]

    def final_observation(self, group: str, rows: Tensor) -> Tensor:
        self._check(group)
        index = self._array(rows)
        return self._look(group, *(part[index] for part in self._final))

    def map_cells(self) -> Tensor:
        return self._tensor(self._cell).clone()

    def state_dict(self) -> dict[str, Any]:
        visited = self._visited.reshape(self.num_envs, -1) == self._episode[:, None]
        parts = {"cell": self._cell, "move": self._move, "steps": self._steps, "episode": self._episode}
        return {
            "seed": self._seed,
            "visited": self._tensor(visited),
            **{name: self._tensor(part).clone() for name, part in parts.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.check_saved(len(state["cell"]))
        self._seed = int(state["seed"])
        self._steps = self._array(state["steps"].clone())
        self._episode = self._array(state["episode"].clone())
        visited = torch.where(state["visited"], state["episode"][:, None], _NEVER)
        self._visited = self._array(visited.to(torch.int32).flatten())
        self._begin(self._array(state["cell"].clone()), self._array(state["move"].clone()))

    def _stand_at(self, cell: Array, move: Array, maze: Array) -> None:
        self._cell, self._move, self._maze = cell, move, maze
        self._seen: dict[str, Tensor] = {}

    def _look(self, group: str, cell: Array, move: Array, maze: Array) -> Tensor:
        """What is seen at those cells of those mazes after those moves: float32 [K, D]."""
        if group == "goal_offset":
            index = cell
        elif group == "last_move":
            index = move
        else:
            index = self._kinds.take(maze + cell)
        if self._xp is np:
            return torch.from_numpy(self._tables[group].take(index, axis=0))
        return self._tables[group].index_select(0, index.long())

    def _restart(self, done: Array) -> None:
        """Put rows at the start of their next episode; `_final` keeps where they ended."""
        rows = self._xp.where(done)[0]
        self._steps[rows] = 0
        self._episode[rows] += 1
        ahead = self._episode[rows] - self._first[rows]
        if (ahead == _AHEAD).any():
            self._draw_ahead()
            ahead = self._episode[rows] - self._first[rows]
        self._cell, self._move, self._maze = (_copy(part) for part in self._final)
        self._cell[rows] = self._start
        self._move[rows] = _STILL
        self._maze[rows] = self._ahead[rows, ahead]

    def _draw_ahead(self) -> None:
        """Draw the mazes of each env's next episodes: `_ahead` [N, _AHEAD] is where they begin in `_kinds`."""
        self._first = _copy(self._episode)
        env = torch.arange(self.num_envs, device=self.device).repeat_interleave(_AHEAD)
        if self._config.redraw == "never":
            maze = env % self._config.num_mazes
        else:
            episode = self._tensor(self._first)[:, None] + torch.arange(_AHEAD, device=self.device)
            draws = uniform(self._seed, _DRAW, env, episode.flatten(), 1)[:, 0]
            maze = (draws * self._config.num_mazes).long()
        self._ahead = self._array((maze * self._num_cells).view(self.num_envs, _AHEAD))

    def _array(self, values: Tensor | np.ndarray) -> Array:
        if self._xp is np:
            return values if isinstance(values, np.ndarray) else values.numpy()
        return torch.as_tensor(values).to(self.device)

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(array) if self._xp is np else array

    def _check(self, group: str) -> None:
        if group not in self.groups:
            raise UserError(f'unknown observation group "{group}": {did_you_mean(group, self.groups)}')

    def render(self, row: int = 0) -> np.ndarray:
        """The maze from above, about 420 x 420: uint8 [H, H, 3].

        White, lava (orange-red) and path (blue); the goal is the green target, the start a grey ring, and the agent a
        dark disc with its last steps as a fading line.
        """
        from PIL import Image, ImageDraw

        size = self._config.grid_size
        pixels = 2 * max(4, 420 // size)  # of a cell, drawn at twice the size for smooth edges
        kinds = self._tensor(self._kinds[int(self._maze[row]) :][: self._num_cells]) & 7
        image = Image.new("RGB", (size * pixels, size * pixels), "#dfe3e9")
        draw = ImageDraw.Draw(image)

        def box(cell: int, part: float) -> tuple[float, float, float, float]:
            y, x = divmod(cell, size)
            edge = (1 - part) / 2 * pixels
            left, top = x * pixels, y * pixels
            return left + edge, top + edge, left + pixels - 1 - edge, top + pixels - 1 - edge

        for cell, kind in enumerate(kinds.tolist()):
            draw.rectangle(box(cell, 0.94), fill=_COLORS.get(kind, _COLORS[WHITE]))
            if kind == _GOAL:
                draw.ellipse(box(cell, 0.9), fill="#2e9e62")
                draw.ellipse(box(cell, 0.58), fill="#f7f8fa")
                draw.ellipse(box(cell, 0.3), fill="#2e9e62")
        draw.ellipse(box(self._start, 0.8), outline="#8b97a8", width=pixels // 10)
        self._draw_trail(image, row, pixels)
        draw.ellipse(box(int(self._cell[row]), 0.78), fill=_NAVY, outline="#f7f8fa", width=pixels // 12)
        return np.asarray(image.reduce(2))

    def _draw_trail(self, image: Any, row: int, pixels: int) -> None:
        """Where the agent came from, the fainter the longer ago."""
        from PIL import Image, ImageDraw

        size = self._config.grid_size
        length = min(int(self._steps[row]), self._time, _TRAIL - 1)
        cells = [int(self._trail[time % _TRAIL, row]) for time in range(self._time - length, self._time + 1)]
        points = [((cell % size + 0.5) * pixels, (cell // size + 0.5) * pixels) for cell in cells]
        shade = Image.new("L", image.size, 0)
        draw = ImageDraw.Draw(shade)
        width = pixels * 0.22
        for age in range(length, 0, -1):
            strength = round(255 * (1 - 0.85 * age / _TRAIL))
            (x, y), (to_x, to_y) = points[-age - 1], points[-age]
            left, right, top, bottom = min(x, to_x), max(x, to_x), min(y, to_y), max(y, to_y)
            corners = (left - width / 2, top - width / 2, right + width / 2, bottom + width / 2)
            draw.rounded_rectangle(corners, width / 2, fill=strength)
        image.paste(_NAVY, mask=shade)

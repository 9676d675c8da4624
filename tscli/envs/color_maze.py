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

Mazes: all possible ones are divided by a hash of their cells: a half to train on, a quarter to select a policy on, a
quarter to report on; `split` says which part is played. So no maze that a policy is measured on is ever one of those
that it was trained on or chosen by, whatever the seeds. (Another seed alone would not do: there are about 25 000
different mazes of 15 x 15 cells, not equally likely, and one in nine would be among 1000 others.)

To train on (`split: train`), `maze_seed` names a list of `num_mazes` of them, whose maze k is a function of
(maze_seed, k) alone. With `redraw: episode` each episode takes one at random, by (seed, env, episode); with
`redraw: never` env i keeps maze i modulo `num_mazes`.

To measure on (`split: select` or `report`), each `reset(seed)` draws a list of its own by that seed, without doubles:
of `num_mazes`, or of as many as there are episodes to be counted, if these are more. Episode k of env i takes maze
i + k * N of it, modulo its length, so that no two episodes of a measurement are in the same maze. Only where more draws
bring no other maze, since small ones are few, is the list shorter.

The published environment differs in what looks like oversights: its last move was two steps old and went on from one
episode to the next, and a death in the lava counted as a success. Its numeric colours, its unscaled offset and its
fixed training mazes are the settings `encoding: numeric`, `scale_offset: false` and `redraw: never`.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tscli.config import Config
from tscli.envs import EnvStep
from tscli.envs.mazes import BORDER, LAVA, PATH, WHITE, draw_distinct, draw_mazes
from tscli.envs.native import AHEAD, Array, Move, NativeEnv
from tscli.envs.spaces import ActionSpec, Group
from tscli.streams import stream_id

_GOAL = 4  # the goal's cell is white; only the table of what is entered tells it apart

_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))  # (x, y) of each action
_STILL = 4
_MIN_MAZE = 6  # narrower mazes have too few columns to turn in

_TRAIL = 64  # positions that a picture shows
_NEVER = -1  # no episode's number

_COLORS = {WHITE: "#f7f8fa", LAVA: "#e4572e", PATH: "#5b9bd5"}
_NAVY = (46, 64, 87)


class EnvConfig(Config):
    """Settings of the colour maze."""

    grid_size: int = Field(default=21, ge=10, le=99, description="Cells along each side of the grid.")
    margin: int = Field(default=3, ge=2, le=40, description="White cells between the maze and each border.")
    max_episode_steps: int | None = Field(
        default=None, ge=1, le=1_000_000, description="Steps after which an episode is truncated; none: one per cell."
    )
    num_mazes: int = Field(
        default=1000, ge=1, le=200_000, description="Mazes in the list that episodes take theirs from."
    )
    redraw: Literal["episode", "never"] = Field(
        default="episode", description="In training: each episode draws a maze, or env i keeps maze i modulo num_mazes."
    )
    maze_seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of the list to train on.")
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


def _goal(config: EnvConfig) -> tuple[int, int]:
    return config.grid_size // 2, 1


def _maze_table(config: EnvConfig, mazes: np.ndarray) -> np.ndarray:
    """The numbers of all cells of all mazes [num_mazes, y, x] with their margins, in one row."""
    kinds = np.pad(mazes, ((0, 0), *[(config.margin, config.margin)] * 2), constant_values=WHITE)
    return _number_cells(kinds, _goal(config)).ravel()


def _tables(config: EnvConfig, num_envs: int) -> dict[str, np.ndarray]:
    """What a step looks up: of each group what is seen, and beside them what the `Env` calls by their names."""
    size, goal = config.grid_size, _goal(config)
    training = config.num_mazes if config.split == "train" else 0  # others are drawn by `reset`
    mazes = draw_mazes(config.maze_size, training, config.maze_seed, config.split)
    after, moved = _moves(size)
    cells = np.arange(size**2)
    offset = np.array(goal) - np.stack([cells % size, cells // size], axis=1)
    one_hot, masked = np.eye(4), np.eye(3)[[0, 1, 1, 2]]
    if config.encoding == "numeric":
        one_hot, masked = np.array([[0], [1], [2], [4]]), np.array([[0], [2], [2], [4]])
    # Of the number of the cell that is entered, plus 2048 where the episode was there before.
    kind = np.arange(1 << 11) & _MASKS[0]
    pays = np.array([0, -0.1, 0.5, 0, 10, 0, 0, 0, 0, -0.1, -0.5, 0, 10, 0, 0, 0], np.float32)
    return {
        "goal_offset": (offset / size if config.scale_offset else offset).astype(np.float32),
        "colors": _color_table(one_hot),
        "masked_colors": _color_table(masked),
        "last_move": np.array([*_STEPS, (0, 0)], np.float32),
        "number": _maze_table(config, mazes),
        "after": after,
        "moved": moved,
        "reward": pays[np.concatenate([kind, kind + 8])],
        "success": kind == _GOAL,
        "terminal": (kind == _GOAL) | (kind == LAVA),
        "first_visit": np.arange(num_envs) * size**2,
    }


class Env(NativeEnv):
    """N colour mazes; the module's docstring is the specification.

    A step looks up and computes little: a position is one number (y * grid_size + x), each cell of each maze has a
    number that stands for what is seen there, and every group is a row of a table. The state's four rows are the cell,
    the move that led there, where the maze begins among the cells of all, and the cell's number.
    """

    starts = ((0.0, 1.0),)  # the draw that decides on the maze
    action = ActionSpec("discrete", nvec=(4,), names=("right", "down", "left", "up"))
    _stream = stream_id("color_maze/draw")
    _counts = torch.int32

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        size = config.grid_size
        self.groups = _groups(config)
        self._config, self._start = config, (size - 2) * size + size // 2
        self._listed = 0, 0, 0  # what list the table holds: the seed, mazes that were wanted, and that there are
        self.map_shape = size, size
        self.map_marks = {"start": self._start, "goal": size + size // 2}
        super().__init__(config.max_episode_steps or size**2, num_envs, device, _tables(config, num_envs))

    def _begin(self, draws: Tensor) -> Tensor:
        num = self._config.num_mazes
        if self._config.split != "train":
            maze = self._unplayed()
        elif self._config.redraw == "never":
            maze = (self._tensor(self._rows) % num).expand(draws.shape[1:])
        else:
            maze = (draws[0] * num).long()
        maze = maze * self._config.grid_size**2
        start, still = torch.full_like(maze, self._start), torch.full_like(maze, _STILL)
        number = self._tensor(self._tables["number"]).take(maze + self._start)
        return torch.stack((start, still, maze, number.long()))

    def _unplayed(self) -> Tensor:
        """Places in the seed's list of the mazes of each env's next episodes, [AHEAD, N]."""
        config, wanted = self._config, max(self._config.num_mazes, self.num_envs * self.per_slot)
        if self._listed[:2] != (self._seed, wanted):
            mazes = draw_distinct(config.maze_size, wanted, self._seed, config.split)
            self._tables["number"] = self._array(torch.from_numpy(_maze_table(config, mazes)))
            self._listed = self._seed, wanted, len(mazes)
        episode = self._tensor(self._first) + torch.arange(AHEAD, device=self.device)[:, None]
        return (self.first + self._tensor(self._rows) + episode * self.num_envs) % self._listed[2]

    def reset(self, seed: int) -> None:
        # Number of the episode that was last in a cell, so that a new episode has nothing to clear.
        size = self.num_envs * self._config.grid_size**2
        self._visited = self._array(torch.full((size,), _NEVER, dtype=self._counts, device=self.device))
        super().reset(seed)
        self._begin_trail()

    def _begin_trail(self) -> None:
        self._time = 0
        self._trail = self._array(torch.zeros((_TRAIL, self.num_envs), dtype=torch.int16, device=self.device))
        self._trail[0] = self._state[0]

    def step(self, action: Tensor) -> EnvStep:
        result = super().step(action)
        self._time += 1
        self._trail[self._time % _TRAIL] = self._state[0]
        return result

    def _advance(self, state: Array, action: Array) -> Array:
        choice = state[0] * 4 + action
        after = self._xp.empty_like(state)
        after[0] = cell = self._tables["after"].take(choice)
        after[1] = self._tables["moved"].take(choice)
        after[2] = maze = state[2]
        after[3] = self._tables["number"].take(maze + cell)
        return after

    def _terminal(self, state: Array) -> Array:
        return self._tables["terminal"].take(state[3])

    def _outcome(self, move: Move, terminated: Tensor, truncated: Tensor) -> tuple[Tensor, Tensor]:
        number, visit = move.after[3], self._tables["first_visit"] + move.after[0]
        before = self._visited.take(visit) == self._episode
        self._visited[visit] = self._episode
        reward, success = self._tables["reward"].take(number + 2048 * before), self._tables["success"].take(number)
        return self._tensor(reward), self._tensor(success)

    def _fields(self, group: str, state: Array) -> Array:
        table, index = self._tables[group], state[{"goal_offset": 0, "last_move": 1}.get(group, 3)]
        return (table.take(index, axis=0) if self._xp is np else table.index_select(0, index)).T

    def map_cells(self) -> Tensor:
        return self._tensor(self._state[0]).clone()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        cell, move, _, _ = state.pop("state")
        visited = self._visited.reshape(self.num_envs, -1) == self._episode[:, None]
        return {**state, "cell": cell.clone(), "move": move.clone(), "visited": self._tensor(visited)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        unknown = torch.zeros_like(state["cell"])  # the maze is that of the episode
        super().load_state_dict({**state, "state": torch.stack((state["cell"], state["move"], unknown, unknown))})
        self._state[2] = self._starts[2, 0]
        self._state[3] = self._tables["number"].take(self._state[2] + self._state[0])
        visited = torch.where(state["visited"], state["episode"][:, None], _NEVER)
        self._visited = self._array(visited.to(self._counts).flatten())
        self._begin_trail()

    def render(self, row: int = 0) -> np.ndarray:
        """The maze from above, about 420 x 420: uint8 [H, H, 3].

        White, lava (orange-red) and path (blue); the goal is the green target, the start a grey ring, and the agent a
        dark disc with its last steps as a fading line.
        """
        from PIL import Image, ImageDraw

        size = self._config.grid_size
        pixels = 2 * max(4, 420 // size)  # of a cell, drawn at twice the size for smooth edges
        agent, _, maze, _ = self._state[:, row].tolist()
        kinds = self._tables["number"][maze : maze + size**2] & 7
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
        draw.ellipse(box(agent, 0.78), fill=_NAVY, outline="#f7f8fa", width=pixels // 12)
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

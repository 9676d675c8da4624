"""Windows over pairs: which stretches of steps there are, how they are numbered and drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from tscli.config import UserError

if TYPE_CHECKING:
    import torch

Start = Literal["anywhere", "full", "tile", "episode"]
STARTS: tuple[str, ...] = get_args(Start)
_ARRAYS = ("shard", "row", "valid_length", "episode", "step", "cut", "previous_action")


@dataclass(frozen=True)
class Windows:
    """B windows of up to T steps, each inside one segment; every array is [B]. Made by `WindowIndex`.

    Attributes:
        length: T.
        shard, row: where a window begins.
        valid_length: steps it has; the rest up to T repeats the last one.
        episode: its episode's number.
        step: first step, counted within the episode; 0 where the episode begins, and with it the hidden state.
        cut: whether it begins with its segment, so that the action before lies in another shard.
        previous_action: executed before the first step; meaningful where `cut`.
        generation: of the reader's row numbers.
    """

    length: int
    shard: np.ndarray
    row: np.ndarray
    valid_length: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    cut: np.ndarray
    previous_action: np.ndarray
    generation: int

    def __len__(self) -> int:
        return len(self.row)

    def part(self, which: slice | np.ndarray) -> Windows:
        """Some of the windows."""
        return Windows(self.length, *(getattr(self, name)[which] for name in _ARRAYS), generation=self.generation)

    def stretch(self, which: np.ndarray, offset: np.ndarray, length: int) -> Windows:
        """Of the windows of those numbers, `length` steps from `offset` on, as far as they go."""
        whole = self.part(which)
        return Windows(
            length=length,
            shard=whole.shard,
            row=whole.row + offset,
            valid_length=np.minimum(whole.valid_length - offset, length),
            episode=whole.episode,
            step=whole.step + offset,
            cut=whole.cut & (offset == 0),
            previous_action=whole.previous_action,
            generation=whole.generation,
        )

    @property
    def valid(self) -> np.ndarray:
        """[T, B] bool: True for steps that are there, False for padding."""
        return np.arange(self.length)[:, None] < self.valid_length

    @property
    def first(self) -> np.ndarray:
        """[T, B] bool: True at an episode's first step, where hidden states start anew."""
        first = np.zeros((self.length, len(self)), bool)
        first[0] = self.step == 0
        return first

    @cached_property
    def rows(self) -> np.ndarray:
        """[B, T]: row within the shard of every step; padding repeats the last."""
        return self.row[:, None] + self.position

    @cached_property
    def position(self) -> np.ndarray:
        """[B, T]: number of every step within its window; padding repeats the last."""
        return np.minimum(np.arange(self.length), self.valid_length[:, None] - 1)

    @cached_property
    def parts(self) -> list[tuple[int, slice | np.ndarray]]:
        """Which windows lie in which shard: a slice each where they are in order, else their numbers."""
        cuts = (np.flatnonzero(self.shard[1:] != self.shard[:-1]) + 1).tolist()
        begins = [0, *cuts] if len(self) else []
        numbers = [self.shard.item(i) for i in begins]
        if len(set(numbers)) < len(numbers):
            return [(number, np.flatnonzero(self.shard == number)) for number in sorted(set(numbers))]
        return [(n, slice(a, b)) for n, a, b in zip(numbers, begins, [*cuts, len(self)], strict=True)]


class WindowIndex:
    """All windows of one length over the chosen rows, numbered from 0; `index[numbers]` are those windows."""

    def __init__(self, segments: np.ndarray, low: np.ndarray, length: int, start: Start, generation: int) -> None:
        """Number the windows.

        Args:
            segments: rows of `Pairs.segments()`.
            low: [len(segments)], first position of each segment that may be used.
            length: T.
            start: see `Pairs.windows`.
            generation: of the reader's row numbers.
        """
        size = segments["length"] - low
        if start == "anywhere":
            count, self._stride, self._shift = size + length - 1, 1, length - 1
        elif start == "full":
            count, self._stride, self._shift = np.maximum(size - length + 1, 1), 1, 0
        elif start == "tile":
            count, self._stride, self._shift = -(-size // length), length, 0
        else:
            count, self._stride, self._shift = (segments["first_step"] + low == 0).astype(np.int64), 1, 0
        self._length, self._generation, self._previous_action = length, generation, segments["previous_action"]
        self._ends = np.cumsum(count)
        columns = (segments[name] for name in ("shard", "row", "length", "episode", "first_step"))
        # One table, so that drawing takes one indexing instead of seven.
        self._table = np.stack([*columns, low, self._ends - count], axis=1)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, numbers: Any) -> Windows:
        numbers = np.arange(*numbers.indices(len(self))) if isinstance(numbers, slice) else np.asarray(numbers)
        at = self._ends.searchsorted(numbers, side="right")
        shard, row, size, episode, first_step, low, number = self._table.take(at, axis=0).T
        begin = low + (numbers - number) * self._stride - self._shift
        first = np.maximum(begin, low)
        last = np.minimum(begin + self._length, size)
        return Windows(
            length=self._length,
            shard=shard,
            row=row + first,
            valid_length=last - first,
            episode=episode,
            step=first_step + first,
            cut=first == 0,
            previous_action=self._previous_action[at],
            generation=self._generation,
        )

    def sample(self, rng: np.random.Generator | torch.Generator, batch: int) -> Windows:
        """Draw windows uniformly with replacement.

        They come in the order in which they lie in the dataset, which is faster to read: a caller who cuts a batch
        into smaller ones shuffles it first.

        Raises:
            UserError: there is no window to draw from.
        """
        return self.sample_batches(rng, batch, 1)[0]

    def sample_batches(self, rng: np.random.Generator | torch.Generator, batch: int, count: int) -> list[Windows]:
        """Draw what `count` calls of `sample` would, in one go: most of a draw's time is per call, not per window.

        Raises:
            UserError: there is no window to draw from.
        """
        if not len(self):
            raise UserError("no window to sample from: the chosen episodes hold no steps; collect more")
        if isinstance(rng, np.random.Generator):
            numbers = rng.integers(len(self), size=(count, batch))
        else:
            import torch

            numbers = torch.randint(len(self), (count, batch), generator=rng).numpy()
        drawn = self[np.sort(numbers).ravel()]
        return [drawn.part(slice(i * batch, (i + 1) * batch)) for i in range(count)]


def oldest_kept(segments: np.ndarray, memory: int) -> int:
    """The earliest time such that no more than `memory` steps are as recent; at least the latest time is kept."""
    begin, end = segments["time"], segments["time"] + segments["length"]
    newest = int(end.max(initial=0)) - 1
    low, high = int(begin.min(initial=0)), newest
    while low < high:
        middle = (low + high) // 2
        if np.maximum(end - np.maximum(begin, middle), 0).sum() <= memory:
            high = middle
        else:
            low = middle + 1
    return low

"""What a student learns from recorded pairs, batch after batch, its memory as it would be where each batch begins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tscli.learning.imitation import Batch, batch_loss, carried_loss, read_batch
from tscli.networks import Policy
from tscli.pairs import Pairs
from tscli.pairs.windows import WindowIndex, Windows


class Replay:
    """Draws what a student learns from: single steps, or of one with memory, walks through episodes.

    A memory that starts empty in the middle of an episode is one that the student never meets later, when it acts for
    longer than a window (Kapturowski et al. 2019, R2D2, who store states beside the steps for that reason). Here each
    column of a batch walks through an episode from its start to its end, a window per batch, and takes its hidden state
    along, as a student does that learns online: gradients end at a window's start, memory does not. Then it draws
    another episode, any with the same probability, so that every step counts as often as every other. The very first
    walks begin anywhere, so that the columns of a batch are at different times of their episodes; those begin with an
    empty memory, as do those of episodes whose start is not there.

    Attributes:
        hidden: [B, S], the student's hidden states before each column's next step.
    """

    def __init__(self, student: Policy, window: int, batch_size: int, generator: torch.Generator) -> None:
        """Begin.

        Args:
            student: whose hidden states are carried.
            window: steps of a walk that a batch shows, on average: its length varies by a half, lest gradients end at
                the same steps each time. Without memory it is 1.
            batch_size: B.
            generator: of the draws, on the CPU.
        """
        self._student, self._window, self._generator = student, window, generator
        self.hidden = student.initial_hidden(batch_size)
        # Where each column stands, and how many of its next steps build up a history and carry no loss; -1 is nowhere.
        self._episode = np.full(batch_size, -1)
        self._step, self._blind = np.zeros((2, batch_size), np.int64)
        self._begun = False
        self._index: WindowIndex | None = None

    def choose(self, pairs: Pairs, episodes: Iterable[int] | np.ndarray | None, memory: int | None = None) -> int:
        """Learn from these episodes from now on, of the most recent `memory` steps; returns how many steps those are.

        Walks under way go on where their steps are still among them.
        """
        self._pairs = pairs
        if not self._student.is_recurrent:
            self._index = pairs.windows(1, memory=memory, episodes=episodes)
            return len(self._index)
        # One window over each segment, ordered by episode and step, so that a column's is found by bisection.
        whole = pairs.windows(2**31, "tile", memory, episodes)[:]
        order = np.lexsort((whole.step, whole.episode))
        self._whole = whole.part(order)
        self._key = _key(self._whole.episode, self._whole.step)
        return int(whole.valid_length.sum())

    def batches(self, count: int, noise: torch.Generator) -> Iterator[Batch]:
        """That many batches; those of walks have to be learnt from in turn, each by one call of `loss`.

        `noise` is the stream of the view's noise and dropout.
        """
        view, device = self._student.spec.view, self.hidden.device
        if self._index is not None:
            for windows in self._index.sample_batches(self._generator, len(self.hidden), count) if count else ():
                yield read_batch(self._pairs, windows, view, None, noise, device)
            return
        for _ in range(count):
            windows, blind = self._next()
            yield read_batch(self._pairs, windows, view, blind, noise, device)

    def loss(self, batch: Batch, kind: str) -> Tensor:
        """Mean imitation loss over the batch's steps that count; the memory behind them is kept for the next batch."""
        if not self._student.is_recurrent:
            return batch_loss(self._student, batch, kind)
        loss, hidden = carried_loss(self._student, batch, self.hidden, kind)
        self.hidden = hidden.detach()
        return loss

    def _next(self) -> tuple[Windows, np.ndarray]:
        """The next window of every column, and how many of its first steps carry no loss."""
        spread = self._window // 2
        length = self._window + int(self._random(2 * spread + 1, 1)[0]) - spread
        at = np.maximum(np.searchsorted(self._key, _key(self._episode, self._step), side="right") - 1, 0)
        offset = self._step - self._whole.step[at]
        goes_on = (self._whole.episode[at] == self._episode) & (offset >= 0) & (offset < self._whole.valid_length[at])
        self._draw(np.flatnonzero(~goes_on), at, offset)
        self.hidden = self.hidden * torch.from_numpy(goes_on).to(self.hidden)[:, None]
        windows, blind = self._whole.stretch(at, offset, length), self._blind
        self._step = windows.step + windows.valid_length
        self._blind = np.maximum(blind - length, 0)
        # What follows padding is not there yet, or in another segment: a walk ends there.
        ended = offset + windows.valid_length >= self._whole.valid_length[at]
        self._episode = np.where(ended, -1, windows.episode)
        return windows, blind

    def _draw(self, columns: np.ndarray, at: np.ndarray, offset: np.ndarray) -> None:
        """Let those columns begin a walk: which segment and where goes into `at` and `offset`."""
        if self._begun:
            at[columns], offset[columns] = self._random(len(self._key), len(columns)), 0
        else:
            ends = np.cumsum(self._whole.valid_length)
            number = self._random(int(ends[-1]), len(columns))
            at[columns] = chosen = np.searchsorted(ends, number, side="right")
            offset[columns] = number - ends[chosen] + self._whole.valid_length[chosen]
            self._begun = True
        within = self._whole.step[at[columns]] + offset[columns] > 0
        self._blind[columns] = np.where(within, self._student.encoder.lookback, 0)

    def _random(self, most: int, count: int) -> np.ndarray:
        return torch.randint(most, (count,), generator=self._generator).numpy()

    def state_dict(self) -> dict[str, Any]:
        """For exact resume; `choose` follows."""
        columns = torch.from_numpy(np.stack([self._episode, self._step, self._blind]))
        return {"hidden": self.hidden, "columns": columns, "begun": self._begun}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.hidden = state["hidden"].to(self.hidden.device, copy=True)
        self._episode, self._step, self._blind = state["columns"].cpu().numpy().copy()
        self._begun = bool(state["begun"])


def _key(episode: np.ndarray, step: np.ndarray) -> np.ndarray:
    return (episode << 32) + step

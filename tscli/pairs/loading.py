"""Pairs for torch: windows as a policy with a view sees them, alone or through a `DataLoader`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tscli.config import UserError, parse_view
from tscli.envs.views import ViewSpec, resolve_view, view_of_pairs
from tscli.pairs.reader import as_tensors
from tscli.pairs.windows import WindowIndex, Windows
from tscli.tasks import load_task

if TYPE_CHECKING:
    from tscli.pairs.reader import Pairs


def read_view(
    pairs: Pairs,
    windows: Windows,
    view: ViewSpec,
    fields: Iterable[str],
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What a view shows of windows, and their fields beside it, with "first" and "valid"; all are [T, B, ...].

    In the place of images whose features the reader shows (`Pairs.show_features`) stand those.
    """
    arrays = pairs.gather(windows, fields)
    # Parts of one group may be of different ages, so each age is read for itself.
    for delay in {part.delay for part in view.parts}:
        parts = [part for part in view.parts if part.delay == delay]
        sources = {part.field: pairs.features.get(part.group, part.source) for part in parts}
        found = pairs.gather(windows, sources.values(), {part.group: delay for part in parts})
        arrays |= {field: found[source] for field, source in sources.items()}
    raw = {name: value.to(device, non_blocking=True) for name, value in as_tensors(arrays).items()}
    return view_of_pairs(view, pairs.schema.action, raw, generator), raw


class PairsDataset(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Windows of pairs as a map-style dataset; made by `Pairs.torch`, which describes its items."""

    def __init__(self, pairs: Pairs, view: ViewSpec, windows: WindowIndex) -> None:
        self._pairs, self.view, self._windows = pairs, view, windows
        self._labels = ["action", "teacher_action", *(f"teacher_{name}" for name in pairs.schema.teacher_fields)]

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if not -len(self) <= number < len(self):
            raise IndexError(f"window {number} of {len(self)}")
        return self.__getitems__([number % len(self)])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Tensor]]:
        """Several at once, as a `DataLoader` asks for a batch: most of a read's time is per call."""
        obs, raw = read_view(self._pairs, self._windows[list(numbers)], self.view, self._labels)
        shown = obs | {name: raw[name] for name in (*self._labels, "first", "valid")}
        return [{name: value[:, i] for name, value in shown.items()} for i in range(len(numbers))]


def view_of(pairs: Pairs, expression: str) -> ViewSpec:
    """A view of the task that the pairs are of, by name, or one that is written out.

    Raises:
        UserError: there is no such view, or the pairs did not record what it shows.
    """
    try:
        task = load_task(pairs.schema.task)
    except UserError:  # it is not here: then a view that is written out will do
        task = None
    parts = task.view(expression) if task else parse_view(expression)
    return resolve_view(expression, parts, pairs.schema.groups, pairs.schema.action, owner="the dataset")

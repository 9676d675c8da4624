"""Rollouts in the making, and the minibatches that are cut from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


class Fields:
    """Named tensors, or dicts of them: `fields.reward`."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:  # for those who read types; what was not recorded is no attribute
        raise AttributeError(f"{name} was not recorded; there are {', '.join(self.__dict__)}")


class Recorder:
    """Fields of a rollout, one step at a time; not every field need come at every step."""

    def __init__(self) -> None:
        self._steps: dict[str, list[Any]] = {}

    def add(self, **fields: Any) -> None:
        """Take note of tensors [N, ...], dicts of them, or anything else."""
        for name, value in fields.items():
            self._steps.setdefault(name, []).append(value)

    def stack(self) -> Fields:
        """All fields as [T, N, ...], or as a list of T where they are no tensors."""
        return Fields({name: _stack(steps) for name, steps in self._steps.items()})


class Minibatches:
    """A rollout cut into sequences of `length` steps side by side, to be drawn in shuffled minibatches.

    Attributes:
        count: number of sequences, (T / length) * N.

    Args:
        length: of a sequence; 1 for networks without memory. It divides T.
        starts: hidden states before each sequence, [T / length, N, S], by name.
        rollout: its fields [T, N, ...] may be asked for; of one that has a step more, the last is left out.
        **more: fields that were made of it.
    """

    def __init__(self, length: int, starts: Mapping[str, Tensor], rollout: Fields, **more: Any) -> None:
        first = next(iter(starts.values()))
        self._length, self._steps = length, first.shape[0] * length
        self.count = first.shape[0] * first.shape[1]
        self._starts = {name: value.flatten(0, 1) for name, value in starts.items()}
        self._fields, self._cut = {**vars(rollout), **more}, dict[str, Any]()

    def shuffled(self, number: int, generator: torch.Generator) -> Iterator[Minibatch]:
        """One pass in `number` minibatches."""
        order = torch.randperm(self.count, generator=generator).to(next(iter(self._starts.values())).device)
        for index in order.split(self.count // number):
            yield self.part(index)

    def part(self, index: Tensor) -> Minibatch:
        """The sequences of those numbers; where all are of one length T, sequence n is env n's."""
        return Minibatch(self, index)

    def columns(self, name: str, index: Tensor) -> Any:
        """A field's sequences, or the hidden states before them."""
        if name in self._starts:
            return self._starts[name][index]
        if name not in self._cut:
            self._cut[name] = _each(self._fields[name], lambda x: sequences(x[: self._steps], self._length))
        # A quarter of the time that indexing takes.
        return _each(self._cut[name], lambda x: x.index_select(1, index))


class Minibatch:
    """Fields [length, B, ...] and starts [B, S] of a minibatch, each cut when it is first asked for."""

    def __init__(self, batches: Minibatches, index: Tensor) -> None:
        self._batches, self._index = batches, index

    def __getattr__(self, name: str) -> Any:
        value = self._batches.columns(name, self._index)
        setattr(self, name, value)
        return value


class Averages:
    """Means of metrics over an update's minibatches, gathered where they are and read once."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Scalars of one minibatch, by name."""
        for name, value in metrics.items():
            self._values.setdefault(name, []).append(value.detach())

    def read(self) -> dict[str, float]:
        """The means; one wait for the device."""
        groups: dict[int, dict[str, Tensor]] = {}  # by how often they were added
        for name, values in self._values.items():
            groups.setdefault(len(values), {})[name] = torch.stack(values)
        means = [torch.stack(list(group.values()), dim=1).mean(0) for group in groups.values()]
        names = [name for group in groups.values() for name in group]
        return dict(zip(names, torch.cat(means).tolist(), strict=True))


def _stack(steps: list[Any]) -> Any:
    if isinstance(steps[0], dict):
        return {key: torch.stack([step[key] for step in steps]) for key in steps[0]}
    return torch.stack(steps) if isinstance(steps[0], Tensor) else steps


def _each(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    return {k: function(v) for k, v in value.items()} if isinstance(value, dict) else function(value)


def sequences(x: Tensor, length: int) -> Tensor:
    """Cut a rollout [T, N, ...] into sequences side by side: [length, (T / length) * N, ...]."""
    return x.unflatten(0, (-1, length)).transpose(0, 1).flatten(1, 2)

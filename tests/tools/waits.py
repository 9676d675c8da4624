"""Counts what would make a program wait for its GPU, on a machine that has none."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[2]

# Their result, or its size, has to be on the host before the program can go on.
READS = {
    *("_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero", "masked_select", "bincount"),
    *("unique_dim", "unique_consecutive", "unique_dim_consecutive", "_unique", "_unique2"),
}
UPLOADS = {"lift_fresh", "lift_fresh_copy"}  # of what was on the host: torch.tensor, torch.as_tensor, a list as index
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
# Reads that do not pass the dispatcher where the tensor is on the CPU already.
METHODS = ("cpu", "numpy", "tolist", "item", "__array__", "__bool__", "__float__", "__int__", "__index__")


@contextlib.contextmanager
def count_waits() -> Iterator[Counter[str]]:
    """Counts, inside, of "what at file:line" of ours that reads a tensor on the host or brings one from there."""
    found: Counter[str] = Counter()
    mode = _Mode(found)

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def counted(*args: Any, **kwargs: Any) -> Any:
            mode.note(name)
            with mode.quiet():  # one read is one, whatever it is made of
                return call(*args, **kwargs)

        return counted

    with contextlib.ExitStack() as stack:
        for name in METHODS:
            stack.enter_context(mock.patch.object(Tensor, name, counting(name, getattr(Tensor, name))))
        stack.enter_context(mock.patch.object(torch, "from_numpy", counting("from_numpy", torch.from_numpy)))
        stack.enter_context(mode)
        yield found


class _Mode(TorchDispatchMode):
    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self._found, self._depth = found, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in READS | UPLOADS or (name in INDEXING and _by_mask(args[1])) or _by_counts(name, args):
            self.note(name)
        return func(*args, **(kwargs or {}))

    def note(self, name: str) -> None:
        """Count it at the line of ours that is at work."""
        if self._depth:
            return
        frame = sys._getframe(1)
        while frame.f_back is not None and not _ours(frame.f_code.co_filename):
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        self._found[f"{name} at {path.relative_to(ROOT) if _ours(str(path)) else path}:{frame.f_lineno}"] += 1

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Count nothing inside."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1


def _ours(file: str) -> bool:
    return file.startswith(str(ROOT)) and "site-packages" not in file and file != __file__


def _by_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _by_counts(name: str, args: Any) -> bool:
    """Whether it repeats by numbers that are in a tensor, so that the result's size is known there alone."""
    return name == "repeat_interleave" and any(isinstance(arg, Tensor) for arg in args[1:] or args)

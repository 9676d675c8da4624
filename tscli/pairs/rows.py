"""Rows of mapped shards, copied out window by window: the part of reading that has to be fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tscli.pairs.schema import Fields
from tscli.pairs.shard import Shard
from tscli.pairs.windows import Windows

# A window is copied as one slice where its rows are large, or where a batch has few windows per shard; otherwise all
# rows of a shard are taken by one indexing, whose fixed cost is that of about this many slices.
_LARGE_ROW_BYTES, _WINDOWS_PER_PART = 1024, 4


class Rows:
    """What `Pairs.gather` reads: every field of some shards. Arrays come time-major, [T, B, ...]."""

    def __init__(self, shards: Sequence[Shard], segments: np.ndarray, fields: Fields) -> None:
        self._fields, self._segments = fields, segments
        # One opaque item per row makes numpy copy rows, not elements.
        self._item = {
            name: np.dtype(f"V{math.prod(shape) * dtype.itemsize}") if shape else dtype
            for name, (shape, dtype) in fields.items()
        }
        self._items = {
            name: [s.fields[name].reshape(s.rows, -1).view(item)[:, 0] for s in shards]
            for name, item in self._item.items()
        }

    def take(self, name: str, windows: Windows, delay: int = 0) -> np.ndarray:
        """The field at every step of the windows, or `delay` steps earlier; see `Pairs.gather`."""
        if delay:
            return self._delayed(name, windows, delay)
        shape, dtype = self._fields[name]
        item = self._item[name]
        if item.itemsize < _LARGE_ROW_BYTES and len(windows.parts) * _WINDOWS_PER_PART < len(windows):
            return self._take_rows(name, windows.parts, windows.rows)
        out = np.empty((windows.length, len(windows)), item)
        places = zip(windows.shard.tolist(), windows.row.tolist(), windows.valid_length.tolist(), strict=True)
        for i, (shard, row, count) in enumerate(places):
            source = self._items[name][shard]
            out[:count, i] = source[row : row + count]
            if count < windows.length:
                out[count:, i] = source[row + count - 1]
        return out.view(dtype).reshape((*out.shape, *shape))

    def _take_rows(self, name: str, parts: list[tuple[int, Any]], rows: np.ndarray) -> np.ndarray:
        """Rows [B, T] of the shards that `parts` assigns to the windows, as [T, B, ...]."""
        items = self._items[name]
        out = np.empty(rows.shape, self._item[name])
        for shard, which in parts:
            if isinstance(which, slice):
                # The rows exist: "clip" spares numpy a check and a buffer.
                items[shard].take(rows[which], out=out[which], mode="clip")
            else:
                out[which] = items[shard].take(rows[which])
        return self._time_major(name, out)

    def _time_major(self, name: str, items: np.ndarray) -> np.ndarray:
        """[B, T] items as a contiguous [T, B, ...] array of the field."""
        shape, dtype = self._fields[name]
        return np.ascontiguousarray(items.T).view(dtype).reshape((*items.T.shape, *shape))

    def previous_action(self, windows: Windows) -> np.ndarray:
        """The action executed before every step, zeros where the episode begins."""
        begins = windows.cut[:, None] & (windows.position == 0)
        previous = self._take_rows("action", windows.parts, windows.rows - ~begins)
        window, step = np.nonzero(begins)
        previous[step, window] = windows.previous_action[window]
        return previous

    def _delayed(self, name: str, windows: Windows, delay: int) -> np.ndarray:
        """Rows `delay` steps earlier in the episode, which may lie in an earlier shard."""
        order, begins, first = self._addresses
        step = windows.step[:, None] + windows.position
        address = (first[windows.episode, None] + np.maximum(step - delay, 0)).ravel()
        at = np.searchsorted(begins, address, side="right") - 1
        segment = self._segments[order[at]]
        out = np.empty(len(address), self._item[name])
        for shard in np.unique(segment["shard"]):
            which = segment["shard"] == shard
            out[which] = self._items[name][shard][(segment["row"] + address - begins[at])[which]]
        return self._time_major(name, out.reshape(step.shape))

    @cached_property
    def _addresses(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Segments' order by episodes, and where in this order each segment and each episode begins, in steps."""
        episode = self._segments["episode"]
        order = np.lexsort((self._segments["first_step"], episode))
        length = np.bincount(episode, self._segments["length"])
        first = (np.cumsum(length) - length).astype(np.int64)
        return order, first[episode[order]] + self._segments["first_step"][order], first

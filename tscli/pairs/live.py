"""The shard that is being written: a memory-mapped file, and the steps that are not in it yet."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from tscli.files import replacing, sync_file, sync_folder
from tscli.pairs.hdf5 import create_shard_file
from tscli.pairs.schema import Fields
from tscli.pairs.sealed import PairsError
from tscli.pairs.shard import Layout, Shard, map_fields, needed_bytes

# Small rows are collected for a few steps and then written env by env: a lone store into each env's page costs more
# than the copy (N=1024, six floats: 54 us against 12 us). Large rows gain nothing and go straight to the file.
_STAGED_STEPS = 32
_STAGED_ROW_BYTES = 1024


class LiveShard:
    """Rows of `capacity` steps of N envs, in a file that `create` or `restore` makes and `finish` makes a shard of.

    Attributes:
        capacity: of steps.
        steps: how many there are so far.
        num_rows: that the file has room for.
        rows: name -> [num_rows, ...] over the file, env after env; empty where there is none.
    """

    def __init__(self, fields: Fields, num_envs: int, capacity: int) -> None:
        self._fields, self._num_envs, self.capacity = fields, num_envs, capacity
        self.num_rows = num_envs * capacity
        self._layout: Layout = {}
        self._stage_size = min(_STAGED_STEPS, capacity)
        self._stage = {
            name: np.empty((self._stage_size, num_envs, *shape), dtype)
            for name, (shape, dtype) in fields.items()
            if math.prod(shape) * dtype.itemsize < _STAGED_ROW_BYTES
        }
        self.release()
        self.rewind()

    def rewind(self) -> None:
        """Begin with the first step again."""
        self.steps = self._synced = 0  # the second: how many are in the file
        self._hashed = 0  # and how many of these are in the hashes, which take them step by step
        self._digests = {name: hashlib.sha256() for name in self._fields}

    def create(self, part: Path) -> None:
        """Make an empty file."""
        # Under another name first: what a kill leaves half made must not be taken for the live file.
        temporary = part.with_suffix(".tmp")
        self._layout = create_shard_file(temporary, self._fields, self.num_rows)
        os.replace(temporary, part)
        self.open(part)

    def open(self, part: Path) -> None:
        """Map a file that is there.

        Raises:
            PairsError: it is too short.
        """
        needed, size = needed_bytes(self._layout), part.stat().st_size
        if size < needed:
            raise PairsError(part, f"has {size} bytes instead of {needed}")
        self.rows, self._map = map_fields(part, self._layout, "r+")
        self._by_env = {
            name: rows.reshape((self._num_envs, self.capacity, *rows.shape[1:])) for name, rows in self.rows.items()
        }

    def release(self) -> None:
        """Let go of the file."""
        self.rows: dict[str, np.ndarray] = {}
        self._by_env: dict[str, np.ndarray] = {}  # name -> [N, capacity, ...]
        self._map: np.memmap | None = None

    def put(self, values: dict[str, Any]) -> None:
        """Store [N, ...] of every field as the next step; `advance` makes it count.

        Raises:
            ValueError: a field is missing, has the wrong shape or cannot be stored in its dtype.
        """
        if values.keys() != self._fields.keys():
            raise ValueError(f"fields {sorted(values)} given, {sorted(self._fields)} expected")
        slot = self.steps - self._synced
        for name, value in values.items():
            stage = self._stage.get(name)
            target = self._by_env[name][:, self.steps] if stage is None else stage[slot]
            value = np.asarray(value)
            if value.shape != target.shape:
                raise ValueError(f"{name} has shape {value.shape}, expected {target.shape}")
            try:
                np.copyto(target, value, casting="same_kind")
            except TypeError:
                raise ValueError(f"{name} is {value.dtype}, which does not fit {target.dtype}") from None

    def advance(self) -> bool:
        """Go on to the next step; tells whether there is no room for one."""
        self.steps += 1
        if self.steps - self._synced == self._stage_size:
            self.sync()
        return self.steps == self.capacity

    def sync(self) -> None:
        """Move collected rows into the file, where readers of this process see them."""
        count = self.steps - self._synced
        if count:
            for name, stage in self._stage.items():
                self._by_env[name][:, self._synced : self.steps] = stage[:count].swapaxes(0, 1)
        self._synced = self.steps

    def flush(self) -> None:
        """Bring all rows to the disk, so that they survive a power cut; a kill they survive without."""
        self.sync()
        if self._map is not None:
            self._map.flush()

    def last_action(self) -> np.ndarray:
        """[N, ...], a copy."""
        self.sync()
        return self._by_env["action"][:, self.steps - 1].copy()

    def finish(self, part: Path, path: Path, segments: np.ndarray) -> tuple[Layout, np.ndarray]:
        """Make a shard's file of the rows that belong to segments; returns its layout and segments.

        Where that is all of them, the file itself is the shard's from then on; else the two are there side by side.
        """
        self.sync()
        layout, row, lengths = self._layout, segments["row"], segments["length"]
        num_rows = int(lengths.sum())
        if num_rows == self.num_rows:
            self.flush()
            self.release()
            sync_file(part)
            os.replace(part, path)
        else:
            segments = segments.copy()
            segments["row"] = np.cumsum(lengths) - lengths
            layout = _copy_runs(self.rows, np.stack([row, segments["row"], lengths]), path, self._fields, num_rows)
            self.release()
        sync_folder(path.parent)
        return layout, segments

    def restore(self, part: Path, shard: Shard) -> None:
        """Make the file again of which a shard was made."""
        table = shard.segments
        runs = np.stack([table["row"], table["env"] * self.capacity + table["step"], table["length"]])
        self._layout = _copy_runs(shard.fields, runs, part, self._fields, self.num_rows)

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs besides the file. Flushes, so that both agree."""
        self.flush()
        offsets = {name: offset for name, (offset, _, _) in self._layout.items()}
        return {"capacity": self.capacity, "offsets": offsets, "sha256": self._hash_rows()}

    def check(self, part: Path, sha256: dict[str, str] | None) -> None:
        """Compare the rows with the `sha256` of a state; None, which older ones have, takes any.

        Raises:
            PairsError: they differ.
        """
        found = self._hash_rows()
        if sha256 not in (None, found):
            raise PairsError(part, "damaged (its rows are not those of the checkpoint)")

    def _hash_rows(self) -> dict[str, str]:
        """The hash of every field's rows; only those that are new since the last time are read."""
        while self._hashed < self._synced:
            end = min(self._hashed + _STAGED_STEPS, self._synced)
            for name, rows in self._by_env.items():
                self._digests[name].update(rows[:, self._hashed : end].swapaxes(0, 1).tobytes())
            self._hashed = end
        found = {name: digest.hexdigest() for name, digest in self._digests.items()}
        if self._map is not None:
            found["between"] = self._hash_between(self._map)
        return found

    def _hash_between(self, content: np.memmap) -> str:
        """The hash of what lies beside the rows: HDF5's own description of the file, which is small."""
        digest, end = hashlib.sha256(), 0
        for start, shape, dtype in sorted(self._layout.values(), key=lambda one: one[0]):
            digest.update(content[end:start].tobytes())
            end = start + math.prod(shape) * dtype.itemsize
        digest.update(content[end:].tobytes())
        return digest.hexdigest()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken, once the file is opened."""
        self.steps = self._synced = int(state["steps"])
        shapes = {name: ((self.num_rows, *shape), dtype) for name, (shape, dtype) in self._fields.items()}
        self._layout = {name: (offset, *shapes[name]) for name, offset in state["offsets"].items()}


def _copy_runs(source: dict[str, np.ndarray], runs: np.ndarray, path: Path, fields: Fields, num_rows: int) -> Layout:
    """Make a shard file of another's rows. runs: [3, K]: begin there and here, ascending, and length."""
    # Neighbouring segments of one env are one run on both sides.
    goes_on = (runs[:2, 1:] == runs[:2, :-1] + runs[2, :-1]).all(0)
    first = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    runs = np.stack([*runs[:2, first], np.add.reduceat(runs[2], first)])
    with replacing(path) as temporary:
        layout = create_shard_file(temporary, fields, num_rows)
        target, whole = map_fields(temporary, layout, "r+")
        for name, rows in target.items():
            for there, here, count in runs.T.tolist():
                rows[here : here + count] = source[name][there : there + count]
        whole.flush()
        del target, rows, whole
    return layout

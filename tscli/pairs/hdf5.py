"""The HDF5 files of a dataset, made: shards with all their space, and `dataset.h5`, which shows all of them as one."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tscli.config import UserError
from tscli.files import disk_errors, replacing, sync_folder
from tscli.pairs.schema import SCHEMA, Fields, PairsSchema, groups_to_json
from tscli.pairs.shard import Layout, list_shards, read_sidecar
from tscli.pairs.tables import join_episodes


def create_shard_file(path: Path, fields: Fields, rows: int) -> Layout:
    """Make an HDF5 file of contiguous datasets [rows, ...] with all its space allocated; returns where each lies.

    Raises:
        UserError: the disk is full.
    """
    num_bytes = rows * sum(math.prod(shape) * dtype.itemsize for shape, dtype in fields.values())
    layout: Layout = {}
    try:
        with disk_errors(path, num_bytes):
            # Alignment lets numpy read the map in place at full speed, whatever the rows' size.
            with h5py.File(path, "w", alignment_threshold=1, alignment_interval=64) as file:
                file.attrs["schema"] = SCHEMA
                file.require_group("obs")
                for name, (shape, dtype) in fields.items():
                    file.require_group(name.rpartition("/")[0] or "/")
                    plist = _plain_plist()
                    plist.set_layout(h5py.h5d.CONTIGUOUS)
                    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                    space = h5py.h5s.create_simple((rows, *shape))
                    layout[name] = _create(file, name, dtype, space, plist).get_offset(), (rows, *shape), dtype
            _allocate(path)
    except UserError:
        path.unlink(missing_ok=True)
        raise
    return layout


def _plain_plist() -> Any:
    # Time stamps would make two runs of the same data differ.
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    return plist


def _create(file: h5py.File, name: str, dtype: np.dtype, space: Any, plist: Any) -> Any:
    return h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype, logical=True), space, plist)


def _allocate(path: Path) -> None:
    # A store into a mapped hole of a full disk is SIGBUS: no error, a dead process. So claim the space now.
    if not hasattr(os, "posix_fallocate"):
        return
    with open(path, "r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):  # not every file system can
                raise


def write_dataset_file(folder: Path, schema: PairsSchema) -> None:
    """Write `dataset.h5` anew from the sidecars of the finished shards, and rename it into place."""
    sidecars = {index: read_sidecar(folder, index, schema) for index in list_shards(folder)}
    if not sidecars:
        (folder / "dataset.h5").unlink(missing_ok=True)
        return
    with disk_errors(folder / "dataset.h5"):
        with replacing(folder / "dataset.h5") as temporary, h5py.File(temporary, "w") as file:
            file.attrs["schema"] = SCHEMA
            file.attrs["task"], file.attrs["teacher"], file.attrs["seed"] = schema.task, schema.teacher, schema.seed
            file.attrs["action"] = json.dumps(schema.action.to_json())
            file.attrs["groups"] = json.dumps(groups_to_json(schema.groups))
            file.attrs["extra"] = json.dumps(schema.extra)
            file.attrs["num_shards"] = len(sidecars)
            file.require_group("obs")
            rows = {index: sidecar["rows"] for index, sidecar in sidecars.items()}
            for name, (shape, dtype) in schema.row_fields().items():
                _create_virtual(file, name, shape, dtype, rows)
            segments = [sidecar["segments"] for sidecar in sidecars.values()]
            for table, end, count in zip(segments, np.cumsum([*rows.values()]), rows.values(), strict=True):
                table["row"] += end - count
            file.create_dataset("segments", data=np.concatenate(segments))
            file.create_dataset("episodes", data=join_episodes([s["episodes"] for s in sidecars.values()]))
        sync_folder(folder)


def _create_virtual(file: h5py.File, name: str, shape: tuple[int, ...], dtype: np.dtype, rows: dict[int, int]) -> None:
    """A virtual dataset that lines up one dataset of every shard, by paths relative to this file."""
    space = h5py.h5s.create_simple((sum(rows.values()), *shape))
    plist = _plain_plist()
    if dtype.kind == "f":
        # HDF5 reads a missing shard as fill values, silently: NaN is harder to overlook than zero.
        plist.set_fill_value(np.array(np.nan, dtype))
    start = 0
    for index, count in rows.items():
        space.select_hyperslab((start, *(0 for _ in shape)), (count, *shape))
        source = h5py.h5s.create_simple((count, *shape))
        plist.set_virtual(space, f"shards/{index:05d}.h5".encode(), name.encode(), source)
        start += count
    space.select_all()
    _create(file, name, dtype, space, plist)

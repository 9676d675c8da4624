"""A shard on disk: where each dataset lies in its file, and the sidecar that says so.

    shards/00000.h5       rows of one stretch of time, contiguous HDF5 datasets, env-major
    shards/00000.json     sidecar: size, sha256, offset of each dataset, segments and episodes; written last
    shards/00001.part     the shard that is being written

Nothing interprets a shard's file before its size and hash were found to be those of the sidecar.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from tscli.files import file_hash
from tscli.pairs.schema import SCHEMA, PairsSchema
from tscli.pairs.sealed import PairsError, read_sealed, well_formed, write_sealed
from tscli.pairs.tables import EPISODE, segment_dtype, table_from_columns, table_to_columns

FEATURES = "features/"  # what begins the names of fields that no schema tells of, see `tscli.pairs.features`

Layout = dict[str, tuple[int, tuple[int, ...], np.dtype]]
"""Where each dataset of a shard lies: name -> (offset in the file, shape, dtype)."""


@dataclass
class Shard:
    """One shard, mapped into memory.

    Attributes:
        rows: number of rows of every field.
        first_step: the writer's step count at the shard's first step, to order rows by age.
        fields: name -> [rows, ...] array over the file.
        segments: structured array: `row` (first row), `env`, `step` (first step, counted from the shard's),
            `length`, `episode`, `first_step` (within the episode), `previous_action` (executed before the first row;
            zeros where the episode begins).
        episodes: structured array of the episodes that have rows here, as they stood at the shard's end.
    """

    path: Path
    rows: int
    first_step: int
    fields: dict[str, np.ndarray]
    segments: np.ndarray
    episodes: np.ndarray


def shard_path(folder: Path, index: int) -> Path:
    """The HDF5 file of a shard; its sidecar ends in `.json`, the unfinished one in `.part`."""
    return folder / "shards" / f"{index:05d}.h5"


def list_shards(folder: Path) -> list[int]:
    """Numbers of the finished shards (those that have a sidecar), ascending."""
    return sorted(int(p.stem) for p in (folder / "shards").glob("*.json") if p.stem.isdecimal())


def needed_bytes(layout: Layout) -> int:
    """The least size of a file of that layout."""
    return max((start + math.prod(shape) * dtype.itemsize for start, shape, dtype in layout.values()), default=0)


def map_fields(path: Path, layout: Layout, mode: Literal["r", "r+"] = "r") -> tuple[dict[str, np.ndarray], np.memmap]:
    """Map a file once and view each dataset in it."""
    whole = np.memmap(path, np.uint8, mode)
    return {name: np.ndarray(shape, dtype, whole, offset) for name, (offset, shape, dtype) in layout.items()}, whole


_Count = Annotated[int, Field(ge=0, lt=2**62, strict=True)]


class _Field(BaseModel):
    offset: _Count
    shape: tuple[_Count, ...]
    dtype: Literal["float16", "float32", "int64", "uint8", "bool"]


class _Sidecar(BaseModel):
    bytes: _Count
    sha256: str
    num_envs: _Count
    rows: _Count
    steps: _Count
    capacity: _Count
    first_step: _Count
    fields: dict[str, _Field]  # type: ignore[assignment] - as the format calls it
    segments: dict[str, list[Any]]
    episodes: dict[str, list[Any]]


def write_sidecar(path: Path, layout: Layout, segments: np.ndarray, episodes: np.ndarray, about: dict[str, int]) -> str:
    """Declare a shard finished; returns its sha256. `about`: `num_envs`, `rows`, `first_step`, `steps`, `capacity`."""
    sha256 = file_hash(path)
    write_sealed(
        path.with_suffix(".json"),
        {
            "schema": SCHEMA,
            "bytes": path.stat().st_size,
            "sha256": sha256,
            **about,
            "fields": {n: {"offset": o, "shape": list(s), "dtype": d.name} for n, (o, s, d) in layout.items()},
            "segments": table_to_columns(segments),
            "episodes": table_to_columns(episodes),
        },
    )
    return sha256


def read_sidecar(folder: Path, index: int, schema: PairsSchema) -> dict[str, Any]:
    """A shard's sidecar, with `layout`, `segments` and `episodes` ready to use.

    Raises:
        PairsError: damaged, of another schema, or of another dataset.
    """
    path = shard_path(folder, index).with_suffix(".json")
    data = read_sealed(path)
    if data.get("schema") != SCHEMA:
        raise PairsError(path, f"has schema {data.get('schema')}, this version reads {SCHEMA}")
    with well_formed(path):
        about = _Sidecar.model_validate(data)
        layout = {name: (f.offset, f.shape, np.dtype(f.dtype)) for name, f in about.fields.items()}
        expected = {name: ((about.rows, *shape), dtype) for name, (shape, dtype) in schema.row_fields().items()}
        told = {name: about for name, about in layout.items() if not name.startswith(FEATURES)}
        if {name: (shape, dtype) for name, (_, shape, dtype) in told.items()} != expected:
            raise PairsError(path, "belongs to another dataset (its fields are not those of pairs.json)")
        for name, (offset, shape, dtype) in layout.items():
            if name not in told and (len(shape) != 2 or shape[0] != about.rows or dtype != np.float16):
                raise ValueError(f"{name} holds no features of its rows")
            if offset + math.prod(shape) * dtype.itemsize > about.bytes:
                raise ValueError(f"{name} does not lie within {about.bytes} bytes")
        segments = table_from_columns(about.segments, segment_dtype(schema.action))
        if any((segments[name] < 0).any() for name in ("row", "env", "step", "length", "first_step")):
            raise ValueError("a segment with a negative number")
        if (segments["row"] + segments["length"] > about.rows).any():
            raise ValueError(f"a segment does not lie within {about.rows} rows")
        episodes = table_from_columns(about.episodes, EPISODE)
        if not np.isin(segments["episode"], episodes["episode"]).all():
            raise ValueError("a segment of no episode")
    return {**data, "layout": layout, "segments": segments, "episodes": episodes}


def load_shard(folder: Path, index: int, sidecar: dict[str, Any], verify: Literal["full", "size"]) -> Shard:
    """Compare a shard file with its sidecar, then map it. Nothing interprets the file before.

    Raises:
        PairsError: missing, another size, or (`verify="full"`) another sha256.
    """
    path = shard_path(folder, index)
    if not path.is_file():
        raise PairsError(path, "missing")
    size = path.stat().st_size
    if size != sidecar["bytes"]:
        raise PairsError(path, f"has {size} bytes instead of {sidecar['bytes']}")
    if needed_bytes(sidecar["layout"]) > size or any(start < 0 for start, _, _ in sidecar["layout"].values()):
        raise PairsError(path.with_suffix(".json"), f"says of more rows than the {size} bytes of {path.name} hold")
    fields, whole = map_fields(path, sidecar["layout"])
    # Hashing the map itself has the system enter its pages into the page table: the first random reads are faster.
    if verify == "full" and hashlib.sha256(whole.data).hexdigest() != sidecar["sha256"]:
        raise PairsError(path, "damaged (its content does not match its sha256)")
    return Shard(path, sidecar["rows"], sidecar["first_step"], fields, sidecar["segments"], sidecar["episodes"])

"""The files of a pairs folder, shared by those who write them (`pairs_writer`) and those who read them (`pairs`).

    pairs.json            schema: groups, actions, where the data came from
    shards/00000.h5       rows of one stretch of time, contiguous HDF5 datasets, env-major
    shards/00000.json     sidecar: size, sha256, where each dataset lies, segments and episodes; written last
    dataset.h5            one view of all finished shards for plain h5py (virtual datasets, relative paths)

`datasets/README.md` describes the format for users.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from tscli.config import UserError
from tscli.envs.spaces import ActionSpec, Group
from tscli.files import atomic_write, file_hash

__all__ = ["PairsError", "PairsSchema", "Shard", "list_shards", "load_shard", "read_sealed", "read_sidecar"]

# name -> (offset in the file, shape, dtype)
Layout = dict[str, tuple[int, tuple[int, ...], np.dtype]]

SCHEMA = 1
STUDENT, TEACHER = 0, 1

EPISODE = np.dtype(
    [
        ("episode", "<i8"),
        ("env", "<i8"),
        ("index", "<i8"),
        ("start", "<i8"),
        ("length", "<i8"),
        ("return", "<f8"),
        ("seed", "<i8"),
        ("terminated", "?"),
        ("truncated", "?"),
        ("success", "?"),
        ("finished", "?"),
    ]
)


class PairsError(UserError):
    """A file of a pairs folder is missing or damaged, or is not what its sidecar says. One line, with the fix."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what}; restore the file from a copy or collect again (`tscli verify` lists every fault)"
        )


@dataclass(frozen=True)
class PairsSchema:
    """What the rows of a dataset mean.

    Attributes:
        groups: recorded observation groups.
        action: the action space; it decides what `teacher_fields` are.
        task: name of the task.
        teacher: the run whose policy labelled the rows; of several their names, joined by ", ".
        seed: seed of the environments; env i's k-th episode is reset from (seed, i, k).
        has_success: whether `success` of the episodes means anything.
        extra: anything else that JSON can hold and later stages need to understand the rows (the control period).
            `distribution` is there where the teacher's is no Gaussian: "beta", or "none" where its actions are all
            that is known, as of demonstrations.
    """

    groups: dict[str, Group]
    action: ActionSpec
    task: str = ""
    teacher: str = ""
    seed: int = 0
    has_success: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def teacher_fields(self) -> tuple[str, ...]:
        """Names of the parameters of the teacher's distribution: `logits`; `mean`, `std`; `alpha`, `beta`; or none."""
        known = {"beta": ("alpha", "beta"), "none": ()}
        if self.extra.get("distribution") in known:
            return known[self.extra["distribution"]]
        return ("mean", "std") if self.action.is_continuous else ("logits",)

    @property
    def head_kind(self) -> tuple[str, bool]:
        """The teacher's `NetworkConfig.head_kind`."""
        return "beta" if "alpha" in self.teacher_fields else "gaussian", bool(self.extra.get("squash"))

    def row_fields(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Every dataset of a shard: name -> (shape of one row, dtype)."""
        fields = {f"obs/{name}": (tuple(g.shape), np.dtype(g.dtype)) for name, g in self.groups.items()}
        for name in ("action", "teacher_action"):
            fields[name] = (self.action.shape, np.dtype(self.action.dtype))
        for name in self.teacher_fields:
            fields[f"teacher_{name}"] = ((self.action.num_params,), np.dtype(np.float32))
        fields["reward"] = ((), np.dtype(np.float32))
        fields["terminated"] = fields["truncated"] = ((), np.dtype(bool))
        fields["actor"] = ((), np.dtype(np.uint8))
        return fields

    def segment_dtype(self) -> np.dtype:
        """Of the table of segments; see `Shard.segments`."""
        names = ("row", "env", "step", "length", "episode", "first_step")
        previous = ("previous_action", np.dtype(self.action.dtype), self.action.shape)
        return np.dtype([*((name, "<i8") for name in names), previous])

    def difference(self, other: PairsSchema) -> str:
        """What keeps the rows of two datasets from being used together, or an empty string."""
        if self.action != other.action:
            return f"action spaces differ ({_brief(self.action)} and {_brief(other.action)})"
        if set(self.groups) != set(other.groups):
            return f"groups differ ({', '.join(sorted(self.groups))} and {', '.join(sorted(other.groups))})"
        for name, group in self.groups.items():
            ours = (group.shape, group.dtype, group.fields, group.units)
            theirs = other.groups[name]
            if ours != (theirs.shape, theirs.dtype, theirs.fields, theirs.units):
                return f'group "{name}" differs in shape, dtype, fields or units'
        if self.extra != other.extra:
            return f"they were made differently ({self.extra} and {other.extra})"
        return ""

    def to_json(self) -> dict[str, Any]:
        """JSON has no infinity: an open bound is None."""
        data = {key: getattr(self, key) for key in ("task", "teacher", "seed", "has_success", "extra")}
        return {**data, "action": self.action.to_json(), "groups": groups_to_json(self.groups)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PairsSchema:
        """Undo `to_json`."""
        groups = {
            name: Group(
                **{
                    **g,
                    **{key: tuple(g[key]) for key in ("shape", "fields", "units")},
                    "low": -math.inf if g["low"] is None else g["low"],
                    "high": math.inf if g["high"] is None else g["high"],
                }
            )
            for name, g in data["groups"].items()
        }
        rest = {key: data[key] for key in ("task", "teacher", "seed", "has_success", "extra")}
        return cls(groups, ActionSpec.from_json(data["action"]), **rest)


def _brief(action: ActionSpec) -> str:
    return f"{action.kind} {action.nvec or action.shape}"


def groups_to_json(groups: dict[str, Group]) -> dict[str, Any]:
    """Groups as plain data, in their order."""
    data = {name: asdict(group) for name, group in groups.items()}
    for group in data.values():
        for side in ("low", "high"):
            group[side] = group[side] if math.isfinite(group[side]) else None
    return data


# --- files that are written whole or not at all ---------------------------------------------------------------------


@contextlib.contextmanager
def disk_errors(path: Path, num_bytes: int = 0) -> Iterator[None]:
    """Turn a full or read-only disk into one line that says how much was needed."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # HDF5 gives the number in its text alone, and a flush that fails as a RuntimeError.
        said = re.search(r"errno = (\d+)", str(error))
        number = getattr(error, "errno", None) or (int(said[1]) if said else None)
        full = number in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
        if not full and number not in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        what = "the disk is full" if full else "it cannot be written"
        need = f" ({num_bytes / 2**20:.0f} MiB needed)" if num_bytes else ""
        raise UserError(f"{path}: {what}{need}; free space or choose another place, then --resume") from error


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, where the system lets a folder be opened."""
    if os.name != "nt":
        fd = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def sync_file(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def _check(data: dict[str, Any]) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """Write JSON with a checksum of its content (key `check`)."""
    atomic_write(path, json.dumps({**data, "check": _check(data)}))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote, without its checksum.

    Raises:
        PairsError: no such file, not JSON, or a content that is not what was written.
    """
    try:
        data = json.loads(path.read_bytes())
        if data.pop("check") == _check(data):
            return data
    except FileNotFoundError:
        raise PairsError(path, "missing") from None
    # Flipped bits can make it anything: no JSON, no UTF-8, no dict, no checksum.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise PairsError(path, "damaged (its content does not match its checksum)")


def write_header(folder: Path, schema: PairsSchema, num_envs: int, complete: tuple[int, int] | None = None) -> None:
    """Write pairs.json. That of a complete dataset says how many shards and rows there have to be."""
    data = {"schema": SCHEMA, **schema.to_json(), "num_envs": num_envs, "closed": complete is not None}
    if complete is not None:
        data["num_shards"], data["num_steps"] = complete
        if data["num_shards"]:
            data["dataset_sha256"] = file_hash(folder / "dataset.h5")
    write_sealed(folder / "pairs.json", data)


# --- shards ---------------------------------------------------------------------------------------------------------


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
    return sorted(int(p.stem) for p in (folder / "shards").glob("*.json") if p.stem.isdigit())


def table_to_columns(table: np.ndarray) -> dict[str, list]:
    """A structured array as plain lists; floats come back exactly."""
    return {name: table[name].tolist() for name in table.dtype.names or ()}


def table_from_columns(columns: dict[str, list], dtype: np.dtype) -> np.ndarray:
    """The inverse of `table_to_columns`."""
    table = np.empty(len(next(iter(columns.values()))), dtype)
    for name in dtype.names or ():
        # An empty list has lost the shape of its entries.
        table[name] = np.asarray(columns[name], dtype[name].base).reshape(table[name].shape)
    return table


def create_shard_file(path: Path, fields: dict[str, tuple[tuple[int, ...], np.dtype]], rows: int) -> dict[str, int]:
    """Make an HDF5 file of contiguous datasets [rows, ...] with all its space allocated; returns name -> offset.

    Raises:
        UserError: the disk is full.
    """
    num_bytes = rows * sum(math.prod(shape) * dtype.itemsize for shape, dtype in fields.values())
    try:
        with disk_errors(path, num_bytes):
            # Alignment lets numpy read the map in place at full speed, whatever the rows' size.
            with h5py.File(path, "w", alignment_threshold=1, alignment_interval=64) as file:
                file.attrs["schema"] = SCHEMA
                file.require_group("obs")
                for name, (shape, dtype) in fields.items():
                    plist = _plain_plist()
                    plist.set_layout(h5py.h5d.CONTIGUOUS)
                    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
                    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
                    space = h5py.h5s.create_simple((rows, *shape))
                    h5py.h5d.create(file.id, name.encode(), _h5_type(dtype), space, plist)
                offsets = {name: file[name].id.get_offset() for name in fields}  # type: ignore[union-attr]
            _allocate(path)
    except UserError:
        path.unlink(missing_ok=True)
        raise
    return offsets


def _plain_plist() -> Any:
    # Time stamps would make two runs of the same data differ.
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_obj_track_times(False)
    return plist


def _h5_type(dtype: np.dtype) -> Any:
    return h5py.h5t.py_create(dtype, logical=True)


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


def layout_of(fields: dict[str, tuple[tuple[int, ...], np.dtype]], offsets: dict[str, int], rows: int) -> Layout:
    """Where each dataset of a shard file with that many rows lies."""
    return {name: (offsets[name], (rows, *shape), dtype) for name, (shape, dtype) in fields.items()}


def map_fields(path: Path, layout: Layout, mode: Literal["r", "r+"] = "r") -> tuple[dict[str, np.ndarray], np.memmap]:
    """Map a file once and view each dataset in it."""
    whole = np.memmap(path, np.uint8, mode)
    return {
        name: np.ndarray(shape, dtype, buffer=whole, offset=offset) for name, (offset, shape, dtype) in layout.items()
    }, whole


def write_sidecar(
    path: Path,
    layout: Layout,
    segments: np.ndarray,
    episodes: np.ndarray,
    about: dict[str, int],
) -> None:
    """Declare a shard finished. `about` has `num_envs`, `rows`, `first_step`, `steps`, `capacity`."""
    write_sealed(
        path.with_suffix(".json"),
        {
            "schema": SCHEMA,
            "bytes": path.stat().st_size,
            "sha256": file_hash(path),
            **about,
            "fields": {n: {"offset": o, "shape": list(s), "dtype": d.name} for n, (o, s, d) in layout.items()},
            "segments": table_to_columns(segments),
            "episodes": table_to_columns(episodes),
        },
    )


def read_sidecar(folder: Path, index: int, schema: PairsSchema) -> dict[str, Any]:
    """A shard's sidecar, with `layout`, `segments` and `episodes` ready to use.

    Raises:
        PairsError: damaged, of another schema, or of another dataset.
    """
    path = shard_path(folder, index).with_suffix(".json")
    data = read_sealed(path)
    if data.get("schema") != SCHEMA:
        raise PairsError(path, f"has schema {data.get('schema')}, this version reads {SCHEMA}")
    data["layout"] = {
        name: (f["offset"], tuple(f["shape"]), np.dtype(f["dtype"])) for name, f in data["fields"].items()
    }
    expected = {name: ((data["rows"], *shape), dtype) for name, (shape, dtype) in schema.row_fields().items()}
    if {name: (shape, dtype) for name, (_, shape, dtype) in data["layout"].items()} != expected:
        raise PairsError(path, "belongs to another dataset (its fields are not those of pairs.json)")
    data["segments"] = table_from_columns(data["segments"], schema.segment_dtype())
    data["episodes"] = table_from_columns(data["episodes"], EPISODE)
    return data


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
    fields, whole = map_fields(path, sidecar["layout"])
    # Hashing the map itself has the system enter its pages into the page table: the first random reads are faster.
    if verify == "full" and hashlib.sha256(whole.data).hexdigest() != sidecar["sha256"]:
        raise PairsError(path, "damaged (its content does not match its sha256)")
    return Shard(path, sidecar["rows"], sidecar["first_step"], fields, sidecar["segments"], sidecar["episodes"])


def join_episodes(tables: list[np.ndarray]) -> np.ndarray:
    """One row per episode, ordered by number: of an episode that spans shards, the last entry is the complete one."""
    rows = np.concatenate(tables) if tables else np.empty(0, EPISODE)
    _, last = np.unique(rows["episode"][::-1], return_index=True)
    return rows[len(rows) - 1 - last]


# --- the one file for users of plain h5py -----------------------------------------------------------------------------


def write_dataset_file(folder: Path, schema: PairsSchema) -> None:
    """Write `dataset.h5` anew from the sidecars of the finished shards, and rename it into place."""
    sidecars = {index: read_sidecar(folder, index, schema) for index in list_shards(folder)}
    if not sidecars:
        (folder / "dataset.h5").unlink(missing_ok=True)
        return
    temporary = folder / "dataset.h5.tmp"
    with disk_errors(folder / "dataset.h5"):
        with h5py.File(temporary, "w") as file:
            file.attrs["schema"] = SCHEMA
            file.attrs["task"], file.attrs["teacher"], file.attrs["seed"] = schema.task, schema.teacher, schema.seed
            file.attrs["action"] = json.dumps(schema.action.to_json())
            file.attrs["groups"] = json.dumps(groups_to_json(schema.groups))
            file.attrs["extra"] = json.dumps(schema.extra)
            file.attrs["num_shards"] = len(sidecars)
            file.require_group("obs")
            for name, (shape, dtype) in schema.row_fields().items():
                _create_virtual(file, name, shape, dtype, {index: s["rows"] for index, s in sidecars.items()})
            first_row = np.cumsum([0, *(s["rows"] for s in sidecars.values())])
            segments = [s["segments"] for s in sidecars.values()]
            for table, row in zip(segments, first_row, strict=False):
                table["row"] += row
            file.create_dataset("segments", data=np.concatenate(segments))
            file.create_dataset("episodes", data=join_episodes([s["episodes"] for s in sidecars.values()]))
        sync_file(temporary)
        os.replace(temporary, folder / "dataset.h5")
        sync_folder(folder)


def _create_virtual(file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype, rows: dict[int, int]) -> None:
    """A virtual dataset that lines up one dataset of every shard, by paths relative to this file."""
    total = sum(rows.values())
    space = h5py.h5s.create_simple((total, *shape))
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
    h5py.h5d.create(file.id, name.encode(), _h5_type(dtype), space, plist)

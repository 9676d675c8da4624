"""Features of recorded pictures, made once by a frozen encoder and kept beside the shards.

    features/<encoder>/camera-00000.npy     float16 [rows, features], the rows of shards/00000.h5
    features/<encoder>/camera-00000.json    which shard and which encoder they are of, and their sha256; written last

`<encoder>` is the beginning of its checkpoint's sha256. A dataset whose writer had the features at hand has them in its
shards, as `features/<encoder>/camera`. All of it can be deleted: what is missing is made again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tscli.files import disk_errors, file_hash, replacing
from tscli.pairs.sealed import PairsError, read_sealed, write_sealed
from tscli.pairs.shard import FEATURES, Shard

CHUNK = 256  # pictures at once

# [B, H, W, C] uint8 -> [B, features] float16.
Maker = Callable[[np.ndarray], np.ndarray]


def field_of(group: str, encoder: str) -> str:
    """Name of a group's features, of the encoder with that sha256."""
    return f"{FEATURES}{encoder[:12]}/{group}"


def path_of(shard: Shard, field: str) -> Path:
    """The file of a shard's features."""
    return shard.path.parents[1] / f"{field}-{shard.path.stem}.npy"


def add(shard: Shard, group: str, encoder: str, size: int, make: Maker) -> int:
    """Give a finished shard a group's features, as another of its fields; returns how many had to be made.

    Args:
        shard: with `obs/<group>`.
        group: of pictures.
        encoder: the sha256 that stands for what `make` does.
        size: of the features.
        make: makes them.

    Raises:
        UserError: they cannot be written.
    """
    field = field_of(group, encoder)
    if field in shard.fields:
        return 0
    path = path_of(shard, field)
    shape, made = (shard.rows, size), 0
    if not is_whole(path, shard.path, encoder):
        images = shard.fields[f"obs/{group}"]
        with disk_errors(path, 2 * shard.rows * size):
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                rows = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
                for begin in range(0, shard.rows, CHUNK):
                    rows[begin : begin + CHUNK] = make(images[begin : begin + CHUNK].copy())
                rows.flush()
                del rows
            about = {"shard": _sha256_of(shard.path), "encoder": encoder, "sha256": file_hash(path)}
            write_sealed(path.with_suffix(".json"), about)
        made = shard.rows
    shard.fields[field] = np.load(path, mmap_mode="r", allow_pickle=False)
    if shard.fields[field].shape != shape or shard.fields[field].dtype != np.float16:
        raise PairsError(path, f"is no float16 {list(shape)}")
    return made


def share(source: Path, shard: Path, put: Callable[[Path, Path], None]) -> None:
    """Give a shard the features that are kept beside another file of the same content; `put` links or copies a file."""
    for path in sorted((source.parents[1] / FEATURES).rglob(f"*-{source.stem}.npy")):
        if is_whole(path, source):
            name = path.name.replace(f"-{source.stem}.npy", f"-{shard.stem}.npy")
            target = shard.parents[1] / path.relative_to(source.parents[1]).with_name(name)
            target.parent.mkdir(parents=True, exist_ok=True)
            for suffix in (".npy", ".json"):
                put(path.with_suffix(suffix), target.with_suffix(suffix))


def is_whole(path: Path, shard: Path, encoder: str | None = None) -> bool:
    """Whether the features are there, undamaged, of the shard as it is, and of this encoder if one is named."""
    try:
        about = read_sealed(path.with_suffix(".json"))
        encoder = about.get("encoder") if encoder is None else encoder
        return about == {"shard": _sha256_of(shard), "encoder": encoder, "sha256": file_hash(path)}
    except (PairsError, OSError):
        return False


def _sha256_of(shard: Path) -> str:
    return read_sealed(shard.with_suffix(".json"))["sha256"]

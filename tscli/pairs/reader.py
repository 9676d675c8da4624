"""Reading pairs: verified, mapped into memory, sampled as windows.

A shard's size and sha256 are compared with its sidecar before anything interprets it. Then its datasets are read
through a memory map at the offsets that the sidecar states: as fast as an array in memory, whatever the dataset's size.

    pairs = Pairs("runs/0002-collect-cartpole-seed1")
    windows = pairs.sample_windows(np.random.default_rng(0), batch=128, length=10)
    batch = pairs.gather(windows, ["obs/partial", "previous_action", "teacher_logits"])    # arrays [10, 128, ...]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tscli.config import UserError, did_you_mean
from tscli.pairs.format import (
    EPISODE,
    SCHEMA,
    STUDENT,
    TEACHER,
    PairsError,
    PairsSchema,
    Shard,
    join_episodes,
    list_shards,
    load_shard,
    read_sealed,
    read_sidecar,
)
from tscli.pairs.windows import STARTS, Start, WindowIndex, Windows, oldest_kept

if TYPE_CHECKING:
    import torch

    from tscli.pairs.writer import PairsWriter

__all__ = [
    "STUDENT",
    "TEACHER",
    "Episode",
    "Pairs",
    "PairsError",
    "PairsSchema",
    "WindowIndex",
    "Windows",
    "as_tensors",
    "pairs_folder",
]

# A window is copied as one slice where its rows are large, or where a batch has few windows per shard; otherwise all
# rows of a shard are taken by one indexing, whose fixed cost is that of about this many slices.
_LARGE_ROW_BYTES, _WINDOWS_PER_PART = 1024, 4


def pairs_folder(path: str | Path) -> Path:
    """The pairs folder that is meant by a pairs folder, its run folder, or its `dataset.h5`.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    options = [path, path / "pairs", path.parent] if path.name == "dataset.h5" else [path, path / "pairs"]
    for option in options:
        if (option / "pairs.json").is_file():
            return option
    if (path / "shards").is_dir():
        raise PairsError(path / "pairs.json", "missing")
    what = "holds no pairs" if path.exists() else "does not exist"
    raise UserError(f"{path}: {what}; name a run made by `tscli collect`, its pairs folder or its dataset.h5")


def as_tensors(batch: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The arrays of a batch as tensors over the same memory."""
    import torch

    return {name: torch.from_numpy(value) for name, value in batch.items()}


@dataclass(frozen=True)
class Episode:
    """One episode: `info` is its row of `Pairs.episodes()`, `rows` has [length, ...] of each field asked for."""

    info: dict[str, Any]
    rows: dict[str, np.ndarray]


class Pairs:
    """One or several pairs folders, read as one dataset; later ones count as more recent.

    With `live`, the rows of a writer of this process are part of it too, those of its unfinished shard included. They
    are the most recent ones, and `refresh` (called by `windows` and `sample_windows`) takes in what came since.

    Attributes:
        schema: of the first folder; the others' groups and actions are the same.
    """

    def __init__(
        self,
        folders: str | Path | Sequence[str | Path] = (),
        verify: Literal["full", "size"] = "full",
        live: PairsWriter | None = None,
    ) -> None:
        """Open and verify.

        Args:
            folders: pairs folders, their runs or their `dataset.h5`.
            verify: "full" reads every byte once (about 1 GB/s and core) and notices a single flipped bit;
                "size" notices missing and cut files.
            live: a writer whose rows are read as well.

        Raises:
            PairsError: a file is missing or damaged.
            UserError: no pairs there, a newer schema, or folders that do not fit together.
        """
        paths = [folders] if isinstance(folders, (str, Path)) else list(folders)
        self._static: list[list[Shard]] = []
        schemas: list[PairsSchema] = []
        names: list[str] = []
        for path in map(pairs_folder, paths):
            schema, shards = _open_folder(path, verify)
            schemas.append(schema)
            names.append(str(path))
            self._static.append(shards)
        self._live = live
        self._live_shards: list[Shard] = []
        self._live_seen = (-1, -1)
        if live is not None:
            schemas.append(live.schema)
            names.append(str(live.folder))
        if not schemas:
            raise UserError("no pairs folder given: name a run made by `tscli collect`")
        self.schema = schemas[0]
        for schema, name in zip(schemas[1:], names[1:], strict=True):
            if difference := self.schema.difference(schema):
                raise UserError(f"{names[0]} and {name} cannot be read as one: {difference}; name runs of one task")
        self._row_fields = self.schema.row_fields()
        self._generation = 0
        self._index: dict[tuple, WindowIndex] = {}
        self._rebuild()
        self.refresh()

    # --- tables -------------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Take in what the live writer has added. Costs nothing when it has added nothing."""
        if self._live is None or (self._live.step, self._live.num_shards) == self._live_seen:
            return
        known = len(self._live_shards)
        if self._live.num_shards > known:
            folder, schema = self._live.folder, self._live.schema
            for index in range(known, self._live.num_shards):
                self._live_shards.append(load_shard(folder, index, read_sidecar(folder, index, schema), "size"))
            # A finished shard may have been packed: its rows have moved.
            self._generation += 1
        self._live_seen = (self._live.step, self._live.num_shards)
        self._rebuild()

    def _rebuild(self) -> None:
        groups = [*self._static]
        if self._live is not None:
            live = self._live.live_shard()
            groups.append([*self._live_shards, *([live] if live is not None else [])])
        self._shards: list[Shard] = []
        segments, episodes = [np.empty(0, _segment_dtype(self.schema))], [np.empty(0, EPISODE)]
        first_episode = first_step = 0
        for shards in groups:
            own = join_episodes([s.episodes for s in shards])
            own["episode"] += first_episode
            end_step = first_step
            for shard in shards:
                table = _widen(shard.segments, self.schema)
                table["shard"] = len(self._shards)
                table["episode"] += first_episode
                table["time"] = first_step + shard.first_step + table["step"]
                end_step = max(end_step, int((table["time"] + table["length"]).max(initial=end_step)))
                segments.append(table)
                self._shards.append(shard)
            episodes.append(own)
            first_episode += len(own)
            first_step = end_step
        self._segments, self._episodes = np.concatenate(segments), np.concatenate(episodes)
        # One opaque item per row makes numpy copy rows, not elements.
        self._items = {
            name: [s.fields[name].reshape(s.rows, -1).view(_item(shape, dtype))[:, 0] for s in self._shards]
            for name, (shape, dtype) in self._row_fields.items()
        }
        self._index.clear()
        self._addresses: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The files, mapped; all rows of the finished ones belong to episodes."""
        return tuple(self._shards)

    @property
    def num_steps(self) -> int:
        """Rows that belong to episodes."""
        return int(self._segments["length"].sum())

    @property
    def num_episodes(self) -> int:
        """Episodes, unfinished ones included."""
        return len(self._episodes)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of what is stored per row; `gather` also gives `previous_action`."""
        return tuple(self._row_fields)

    def episodes(self) -> np.ndarray:
        """Structured array, one row per episode, ordered by `episode`.

        Its fields: `episode`, `env`, `index` (the env's index-th episode), `start` (the writer's step), `length`,
        `return`, `seed`, `terminated`, `truncated`, `success`, `finished`.
        """
        return self._episodes.copy()

    def segments(self) -> np.ndarray:
        """Structured array, one row per stretch of an episode that lies in one shard.

        Its fields: `shard`, `row` (first row in the shard), `length`, `episode`, `first_step` (within the episode),
        `env`, `step` (first step in the shard), `time` (its age: steps since the first folder's first), and
        `previous_action` (executed before the first row; zeros where the episode begins).
        """
        return self._segments.copy()

    def split_episodes(self, fraction: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the episodes to train on, and of about `fraction` of all to hold out.

        An episode's side depends on (seed, its number) alone, so it stays where it is while the dataset grows. The
        exception are so few episodes that one side would be empty: with two or more and a fraction between 0 and 1 the
        episode that is closest to changing sides is then moved there, until others come. A single one is trained on.
        """
        numbers = self._episodes["episode"]
        score = _hash_unit(numbers, seed)
        held_out = score < fraction
        if 0 < fraction < 1 and len(numbers):
            # Both change something only where one side has none: else the lowest is held out already, the highest not.
            held_out[score.argmin()] = True
            held_out[score.argmax()] = False
        return numbers[~held_out], numbers[held_out]

    # --- windows ------------------------------------------------------------------------------------------------------

    def windows(
        self,
        length: int,
        start: Start = "anywhere",
        memory: int | None = None,
        episodes: Iterable[int] | np.ndarray | None = None,
    ) -> WindowIndex:
        """Number all windows of `length` steps. A window never crosses a segment; a short one is padded.

        Args:
            length: T.
            start: where windows begin. "anywhere": uniform draws show every step equally often, at the price of
                windows that begin or end with their segment and are shorter. "full": only windows of T steps
                (one padded window for a shorter segment); a segment's outermost T - 1 steps come up less often.
                "tile": one after the other, every step in exactly one window. "episode": at episodes' first steps.
            memory: use the most recent steps alone, as many as fit into this number of transitions of all episodes.
            episodes: use these episodes alone.

        Raises:
            ValueError: length or memory below 1, or an unknown `start`.
        """
        if length < 1 or (memory is not None and memory < 1):
            raise ValueError(f"length {length} and memory {memory} must be at least 1")
        if start not in STARTS:
            raise ValueError(f'start "{start}": {did_you_mean(start, STARTS)}')
        self.refresh()
        segments = self._segments
        some = np.ones(len(segments), bool)
        low = np.zeros(len(segments), np.int64)
        if memory is not None:
            low = np.maximum(oldest_kept(segments, memory) - segments["time"], 0)
            some &= low < segments["length"]
        if episodes is not None:
            wanted = np.zeros(len(self._episodes), bool)
            wanted[np.fromiter(episodes, np.int64)] = True
            some &= wanted[segments["episode"]]
        segments, low = segments[some], low[some]
        return WindowIndex(segments, low, length, start, self._generation)

    def sample_windows(
        self,
        rng: np.random.Generator | torch.Generator,
        batch: int,
        length: int,
        start: Start = "anywhere",
        memory: int | None = None,
        episodes: np.ndarray | None = None,
    ) -> Windows:
        """Draw `batch` windows of `length` steps: `windows(...).sample(...)`, with the numbering kept between calls."""
        self.refresh()
        key = (length, start, memory, None if episodes is None else hash(episodes.tobytes()))
        if key not in self._index:
            self._index[key] = self.windows(length, start, memory, episodes)
        return self._index[key].sample(rng, batch)

    def gather(
        self, windows: Windows, fields: Iterable[str], delay: Mapping[str, int] | None = None
    ) -> dict[str, np.ndarray]:
        """Read windows, time-major.

        Args:
            windows: from this reader.
            fields: any of `Pairs.fields`, and `previous_action`: the action executed one step earlier, zeros at an
                episode's first step.
            delay: group -> steps. `obs/<group>` is then that many steps old, or the episode's first reading.

        Returns:
            name -> contiguous [T, B, ...], plus "first" and "valid" [T, B] bool. Padding repeats the last valid row.

        Raises:
            UserError: no such field.
            ValueError: the windows were drawn before the live writer finished a shard; draw anew.
        """
        if windows.generation != self._generation:
            raise ValueError("the windows were drawn before a shard was finished: draw them again")
        delay = delay or {}
        out = {}
        for name in dict.fromkeys(fields):
            late = delay.get(name.removeprefix("obs/"), 0) if name.startswith("obs/") else 0
            if name == "previous_action":
                out[name] = self._previous_action(windows)
            elif name in ("first", "valid"):
                continue
            elif name not in self._row_fields:
                options = [*self._row_fields, "previous_action"]
                raise UserError(f'the pairs have no field "{name}": {did_you_mean(name, options)}')
            elif late:
                out[name] = self._delayed(name, windows, late)
            else:
                out[name] = self._take(name, windows)
        return {**out, "first": windows.first, "valid": windows.valid}

    def _take(self, name: str, windows: Windows) -> np.ndarray:
        """The field at every step of the windows, [T, B, ...]."""
        shape, dtype = self._row_fields[name]
        item = _item(shape, dtype)
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
        out = np.empty(rows.shape, _item(*self._row_fields[name]))
        for shard, which in parts:
            if isinstance(which, slice):
                # The rows exist: "clip" spares numpy a check and a buffer.
                items[shard].take(rows[which], out=out[which], mode="clip")
            else:
                out[which] = items[shard].take(rows[which])
        return self._time_major(name, out)

    def _time_major(self, name: str, items: np.ndarray) -> np.ndarray:
        """[B, T] items as a contiguous [T, B, ...] array of the field."""
        shape, dtype = self._row_fields[name]
        return np.ascontiguousarray(items.T).view(dtype).reshape((*items.T.shape, *shape))

    def _previous_action(self, windows: Windows) -> np.ndarray:
        begins = windows.cut[:, None] & (windows.position == 0)
        previous = self._take_rows("action", windows.parts, windows.rows - ~begins)
        window, step = np.nonzero(begins)
        previous[step, window] = windows.previous_action[window]
        return previous

    def _delayed(self, name: str, windows: Windows, delay: int) -> np.ndarray:
        """Rows `delay` steps earlier in the episode, which may lie in an earlier shard."""
        if self._addresses is None:
            order = np.lexsort((self._segments["first_step"], self._segments["episode"]))
            length = np.bincount(self._segments["episode"], self._segments["length"], self.num_episodes)
            first = (np.cumsum(length) - length).astype(np.int64)
            begins = first[self._segments["episode"][order]] + self._segments["first_step"][order]
            self._addresses = order, begins, first
        order, begins, first = self._addresses
        step = windows.step[:, None] + windows.position
        address = (first[windows.episode, None] + np.maximum(step - delay, 0)).ravel()
        at = np.searchsorted(begins, address, side="right") - 1
        segment = self._segments[order[at]]
        out = np.empty(len(address), _item(*self._row_fields[name]))
        for shard in np.unique(segment["shard"]):
            which = segment["shard"] == shard
            out[which] = self._items[name][shard][(segment["row"] + address - begins[at])[which]]
        return self._time_major(name, out.reshape(step.shape))

    def iter_episodes(self, fields: Iterable[str] | None = None) -> Iterator[Episode]:
        """Every episode as a whole, in order; `fields` as in `gather`, None for all that is stored."""
        names = list(self._row_fields if fields is None else fields)
        self.refresh()
        segments = self._segments[np.lexsort((self._segments["first_step"], self._segments["episode"]))]
        ends = np.searchsorted(segments["episode"], np.arange(self.num_episodes), side="right")
        for info, begin, end in zip(self._episodes, [0, *ends[:-1]], ends, strict=True):
            rows = [
                {name: value[:, 0] for name, value in self.gather(windows, names).items()}
                for windows in (
                    WindowIndex(segments[i : i + 1], np.zeros(1, np.int64), length, "tile", self._generation)[[0]]
                    for i, length in zip(range(begin, end), segments["length"][begin:end].tolist(), strict=True)
                )
            ]
            joined = {name: np.concatenate([part[name] for part in rows]) for name in names}
            yield Episode(dict(zip(EPISODE.names or (), info.tolist(), strict=True)), joined)


def _open_folder(folder: Path, verify: Literal["full", "size"]) -> tuple[PairsSchema, list[Shard]]:
    header = read_sealed(folder / "pairs.json")
    if header.get("schema") != SCHEMA:
        raise UserError(
            f"{folder}: has pairs of schema {header.get('schema')}, this tscli reads {SCHEMA}: upgrade tscli"
        )
    schema = PairsSchema.from_json(header)
    found = list_shards(folder)
    expected = header["num_shards"] if header["closed"] else (found[-1] + 1 if found else 0)
    if missing := sorted(set(range(expected)) - set(found)):
        raise PairsError(folder / "shards" / f"{missing[0]:05d}.json", "missing")
    if len(found) > expected:
        raise PairsError(folder / "shards" / f"{found[expected]:05d}.json", "does not belong to this dataset")
    if not found:
        raise UserError(f"{folder}: holds no finished shard; collect again, or --resume the run that was collecting")
    sidecars = [read_sidecar(folder, index, schema) for index in found]
    # Hashing leaves the interpreter free, so threads add up.
    with ThreadPoolExecutor(4) as pool:
        return schema, list(pool.map(lambda index: load_shard(folder, index, sidecars[index], verify), found))


def _segment_dtype(schema: PairsSchema) -> np.dtype:
    return np.dtype([("shard", "<i8"), ("time", "<i8"), *schema.segment_dtype().descr])


def _widen(segments: np.ndarray, schema: PairsSchema) -> np.ndarray:
    wide = np.zeros(len(segments), _segment_dtype(schema))
    for name in segments.dtype.names or ():
        wide[name] = segments[name]
    return wide


def _item(shape: tuple[int, ...], dtype: np.dtype) -> np.dtype:
    """One row as a single numpy item."""
    return np.dtype(f"V{math.prod(shape) * dtype.itemsize}") if shape else dtype


def _hash_unit(numbers: np.ndarray, seed: int) -> np.ndarray:
    """A fixed number in [0, 1) for each integer (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53

"""Reading pairs: verified, mapped into memory, sampled as windows.

A shard's size and sha256 are compared with its sidecar before anything interprets it. Then its datasets are read
through a memory map at the offsets that the sidecar states: as fast as an array in memory, whatever the dataset's size.

    pairs = Pairs("runs/0002-collect-cartpole-seed1")
    windows = pairs.sample_windows(np.random.default_rng(0), batch=128, length=10)
    batch = pairs.gather(windows, ["obs/partial", "previous_action", "teacher_logits"])    # arrays [10, 128, ...]
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tscli.config import UserError, did_you_mean
from tscli.pairs.features import add, field_of, path_of
from tscli.pairs.folder import open_folder, pairs_folder
from tscli.pairs.rows import Rows
from tscli.pairs.schema import PairsSchema
from tscli.pairs.shard import Shard, load_shard, read_sidecar
from tscli.pairs.tables import EPISODE, join_episodes, segment_dtype
from tscli.pairs.windows import STARTS, Start, WindowIndex, Windows, oldest_kept

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from tscli.networks import Encoder
    from tscli.pairs.loading import PairsDataset
    from tscli.pairs.writer import PairsWriter


def as_tensors(batch: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
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
        features: field of the features that are shown in the place of a group's images; see `show_features`.
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
        found: list[tuple[Path, PairsSchema]] = []
        for path in map(pairs_folder, paths):
            schema, shards = open_folder(path, verify)
            found.append((path, schema))
            self._static.append(shards)
        self._live = live
        self._live_shards: list[Shard] = []
        self._live_seen = (-1, -1)
        if live is not None:
            found.append((live.folder, live.schema))
        if not found:
            raise UserError("no pairs folder given: name a run made by `tscli collect`")
        first, self.schema = found[0]
        for path, schema in found[1:]:
            if difference := self.schema.difference(schema):
                raise UserError(f"{first} and {path} cannot be read as one: {difference}; name runs of one task")
        self._row_fields = self.schema.row_fields()
        self.features: dict[str, str] = {}
        self._generation = 0
        self._index: dict[tuple, WindowIndex] = {}
        self._rebuild()
        self.refresh()

    def __repr__(self) -> str:
        groups = ", ".join(f"{name} {list(group.shape)}" for name, group in self.schema.groups.items())
        count = f"{self.num_episodes} episodes, {self.num_steps} steps"
        return f"<Pairs of {self.schema.task or 'no task'}, {count}; {groups}; {self.schema.action.kind} actions>"

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
        """Number the segments and episodes of all folders through."""
        groups = [*self._static]
        if self._live is not None:
            live = self._live.live_shard()
            groups.append([*self._live_shards, *([live] if live is not None else [])])
        self._shards = [shard for shards in groups for shard in shards]
        dtype = np.dtype([("shard", "<i8"), ("time", "<i8"), *segment_dtype(self.schema.action).descr])
        segments, episodes = [np.empty(0, dtype)], [np.empty(0, EPISODE)]
        first_episode = first_step = 0
        for shards in groups:
            own = join_episodes([s.episodes for s in shards])
            own["episode"] += first_episode
            end_step = first_step
            for shard in shards:
                table = np.zeros(len(shard.segments), dtype)
                for name in shard.segments.dtype.names or ():
                    table[name] = shard.segments[name]
                table["shard"] = len(segments) - 1
                table["episode"] += first_episode
                table["time"] = first_step + shard.first_step + table["step"]
                end_step = max(end_step, int((table["time"] + table["length"]).max(initial=end_step)))
                segments.append(table)
            episodes.append(own)
            first_episode += len(own)
            first_step = end_step
        self._segments, self._episodes = np.concatenate(segments), np.concatenate(episodes)
        self._rows = Rows(self._shards, self._segments, self._row_fields)
        self._index.clear()

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

    def show_features(self, encoder: Encoder, say: Callable[[str], None] = lambda text: None) -> None:
        """Let views read features in the place of images that go through a frozen encoder.

        Those that are neither in the shards nor kept beside them are made now. A live writer writes its own.

        Raises:
            UserError: they cannot be written.
        """
        for group, module in encoder.frozen.items():
            field = self.features[group] = field_of(group, module.sha256)
            self._row_fields[field] = ((module.features,), np.dtype(np.float16))
            make = functools.partial(_make, encoder, group)
            for shard in (shard for shards in self._static for shard in shards):
                if made := add(shard, group, module.sha256, module.features, make):
                    say(f'features of {made} pictures "{group}" made, kept in {path_of(shard, field).parent}')
        self._rebuild()

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
        rng: np.random.Generator | Generator,
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
        late = {f"obs/{group}": steps for group, steps in (delay or {}).items()}
        out = {}
        for name in dict.fromkeys(fields):
            if name == "previous_action":
                out[name] = self._rows.previous_action(windows)
            elif name in ("first", "valid"):
                continue
            elif name not in self._row_fields:
                options = [*self._row_fields, "previous_action"]
                raise UserError(f'the pairs have no field "{name}": {did_you_mean(name, options)}')
            else:
                out[name] = self._rows.take(name, windows, late.get(name, 0))
        return {**out, "first": windows.first, "valid": windows.valid}

    def torch(
        self, view: str, length: int, start: Start = "tile", episodes: Iterable[int] | None = None
    ) -> PairsDataset:
        """Windows as a map-style dataset of torch, for `DataLoader(pairs.torch("partial", 10), batch_size=64)`.

        Args:
            view: of the task that the pairs are of, by name or written out.
            length, start, episodes: as in `windows`.

        An item is a dict of [T, ...]: what the view shows ("vector", and pictures by their groups), "action",
        "teacher_action" and the teacher's distribution ("teacher_logits", or "teacher_mean" and "teacher_std"),
        "first" at an episode's first step, and "valid", False for the padding of a short window.

        Raises:
            UserError: no such view, or the pairs lack what it shows.
        """
        from tscli.pairs.loading import PairsDataset, view_of

        return PairsDataset(self, view_of(self, view), self.windows(length, start, episodes=episodes))

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


def _make(encoder: Encoder, group: str, images: np.ndarray) -> np.ndarray:
    import torch

    device = next(encoder.parameters()).device
    return encoder.features_of({group: torch.from_numpy(images).to(device)})[group].cpu().numpy()


def _hash_unit(numbers: np.ndarray, seed: int) -> np.ndarray:
    """A fixed number in [0, 1) for each integer (splitmix64, Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = numbers.astype(np.uint64) + np.uint64(seed) * np.uint64(0xD1342543DE82EF95)
        x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53

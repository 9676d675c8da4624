"""Writing a pairs folder, one step of all envs at a time.

Rows go into a memory-mapped HDF5 file whose space is allocated beforehand, so that a step costs a few copies and the
memory does not grow with the dataset. What a checkpoint has to remember is small (`state_dict`); the rows themselves
are already in the file, and those written after the checkpoint are discarded by `resume`.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tscli.config import UserError
from tscli.pairs.format import (
    EPISODE,
    Layout,
    PairsError,
    PairsSchema,
    Shard,
    create_shard_file,
    disk_errors,
    layout_of,
    list_shards,
    load_shard,
    map_fields,
    read_sealed,
    read_sidecar,
    shard_path,
    sync_file,
    sync_folder,
    table_from_columns,
    table_to_columns,
    write_dataset_file,
    write_header,
    write_sidecar,
)

__all__ = ["PairsWriter"]

# Small rows are collected for a few steps and then written env by env: a lone store into each env's page costs more
# than the copy (N=1024, six floats: 54 us against 12 us). Large rows gain nothing and go straight to the file.
_STAGED_STEPS = 32
_STAGED_ROW_BYTES = 1024

_ENV_STATE = ("episode", "index", "start", "return", "segment_step", "at_start")


class _Table:
    """A structured array that grows."""

    def __init__(self, dtype: np.dtype) -> None:
        self._rows = np.empty(64, dtype)
        self._count = 0

    def extend(self, rows: np.ndarray) -> None:
        need = self._count + len(rows)
        if need > len(self._rows):
            grown = np.empty(max(need, 2 * len(self._rows)), self._rows.dtype)
            grown[: self._count] = self.rows
            self._rows = grown
        self._rows[self._count : need] = rows
        self._count = need

    @property
    def rows(self) -> np.ndarray:
        return self._rows[: self._count]


class PairsWriter:
    """Appends steps to a new pairs folder.

    Within a step the order is: observations seen, action taken, then the reward and the ends that came of it. The first
    row of every env is an episode's first, and so is the row after `terminated` or `truncated` (same-step autoreset).

    A shard holds the same stretch of steps for every env, `shard_bytes` at most. Use larger shards where a step of all
    envs is large: episodes are cut at shard borders, and no window crosses a cut.

    Attributes:
        num_steps: rows that belong to episodes so far.
        num_episodes: finished episodes so far.
        step: calls of `append` so far.
        num_shards: finished shards.
    """

    def __init__(
        self,
        folder: str | Path,
        schema: PairsSchema,
        num_envs: int,
        shard_bytes: int = 256 << 20,
        expected_steps: int | None = None,
    ) -> None:
        """Start a new dataset.

        Args:
            folder: created; must not hold pairs already.
            schema: what the rows mean.
            num_envs: N of every `append`.
            shard_bytes: upper bound of a shard file's rows.
            expected_steps: calls of `append` that are to be expected, so that a small dataset claims little space.

        Raises:
            UserError: pairs are there already, one step does not fit into a shard, or the disk is full.
        """
        folder = Path(folder)
        if (folder / "pairs.json").exists():
            raise UserError(
                f"{folder}: holds pairs already; choose another folder, or --resume the run that wrote them"
            )
        with disk_errors(folder):
            (folder / "shards").mkdir(parents=True, exist_ok=True)
        fields = schema.row_fields()
        step_bytes = num_envs * sum(math.prod(shape) * dtype.itemsize for shape, dtype in fields.values())
        if step_bytes > shard_bytes:
            raise UserError(
                f"one step of {num_envs} envs takes {step_bytes} bytes, a shard holds {shard_bytes}: "
                "use larger shards or fewer envs"
            )
        capacity = min(shard_bytes // step_bytes, expected_steps or shard_bytes)
        self._set_up(folder, schema, num_envs, capacity)
        write_header(folder, schema, num_envs)

    def _set_up(self, folder: Path, schema: PairsSchema, num_envs: int, capacity: int) -> None:
        self.folder, self.schema, self.num_envs = folder, schema, num_envs
        self.step = self.num_steps = self.num_episodes = self.num_shards = 0
        self._capacity = capacity
        self._steps = 0  # in the live shard
        self._synced = 0  # of these, how many are in the file
        self._next_episode = 0
        self._env: dict[str, np.ndarray] = {
            name: np.zeros(num_envs, {"return": np.float64, "at_start": bool}.get(name, np.int64))
            for name in _ENV_STATE
        }
        self._env["episode"][:] = -1  # none is being recorded
        self._env["at_start"][:] = True
        self._fields = schema.row_fields()
        self._previous_action = np.zeros((num_envs, *schema.action.shape), schema.action.dtype)
        self._segments, self._episodes = _Table(schema.segment_dtype()), _Table(EPISODE)
        self._offsets: dict[str, int] = {}
        self._rows: dict[str, np.ndarray] = {}  # name -> [N, capacity, ...] over the live file
        self._map: np.memmap | None = None
        staged = min(_STAGED_STEPS, capacity)
        self._stage = {
            name: np.empty((staged, num_envs, *shape), dtype)
            for name, (shape, dtype) in self._fields.items()
            if math.prod(shape) * dtype.itemsize < _STAGED_ROW_BYTES
        }
        self._stage_size = staged
        self._closed = False

    # --- appending ----------------------------------------------------------------------------------------------------

    def append(
        self,
        obs: Mapping[str, Any],
        action: Any,
        teacher_action: Any,
        teacher_dist: Mapping[str, Any],
        reward: Any,
        terminated: Any,
        truncated: Any,
        actor: Any,
        success: Any = None,
        keep: Any = None,
    ) -> None:
        """Add one step of every env; values are numpy arrays or CPU tensors.

        Args:
            obs: group -> [N, *shape], seen before acting.
            action: [N, ...] as executed.
            teacher_action: [N, ...] what the teacher would do.
            teacher_dist: the teacher's `schema.teacher_fields`: `logits` [N, P], or `mean` and `std` [N, D].
            reward: [N], of this action.
            terminated: [N] bool, the episode ended.
            truncated: [N] bool, the episode was cut off.
            actor: [N] uint8, who chose `action`: 0 student, 1 teacher.
            success: [N] bool, True at an episode's last step if it succeeded; None where the task has no such notion,
                as far as is known: some envs show it only once they have been stepped. With the first that is given the
                header says so.
            keep: [N] bool; rows of False belong to no episode and are not read back. An env may leave at any step (its
                open episode stays unfinished) and come back at the first step of an episode. None keeps all.

        Raises:
            ValueError: a field is missing, has the wrong shape or cannot be stored in its dtype.
            UserError: the disk is full.
        """
        if self._map is None:
            self._open_shard()
        values = {f"obs/{name}": value for name, value in obs.items()}
        values.update({f"teacher_{name}": value for name, value in teacher_dist.items()})
        values.update(action=action, teacher_action=teacher_action, reward=reward, actor=actor)
        values.update(terminated=terminated, truncated=truncated)
        if values.keys() != self._fields.keys():
            raise ValueError(f"fields {sorted(values)} given, {sorted(self._fields)} expected")
        slot = self._steps - self._synced
        for name, value in values.items():
            stage = self._stage.get(name)
            target = self._rows[name][:, self._steps] if stage is None else stage[slot]
            value = np.asarray(value)
            if value.shape != target.shape:
                raise ValueError(f"{name} has shape {value.shape}, expected {target.shape}")
            try:
                np.copyto(target, value, casting="same_kind")
            except TypeError:
                raise ValueError(f"{name} is {value.dtype}, which does not fit {target.dtype}") from None
        self._record(
            np.asarray(reward),
            np.asarray(terminated).astype(bool, copy=False),
            np.asarray(truncated).astype(bool, copy=False),
            None if success is None else np.asarray(success).astype(bool, copy=False),
            None if keep is None else np.asarray(keep).astype(bool, copy=False),
        )
        if success is not None and not self.schema.has_success:
            self.schema = replace(self.schema, has_success=True)
            write_header(self.folder, self.schema, self.num_envs)
        if self._steps == self._capacity:
            self._finish_shard()
        elif self._steps - self._synced == self._stage_size:
            self.sync()

    def _record(
        self,
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        success: np.ndarray | None,
        keep: np.ndarray | None,
    ) -> None:
        """Bookkeeping of episodes and segments for the row that has just been stored; then moves on to the next."""
        env = self._env
        open_ = env["episode"] >= 0
        if keep is None:
            starting = ~open_
        else:
            starting = keep & ~open_
            leaving = open_ & ~keep
            if leaving.any():
                self._close(np.flatnonzero(leaving), self._steps)
        if starting.any():
            self._start(np.flatnonzero(starting))
        ended = terminated | truncated
        if keep is None:
            env["return"] += reward
            self.num_steps += self.num_envs
            closing = ended
        else:
            env["return"] += np.where(keep, reward, 0.0)
            self.num_steps += int(keep.sum())
            closing = ended & keep
        np.copyto(env["at_start"], ended)
        self._steps += 1
        self.step += 1
        if closing.any():
            rows = np.flatnonzero(closing)
            self._close(rows, self._steps, terminated, truncated, success)
            self.num_episodes += len(rows)
        env["index"] += ended

    def _start(self, rows: np.ndarray) -> None:
        env = self._env
        if not env["at_start"][rows].all():
            late = rows[~env["at_start"][rows]][0]
            raise ValueError(f"env {late} is kept again in the middle of an episode; wait for its next one")
        env["episode"][rows] = self._next_episode + np.arange(len(rows))
        self._next_episode += len(rows)
        env["start"][rows] = self.step
        env["return"][rows] = 0.0
        env["segment_step"][rows] = self._steps
        self._previous_action[rows] = 0

    def _close(
        self,
        rows: np.ndarray,
        end: int,
        terminated: np.ndarray | None = None,
        truncated: np.ndarray | None = None,
        success: np.ndarray | None = None,
    ) -> None:
        """End the episodes of these envs before the live shard's step `end`; without flags they stay unfinished."""
        self._segments.extend(self._segment_rows(rows, end))
        episodes = self._episode_rows(rows, end)
        if terminated is not None and truncated is not None:
            episodes["terminated"], episodes["truncated"] = terminated[rows], truncated[rows]
            episodes["finished"] = True
        if success is not None:
            episodes["success"] = success[rows]
        self._episodes.extend(episodes)
        self._env["episode"][rows] = -1

    def _segment_rows(self, rows: np.ndarray, end: int) -> np.ndarray:
        env, first = self._env, self._env["segment_step"][rows]
        table = np.zeros(len(rows), self._segments.rows.dtype)
        table["row"], table["env"], table["step"] = rows * self._capacity + first, rows, first
        table["length"] = end - first
        table["episode"] = env["episode"][rows]
        table["first_step"] = self.step - self._steps + first - env["start"][rows]
        table["previous_action"] = self._previous_action[rows]
        return table[table["length"] > 0]

    def _episode_rows(self, rows: np.ndarray, end: int) -> np.ndarray:
        env = self._env
        table = np.zeros(len(rows), EPISODE)
        table["env"], table["seed"] = rows, self.schema.seed
        for name in ("episode", "index", "start", "return"):
            table[name] = env[name][rows]
        table["length"] = self.step - self._steps + end - env["start"][rows]
        return table

    def restart(self) -> None:
        """Say that the envs were reset from outside: open episodes stay unfinished, the next row begins new ones."""
        self._close(np.flatnonzero(self._env["episode"] >= 0), self._steps)
        self._env["index"] += ~self._env["at_start"]
        self._env["at_start"][:] = True

    # --- shards -------------------------------------------------------------------------------------------------------

    @property
    def _part(self) -> Path:
        return shard_path(self.folder, self.num_shards).with_suffix(".part")

    def _open_shard(self) -> None:
        if self._closed:
            raise ValueError("the writer is closed")
        # Under another name first: what a kill leaves half made must not be taken for the live file.
        temporary = self._part.with_suffix(".tmp")
        self._offsets = create_shard_file(temporary, self._fields, self.num_envs * self._capacity)
        os.replace(temporary, self._part)
        self._map_part()

    @property
    def _layout(self) -> Layout:
        return layout_of(self._fields, self._offsets, self.num_envs * self._capacity)

    def _map_part(self) -> None:
        fields, self._map = map_fields(self._part, self._layout, "r+")
        self._rows = {
            name: rows.reshape((self.num_envs, self._capacity, *rows.shape[1:])) for name, rows in fields.items()
        }

    def sync(self) -> None:
        """Move collected rows into the live file, where readers of this process see them."""
        count = self._steps - self._synced
        if count:
            for name, stage in self._stage.items():
                self._rows[name][:, self._synced : self._steps] = stage[:count].swapaxes(0, 1)
        self._synced = self._steps

    def flush(self) -> None:
        """Bring all rows to the disk, so that they survive a power cut; a kill they survive without."""
        self.sync()
        if self._map is not None:
            self._map.flush()

    def live_shard(self) -> Shard | None:
        """The shard that is being written, as a reader sees a finished one; open episodes have a segment so far."""
        if self._map is None or self._steps == 0:
            return None
        self.sync()
        rows = {name: value.reshape((-1, *value.shape[2:])) for name, value in self._rows.items()}
        segments, episodes = self._tables()
        num_rows = self.num_envs * self._capacity
        return Shard(self._part, num_rows, self.step - self._steps, rows, segments, episodes)

    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Segments by row and episodes by number, those that are still open included."""
        open_ = np.flatnonzero(self._env["episode"] >= 0)
        segments = np.concatenate([self._segments.rows, self._segment_rows(open_, self._steps)])
        episodes = np.concatenate([self._episodes.rows, self._episode_rows(open_, self._steps)])
        return segments[np.argsort(segments["row"])], episodes[np.argsort(episodes["episode"])]

    def _finish_shard(self) -> None:
        self.sync()
        segments, episodes = self._tables()
        last_action = self._rows["action"][:, self._steps - 1].copy()
        valid = int(segments["length"].sum())
        if valid:
            path, layout = shard_path(self.folder, self.num_shards), self._layout
            part, dense = self._part, valid == self.num_envs * self._capacity
            if dense:
                self.flush()
                self._release()
                sync_file(part)
                os.replace(part, path)
            else:
                layout, segments = self._compact(path, segments, valid)
                self._release()
            sync_folder(path.parent)
            about = {"num_envs": self.num_envs, "rows": valid, "steps": self._steps, "capacity": self._capacity}
            write_sidecar(path, layout, segments, episodes, {**about, "first_step": self.step - self._steps})
            # Only now: until the sidecar is there, a resumed run needs the part.
            part.unlink(missing_ok=True)
            self.num_shards += 1
            write_dataset_file(self.folder, self.schema)
        self._next_shard(last_action)

    def _next_shard(self, last_action: np.ndarray) -> None:
        """What an episode that goes on needs in the next shard."""
        self._steps = self._synced = 0
        self._env["segment_step"][:] = 0
        self._previous_action[:] = last_action
        self._segments, self._episodes = _Table(self._segments.rows.dtype), _Table(EPISODE)

    def _release(self) -> None:
        self._rows, self._map = {}, None

    def _compact(self, path: Path, segments: np.ndarray, valid: int) -> tuple[Layout, np.ndarray]:
        """Write only the rows that belong to episodes; returns the new file's layout and segments."""
        temporary = path.with_suffix(".tmp")
        layout = layout_of(self._fields, create_shard_file(temporary, self._fields, valid), valid)
        target, whole = map_fields(temporary, layout, "r+")
        source = {name: rows.reshape((-1, *rows.shape[2:])) for name, rows in self._rows.items()}
        packed = segments.copy()
        packed["row"] = np.cumsum(segments["length"]) - segments["length"]
        _copy_segments(source, segments["row"], target, packed["row"], segments["length"])
        whole.flush()
        del target, whole
        sync_file(temporary)
        os.replace(temporary, path)
        return layout, packed

    def close(self) -> None:
        """Finish the last shard, open episodes unfinished, and mark the dataset complete. Again does nothing."""
        if self._closed:
            return
        if self._steps:
            self._finish_shard()
        self._release()
        self._part.unlink(missing_ok=True)
        self._closed = True
        write_header(self.folder, self.schema, self.num_envs, (self.num_shards, self.num_steps))

    # --- exact continuation -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What `resume` needs besides the files: numbers, strings and lists. Flushes, so that both agree."""
        self.flush()
        counters = ("step", "num_steps", "num_episodes", "num_shards", "num_envs")
        return {
            **{name: getattr(self, name) for name in counters},
            "capacity": self._capacity,
            "steps": self._steps,
            "offsets": dict(self._offsets),
            "next_episode": self._next_episode,
            "env": {name: values.tolist() for name, values in self._env.items()},
            "previous_action": self._previous_action.tolist(),
            "segments": table_to_columns(self._segments.rows),
            "episodes": table_to_columns(self._episodes.rows),
        }

    @classmethod
    def resume(cls, folder: str | Path, state: dict[str, Any]) -> PairsWriter:
        """Continue where `state_dict` was taken; whatever was written later is discarded.

        Raises:
            UserError: shards that the state counts on are missing or damaged.
        """
        folder = Path(folder)
        header = read_sealed(folder / "pairs.json")
        writer = cls.__new__(cls)
        writer._set_up(folder, PairsSchema.from_json(header), int(state["num_envs"]), int(state["capacity"]))
        for name in ("step", "num_steps", "num_episodes", "num_shards"):
            setattr(writer, name, int(state[name]))
        writer._steps = writer._synced = int(state["steps"])
        writer._next_episode, writer._offsets = int(state["next_episode"]), dict(state["offsets"])
        for name, values in state["env"].items():
            writer._env[name][:] = values
        writer._previous_action[:] = np.asarray(state["previous_action"], writer._previous_action.dtype)
        writer._segments.extend(table_from_columns(state["segments"], writer.schema.segment_dtype()))
        writer._episodes.extend(table_from_columns(state["episodes"], EPISODE))
        write_header(folder, writer.schema, writer.num_envs)
        writer._discard_later_shards()
        return writer

    def _discard_later_shards(self) -> None:
        live = self.num_shards
        for index in range(live):
            load_shard(self.folder, index, read_sidecar(self.folder, index, self.schema), "size")
        # Sidecars first: a shard without one does not exist.
        for path in sorted((self.folder / "shards").iterdir(), key=lambda p: p.suffix != ".json"):
            later = path.stem.isdigit() and int(path.stem) > live
            if later or path.suffix == ".tmp" or (path.suffix == ".part" and path != self._part):
                path.unlink()
        path = shard_path(self.folder, live)
        if self._steps and not self._part.exists():
            self._reopen(path)
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if not self._steps:
            self._part.unlink(missing_ok=True)
        write_dataset_file(self.folder, self.schema)
        if self._steps:
            self._map_part()

    def _reopen(self, path: Path) -> None:
        """Make the live file out of a shard that was finished after the state was taken."""
        if self.num_shards not in list_shards(self.folder):
            # Renamed, but killed before its sidecar was written: that is the live file, whole.
            if not path.exists():
                raise PairsError(self._part, "missing")
            os.replace(path, self._part)
            return
        sidecar = read_sidecar(self.folder, self.num_shards, self.schema)
        shard = load_shard(self.folder, self.num_shards, sidecar, "full")
        temporary = self._part.with_suffix(".tmp")
        num_rows = self.num_envs * self._capacity
        if sidecar["rows"] == num_rows:
            with disk_errors(temporary, sidecar["bytes"]):
                shutil.copyfile(path, temporary)
        else:
            self._offsets = create_shard_file(temporary, self._fields, num_rows)
            target, whole = map_fields(temporary, self._layout, "r+")
            at = shard.segments["env"] * self._capacity + shard.segments["step"]
            _copy_segments(shard.fields, shard.segments["row"], target, at, shard.segments["length"])
            whole.flush()
        sync_file(temporary)
        os.replace(temporary, self._part)


def _copy_segments(
    source: dict[str, np.ndarray],
    source_rows: np.ndarray,
    target: dict[str, np.ndarray],
    target_rows: np.ndarray,
    lengths: np.ndarray,
) -> None:
    """Copy runs of rows of every field; both sides are in ascending order."""
    # Neighbouring segments of one env are one run on both sides.
    follows = (source_rows[1:] == source_rows[:-1] + lengths[:-1]) & (
        target_rows[1:] == target_rows[:-1] + lengths[:-1]
    )
    first = np.flatnonzero(np.concatenate([[True], ~follows]))
    counts = np.add.reduceat(lengths, first)
    for name, rows in target.items():
        for a, b, n in zip(source_rows[first].tolist(), target_rows[first].tolist(), counts.tolist(), strict=True):
            rows[b : b + n] = source[name][a : a + n]

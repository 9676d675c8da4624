"""Writing a pairs folder, one step of all envs at a time.

Rows go into a memory-mapped HDF5 file whose space is allocated beforehand, so that a step costs a few copies and the
memory does not grow with the dataset. What a checkpoint has to remember is small (`state_dict`); the rows themselves
are already in the file, and those written after the checkpoint are discarded by `resume`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tscli.config import UserError
from tscli.files import disk_errors
from tscli.pairs.folder import read_header, write_header
from tscli.pairs.hdf5 import write_dataset_file
from tscli.pairs.live import LiveShard
from tscli.pairs.schema import Fields, PairsSchema
from tscli.pairs.sealed import PairsError
from tscli.pairs.shard import Shard, list_shards, load_shard, read_sidecar, shard_path, write_sidecar
from tscli.pairs.tables import TableWriter


def _fields(schema: PairsSchema, features: Mapping[str, int]) -> Fields:
    return {**schema.row_fields(), **{name: ((size,), np.dtype(np.float16)) for name, size in features.items()}}


class PairsWriter:
    """Appends steps to a new pairs folder.

    Within a step the order is: observations seen, action taken, then the reward and the ends that came of it. The first
    row of every env is an episode's first, and so is the row after `terminated` or `truncated` (same-step autoreset).

    A shard holds the same stretch of steps for every env, `shard_bytes` at most. Use larger shards where a step of all
    envs is large: episodes are cut at shard borders, and no window crosses a cut.

    Attributes:
        num_shards: finished shards.
    """

    def __init__(
        self,
        folder: str | Path,
        schema: PairsSchema,
        num_envs: int,
        shard_bytes: int = 256 << 20,
        expected_steps: int | None = None,
        features: Mapping[str, int] | None = None,
    ) -> None:
        """Start a new dataset.

        Args:
            folder: created; must not hold pairs already.
            schema: what the rows mean.
            num_envs: N of every `append`.
            shard_bytes: upper bound of a shard file's rows.
            expected_steps: calls of `append` that are to be expected, so that a small dataset claims little space.
            features: sizes of frozen encoders' features that come with each step, by `features.field_of`.

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
        fields = _fields(schema, features or {})
        row_bytes = sum(math.prod(shape) * dtype.itemsize for shape, dtype in fields.values())
        step_bytes = num_envs * row_bytes
        if step_bytes > shard_bytes:
            raise UserError(
                f"one step of {num_envs} envs takes {step_bytes} bytes, a shard holds {shard_bytes}: "
                "use larger shards or fewer envs"
            )
        capacity = min(shard_bytes // step_bytes, expected_steps or shard_bytes)
        self._set_up(folder, schema, num_envs, capacity, features or {})
        write_header(folder, schema, num_envs)

    def _set_up(
        self, folder: Path, schema: PairsSchema, num_envs: int, capacity: int, features: Mapping[str, int]
    ) -> None:
        self.folder, self.schema, self.num_envs = folder, schema, num_envs
        self._features = dict(features)
        self.num_shards = 0
        self._shards: list[str] = []  # the sha256 of each that is finished
        self._live = LiveShard(_fields(schema, features), num_envs, capacity)
        self._tables = TableWriter(schema, num_envs, capacity)
        self._closed = False

    @property
    def step(self) -> int:
        """Calls of `append` so far."""
        return self._tables.step

    @property
    def num_steps(self) -> int:
        """Rows that belong to episodes so far."""
        return self._tables.num_steps

    @property
    def _part(self) -> Path:
        return shard_path(self.folder, self.num_shards).with_suffix(".part")

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
    ) -> np.ndarray:
        """Add one step of every env; values are numpy arrays or CPU tensors. Gives [N] bool: where an episode ended.

        Args:
            obs: group -> [N, *shape], seen before acting; and features [N, size] by their fields, where there are any.
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
        if self._closed:
            raise ValueError("the writer is closed")
        if not self._live.rows:
            self._live.create(self._part)
        values = {name if name in self._features else f"obs/{name}": value for name, value in obs.items()}
        values.update({f"teacher_{name}": value for name, value in teacher_dist.items()})
        values.update(action=action, teacher_action=teacher_action, reward=reward, actor=actor)
        values.update(terminated=terminated, truncated=truncated)
        self._live.put(values)
        ends = {"terminated": terminated, "truncated": truncated, **({} if success is None else {"success": success})}
        ended = self._tables.record(
            np.asarray(reward),
            {name: np.asarray(flag, bool) for name, flag in ends.items()},
            None if keep is None else np.asarray(keep, bool),
        )
        if success is not None and not self.schema.has_success:
            self.schema = replace(self.schema, has_success=True)
            write_header(self.folder, self.schema, self.num_envs)
        if self._live.advance():
            self._finish_shard()
        return ended

    def restart(self) -> None:
        """Say that the envs were reset from outside: open episodes stay unfinished, the next row begins new ones."""
        self._tables.restart()

    def flush(self) -> None:
        """Bring all rows to the disk, so that they survive a power cut; a kill they survive without."""
        self._live.flush()

    def live_shard(self) -> Shard | None:
        """The shard that is being written, as a reader sees a finished one; open episodes have a segment so far."""
        if not self._live.rows or not self._live.steps:
            return None
        self._live.sync()
        return Shard(self._part, self._live.num_rows, self._tables.first_step, self._live.rows, *self._tables.tables())

    def _finish_shard(self) -> None:
        live, first_step = self._live, self._tables.first_step
        last_action = live.last_action()
        segments, episodes = self._tables.tables()
        if rows := int(segments["length"].sum()):
            path, part = shard_path(self.folder, self.num_shards), self._part
            layout, segments = live.finish(part, path, segments)
            about = {"num_envs": self.num_envs, "rows": rows, "steps": live.steps, "capacity": live.capacity}
            sha256 = write_sidecar(path, layout, segments, episodes, {**about, "first_step": first_step})
            self._shards.append(sha256)
            # Only now: until the sidecar is there, a resumed run needs the part.
            part.unlink(missing_ok=True)
            self.num_shards += 1
            write_dataset_file(self.folder, self.schema)
        live.rewind()
        self._tables.begin_shard(last_action)

    def close(self) -> None:
        """Finish the last shard, open episodes unfinished, and mark the dataset complete. Again does nothing."""
        if self._closed:
            return
        if self._live.steps:
            self._finish_shard()
        self._live.release()
        self._part.unlink(missing_ok=True)
        self._closed = True
        write_header(self.folder, self.schema, self.num_envs, (self.num_shards, self.num_steps))

    # --- exact continuation -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What `resume` needs besides the files: numbers, strings and lists. Flushes, so that both agree."""
        counts: dict[str, Any] = {"num_shards": self.num_shards, "num_envs": self.num_envs}
        counts |= {"shards": list(self._shards), "schema": self.schema.to_json()}
        if self._features:
            counts["features"] = dict(self._features)
        return {**counts, **self._live.state_dict(), **self._tables.state_dict()}

    @classmethod
    def resume(cls, folder: str | Path, state: dict[str, Any]) -> PairsWriter:
        """Continue where `state_dict` was taken; whatever was written later is discarded.

        Raises:
            UserError: shards that the state counts on are missing or damaged, or the header is another one.
        """
        folder = Path(folder)
        schema, about = read_header(folder)
        before = PairsSchema.from_json(state["schema"]) if "schema" in state else schema  # which older states lack
        if replace(schema, has_success=before.has_success) != before:
            raise PairsError(folder / "pairs.json", "is another one than at the checkpoint")
        if about.num_envs != state["num_envs"]:
            raise PairsError(folder / "pairs.json", f"is of {about.num_envs} envs instead of {state['num_envs']}")
        writer = cls.__new__(cls)
        features = state.get("features", {})
        writer._set_up(folder, schema, int(state["num_envs"]), int(state["capacity"]), features)
        writer.num_shards = int(state["num_shards"])
        writer._live.load_state_dict(state)
        writer._tables.load_state_dict(state)
        writer._check_shards(state.get("shards"))
        write_header(folder, schema, writer.num_envs)
        writer._discard_later_shards(state.get("sha256"))
        return writer

    def _check_shards(self, expected: list[str] | None) -> None:
        """Read the finished shards again; `expected` has the sha256 of each, None in older states."""
        for index in range(self.num_shards):
            sidecar = read_sidecar(self.folder, index, self.schema)
            if expected is not None and sidecar["sha256"] != expected[index]:
                raise PairsError(shard_path(self.folder, index), "is another one than at the checkpoint")
            load_shard(self.folder, index, sidecar, "full")
            self._shards.append(sidecar["sha256"])

    def _discard_later_shards(self, sha256: dict[str, str] | None) -> None:
        live = self.num_shards
        # Sidecars first: a shard without one does not exist.
        for path in sorted((self.folder / "shards").iterdir(), key=lambda p: p.suffix != ".json"):
            later = path.stem.isdecimal() and int(path.stem) > live
            if later or path.suffix == ".tmp" or (path.suffix == ".part" and path != self._part):
                path.unlink()
        path = shard_path(self.folder, live)
        if self._live.steps and not self._part.exists() and self._reopen(path):
            sha256 = None  # rows without an episode were left out of it
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if self._live.steps:
            self._live.open(self._part)
            self._live.check(self._part, sha256)
        else:
            self._part.unlink(missing_ok=True)
        write_dataset_file(self.folder, self.schema)

    def _reopen(self, path: Path) -> bool:
        """Make the live file out of a shard that was finished after the state was taken; True if it was hashed."""
        if self.num_shards in list_shards(self.folder):
            sidecar = read_sidecar(self.folder, self.num_shards, self.schema)
            self._live.restore(self._part, load_shard(self.folder, self.num_shards, sidecar, "full"))
            return True
        if path.exists():
            # Renamed, but killed before its sidecar was written: that is the live file, whole.
            os.replace(path, self._part)
            return False
        raise PairsError(self._part, "missing")

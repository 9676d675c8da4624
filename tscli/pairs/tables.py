"""The two tables of a shard: segments, each a run of rows, and the episodes that they make up."""

from __future__ import annotations

from typing import Any

import numpy as np

from tscli.envs.spaces import ActionSpec
from tscli.pairs.schema import PairsSchema

EPISODE = np.dtype(
    [
        *((name, "<i8") for name in ("episode", "env", "index", "start", "length")),
        *(("return", "<f8"), ("seed", "<i8")),
        *((name, "?") for name in ("terminated", "truncated", "success", "finished")),
    ]
)
"""One episode, as it stood at the shard's end; see `Pairs.episodes`."""


def segment_dtype(action: ActionSpec) -> np.dtype:
    """One segment; see `Shard.segments`."""
    names = ("row", "env", "step", "length", "episode", "first_step")
    return np.dtype([*((name, "<i8") for name in names), ("previous_action", np.dtype(action.dtype), action.shape)])


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


def join_episodes(tables: list[np.ndarray]) -> np.ndarray:
    """One row per episode, ordered by number: of an episode that spans shards, the last entry is the complete one."""
    rows = np.concatenate(tables) if tables else np.empty(0, EPISODE)
    _, last = np.unique(rows["episode"][::-1], return_index=True)
    return rows[len(rows) - 1 - last]


class _Growing:
    """A structured array that grows."""

    def __init__(self, dtype: np.dtype) -> None:
        self._table, self._count = np.empty(64, dtype), 0

    def extend(self, rows: np.ndarray) -> None:
        begin, self._count = self._count, self._count + len(rows)
        if self._count > len(self._table):
            self._table = np.resize(self._table, 2 * self._count)
        self._table[begin : self._count] = rows

    @property
    def rows(self) -> np.ndarray:
        return self._table[: self._count]


_COUNTERS = ("step", "num_steps")


class TableWriter:
    """Which episode each env is in, and the tables of the shard that is being written.

    Attributes:
        step: steps recorded so far.
        first_step: of these, how many before this shard.
        num_steps: rows that belong to episodes so far.
    """

    def __init__(self, schema: PairsSchema, num_envs: int, capacity: int) -> None:
        self._seed, self._action, self._num_envs, self._capacity = schema.seed, schema.action, num_envs, capacity
        self.step = self.first_step = self.num_steps = self._next_episode = 0
        names = ("episode", "index", "start", "return", "segment_step", "at_start")
        kinds = {"return": np.float64, "at_start": bool}
        self._env: dict[str, np.ndarray] = {name: np.zeros(num_envs, kinds.get(name, np.int64)) for name in names}
        self._env["episode"][:] = -1  # none is being recorded
        self._env["at_start"][:] = True
        self.begin_shard(np.zeros((num_envs, *schema.action.shape), schema.action.dtype))

    def begin_shard(self, last_action: np.ndarray) -> None:
        """Empty tables. last_action: [N, ...], executed before the shard's first row."""
        self.first_step = self.step
        self._env["segment_step"][:] = 0
        self._previous_action = last_action
        self._segments, self._episodes = _Growing(segment_dtype(self._action)), _Growing(EPISODE)

    def record(self, reward: np.ndarray, ends: dict[str, np.ndarray], keep: np.ndarray | None) -> np.ndarray:
        """Enter the row that has just been stored, then move on to the next; see `PairsWriter.append`.

        `ends` has `terminated` and `truncated`, and `success` where it is told.
        """
        env = self._env
        open_ = env["episode"] >= 0
        if keep is None:
            starting = ~open_
        else:
            starting = keep & ~open_
            if (leaving := open_ & ~keep).any():
                self._close(np.flatnonzero(leaving), {})
        if starting.any():
            self._start(np.flatnonzero(starting))
        ended = ends["terminated"] | ends["truncated"]
        closing = ended if keep is None else ended & keep
        env["return"] += reward if keep is None else np.where(keep, reward, 0.0)
        self.num_steps += self._num_envs if keep is None else int(keep.sum())
        env["at_start"] = ended if keep is None else ended | (env["at_start"] & ~keep)
        self.step += 1
        if closing.any():
            self._close(np.flatnonzero(closing), {"finished": closing, **ends})
        env["index"] += ended
        return closing

    def _start(self, rows: np.ndarray) -> None:
        env = self._env
        if not env["at_start"][rows].all():
            late = rows[~env["at_start"][rows]][0]
            raise ValueError(f"env {late} is kept again in the middle of an episode; wait for its next one")
        env["episode"][rows] = self._next_episode + np.arange(len(rows))
        self._next_episode += len(rows)
        env["start"][rows] = self.step
        env["return"][rows] = 0.0
        env["segment_step"][rows] = self.step - self.first_step
        self._previous_action[rows] = 0

    def _close(self, rows: np.ndarray, flags: dict[str, np.ndarray]) -> None:
        """End the episodes of these envs before the current step; without flags they stay unfinished."""
        self._segments.extend(self._segment_rows(rows))
        episodes = self._episode_rows(rows)
        for name, flag in flags.items():
            episodes[name] = flag[rows]
        self._episodes.extend(episodes)
        self._env["episode"][rows] = -1

    def _segment_rows(self, rows: np.ndarray) -> np.ndarray:
        env, first = self._env, self._env["segment_step"][rows]
        table = np.zeros(len(rows), self._segments.rows.dtype)
        table["row"], table["env"], table["step"] = rows * self._capacity + first, rows, first
        table["length"] = self.step - self.first_step - first
        table["episode"] = env["episode"][rows]
        table["first_step"] = self.first_step + first - env["start"][rows]
        table["previous_action"] = self._previous_action[rows]
        return table[table["length"] > 0]

    def _episode_rows(self, rows: np.ndarray) -> np.ndarray:
        table = np.zeros(len(rows), EPISODE)
        table["env"], table["seed"] = rows, self._seed
        for name in ("episode", "index", "start", "return"):
            table[name] = self._env[name][rows]
        table["length"] = self.step - table["start"]
        return table

    def restart(self) -> None:
        """Leave open episodes unfinished; the next row begins new ones."""
        self._close(np.flatnonzero(self._env["episode"] >= 0), {})
        self._env["index"] += ~self._env["at_start"]
        self._env["at_start"][:] = True

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Segments by row and episodes by number, those that are still open included."""
        open_ = np.flatnonzero(self._env["episode"] >= 0)
        segments = np.concatenate([self._segments.rows, self._segment_rows(open_)])
        episodes = np.concatenate([self._episodes.rows, self._episode_rows(open_)])
        return segments[np.argsort(segments["row"])], episodes[np.argsort(episodes["episode"])]

    def state_dict(self) -> dict[str, Any]:
        """All of it, as numbers, strings and lists."""
        return {
            **{name: getattr(self, name) for name in _COUNTERS},
            "steps": self.step - self.first_step,
            "next_episode": self._next_episode,
            "env": {name: values.tolist() for name, values in self._env.items()},
            "previous_action": self._previous_action.tolist(),
            "segments": table_to_columns(self._segments.rows),
            "episodes": table_to_columns(self._episodes.rows),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for name in _COUNTERS:
            setattr(self, name, int(state[name]))
        self.first_step = self.step - int(state["steps"])
        self._next_episode = int(state["next_episode"])
        for name, values in state["env"].items():
            self._env[name][:] = values
        self._previous_action[:] = np.asarray(state["previous_action"], self._previous_action.dtype)
        self._segments.extend(table_from_columns(state["segments"], self._segments.rows.dtype))
        self._episodes.extend(table_from_columns(state["episodes"], EPISODE))

"""Episodes held back until they have ended, so that one that is not wanted never reaches a file."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tscli.config import UserError
from tscli.pairs.schema import PairsSchema
from tscli.pairs.writer import PairsWriter

_ROOM = 64  # rows of a queue at first
_MOST_BYTES = 4 << 30
_IN_A_ROW = 1000  # dropped episodes after which no further one is to be hoped for
_COUNTERS = ("kept", "dropped", "num_steps", "has_success", "_in_a_row", "_best")
_QUEUES = ("_ready", "_open", "_return")


class Selection:
    """Stands before a `PairsWriter` and gives it the episodes that are wanted, whole.

    Every env has a queue. The rows of an episode that is kept become ready with its last one, and go to the writer one
    for each step that comes in, as they would have without delay: a queue is two episodes long at the most. Of one that
    is dropped a single row stays, which the writer counts as the env's episode and does not keep.

    Attributes:
        writer: set before the first `append`.
        kept, dropped: finished episodes.
        num_steps: rows of those that are kept.
        has_success: whether their success is known.
    """

    writer: PairsWriter

    def __init__(self, schema: PairsSchema, num_envs: int, only_successful: bool, min_return: float | None) -> None:
        """Keep episodes that succeeded, where `only_successful`, and whose return is `min_return` or more."""
        self._only_successful, self._min_return = only_successful, -math.inf if min_return is None else min_return
        self._fields = {**schema.row_fields(), **{name: ((), np.dtype(bool)) for name in ("success", "keep")}}
        self._groups, self._dist = tuple(schema.groups), schema.teacher_fields
        self._envs = np.arange(num_envs)
        self._first, self._ready, self._open = np.zeros((3, num_envs), np.int64)
        self._return = np.zeros(num_envs)
        self.has_success = schema.has_success
        self.kept = self.dropped = self.num_steps = self._in_a_row = 0
        self._best = -math.inf  # return of those dropped in a row
        self._rows = self._room(_ROOM)

    def _room(self, capacity: int) -> dict[str, np.ndarray]:
        """[N, capacity, ...] of every field."""
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in self._fields.values()]
        if (needed := len(self._envs) * capacity * sum(sizes)) > _MOST_BYTES:
            raise UserError(
                f"holding back episodes of {len(self._envs)} envs, now {int(self._open.max())} steps long, would take "
                f"{needed / 2**30:.1f} GiB, more than {_MOST_BYTES >> 30}: use fewer --num-envs, or fewer --groups"
            )
        self._capacity = capacity
        return {
            name: np.zeros((len(self._envs), capacity, *shape), dtype) for name, (shape, dtype) in self._fields.items()
        }

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
        """Take in a step of every env, as `PairsWriter.append` does; gives [N] bool, where an episode is kept.

        `keep` may change between episodes alone.

        Raises:
            UserError: none of the last thousand episodes was wanted, or those held back take too much memory.
        """
        self.has_success |= success is not None
        self._hand_on()
        if (self._ready + self._open).max() == self._capacity:
            places = self._places()
            self._refill({name: rows[places] for name, rows in self._rows.items()}, 2 * self._capacity)
        envs = self._envs if keep is None else np.flatnonzero(keep)
        at = (self._first + self._ready + self._open)[envs] % self._capacity
        values = {f"obs/{name}": value for name, value in obs.items()}
        values |= {f"teacher_{name}": value for name, value in teacher_dist.items()}
        values |= {"action": action, "teacher_action": teacher_action, "reward": reward, "actor": actor}
        values |= {"terminated": terminated, "truncated": truncated}
        values |= {"success": np.zeros(len(self._envs), bool) if success is None else success}
        for name, value in values.items():
            self._rows[name][envs, at] = np.asarray(value)[envs]
        self._rows["keep"][envs, at] = True
        self._open[envs] += 1
        self._return[envs] += np.asarray(reward)[envs]
        ended = np.zeros(len(self._envs), bool)
        ended[envs] = (np.asarray(terminated) | np.asarray(truncated))[envs]
        return self._judge(ended, np.asarray(values["success"], bool))

    def _judge(self, ended: np.ndarray, success: np.ndarray) -> np.ndarray:
        """Keep or drop the episodes that have ended."""
        kept = ended & (self._return >= self._min_return) & (success | (not self._only_successful))
        dropped = ended & ~kept
        self.num_steps += int(self._open[kept].sum())
        self._ready[kept] += self._open[kept]
        self.kept += int(kept.sum())
        self.dropped += int(dropped.sum())
        if kept.any():
            self._in_a_row = 0
        elif dropped.any():
            self._in_a_row += int(dropped.sum())
            self._best = max(self._best, float(self._return[dropped].max()))
            if self._in_a_row >= _IN_A_ROW:
                raise UserError(
                    f"gave up: the last {self._in_a_row} episodes were all dropped, {self.kept} were kept before; the "
                    f"best return of a dropped one was {self._best:.6g}: ask for less, or take a better teacher"
                )
        self._drop(np.flatnonzero(dropped))
        self._open[ended], self._return[ended] = 0, 0.0
        return kept

    def _drop(self, envs: np.ndarray) -> None:
        """Leave one row of the open episodes of these envs, for the writer to count and not to keep."""
        place = envs, (self._first + self._ready)[envs] % self._capacity
        self._rows["keep"][place] = False
        self._rows["terminated"][place] = True
        self._ready[envs] += 1

    def _hand_on(self) -> None:
        """Give the writer the next row of each env that has one ready."""
        some = self._ready > 0
        if not some.any():
            return
        row = {name: rows[self._envs, self._first] for name, rows in self._rows.items()}
        for name in ("terminated", "truncated", "keep"):
            row[name] &= some
        obs = {name: row.pop(f"obs/{name}") for name in self._groups}
        dist = {name: row.pop(f"teacher_{name}") for name in self._dist}
        success = row.pop("success")
        self.writer.append(obs, teacher_dist=dist, success=success if self.has_success else None, **row)
        self._first = (self._first + some) % self._capacity
        self._ready -= some

    def close(self) -> None:
        """Give the writer all that is ready, and close it; episodes that have not ended are left out."""
        while self._ready.any():
            self._hand_on()
        self.writer.close()

    def restart(self) -> None:
        """Say that the envs were reset from outside: open episodes are left out."""
        envs = np.flatnonzero(self._open)
        self._drop(envs)
        self._open[envs], self._return[envs] = 0, 0.0

    # --- exact continuation -------------------------------------------------------------------------------------------

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Env and place of every row that is held, env by env."""
        lengths = self._ready + self._open
        envs = np.repeat(self._envs, lengths)
        ends = np.cumsum(lengths)
        return envs, (np.arange(len(envs)) - (ends - lengths - self._first)[envs]) % self._capacity

    def _refill(self, rows: dict[str, np.ndarray], capacity: int) -> None:
        """Make room, and put these rows into it, env by env."""
        self._rows = self._room(capacity)
        self._first = np.zeros_like(self._ready)
        places = self._places()
        for name, values in rows.items():
            self._rows[name][places] = values

    def state_dict(self) -> dict[str, Any]:
        """All that is held, for exact resume."""
        import torch

        places = self._places()
        rows = {name: torch.from_numpy(rows[places]) for name, rows in self._rows.items()}
        state = {name: getattr(self, name).tolist() for name in _QUEUES}
        return {**state, **{name: getattr(self, name) for name in _COUNTERS}, "rows": rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        for name in _QUEUES:
            getattr(self, name)[:] = state[name]
        for name in _COUNTERS:
            setattr(self, name, state[name])
        capacity = self._capacity
        while capacity < (self._ready + self._open).max():
            capacity *= 2
        self._refill({name: rows.numpy() for name, rows in state["rows"].items()}, capacity)

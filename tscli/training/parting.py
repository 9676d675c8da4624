"""Where student and teacher part: how far they are from each other over the episode, and over what is seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tscli.envs import VecEnv
from tscli.envs.entries import entries_named, told_apart
from tscli.envs.views import Obs
from tscli.learning.statistics import binned
from tscli.networks import Actor

_SLOTS = 16  # that are looked at
_MOST = 64  # entries that are looked at
_TOLD = 8  # entries that the report has, those over which the two differ most


class Parting:
    """Gathers steps in which the student acts; called once before each of them.

    Args:
        policies: the student's and the teacher's, by role.
        env: in which they are.
    """

    def __init__(self, policies: Mapping[str, Actor], env: VecEnv) -> None:
        self._slots = slice(min(_SLOTS, env.num_envs))
        self._where: dict[str, tuple[str, int]] = {}  # the teacher's reading where both see an entry: it is the truer
        self._units: dict[str, str] = {}
        for role in ("teacher", "student"):
            entries = entries_named(policies[role].spec.view, env.groups)
            for i, (name, entry) in enumerate(zip(told_apart(entries), entries, strict=True)):
                if len(self._where) < _MOST:
                    self._where.setdefault(name, (role, i))
                    self._units.setdefault(name, entry.unit)
        self._age = torch.zeros(env.num_envs, dtype=torch.int64, device=env.device)
        self._rows: list[tuple[np.ndarray, ...]] = []

    def __call__(self, seen: Mapping[str, Obs], apart: Mapping[str, Tensor], reset: Tensor, running: Tensor) -> None:
        """Take note of a step.

        Args:
            seen: by role, [N, ...].
            apart: [N] each, by name.
            reset: [N] bool, where an episode begins.
            running: [N] bool, where the step counts.
        """
        self._age = torch.where(reset, 0, self._age + 1)
        keep = running[self._slots]
        entries = [seen[role]["vector"][self._slots, i][keep] for role, i in self._where.values()]
        every = [self._age[self._slots][keep], *(value[self._slots][keep] for value in apart.values()), *entries]
        self._rows.append(tuple(value.float().cpu().numpy() for value in every))
        self._names = list(apart)

    def figures(self) -> dict[str, Any]:
        """For the report: means over the step of the episode, and of the last measure over entries, in bins."""
        columns = [np.concatenate(column) for column in zip(*self._rows, strict=True)]
        age, rest = columns[0], columns[1:]
        apart = dict(zip(self._names, rest, strict=False))
        over_step = {name: _curve(age, value) for name, value in apart.items()}
        last = self._names[-1]
        entries = {}
        for name, values in zip(self._where, rest[len(apart) :], strict=True):
            entries[name] = {"unit": self._units[name], **_curve(values, apart[last])}
        told = sorted(entries, key=lambda name: -entries[name]["spread"])[:_TOLD]
        return {"steps": len(age), "over_step": over_step, "of": last, "over": {name: entries[name] for name in told}}


def _curve(x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Means in bins, and the deviation between them."""
    found = binned(x, y)
    brief = {name: [float(f"{v:.5g}") for v in getattr(found, name)] for name in ("x", "y")}
    return {**brief, "spread": found.spread}

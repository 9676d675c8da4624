"""What Isaac Lab's and mjlab's environments tell beyond rsl_rl's interface, where they do.

Both are made of managers: the observation manager has named terms in each group, the action manager in the actions.
`common_step_counter`, which curricula read, counts steps. Everything here is asked for, and may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def observation_names(inner: Any) -> dict[str, tuple[str, ...]]:
    """Names of the entries of each group that is a concatenation of vectors."""
    manager = getattr(inner, "observation_manager", None)
    terms, dims = getattr(manager, "active_terms", None), getattr(manager, "group_obs_term_dim", None)
    joined = getattr(manager, "group_obs_concatenate", None)
    if not (isinstance(terms, Mapping) and isinstance(dims, Mapping) and isinstance(joined, Mapping)):
        return {}
    return {group: names for group in terms if joined.get(group) and (names := _names(terms[group], dims[group]))}


def action_names(inner: Any) -> tuple[str, ...]:
    """Names of the actions' dimensions."""
    manager = getattr(inner, "action_manager", None)
    terms, dims = getattr(manager, "active_terms", None), getattr(manager, "action_term_dim", None)
    return _names(terms, [(size,) for size in dims]) if terms and dims else ()


def _names(terms: Sequence[str], dims: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """`term`, or `term_0`, `term_1` ... where it has several entries; none where a term is no vector."""
    if any(len(shape) != 1 for shape in dims):
        return ()
    sizes = zip(terms, map(math.prod, dims), strict=True)
    return tuple(name if size == 1 else f"{name}_{i}" for name, size in sizes for i in range(size))


class Log:
    """Means of what `extras` report between two readings: "log", or "episode" as older simulators call it."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, extras: Mapping[str, Any]) -> None:
        """Keep what a step reports; nothing is read from the device."""
        found = extras.get("log") or extras.get("episode") or {}
        for name, value in found.items() if isinstance(found, Mapping) else ():
            if isinstance(value, (int, float, Tensor)):
                self._values.setdefault(str(name), []).append(torch.as_tensor(value).detach().float().mean())

    def take(self) -> dict[str, float]:
        """The means, under "env/...", and begin anew. What is not finite is left out."""
        means = {f"env/{name}": float(torch.stack(values).mean()) for name, values in self._values.items()}
        self._values = {}
        return {name: mean for name, mean in means.items() if math.isfinite(mean)}

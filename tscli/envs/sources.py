"""Gymnasium's spaces as groups and actions; the docstring of `gym` is the specification."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from tscli.config import UserError
from tscli.envs.spaces import ActionSpec, Group


@dataclass(frozen=True)
class Source:
    """Where a group comes from: the path into the observation, and how a batch of it becomes the group's array."""

    path: tuple[str, ...]
    group: Group
    encode: Callable[[np.ndarray], np.ndarray]  # [K, ...] as the env gives it -> [K, *group.shape], always a copy

    def pick(self, obs: Any) -> Any:
        """This entry of an observation, or of a batch of them."""
        for key in self.path:
            obs = obs[key]
        return obs


def group_sources(
    space: spaces.Space, owner: str, path: tuple[str, ...] = (), wanted: Collection[str] = ()
) -> dict[str, Source]:
    """Every group that an observation space gives, by name.

    Args:
        space: of the observations.
        owner: whose they are, for the error line.
        path: where in them this space stands.
        wanted: the entries of a Dict to look at; empty takes all.

    Raises:
        UserError: an entry is of a kind that is not supported.
    """
    if isinstance(space, spaces.Dict):
        found: dict[str, Source] = {}
        for key, inner in space.spaces.items():
            found |= group_sources(inner, owner, (*path, str(key)), wanted)
        return found
    if path and wanted and ".".join(path) not in wanted:
        return {}
    source = _image(space, path) or _vector(space, path)
    if source is None:
        where = f' entry "{".".join(path)}"' if path else ""
        raise UserError(
            f"{owner}: observation{where} is a {type(space).__name__} space, which is not supported: "
            "wrap the env so that it gives Box, Discrete, MultiDiscrete, MultiBinary or a Dict of them"
        )
    return {".".join(path) or ("image" if source.group.is_image else "state"): source}


def _image(space: spaces.Space, path: tuple[str, ...]) -> Source | None:
    if not (isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)):
        return None
    shape = space.shape
    axis = None  # of the channels in a batch, where they are not last
    if len(shape) == 2:
        shape = (*shape, 1)
    elif shape[0] < min(shape[1:]):
        shape, axis = (*shape[1:], shape[0]), 1

    def encode(batch: np.ndarray) -> np.ndarray:
        batch = batch if axis is None else np.moveaxis(batch, axis, -1)
        return np.array(batch, dtype=np.uint8, order="C").reshape(len(batch), *shape)

    return Source(
        path, Group(shape=shape, dtype="uint8", low=float(space.low.min()), high=float(space.high.max())), encode
    )


def _vector(space: spaces.Space, path: tuple[str, ...]) -> Source | None:
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        bounds = (float(space.low.min()), float(space.high.max())) if isinstance(space, spaces.Box) else (0.0, 1.0)
        group = Group(shape=(math.prod(space.shape),), low=bounds[0], high=bounds[1])
        return Source(path, group, lambda batch: batch.reshape(len(batch), -1).astype(np.float32))
    if not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return None
    nvec = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
    first = np.cumsum(nvec) - nvec - np.ravel(space.start)  # position of each dimension's choice 0 in the vector

    def one_hot(batch: np.ndarray) -> np.ndarray:
        hot = np.zeros((len(batch), int(nvec.sum())), dtype=np.float32)
        hot[np.arange(len(batch))[:, None], batch.reshape(len(batch), -1) + first] = 1.0
        return hot

    return Source(path, Group(shape=(int(nvec.sum()),), low=0.0, high=1.0), one_hot)


def action_spec(space: spaces.Space, owner: str) -> ActionSpec:
    """The actions of a Gymnasium space.

    Raises:
        UserError: of a kind that is not supported; names the owner.
    """
    if isinstance(space, spaces.Discrete):
        return ActionSpec("discrete", nvec=(int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return ActionSpec("multi_discrete", nvec=tuple(int(n) for n in space.nvec.ravel()))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(float(v) for v in side.ravel()) for side in (space.low, space.high))
        return ActionSpec("continuous", low=low, high=high)
    raise UserError(
        f"{owner}: actions are a {type(space).__name__} space of {space.dtype}, which is not supported: "
        "wrap the env so that it takes Discrete, MultiDiscrete or Box of floats"
    )

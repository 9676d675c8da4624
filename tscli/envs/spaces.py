"""Plain descriptions of what an environment gives and takes: observation groups and actions.

They carry no tensors and no Gymnasium objects, so that they fit into a JSON file beside a policy's weights.
"""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Group:
    """One named group of observations.

    Attributes:
        shape: of one env's observation, without the env axis. A vector is `(D,)`, an image `(H, W, C)`.
        dtype: "float32", or "uint8" for images.
        fields: names of the D entries of a vector, in order; empty when they have none.
        units: unit of each entry, or one unit for all.
        low, high: bounds over all entries (infinite where there is none).
        privileged: True for what a robot would not know.
        about: one sentence.
    """

    shape: tuple[int, ...]
    dtype: Literal["float32", "uint8"] = "float32"
    fields: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    privileged: bool = False
    about: str = ""

    @property
    def is_image(self) -> bool:
        """Images go through a CNN; everything else is flattened into the view's vector."""
        return len(self.shape) == 3 and self.dtype == "uint8"

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class ActionSpec:
    """An action space.

    Attributes:
        kind: "discrete" (one integer), "multi_discrete" (a vector of integers) or "continuous" (a vector).
        nvec: number of choices per discrete dimension; `(n,)` for "discrete".
        low, high: bounds of each continuous dimension, infinite where there is none.
        names: of the choices ("discrete") or of the dimensions, where known.
    """

    kind: Literal["discrete", "multi_discrete", "continuous"]
    nvec: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one env's action: `()` for discrete, `(D,)` otherwise."""
        if self.kind == "discrete":
            return ()
        return (len(self.nvec),) if self.kind == "multi_discrete" else (len(self.low),)

    @property
    def is_continuous(self) -> bool:
        return self.kind == "continuous"

    @property
    def dtype(self) -> str:
        return "float32" if self.is_continuous else "int64"

    @property
    def num_params(self) -> int:
        """Size of the logits (discrete) or of the mean (continuous)."""
        return len(self.low) if self.is_continuous else sum(self.nvec)

    def to_json(self) -> dict[str, Any]:
        """JSON has no infinity: an unbounded side is None."""
        data = asdict(self)
        for side in ("low", "high"):
            data[side] = [v if math.isfinite(v) else None for v in data[side]]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ActionSpec:
        low = tuple(-math.inf if v is None else float(v) for v in data["low"])
        high = tuple(math.inf if v is None else float(v) for v in data["high"])
        return cls(data["kind"], tuple(data["nvec"]), low, high, tuple(data["names"]))


@functools.lru_cache(maxsize=64)
def action_scale(action: ActionSpec, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """(center, half range) of each continuous dimension; (0, 1) where it is unbounded. Shared: not to be written to."""
    low, high = (torch.tensor(side, dtype=torch.float32, device=device) for side in (action.low, action.high))
    bounded = torch.isfinite(low) & torch.isfinite(high)
    center = torch.where(bounded, (low + high) / 2, torch.zeros_like(low))
    half = torch.where(bounded, (high - low) / 2, torch.ones_like(low))
    return center, half

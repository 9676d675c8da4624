"""What the rows of a dataset mean: groups, action space, what is stored of the teacher, where they came from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tscli.envs.spaces import ActionSpec, Group

SCHEMA = 1  # number of the format
STUDENT, TEACHER = 0, 1  # who acted
_PLAIN = ("task", "teacher", "seed", "has_success", "extra")
_TEXTS = ("fields", "units")
_OPEN = {"low": -math.inf, "high": math.inf}

Fields = dict[str, tuple[tuple[int, ...], np.dtype]]
"""Every dataset of a shard: name -> (shape of one row, dtype)."""


@dataclass(frozen=True)
class PairsSchema:
    """What the rows of a dataset mean.

    Attributes:
        groups: recorded observation groups.
        action: the action space; it decides what `teacher_fields` are.
        task: name of the task.
        teacher: the run whose policy labelled the rows; of several their names, joined by ", ".
        seed: seed of the environments; env i's k-th episode is reset from (seed, i, k).
        has_success: whether `success` of the episodes means anything.
        extra: anything else that JSON can hold and later stages need to understand the rows (the control period).
            `distribution` is there where the teacher's is no Gaussian: "beta", or "none" where its actions are all
            that is known, as of demonstrations.
    """

    groups: dict[str, Group]
    action: ActionSpec
    task: str = ""
    teacher: str = ""
    seed: int = 0
    has_success: bool = False
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def teacher_fields(self) -> tuple[str, ...]:
        """Names of the parameters of the teacher's distribution: `logits`; `mean`, `std`; `alpha`, `beta`; or none."""
        known = {"beta": ("alpha", "beta"), "none": ()}
        if self.extra.get("distribution") in known:
            return known[self.extra["distribution"]]
        return ("mean", "std") if self.action.is_continuous else ("logits",)

    @property
    def head_kind(self) -> tuple[str, bool]:
        """The teacher's `NetworkConfig.head_kind`."""
        return "beta" if "alpha" in self.teacher_fields else "gaussian", bool(self.extra.get("squash"))

    def row_fields(self) -> Fields:
        """What is stored of a row."""
        fields: Fields = {f"obs/{name}": (tuple(g.shape), np.dtype(g.dtype)) for name, g in self.groups.items()}
        for name in ("action", "teacher_action"):
            fields[name] = (self.action.shape, np.dtype(self.action.dtype))
        for name in self.teacher_fields:
            fields[f"teacher_{name}"] = ((self.action.num_params,), np.dtype(np.float32))
        fields["reward"] = ((), np.dtype(np.float32))
        fields["terminated"] = fields["truncated"] = ((), np.dtype(bool))
        fields["actor"] = ((), np.dtype(np.uint8))
        return fields

    def difference(self, other: PairsSchema) -> str:
        """What keeps the rows of two datasets from being used together, or an empty string."""
        if self.action != other.action:
            return f"action spaces differ ({_brief(self.action)} and {_brief(other.action)})"
        if set(self.groups) != set(other.groups):
            return f"groups differ ({', '.join(sorted(self.groups))} and {', '.join(sorted(other.groups))})"
        for name, group in self.groups.items():
            if any(getattr(group, key) != getattr(other.groups[name], key) for key in ("shape", "dtype", *_TEXTS)):
                return f'group "{name}" differs in shape, dtype, fields or units'
        if self.extra != other.extra:
            return f"they were made differently ({self.extra} and {other.extra})"
        return ""

    def to_json(self) -> dict[str, Any]:
        """JSON has no infinity: an open bound is None."""
        data = {key: getattr(self, key) for key in _PLAIN}
        return {**data, "action": self.action.to_json(), "groups": groups_to_json(self.groups)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PairsSchema:
        """Undo `to_json`.

        Raises:
            ValueError: an entry is missing, of another type, or cannot be (a group of negative size).
        """
        _Header.model_validate(data)
        groups = {name: _group_from_json(group) for name, group in data["groups"].items()}
        return cls(groups, ActionSpec.from_json(data["action"]), **{key: data[key] for key in _PLAIN})


def _brief(action: ActionSpec) -> str:
    return f"{action.kind} {action.nvec or action.shape}"


def groups_to_json(groups: dict[str, Group]) -> dict[str, Any]:
    """Groups as plain data, in their order."""
    data = {name: asdict(group) for name, group in groups.items()}
    for group in data.values():
        for side in ("low", "high"):
            group[side] = group[side] if math.isfinite(group[side]) else None
    return data


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    shape: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(max_length=8)
    dtype: Literal["float32", "uint8"]
    fields: tuple[str, ...]
    units: tuple[str, ...]
    low: float | None
    high: float | None
    privileged: bool
    about: str

    @model_validator(mode="after")
    def _names_its_entries(self) -> _Group:
        size = math.prod(self.shape)
        if len(self.fields) not in (0, size) or len(self.units) not in (0, 1, size):
            raise ValueError(f"{len(self.fields)} fields and {len(self.units)} units of {size} entries")
        return self


class _Action(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    kind: Literal["discrete", "multi_discrete", "continuous"]
    nvec: tuple[Annotated[int, Field(ge=1, lt=2**31)], ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    names: tuple[str, ...]

    @model_validator(mode="after")
    def _is_one_kind(self) -> _Action:
        counts = {"discrete": (1, 0, 0), "multi_discrete": (len(self.nvec), 0, 0)}
        wanted = counts.get(self.kind, (0, len(self.low), len(self.low)))
        if (len(self.nvec), len(self.low), len(self.high)) != wanted:
            raise ValueError(f"{self.kind} actions with nvec {self.nvec}, low {self.low}, high {self.high}")
        named = self.nvec[0] if self.kind == "discrete" else len(self.nvec or self.low)
        if len(self.names) not in (0, named):
            raise ValueError(f"{len(self.names)} names of {named} {self.kind} actions")
        return self


class _Header(BaseModel):
    """What JSON has to hold for `PairsSchema.from_json`; the file's other entries are its reader's."""

    groups: dict[str, _Group]
    action: _Action
    task: str
    teacher: str
    seed: int
    has_success: bool
    extra: dict[str, Any]

    @field_validator("extra")
    @classmethod
    def _names_a_distribution(cls, extra: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(extra.get("distribution", ""), str):
            raise ValueError("distribution is no text")
        return extra


def _group_from_json(data: dict[str, Any]) -> Group:
    tuples = {key: tuple(data[key]) for key in ("shape", *_TEXTS)}
    bounds = {side: open_ if data[side] is None else data[side] for side, open_ in _OPEN.items()}
    return Group(**{**data, **tuples, **bounds})

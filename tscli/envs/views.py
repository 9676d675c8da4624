"""Views: what one role (teacher, student, critic) sees of an environment.

A view picks groups and entries, adds the previous action, and does to them what a sensor does: noise, delay, dropout.
Its vector parts are concatenated into one array named "vector"; images keep their group's name. That dict of arrays,
`Obs`, is what networks take.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from tscli import streams
from tscli.config import UserError, ViewPart, did_you_mean
from tscli.envs import VecEnv
from tscli.envs.spaces import ActionSpec, Group, action_scale

Obs = dict[str, Tensor]
PREVIOUS_ACTION = "previous_action"


@dataclass(frozen=True)
class Part:
    """One resolved ingredient of a view. `index` is None for all entries; `size` is 0 for an image."""

    group: str
    index: tuple[int, ...] | None
    size: int
    shape: tuple[int, ...]
    noise: float = 0.0
    delay: int = 0
    dropout: float = 0.0

    @property
    def is_image(self) -> bool:
        """Whether it goes through a CNN."""
        return self.size == 0

    @property
    def source(self) -> str:
        """Name of what it reads from a dataset."""
        return self.group if self.group == PREVIOUS_ACTION else f"obs/{self.group}"

    @property
    def field(self) -> str:
        """Name under which `view_of_pairs` finds it, already as old as it is to be."""
        return f"{self.source}@{self.delay}" if self.delay else self.source


@dataclass(frozen=True)
class ViewSpec:
    """A view resolved against an env's groups; plain data that a policy's checkpoint carries.

    Attributes:
        name: as the user called it.
        parts: in the order of their concatenation.
    """

    name: str
    parts: tuple[Part, ...]

    @property
    def vector_size(self) -> int:
        """Length of the "vector" entry, 0 if there is none."""
        return sum(part.size for part in self.parts)

    @property
    def images(self) -> dict[str, tuple[int, ...]]:
        """Shape (H, W, C) of each image, by group."""
        return {part.group: part.shape for part in self.parts if part.is_image}

    @property
    def groups(self) -> tuple[str, ...]:
        """Observation groups that the view reads."""
        return tuple(dict.fromkeys(p.group for p in self.parts if p.group != PREVIOUS_ACTION))

    @property
    def has_memory(self) -> bool:
        """Whether a reading depends on earlier steps, so that the view must be asked every step for every env."""
        return any(part.delay > 0 for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """For a checkpoint's header or a manifest."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ViewSpec:
        """Undo `to_json`."""
        parts = []
        for part in data["parts"]:
            index = None if part["index"] is None else tuple(part["index"])
            parts.append(Part(**{**part, "index": index, "shape": tuple(part["shape"])}))
        return cls(data["name"], tuple(parts))


def resolve_view(
    name: str, parts: tuple[ViewPart, ...], groups: Mapping[str, Group], action: ActionSpec, owner: str = "the env"
) -> ViewSpec:
    """Check a view against the groups at hand and fix its sizes.

    Raises:
        UserError: a group or entry that is not there, or a setting that does not fit (an index into an image, noise on
            the previous action).
    """
    resolved = []
    for part in parts:
        if part.group == PREVIOUS_ACTION:
            if part.index or part.noise or part.delay or part.dropout:
                raise UserError(f'view "{name}": previous_action is known exactly: it takes no index, noise or delay')
            size = _action_size(action)
            resolved.append(Part(PREVIOUS_ACTION, None, size, (size,)))
            continue
        group_name = part.group or _only_group(name, part, groups)
        if group_name not in groups:
            options = [*groups, PREVIOUS_ACTION]
            raise UserError(f'view "{name}": {owner} has no group "{group_name}": {did_you_mean(group_name, options)}')
        group = groups[group_name]
        if group.is_image:
            if part.index or part.noise or part.delay:
                raise UserError(f'view "{name}": image group "{group_name}" takes no index, noise or delay')
            resolved.append(Part(group_name, None, 0, group.shape, dropout=part.dropout))
            continue
        index = _resolve_index(name, group_name, part.index, group) if part.index else None
        size = group.size if index is None else len(index)
        resolved.append(Part(group_name, index, size, (size,), part.noise, part.delay, part.dropout))
    if not resolved:
        raise UserError(f'view "{name}" is empty: give it at least one group of {", ".join(groups)}')
    images = [part.group for part in resolved if part.is_image]
    twice = next((image for image in images if images.count(image) > 1), None)
    if twice is not None:
        raise UserError(f'view "{name}" names the image group "{twice}" twice: name it once')
    return ViewSpec(name, tuple(resolved))


def entries_of(view: ViewSpec, inner: ViewSpec) -> tuple[int, ...]:
    """Where the entries of `inner`'s vector stand in that of `view`, in the order that they have in `inner`.

    Raises:
        UserError: one is not there, or with another noise, delay or dropout.
    """
    there, wanted = _named_entries(view), _named_entries(inner)
    for entry in wanted:
        if entry not in there:
            what = entry[0] if entry[0] == PREVIOUS_ACTION else f"{entry[0]}[{entry[1]}]"
            raise UserError(
                f'view "{view.name}" does not show {what} as view "{inner.name}" does: add it in the same way'
            )
    return tuple(map(there.index, wanted))


def _named_entries(view: ViewSpec) -> list[tuple[Any, ...]]:
    """What each entry of a view's vector is."""
    picked = [(part, range(part.size) if part.index is None else part.index) for part in view.parts]
    return [(part.group, i, part.noise, part.delay, part.dropout) for part, index in picked for i in index]


def _only_group(name: str, part: ViewPart, groups: Mapping[str, Group]) -> str:
    if len(groups) != 1:
        raise UserError(
            f'view "{name}": {",".join(part.index)} needs the name of its group, for example '
            f'"{next(iter(groups))}[{",".join(part.index)}]": there are {", ".join(groups)}'
        )
    return next(iter(groups))


def _resolve_index(name: str, group_name: str, index: tuple[str, ...], group: Group) -> tuple[int, ...]:
    out: list[int] = []
    for entry in index:
        if entry in group.fields:
            out.append(group.fields.index(entry))
            continue
        first, colon, last = entry.partition(":")
        if not (first + last).isdecimal():
            options = group.fields or [str(i) for i in range(group.size)]
            raise UserError(
                f'view "{name}": group "{group_name}" has no entry "{entry}": {did_you_mean(entry, options)}'
            )
        start = int(first or 0)
        chosen = range(start, int(last or group.size)) if colon else range(start, start + 1)
        if not chosen or chosen[-1] >= group.size:
            raise UserError(
                f'view "{name}": entry {entry} is outside group "{group_name}", which has 0 to {group.size - 1}'
            )
        out.extend(chosen)
    return tuple(out)


def _action_size(action: ActionSpec) -> int:
    if action.is_continuous:
        return len(action.low)
    return sum(1 if n == 2 else n for n in action.nvec)


def encode_action(action: Tensor, spec: ActionSpec) -> Tensor:
    """An executed action as a network sees it: [...] or [..., D] -> [..., size] float32.

    Two choices become -1 and +1, more a one-hot; a bounded continuous action is scaled to [-1, 1]. Zeros therefore
    mean "none yet", as at an episode's start.
    """
    if spec.is_continuous:
        center, half = action_scale(spec, action.device)
        return ((action - center) / half).to(torch.float32)
    columns = action.unsqueeze(-1) if spec.kind == "discrete" else action
    encoded = []
    for i, n in enumerate(spec.nvec):
        column = columns[..., i]
        if n == 2:
            encoded.append((column * 2 - 1).unsqueeze(-1).to(torch.float32))
        else:
            encoded.append((column.unsqueeze(-1) == torch.arange(n, device=column.device)).to(torch.float32))
    return encoded[0] if len(encoded) == 1 else torch.cat(encoded, dim=-1)


@functools.lru_cache(maxsize=64)
def _index_tensor(index: tuple[int, ...], device: torch.device) -> Tensor:
    """An index as a tensor, brought to the device once."""
    return torch.tensor(index, device=device)


class View:
    """A view at work on one vectorised env.

    The order within a step is: `observe` (any number of times, same values), env.step, `final` for rows that ended,
    `advance` exactly once. `tscli.learning.rollout.ViewedEnv` keeps it.

    Noise and dropout are functions of (seed, view, env, step), so they neither disturb nor depend on other streams.
    """

    def __init__(self, spec: ViewSpec, action: ActionSpec, env: VecEnv, seed: int):
        self.spec, self.action_spec, self.env = spec, action, env
        self._seed, self._stream = seed, streams.stream_id(f"view/{spec.name}")
        n, device = env.num_envs, env.device
        self._rows = torch.arange(n, dtype=torch.int64, device=device)
        # A tensor, counted up in place, so that a step that is captured and repeated does not repeat its noise.
        self._step = torch.zeros((), dtype=torch.int64, device=device)
        self._age = torch.zeros(n, dtype=torch.int64, device=device)
        self._queue = {i: torch.zeros(p.delay, n, p.size, device=device) for i, p in enumerate(spec.parts) if p.delay}
        self._now: dict[int, Tensor] = {}
        self._previous = torch.zeros(n, _action_size(action), device=device)
        self._uses_action = PREVIOUS_ACTION in [p.group for p in spec.parts]
        self._cache: Obs | None = None

    def observe(self, rows: Tensor | None = None) -> Obs:
        """What the role sees now: "vector" [N, D] and each image [N, H, W, C]; or those rows alone."""
        if rows is not None:
            if self.spec.has_memory:
                raise ValueError(f'view "{self.spec.name}" has a delay: it must be asked for every env at every step')
            return _assemble(self.spec, [self._read(i, rows) for i in range(len(self.spec.parts))])
        if self._cache is None:
            self._cache = _assemble(self.spec, [self._delayed(i) for i in range(len(self.spec.parts))])
        return self._cache

    def final(self, rows: Tensor, action: Tensor) -> Obs:
        """What the role saw last in the episodes that just ended, for those rows. `action`: [N], as executed."""
        out = []
        for i, part in enumerate(self.spec.parts):
            if part.group == PREVIOUS_ACTION:
                out.append(encode_action(action[rows], self.action_spec))
                continue
            value = self._pick(i, self.env.final_observation(part.group, rows))
            value = self._disturb(i, value, rows, "/final")
            if part.delay:  # the reading that is `delay` steps old at the end, or the episode's first one
                value = [*self._queue[i][1:, rows], self._now[i][rows]][0]
            out.append(value)
        return _assemble(self.spec, out)

    def advance(self, action: Tensor, done: Tensor) -> None:
        """Take note of a step: `action` [N] as executed, `done` [N]."""
        if self._uses_action:
            self._previous = encode_action(action, self.action_spec) * (~done).unsqueeze(-1)
        for i, queue in self._queue.items():
            self._queue[i] = torch.cat([queue[1:], self._now[i].unsqueeze(0)])
        self._age = torch.where(done, 0, self._age + 1) if self._queue else self._age
        self._now.clear()
        self._step += 1
        self._cache = None

    def _read(self, i: int, rows: Tensor | None) -> Tensor:
        part = self.spec.parts[i]
        if part.group == PREVIOUS_ACTION:
            return self._previous if rows is None else self._previous[rows]
        value = self._pick(i, self.env.observe(part.group, rows))
        return self._disturb(i, value, self._rows if rows is None else rows, "")

    def _pick(self, i: int, value: Tensor) -> Tensor:
        if self.spec.parts[i].is_image:
            return value
        value = value.unsqueeze(-1).flatten(1)  # also [N], of a group of one number
        index = self.spec.parts[i].index
        return value if index is None else value.index_select(1, _index_tensor(index, value.device))

    def _disturb(self, i: int, value: Tensor, rows: Tensor, suffix: str) -> Tensor:
        part = self.spec.parts[i]
        if not part.noise and not part.dropout:
            return value
        stream = streams.stream_id(f"{self._stream}/{i}{suffix}")
        step = self._step.expand_as(rows)
        if part.noise:
            noise = streams.normal(self._seed, stream, rows + self.env.first, step, part.size)
            value = value + part.noise * noise.to(value.dtype)
        if part.dropout:
            lost = streams.uniform(self._seed, stream + 1, rows + self.env.first, step, 1)[:, 0] < part.dropout
            value = torch.where(lost.reshape(-1, *[1] * (value.dim() - 1)), torch.zeros_like(value), value)
        return value

    def _delayed(self, i: int) -> Tensor:
        value = self._read(i, None)
        if i not in self._queue:
            return value
        # At an episode's start the sensor has delivered nothing older than its first reading.
        self._queue[i] = torch.where((self._age == 0)[None, :, None], value, self._queue[i])
        self._now[i] = value
        return self._queue[i][0]

    def state_dict(self) -> dict[str, Any]:
        """All that the next readings depend on."""
        return {
            "step": self._step.clone(),
            "age": self._age,
            "previous": self._previous,
            "queue": {str(i): q for i, q in self._queue.items()},
        }

    def restart(self, state: dict[str, Any]) -> None:
        """Begin new episodes in every env, with noise that goes on from `state_dict` instead of repeating."""
        nothing = {"age": torch.zeros_like(self._age), "previous": torch.zeros_like(self._previous)}
        self.load_state_dict({**state, **nothing})  # the queues are filled anew at age 0

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        device = self.env.device
        self._step.fill_(int(state["step"]))
        self._age = state["age"].to(device, copy=True)
        self._previous = state["previous"].to(device, copy=True)
        self._queue = {int(i): q.to(device, copy=True) for i, q in state["queue"].items()}
        self._now.clear()
        self._cache = None


def _assemble(spec: ViewSpec, values: Sequence[Tensor]) -> Obs:
    """The observation of what was read for each part."""
    obs = {p.group: v for p, v in zip(spec.parts, values, strict=True) if p.is_image}
    vectors = [v for p, v in zip(spec.parts, values, strict=True) if not p.is_image]
    if vectors:
        obs["vector"] = vectors[0] if len(vectors) == 1 else torch.cat(vectors, dim=-1)
    return obs


def view_of_pairs(
    spec: ViewSpec,
    action: ActionSpec,
    fields: Mapping[str, Tensor],
    generator: torch.Generator | None = None,
) -> Obs:
    """The same view over recorded groups: what `View` would have given at those steps.

    Args:
        spec: the view.
        action: the action space, to encode the previous action.
        fields: each part's `Part.field` [T, B, ...], that is "obs/<group>", "obs/<group>@<delay>" or
            "previous_action", and "first" [T, B] bool (no previous action there).
        generator: draws fresh noise and dropout, as a sensor would at each look.
    """
    values = []
    for part in spec.parts:
        if part.group == PREVIOUS_ACTION:
            encoded = encode_action(fields[part.field], action)
            values.append(encoded * (~fields["first"]).unsqueeze(-1))
            continue
        value = fields[part.field]
        if not part.is_image:
            value = value.unsqueeze(-1).flatten(2)
            value = value if part.index is None else value.index_select(2, _index_tensor(part.index, value.device))
        if part.noise:
            value = value + part.noise * torch.empty_like(value).normal_(generator=generator)
        if part.dropout:
            lost = torch.empty(value.shape[:2], device=value.device).uniform_(generator=generator) < part.dropout
            value = torch.where(lost.reshape(*lost.shape, *[1] * (value.dim() - 2)), torch.zeros_like(value), value)
        values.append(value)
    return _assemble(spec, values)

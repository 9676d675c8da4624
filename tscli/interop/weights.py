"""The weights of an actor that another library trained: found by their names, and put into a policy of ours.

Read are linear layers, an LSTM or GRU before them, a normaliser, a deviation, by the names that each library gives them
(`Layout`). The `Policy` that they are put into has the same numbers. What cannot be held by one (convolutions,
LayerNorm, other activations) is refused, and so is every entry of a file that a layout neither reads nor knows to be
another's (a critic's): an actor that is read in part acts otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import numpy as np
import torch
from torch import Tensor

from tscli.config import NetworkConfig, UserError
from tscli.envs.spaces import ActionSpec, action_scale
from tscli.envs.views import ViewSpec
from tscli.networks import Policy, PolicySpec

State = Mapping[str, Tensor]
_SEEN = 1e6  # observations that an imported normaliser counts as having taken in: no file says how many
ACTIVATIONS: tuple[str, ...] = get_args(NetworkConfig.model_fields["activation"].annotation)


class Normalizer(NamedTuple):
    """(x - mean) / divisor, cut off at +-clip where that is given; [D] float64 each."""

    mean: Tensor
    divisor: Tensor
    clip: float | None = None


class Layout(NamedTuple):
    """Names of an actor's parts, several where versions differ.

    `layers` are those after the memory, in order; a name stands for all that are numbered below it. `std` and `log_std`
    are parameters, `std_layer` is a linear layer that gives the log deviation. `normalizer` has the buffers `_mean` and
    `_std`, to which it adds `eps`. `squash`: actions go through tanh and are then scaled to their bounds. `activation`
    is what the library takes when it is told nothing. `others` are how names begin of what is not the actor's.
    """

    name: str
    layers: tuple[str, ...]
    memory: tuple[str, ...] = ()
    normalizer: tuple[str, ...] = ()
    eps: float = 0.0
    std: tuple[str, ...] = ("std",)
    log_std: tuple[str, ...] = ("log_std",)
    std_layer: str = ""
    squash: bool = False
    activation: str | None = None
    others: tuple[str, ...] = ("critic",)


class _Entries:
    """A state dict that knows what was read of it."""

    def __init__(self, path: Path, state: State, layout: Layout) -> None:
        self.names, self._path, self._state, self._layout = frozenset(state), path, state, layout
        self._read: set[str] = set()

    def get(self, name: str, *shape: int | None) -> Tensor:
        """A tensor in float64; its shape is checked, None fits any number.

        Raises:
            UserError: it is missing, of another shape, or not finite.
        """
        where = f"{self._path} ({self._layout.name})"
        if name not in self._state:
            raise UserError(f"{where} has no {name}, which belongs to its other entries: save the whole state_dict()")
        self._read.add(name)
        value = self._state[name].detach().double()
        if len(shape) != value.dim() or any(
            want not in (None, got) for want, got in zip(shape, value.shape, strict=True)
        ):
            wanted = ", ".join("any" if want is None else str(want) for want in shape)
            raise UserError(f"{where}: {name} is {list(value.shape)}, and its other entries need [{wanted}]")
        if not bool(value.isfinite().all()):
            raise UserError(f"{where}: {name} is not finite: save it before the training diverges")
        return value

    def flat(self, name: str, size: int) -> Tensor:
        """The same for a vector, whatever axes of length 1 it has."""
        if name in self._state and self._state[name].numel() == size:
            self.get(name, *(None,) * self._state[name].dim())
            return self._state[name].detach().double().flatten()
        return self.get(name, size)

    def skip(self, *names: str) -> None:
        """These say nothing that is needed."""
        self._read.update(names)

    def left(self) -> list[str]:
        """What was not read, and is not another's."""
        return [name for name in self._state if name not in self._read and not name.startswith(self._layout.others)]

    def sizes(self, name: str) -> list[int]:
        """Shape of an entry, [] where there is none."""
        return list(self._state[name].shape) if name in self._state else []


@dataclass(frozen=True)
class Found:
    """An actor as it was found; all tensors are float64, and what it does not have is None."""

    name: str  # of the layout
    layers: list[tuple[Tensor, Tensor]]  # (weight [out, in], bias [out]) in order, a non-linearity between them
    memory: tuple[Literal["rnn", "gru"], dict[str, Tensor]] | None  # with its parameters by torch's names
    normalizer: Normalizer | None
    log_std: Tensor | tuple[Tensor, Tensor] | None  # [D] of the outputs, or the (weight, bias) that give it
    squash: bool  # the action is tanh of the output, scaled to its bounds
    activation: str | None  # None where the file does not say
    bounds: tuple[Tensor, Tensor] | None = None  # (center, half) that the file itself scales by
    says: str | None = None  # the file beside it that names the activation, None where it does so itself

    @property
    def num_inputs(self) -> int:
        """Entries of an observation."""
        return (self.memory[1]["weight_ih_l0"] if self.memory else self.layers[0][0]).shape[1]

    @property
    def num_outputs(self) -> int:
        """Logits, or dimensions of the action."""
        return len(self.layers[-1][1])


def find(path: Path, state: State, layouts: Sequence[Layout]) -> Found:
    """The actor among a state dict's entries, by the first layout that has a place for all of them.

    Raises:
        UserError: none fits, or there is more to it than linear layers and one memory.
    """
    misfit = None
    for layout in layouts:
        entries = _Entries(path, state, layout)
        names = _layers(entries, layout)
        if names is None:
            continue
        try:
            return _found(path, entries, layout, names)
        except UserError as error:
            misfit = misfit or error
    if misfit:
        raise misfit
    if any(name.startswith("encoder.body.") for name in state):
        raise UserError(f"{path} is a policy of tscli's own: name its run where a policy is asked for")
    raise UserError(
        f"{path} has no layout that is known ({', '.join(list(state)[:3])}, ...): linear layers called as in rsl_rl or "
        "cleanrl (actor.0.weight, actor.0.bias, actor.2.weight, ...) can be imported"
    )


def _found(path: Path, entries: _Entries, layout: Layout, names: list[str]) -> Found:
    memory = next((name for name in layout.memory if f"{name}.weight_ih_l0" in entries.names), None)
    memories = _memory(path, entries, memory) if memory else None
    layers: list[tuple[Tensor, Tensor]] = []
    width = memories[1]["weight_hh_l0"].shape[1] if memories else None
    for name in names:
        weight = entries.get(f"{name}.weight", None, width)
        width = len(weight)
        has_bias = f"{name}.bias" in entries.names
        layers.append((weight, entries.get(f"{name}.bias", width) if has_bias else torch.zeros(width).double()))
    outputs = len(layers[-1][1])
    num_inputs = (memories[1]["weight_ih_l0"] if memories else layers[0][0]).shape[1]
    normalizer = None
    name = next((name for name in layout.normalizer if f"{name}._mean" in entries.names), None)
    if name:
        mean, std = (entries.flat(f"{name}.{entry}", num_inputs) for entry in ("_mean", "_std"))
        entries.skip(f"{name}._var", f"{name}.count")
        normalizer = Normalizer(mean, std + layout.eps)
    bounds = None
    if layout.squash and "action_scale" in entries.names:
        bounds = entries.flat("action_bias", outputs), entries.flat("action_scale", outputs)
    log_std = _log_std(entries, layout, outputs, layers[-1][0].shape[1])
    if left := entries.left():
        shown = [f"{name} {entries.sizes(name)}" for name in left[:3]] + [f"{len(left) - 3} more"] * (len(left) > 3)
        raise UserError(
            f"{path} ({layout.name}) has {', '.join(shown)}, which "
            "tscli's networks do not have: only linear layers one after the other, an LSTM or GRU before them and a "
            "normaliser can be imported"
        )
    return Found(layout.name, layers, memories, normalizer, log_std, layout.squash, layout.activation, bounds)


def _layers(entries: _Entries, layout: Layout) -> list[str] | None:
    """Names of all linear layers of a layout in order; None where it does not fit."""
    if layout.std_layer and f"{layout.std_layer}.weight" not in entries.names:
        return None
    found: list[str] = []
    for name in layout.layers:
        names = [name] if f"{name}.weight" in entries.names else _numbered(entries, name)
        if not names and (name != layout.layers[0] or len(layout.layers) == 1):
            return None  # an empty first part is a network without hidden layers
        found += names
    return found


def _numbered(entries: _Entries, name: str) -> list[str]:
    pattern = re.compile(rf"{re.escape(name)}\.(\d{{1,4}})\.weight", re.ASCII)
    numbers = [int(match[1]) for match in map(pattern.fullmatch, entries.names) if match]
    return [f"{name}.{n}" for n in sorted(numbers) if len(entries.sizes(f"{name}.{n}.weight")) == 2]


def _memory(path: Path, entries: _Entries, name: str) -> tuple[Literal["rnn", "gru"], dict[str, Tensor]]:
    found: dict[str, Tensor] = {}
    size = (entries.sizes(f"{name}.weight_hh_l0") or [0])[-1]
    gates = (entries.sizes(f"{name}.weight_hh_l0") or [0])[0] / max(size, 1)
    if gates not in (3, 4) or f"{name}.bias_ih_l0" not in entries.names:
        raise UserError(f"{path}: {name} is neither an LSTM nor a GRU with biases, which are what can be imported")
    rows, inputs, layer = int(gates) * size, None, 0
    while f"{name}.weight_ih_l{layer}" in entries.names:
        shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, size), "bias_ih": (rows,), "bias_hh": (rows,)}
        for kind, shape in shapes.items():
            found[f"{kind}_l{layer}"] = entries.get(f"{name}.{kind}_l{layer}", *shape)
        inputs, layer = size, layer + 1
    return ("rnn" if gates == 4 else "gru"), found


def _log_std(entries: _Entries, layout: Layout, size: int, width: int) -> Tensor | tuple[Tensor, Tensor] | None:
    if layout.std_layer:
        name = layout.std_layer
        return entries.get(f"{name}.weight", size, width), entries.get(f"{name}.bias", size)
    for name in layout.log_std:
        if name in entries.names:
            if entries.sizes(name) == [width, size] and width > 1:  # gSDE's: a deviation that depends on the features
                entries.skip(name)
                return None
            return entries.flat(name, size)
    for name in layout.std:
        if name in entries.names:
            return entries.flat(name, size).clamp(min=1e-6).log()
    return None


def build(found: Found, view: ViewSpec, action: ActionSpec, activation: str, std: float) -> Policy:
    """The same network as a `Policy`; it fits the view and the action space.

    `std` is the deviation, in half ranges, where the file has none that ours can have.
    """
    widths = tuple(len(bias) for _, bias in found.layers[:-1])
    kind, memory = found.memory if found.memory else ("mlp", {})
    per_state = isinstance(found.log_std, tuple)
    config = NetworkConfig(
        kind=kind,
        hidden=() if memory else widths,
        hidden_after=widths if memory else (),
        memory=memory["weight_hh_l0"].shape[1] if memory else 64,
        memory_layers=sum(name.startswith("weight_hh") for name in memory) or 1,
        activation=cast(Any, activation),
        normalize=found.normalizer is not None,
        normalize_clip=found.normalizer.clip if found.normalizer else None,
        std="network" if per_state else "state_independent",
        squash=found.squash,
    )
    policy = Policy(PolicySpec(view, action, config))
    state = dict(policy.state_dict())
    state |= {f"encoder.body.memory.{name}": value for name, value in memory.items()}
    stack = f"encoder.body.{'after' if memory else 'layers'}"
    for i, (weight, bias) in enumerate(found.layers[:-1]):
        state |= {f"{stack}.{2 * i}.weight": weight, f"{stack}.{2 * i}.bias": bias}
    if found.normalizer is not None:
        state["encoder.norm.mean"], state["encoder.norm.var"] = found.normalizer.mean, found.normalizer.divisor.square()
        state["encoder.norm.count"] = torch.tensor(_SEEN, dtype=torch.float64)
    state |= _head(found, action, std)
    policy.load_state_dict(state)
    return policy.eval().requires_grad_(False)


def _head(found: Found, action: ActionSpec, std: float) -> dict[str, Tensor]:
    """The last layer in our units: a Gaussian's mean is center + half * output."""
    weight, bias = found.layers[-1]
    if not action.is_continuous:
        return {"head.linear.weight": weight, "head.linear.bias": bias}
    center, half = (side.double() for side in action_scale(action))
    if not found.squash:
        weight, bias = weight / half.unsqueeze(-1), (bias - center) / half
    log_std = found.log_std
    if isinstance(log_std, tuple):
        weight, bias = torch.cat([weight, log_std[0]]), torch.cat([bias, log_std[1]])
        return {"head.linear.weight": weight, "head.linear.bias": bias}
    if log_std is None:
        log_std = torch.full((len(bias),), np.log(std), dtype=torch.float64)
    elif not found.squash:
        log_std = log_std - half.log()
    return {"head.linear.weight": weight, "head.linear.bias": bias, "head.log_std": log_std}

"""The weights of an actor that another library trained: found by their names, and put into a policy of ours.

Read are linear layers, an LSTM or GRU before them, a normaliser, a deviation, by the names that each library gives them
(`Layout`). The `Policy` that they are put into has the same numbers. What cannot be held by one (convolutions,
LayerNorm, other activations) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    is what the library takes when it is told nothing.
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

    @property
    def num_inputs(self) -> int:
        """Entries of an observation."""
        return (self.memory[1]["weight_ih_l0"] if self.memory else self.layers[0][0]).shape[1]

    @property
    def num_outputs(self) -> int:
        """Logits, or dimensions of the action."""
        return len(self.layers[-1][1])


def find(path: Path, state: State, layouts: Sequence[Layout]) -> Found:
    """The actor among a state dict's entries, by the first layout that fits.

    Raises:
        UserError: none fits, or there is more to it than linear layers and one memory.
    """
    for layout in layouts:
        layers = _layers(state, layout)
        if layers is None:
            continue
        memory = next((name for name in layout.memory if f"{name}.weight_ih_l0" in state), None)
        _check_nothing_more(path, state, layout, memory)
        if any(len(bias) != weight.shape[1] for (_, bias), (weight, _) in pairwise(layers)):
            raise UserError(
                f"{path} ({layout.name}): its layers do not follow each other, so there is more between them"
            )
        normalizer = None
        for name in layout.normalizer:
            if f"{name}._mean" in state and f"{name}._std" in state:
                mean, std = (state[f"{name}.{entry}"].double().flatten() for entry in ("_mean", "_std"))
                normalizer = Normalizer(mean, std + layout.eps)
        bounds = None
        if layout.squash and "action_scale" in state:
            bounds = state["action_bias"].double().flatten(), state["action_scale"].double().flatten()
        found = _memory(path, state, memory) if memory else None
        log_std = _log_std(state, layout)
        return Found(layout.name, layers, found, normalizer, log_std, layout.squash, layout.activation, bounds)
    raise UserError(
        f"{path} has no layout that is known ({', '.join(list(state)[:3])}, ...): linear layers called as in rsl_rl or "
        "cleanrl (actor.0.weight, actor.0.bias, actor.2.weight, ...) can be imported"
    )


def _layers(state: State, layout: Layout) -> list[tuple[Tensor, Tensor]] | None:
    """All linear layers of a layout in order; None where it does not fit."""
    if layout.std_layer and f"{layout.std_layer}.weight" not in state:
        return None
    found: list[tuple[Tensor, Tensor]] = []
    for name in layout.layers:
        names = [name] if f"{name}.weight" in state else _numbered(state, name)
        if not names and (name != layout.layers[0] or len(layout.layers) == 1):
            return None  # an empty first part is a network without hidden layers
        for one in names:
            weight, bias = state[f"{one}.weight"], state.get(f"{one}.bias")
            bias = torch.zeros(len(weight)) if bias is None else bias
            found.append((weight.double(), bias.double()))
    return found


def _numbered(state: State, name: str) -> list[str]:
    pattern = re.compile(rf"{re.escape(name)}\.(\d+)\.weight")
    numbers = [int(match[1]) for match in map(pattern.fullmatch, state) if match]
    return [f"{name}.{number}" for number in sorted(numbers)]


def _check_nothing_more(path: Path, state: State, layout: Layout, memory: str | None) -> None:
    """Refuse an actor with parts that would be left out."""
    for key, value in state.items():
        if any(word in key for word in ("critic", "memory_c", "memory_t", "vf_features", "target")):
            continue
        inside = any(key.startswith(f"{name}.") for name in layout.layers)
        linear = value.dim() == (2 if key.endswith("weight") else 1)
        other_memory = key.startswith(("memory_", "rnn.", "lstm", "gru")) and not (memory and key.startswith(memory))
        if (inside and not linear) or "features_extractor." in key or other_memory:
            raise UserError(
                f"{path} ({layout.name}) has {key} {list(value.shape)}, which tscli's networks do not have: only "
                "linear layers, an LSTM or GRU before them and a normaliser can be imported"
            )


def _memory(path: Path, state: State, name: str) -> tuple[Literal["rnn", "gru"], dict[str, Tensor]]:
    starts = (f"{name}.weight_", f"{name}.bias_")
    found = {key.removeprefix(f"{name}."): v.double() for key, v in state.items() if key.startswith(starts)}
    gates = found["weight_hh_l0"].shape[0] / found["weight_hh_l0"].shape[1]
    if gates not in (3, 4) or "bias_ih_l0" not in found:
        raise UserError(f"{path}: {name} is neither an LSTM nor a GRU with biases, which are what can be imported")
    return ("rnn" if gates == 4 else "gru"), found


def _log_std(state: State, layout: Layout) -> Tensor | tuple[Tensor, Tensor] | None:
    if layout.std_layer:
        return state[f"{layout.std_layer}.weight"].double(), state[f"{layout.std_layer}.bias"].double()
    for name in layout.log_std:
        if name in state:  # gSDE's is a matrix over the features: a deviation that depends on the state
            found = state[name].double()
            return found.flatten() if found.dim() == 1 or len(found) == 1 else None
    for name in layout.std:
        if name in state:
            return state[name].double().flatten().clamp(min=1e-6).log()
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
        state["encoder.norm.count"] = torch.ones((), dtype=torch.float64)
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

"""TorchScript files: written, run by torch, and read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tscli.config import UserError
from tscli.interop.export import KEY, Actor, Runner, quiet
from tscli.interop.weights import State
from tscli.networks import Policy, PolicySpec


def write(actor: Actor, path: Path, about: dict[str, Any]) -> None:
    """Write a TorchScript file, which libtorch runs too."""
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(actor, actor.example(2), check_trace=False)
        torch.jit.save(traced, str(path), _extra_files={KEY: json.dumps(about)})


def load(path: Path) -> Runner:
    """The file as torch runs it on the CPU."""
    module = _open(path)[0].eval()

    @torch.inference_mode()
    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [value.numpy() for value in module(*map(torch.from_numpy, inputs))]

    return run


def read_metadata(path: Path) -> dict[str, Any] | None:
    """What `describe` wrote into an exported file; None where another program wrote it."""
    return _open(path)[1]


def _open(path: Path) -> tuple[Any, dict[str, Any] | None]:
    """The module, and what `describe` wrote."""
    extra = {KEY: ""}
    with quiet():
        module = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
    return module, json.loads(extra[KEY]) if extra[KEY] else None


def read_policy(path: Path) -> Policy | tuple[State, Runner]:
    """One of our own as the policy that it was; of another program's file the weights, and the file as torch runs it.

    Raises:
        UserError: it is damaged.
    """
    try:
        module, about = _open(path)
    except Exception as error:  # torch raises RuntimeError, ValueError and others
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:120]}): save it again") from None
    state = dict(module.state_dict())
    if about is None:
        return state, _stateful(module)
    policy = Policy(PolicySpec.from_json(about["spec"]))
    policy.load_state_dict({name: state[f"policy.{name}"] for name in policy.state_dict()})
    return policy.eval().requires_grad_(False)


def _stateful(module: Any) -> Runner:
    """A module that keeps its hidden state to itself, from zeros on."""
    if hasattr(module, "reset"):
        module.reset()

    @torch.inference_mode()
    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = module(torch.from_numpy(inputs[0]))
        return [(found[0] if isinstance(found, tuple) else found).numpy()]

    return run

"""Policies that other libraries saved: which library a file is of, and which activation it does not name.

Nothing in a file is executed, but for TorchScript and ONNX files, which are run beside what was made of them.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tscli.config import UserError
from tscli.interop import archive, cleanrl, onnx, rsl_rl, sb3, torchscript
from tscli.interop.export import Runner
from tscli.interop.weights import ACTIVATIONS, Found, find
from tscli.networks import Policy

LAYOUTS = (*sb3.LAYOUTS, *rsl_rl.LAYOUTS, *cleanrl.LAYOUTS)
TOLERANCE = 1e-5
_STEPS = 40  # through which a file that can be run is compared with what was made of it


class Source(NamedTuple):
    """What a file holds: an actor, or a policy of ours as exported; `run` is set where the file itself can be run."""

    path: Path
    found: Found | None = None
    policy: Policy | None = None
    run: Runner | None = None

    @property
    def is_untold(self) -> bool:
        """Whether nothing but the user says which activation stands between its layers."""
        found = self.found
        return self.run is None and found is not None and found.activation is None and len(found.layers) > 1


def read_policy(path: Path) -> Source:
    """Read a file: .zip of Stable-Baselines3, .pt or .cleanrl_model of tensors, .safetensors, TorchScript, .onnx.

    Raises:
        UserError: missing, damaged, of no known kind, or with parts that our networks do not have.
    """
    if not path.is_file():
        known = ".zip, .pt, .cleanrl_model, .safetensors or .onnx"
        raise UserError(f"{path}: there is no such file: name a policy's {known}")
    data = archive.read_bytes(path)
    if path.suffix == ".onnx":
        with archive.reading(path, "export it again"):
            state, run = onnx.read_weights(path)
            return Source(path, find(path, state, LAYOUTS), run=run)
    if archive.is_zip(path, data):
        with archive.reading(path), zipfile.ZipFile(io.BytesIO(data)) as packed:
            names = packed.namelist()
            if "policy.pth" in names:
                found = _actor(path, packed.read("policy.pth"))
                return Source(path, sb3.with_settings(path, found, packed.read("data") if "data" in names else b""))
        if any("/code/" in name for name in names):
            with archive.reading(path):
                read = torchscript.read_policy(path)
            if isinstance(read, Policy):
                return Source(path, policy=read)
            return Source(path, find(path, read[0], LAYOUTS), run=read[1])
    return Source(path, rsl_rl.with_settings(path, _actor(path, data)))


def _actor(path: Path, data: bytes) -> Found:
    """The actor in what a training script saved."""
    content = archive.read_tensors(path, data)
    if isinstance(content, (tuple, list)) and content:  # cleanrl's TD3: actor, critics
        content = content[0]
    state: dict[str, Tensor] = {}
    if isinstance(content, dict):
        named = ("actor_state_dict", "student_state_dict", "model_state_dict", "state_dict")
        key = next((key for key in named if isinstance(content.get(key), dict)), None)
        for name, value in content.items():  # what stands beside the model may be of the actor: a normaliser
            if isinstance(value, dict):
                start = "" if name == key else f"{name}."
                state |= {f"{start}{entry}": part for entry, part in value.items() if isinstance(part, Tensor)}
            elif isinstance(value, Tensor):
                state[str(name)] = value
    if not state:
        raise UserError(f"{path} holds no state dict: save the policy's state_dict() with torch.save")
    return find(path, state, LAYOUTS)


def settle_activation(source: Source, given: str | None, make: Callable[[str], Policy]) -> Policy:
    """The policy with the activation that was given, that the file names, or that makes it give the file's own outputs.

    `given` is --activation, None where it was left out; `make` builds the policy with an activation.

    Raises:
        UserError: nobody says, or none reproduces the file.
    """
    path, found = source.path, source.found
    assert found is not None
    if given and found.activation and given != found.activation:
        where = f"{path}" if found.says is None else f"{found.says} beside {path.name}"
        raise UserError(f"--activation {given}: {where} says that it is {found.activation}: leave it out")
    said = given or found.activation or ("tanh" if len(found.layers) == 1 else None)
    if source.run is None:
        if said is None:
            raise UserError(
                f"{path} ({found.name}) does not say which activation stands between its layers: name it with "
                f"--activation {'|'.join(ACTIVATIONS)}"
            )
        return make(said)
    with archive.reading(path):
        wanted = np.concatenate([source.run([x])[0].reshape(1, -1).copy() for x in _readings(found.num_inputs)])
    errors = {}
    for name in [said] if said else ACTIVATIONS:
        policy = make(name)
        errors[name] = _difference(policy, wanted)
        if errors[name] <= TOLERANCE:
            return policy
    best = min(errors, key=lambda name: errors[name])
    raise UserError(
        f"{path} gives other outputs than its weights do in tscli's networks, by {errors[best]:.2g} with {best}: "
        "it computes more than linear layers, a memory and a normaliser"
    )


def _readings(size: int) -> np.ndarray:
    return (2 * np.random.default_rng(0).standard_normal((_STEPS, 1, size))).astype(np.float32)


@torch.no_grad()
def _difference(policy: Policy, wanted: np.ndarray) -> float:
    """Largest |ours - theirs| / max(1, |theirs|) over a sequence, of actions or of logits, whichever the file gives."""
    readings = torch.from_numpy(_readings(policy.spec.view.vector_size))
    dist, _ = policy({"vector": readings}, policy.initial_hidden(1), None)
    options = [dist.mode(), *dist.params().values()]
    found = [option.reshape(len(wanted), -1).double().numpy() for option in options]
    scale = np.maximum(1, np.abs(wanted))
    errors = [float((np.abs(value - wanted) / scale).max()) for value in found if value.shape == wanted.shape]
    return min(errors, default=float("inf"))

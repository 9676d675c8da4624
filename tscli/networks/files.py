"""Policies in files that load without executing code.

A policy is one `.safetensors` file: its weights and normaliser, with the spec that rebuilds it as JSON in the header.
Where its body is in a file of the user's own, a copy of that lies in `bodies/` beside it. It is run only where the user
has named such a file in this process, or trusts it. A frozen encoder that it sees through lies in `encoders/`.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from tscli import trust
from tscli.config import UserError
from tscli.config.network import FIRST
from tscli.files import atomic_write, file_hash
from tscli.networks import Policy, PolicySpec
from tscli.networks.frozen import find_copy, keep_copy
from tscli.networks.own import source_of

FORMAT = 2
_FIRST_KINDS = ("mlp", "rnn", "gru", "history")
COPIES = "bodies"  # of files of the user's own, beside the policies


def save_policy_file(path: Path, policy: Policy) -> None:
    """Write a policy's weights, normaliser and spec, and beside it files of the user's own that it needs.

    Raises:
        UserError: it could not be loaded again; another body of the same name lies there; or NaN or infinity are among
            the weights. Such a policy may still act (the first action, always), so that nobody would notice.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in policy.state_dict().items()}
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"training has diverged (the policy's {name} is no longer finite): lower --lr")
    check_loadable(policy)
    for name, network in policy.spec.own_bodies.items():
        copy = path.parent / COPIES / name
        if copy.exists() and file_hash(copy) != network.sha256:
            raise UserError(f"{network.kind} differs from {copy}, another policy's: give the two files two names")
        copy.parent.mkdir(exist_ok=True)
        atomic_write(copy, source_of(network))
    if policy.spec.frozen_images:
        keep_copy(policy.spec.frozen_images, path.parent)
    data = policy.spec.to_json()
    # What an older version cannot read says so by its number.
    network, is_plain = data["network"], "latent" not in data
    is_first = is_plain and network["kind"] in _FIRST_KINDS and set(network) <= set(FIRST)
    header = {"tscli": json.dumps({"format": 1 if is_first else FORMAT, **data})}
    atomic_write(path, save_tensors(tensors, header))


def check_loadable(policy: Policy) -> None:
    """Refuse a policy that its file could not bring back, before it is trained: its spec does not tell all of it.

    Raises:
        UserError: names what would be lost.
    """
    spec = policy.spec
    files = {name: Path(network.kind) for name, network in spec.own_bodies.items()}
    files[spec.network.image.sha256] = Path(spec.network.image.path)
    try:
        again = PolicySpec.from_json(json.loads(json.dumps(spec.to_json())), files)
        lost = [f"its {one.name}" for one in fields(spec) if getattr(again, one.name) != getattr(spec, one.name)]
        if not lost:
            with torch.device("meta"):
                found = _made_of(Policy(again))
            held = _made_of(policy)
            lost = [f"its {name}" for name in {**held, **found} if held.get(name) != found.get(name)]
    except Exception as error:  # whatever a spec that is no plain data runs into
        lost = [f"all of it ({_reason(error)})"]
    if lost:
        raise UserError(f"this policy could not be loaded again: its spec does not tell {lost[0]} as it is")


def _made_of(policy: Policy) -> dict[str, Any]:
    """The shapes of its tensors, and the classes of its parts: an activation has no tensors."""
    parts = {name: type(module) for name, module in policy.named_modules() if name}
    return {name: value.shape for name, value in policy.state_dict().items()} | parts


def load_policy_file(path: Path, device: torch.device | str = "cpu", trusted: bool = False) -> Policy:
    """Rebuild a policy. It comes in eval mode, without gradients: what is loaded acts, it does not train.

    Args:
        path: the file.
        device: where its weights go.
        trusted: run the code that came with it, where it has a body of its maker's own.

    Raises:
        UserError: the file is missing, damaged, or not a policy of ours; or it came with code.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, it has no iterator
    except FileNotFoundError:
        raise UserError(f"{path} is missing: train the policy again") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): train the policy again, or restore it from a copy") from None
    if "tscli" not in header:
        raise UserError(f"{path} is not a tscli policy: its header has no spec")
    try:
        data = json.loads(header["tscli"])
        found = int(data.pop("format"))
        if found > FORMAT:
            raise UserError(f"{path} has format {found}, this tscli reads up to {FORMAT}: upgrade tscli")
        networks = [data["network"], *([data["latent"]["network"]] if "latent" in data else [])]
        spec = PolicySpec.from_json(data, _own_files(path, networks, trusted))
        _check_sizes(spec, networks, tensors)
        policy = Policy(spec)
        policy.load_state_dict(tensors)
    except UserError:
        raise
    except Exception as error:  # whatever a spec of wrong names, types or sizes runs into
        raise UserError(f"{path} is damaged ({_reason(error)}): restore it, or train the policy again") from None
    return policy.to(device).eval().requires_grad_(False)


def _check_sizes(spec: PolicySpec, networks: list[dict[str, Any]], tensors: dict[str, Tensor]) -> None:
    """Compare what a spec tells of with the tensors that are there, before memory or time is spent on it.

    Raises:
        ValueError: they differ.
    """
    for network in networks:
        layers = sum(len(value) for value in network.values() if isinstance(value, list))
        if layers + int(network.get("memory_layers") or 0) > len(tensors):
            raise ValueError("its spec tells of more layers than it has tensors")
    with torch.device("meta"):
        made = Policy(spec).state_dict()
    for name in {**made, **tensors}:
        if name not in tensors or name not in made:
            raise ValueError(f"{'Unexpected' if name in tensors else 'Missing'} key {name}")
        if made[name].shape != tensors[name].shape:
            held, told = list(tensors[name].shape), list(made[name].shape)
            raise ValueError(f"size mismatch for {name}: {held} in the file, {told} by its spec")


def _own_files(path: Path, networks: list[dict[str, Any]], trusted: bool) -> dict[str, Path]:
    """The copies of bodies of the user's own, unchanged and free to run, and of encoders that a policy needs."""
    found = {}
    for network in networks:
        name, image = str(network["kind"]), network.get("image")
        if image is not None:
            found[str(image["sha256"])] = find_copy(str(image["sha256"]), path.parent)
        if name.endswith(".py"):
            found[name] = copy = path.parent / COPIES / name
            if Path(name).name != name:
                raise ValueError(f"a body cannot be in {name}")
            if not copy.is_file() or file_hash(copy) != network["sha256"]:
                raise UserError(f"{copy} is missing, or has changed since {path.name} was written: restore it")
            if not trusted:
                trust.check(f"{COPIES}/{name}", network["sha256"], str(path))
    return found


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:120]}..."

"""Policies and checkpoints that load without executing code.

A policy is one `.safetensors` file: its weights and normaliser, with the spec that rebuilds it as JSON in the header.
What a stage needs to continue is a `checkpoint.pt` of tensors, numbers and strings: a line with the content's sha256,
since torch itself does not notice a flipped bit, then what `torch.save` writes, read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from tscli.config import UserError
from tscli.files import atomic_write
from tscli.networks import Policy, PolicySpec

__all__ = ["load_policy_file", "load_state", "save_policy_file", "save_state"]

FORMAT = 1
_STATE_HEADER = b"tscli checkpoint 1 "


def save_policy_file(path: Path, policy: Policy) -> None:
    """Write a policy's weights, normaliser and spec.

    Raises:
        UserError: NaN or infinity among them. Such a policy may still act (the first action, always), so that nobody
            would notice.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in policy.state_dict().items()}
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"training has diverged (the policy's {name} is no longer finite): lower --lr")
    header = {"tscli": json.dumps({"format": FORMAT, **policy.spec.to_json()})}
    atomic_write(path, save_tensors(tensors, header))


def load_policy_file(path: Path, device: torch.device | str = "cpu") -> Policy:
    """Rebuild a policy. It comes in eval mode, without gradients: what is loaded acts, it does not train.

    Raises:
        UserError: the file is missing, damaged, or not a policy of ours.
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
        policy = Policy(PolicySpec.from_json(data))
        policy.load_state_dict(tensors)
    except UserError:
        raise
    except Exception as error:  # whatever a spec of wrong names, types or sizes runs into
        raise UserError(f"{path} is damaged ({_reason(error)}): restore it, or train the policy again") from None
    return policy.to(device).eval().requires_grad_(False)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write what a stage needs to continue."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    data = buffer.getvalue()
    atomic_write(path, _STATE_HEADER + hashlib.sha256(data).hexdigest().encode() + b"\n" + data)


def load_state(path: Path) -> dict[str, Any]:
    """Read what `save_state` wrote, without unpickling code. Tensors come back on the CPU, for their takers to place.

    Raises:
        UserError: missing or damaged.
    """
    try:
        header, _, data = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        raise UserError(f"{path} is missing, so there is nothing to resume: start anew without --resume") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if header != _STATE_HEADER + hashlib.sha256(data).hexdigest().encode():
        raise UserError(f"{path} is damaged, or no checkpoint of tscli: start anew without --resume")
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for a damaged file
        raise UserError(f"{path} is damaged ({_reason(error)}): start anew without --resume") from None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:120]}..."

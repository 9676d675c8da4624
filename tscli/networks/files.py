"""Policies in files that load without executing code.

A policy is one `.safetensors` file: its weights and normaliser, with the spec that rebuilds it as JSON in the header.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors

from tscli.config import UserError
from tscli.files import atomic_write
from tscli.networks import Policy, PolicySpec

__all__ = ["load_policy_file", "save_policy_file"]

FORMAT = 1


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


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 120 else f"{text[:120]}..."

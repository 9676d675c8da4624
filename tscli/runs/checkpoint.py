"""Checkpoints: what a stage needs to continue, read back without executing code.

A `checkpoint.pt` holds tensors, numbers and strings: a line with the content's sha256, since torch itself does not
notice a flipped bit, then what `torch.save` writes, read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from tscli.config import UserError
from tscli.files import atomic_write

_STATE_HEADER = b"tscli checkpoint 1 "


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

"""Files of other programs: bytes and tensors out of them, within bounds, and one line for whatever is wrong with them.

All that `tscli import` reads comes through here, so that no damage, no crafted size and no error of a library's own
reaches the user as anything but a `UserError`.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from torch import Tensor

from tscli.config import UserError

LIMIT = 256 << 20  # bytes of a file, of what an archive unpacks to, and of its tensors


@contextlib.contextmanager
def reading(path: Path | str, fix: str = "save it again") -> Iterator[None]:
    """Whatever a reader runs into becomes one line that names the file.

    Raises:
        UserError: of any exception but one that is one already.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zipfile, NumPy, torch, protobuf and YAML raise two dozen types between them
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path}: it is damaged, or of another kind than its name says ({said}): {fix}") from None


def read_bytes(path: Path | str) -> bytes:
    """A file's bytes.

    Raises:
        UserError: it cannot be read, or is too large, packed or unpacked.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LIMIT + 1)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name another file") from None
    size = len(data)
    if is_zip(path, data):
        with reading(path), zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = max(size, sum(entry.file_size for entry in archive.infolist()))
    if size > LIMIT:
        raise UserError(
            f"{path} is of more than {LIMIT >> 20} MiB: save the policy alone, without buffers and optimisers"
        )
    return data


def is_zip(path: Path | str, data: bytes) -> bool:
    """Whether these are a .zip's.

    Raises:
        UserError: nearly.
    """
    with reading(path):
        return zipfile.is_zipfile(io.BytesIO(data))


def read_tensors(path: Path, data: bytes) -> Any:
    """What `torch.save` or safetensors wrote; tensors on the CPU, nothing executed.

    Raises:
        UserError: it is damaged, or holds more than tensors.
    """
    if path.suffix == ".safetensors":
        with reading(path):
            return _checked(path, safetensors.torch.load(data))
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for what it cannot read
        reason = "it holds more than tensors" if "weights_only" in str(error).lower() else "it is damaged, or no policy"
        raise UserError(f"{path}: {reason}: save the policy's state_dict() with torch.save") from None
    return _checked(path, content)


def _checked(path: Path, content: Any) -> Any:
    """Refuse tensors that would be larger than the file that they came from: strides of 0 can claim any size."""
    left, size = [content], 0
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            if value.layout != torch.strided or value.device.type != "cpu":
                raise UserError(f"{path} holds a tensor that is sparse or empty of numbers: save dense ones")
            size += value.numel() * 8
        elif isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, (list, tuple)):
            left.extend(value)
        if size > 4 * LIMIT or len(left) > 1_000_000:
            raise UserError(f"{path} claims more numbers than a policy has: save the policy's state_dict() alone")
    return content


def read_settings(path: Path) -> dict[str, Any]:
    """A YAML file of another program as plain words: tags name Python objects there, and are passed over.

    Raises:
        UserError: it is damaged.
    """
    data = read_bytes(path)
    if len(data) > 1 << 20 or data.count(b"[") + data.count(b"{") > 1000:  # the parser's time is their square
        raise UserError(f"{path} is longer or deeper than settings are: mend it, or move it away")
    with reading(path, "mend it, or move it away"):
        found = yaml.load(data, Loader=yaml.BaseLoader)
        return found if isinstance(found, dict) else {}

"""Frozen vision encoders: a DINOv2 checkpoint in a local folder, whose features a policy learns from.

Nothing is fetched and nothing of the folder is run: `config.json` is read as numbers and words, the weights are
safetensors, and the class is transformers' own. The weights are held once per process and belong to no policy; a
policy's file names the checkpoint by its hash, and has it in `encoders/` beside it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user expects
from pydantic import BaseModel, Field, ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn

from tscli.config import UserError, one_line
from tscli.config.images import FILES, ImageConfig, checkpoint_hash
from tscli.plain import read_json

COPIES = "encoders"  # of checkpoints, beside the policies that need them
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as DINOv2 was trained
_loaded: dict[tuple[str, str], nn.Module] = {}  # by checkpoint and device


class _About(BaseModel):
    """What is read of a checkpoint's config.json; the defaults are transformers'."""

    model_type: str
    hidden_size: int = Field(768, ge=1, le=2**14)
    num_hidden_layers: int = Field(12, ge=1, le=2**8)
    num_attention_heads: int = Field(12, ge=1, le=2**8)
    mlp_ratio: int = Field(4, ge=1, le=2**6)
    hidden_act: Literal["gelu", "relu", "silu"] = "gelu"
    layer_norm_eps: float = Field(1e-6, ge=0, le=1)
    image_size: int = Field(224, ge=1, le=2**12)
    patch_size: int = Field(14, ge=1, le=2**10)
    num_channels: Literal[3] = 3
    qkv_bias: bool = True
    use_swiglu_ffn: bool = False
    use_mask_token: bool = True


class FrozenEncoder(nn.Module):
    """The patches' tokens of a frozen DINOv2 (Oquab et al. 2023), side by side: [..., H, W, C] -> [..., features].

    A picture is scaled to the nearest size of whole patches. What comes in as floating point counts as features that
    were made before.

    Attributes:
        features: numbers that come out, patches x width.
        sha256: of the checkpoint.
    """

    def __init__(self, shape: tuple[int, ...], config: ImageConfig) -> None:
        """Prepare, and load the checkpoint where it is not there yet (not on the device "meta").

        Raises:
            UserError: transformers is missing, the checkpoint is no DINOv2 or damaged, or a picture has other channels
                than one or three.
        """
        super().__init__()
        height, width, channels = shape
        if channels not in (1, 3):
            raise UserError(f"image.kind {config.kind} takes pictures of 1 or 3 channels, not {channels}: use cnn")
        about = _read_about(Path(config.path))
        rows, columns = (max(1, round(side / about.patch_size)) for side in (height, width))
        self.sha256 = config.sha256
        self._config, self._size = config, (rows * about.patch_size, columns * about.patch_size)
        self.features = rows * columns * about.hidden_size
        for name, value in (("mean", _MEAN), ("std", _STD)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)
        if torch.empty(0).device.type != "meta":
            self.model("cpu")

    def forward(self, image: Tensor) -> Tensor:
        if image.is_floating_point():
            return image.to(torch.float32)
        x = image.flatten(0, -4).movedim(-1, -3) / 255.0
        if x.shape[-2:] != self._size:
            x = F.interpolate(x, self._size, mode="bilinear", align_corners=False)
        x = (x - self.get_buffer("mean")) / self.get_buffer("std")
        with torch.no_grad():
            tokens = self.model(x.device)(pixel_values=x).last_hidden_state
        return tokens[:, 1:].flatten(1).unflatten(0, image.shape[:-3])  # without that of the class

    def model(self, device: torch.device | str) -> nn.Module:
        """The encoder itself, shared by all in this process, or a part of this module after `hold`."""
        if "held" in self._modules:
            return self.get_submodule("held")
        key = self._config.sha256, str(device)
        if key not in _loaded:
            _loaded[key] = _load(Path(self._config.path)).to(device)
        return _loaded[key]

    def hold(self) -> None:
        """Make the weights a part of this module, as an exporter expects it."""
        self.add_module("held", self.model("cpu"))


def _read_about(folder: Path) -> _About:
    path = folder / FILES[0]
    try:
        about = _About.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path} is no description of an encoder ({one_line(error, prefix='')})") from None
    except OSError:
        raise UserError(f"{path} is missing: restore the checkpoint") from None
    if about.model_type != "dinov2":
        raise UserError(f'{folder} holds a "{about.model_type}": give the folder of a dinov2')
    if importlib.util.find_spec("transformers") is None:
        raise UserError("image.kind dinov2 needs transformers: pip install 'tscli[vision]'")
    return about


def _load(folder: Path) -> nn.Module:
    module: Any = importlib.import_module("transformers.models.dinov2.modeling_dinov2")
    about = _read_about(folder).model_dump(exclude={"model_type"})
    # Not from the folder itself, where transformers would look for more than weights; it knows their older names.
    options = {"ignore_mismatched_sizes": True, "output_loading_info": True, "attn_implementation": "sdpa"}
    try:
        weights = load_file(folder / FILES[1])
        with _quiet(), torch.random.fork_rng(devices=[]):
            config = module.Dinov2Config(**about)
            model, info = module.Dinov2Model.from_pretrained(None, config=config, state_dict=weights, **options)
        kinds = {"missing_keys": "has no", "mismatched_keys": "has another size of"}
        wrong = next((f"it {what} {sorted(map(str, info[key]))[0]}" for key, what in kinds.items() if info[key]), "")
    except Exception as error:  # whatever safetensors and transformers run into
        wrong = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    if wrong:
        raise UserError(f"{folder} cannot be read as a dinov2 ({wrong}): restore the checkpoint")
    return model.to(torch.float32).eval().requires_grad_(False)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and reports to itself."""
    bars: Any = importlib.import_module("transformers.utils.logging")
    logger, shown = logging.getLogger("transformers"), bars.is_progress_bar_enabled()
    level = logger.level
    bars.disable_progress_bar()
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if shown:
            bars.enable_progress_bar()


def keep_copy(config: ImageConfig, folder: Path) -> None:
    """Put the checkpoint beside a policy, by hard links where that can be done."""
    target = copy_of(config.sha256, folder)
    if target.is_dir() or not config.is_frozen:
        return
    half = target.with_suffix(".tmp")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for name in FILES:
        try:
            os.link(Path(config.path, name), half / name)
        except OSError:  # another disk, or a file system without hard links
            shutil.copyfile(Path(config.path, name), half / name)
    half.rename(target)


def copy_of(sha256: str, folder: Path) -> Path:
    """Where the checkpoint of the policies in a folder is."""
    return folder / COPIES / sha256[:12]


def find_copy(sha256: str, folder: Path) -> Path:
    """The checkpoint beside a policy, unchanged.

    Raises:
        UserError: it is missing or another one.
    """
    found = copy_of(sha256, folder)
    try:
        unchanged = checkpoint_hash(found) == sha256
    except OSError:  # one is missing, or cannot be read
        unchanged = False
    if not unchanged:
        raise UserError(f"{found} is missing, or has changed since the policy was written: restore it")
    return found

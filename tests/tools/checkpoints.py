"""Tiny checkpoints of a vision encoder, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tscli.config import ImageConfig


def make_checkpoint(folder: Path, seed: int = 0, **settings: Any) -> Any:
    """Save a DINOv2 of 8 numbers a patch of 4 x 4, as transformers does, and give it; skips a test without that."""
    dinov2: Any = pytest.importorskip("transformers.models.dinov2.modeling_dinov2")
    small = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2}
    torch.manual_seed(seed)
    model = dinov2.Dinov2Model(dinov2.Dinov2Config(**{**small, "image_size": 8, "patch_size": 4, **settings})).eval()
    model.save_pretrained(folder)
    return model


def image_config(folder: Path) -> ImageConfig:
    """The settings that name a checkpoint."""
    return ImageConfig.model_validate({"kind": "dinov2", "path": str(folder)})

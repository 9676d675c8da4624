"""Where looking at a tensor's values costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def host_may_look(device: torch.device) -> bool:
    """Whether a loop may look at values there: on a GPU it would wait, so other ways are taken, to the same end."""
    return device.type == "cpu"

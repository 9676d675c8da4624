"""A GRU. Feed-forward layers stand before it and, where they are asked for, after it."""

from __future__ import annotations

from torch import nn

from tscli.config import MemoryConfig
from tscli.networks.bodies.recurrent import Recurrent


class BodyConfig(MemoryConfig):
    """Widths of the layers and of the memory."""


class Body(Recurrent):
    """With the memory of a GRU."""

    cell = nn.GRU

"""No memory. Feed-forward layers alone."""

from __future__ import annotations

from torch import Tensor

from tscli.config import LayersConfig
from tscli.networks.bodies.contract import BaseBody
from tscli.networks.layers import feed_forward


class BodyConfig(LayersConfig):
    """Their widths and non-linearity."""


class Body(BaseBody):
    """No memory."""

    def __init__(self, inputs: int, config: BodyConfig):
        super().__init__()
        self.layers = feed_forward(inputs, config.hidden, config.activation)
        self.output_size = config.hidden[-1] if config.hidden else inputs

    def forward(self, x: Tensor, hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.layers(x), hidden

"""An LSTM. Feed-forward layers stand before it and, where they are asked for, after it."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from tscli.config import MemoryConfig
from tscli.networks.bodies.recurrent import Recurrent


class BodyConfig(MemoryConfig):
    """Widths of the layers and of the memory."""

    forget_bias: float = Field(
        default=0.0,
        description="Initial bias of an rnn's forget gates; 1 lets it remember longer at first, and learn faster.",
    )


class Body(Recurrent):
    """With the memory of an LSTM."""

    cell = nn.LSTM

    def __init__(self, inputs: int, config: BodyConfig):
        super().__init__(inputs, config)
        with torch.no_grad():  # Gers et al. 2000; of one of the two biases, which are added
            for name, parameter in self.memory.named_parameters():
                if "bias_ih" in name:
                    parameter[config.memory : 2 * config.memory] = config.forget_bias

"""The last observations, stacked. Feed-forward layers stand over them."""

from __future__ import annotations

import torch
from torch import Tensor

from tscli.config import HistoryConfig
from tscli.networks.bodies.contract import BaseBody
from tscli.networks.layers import feed_forward


class BodyConfig(HistoryConfig):
    """How many observations, and the layers over them."""


class Body(BaseBody):
    """Feed-forward layers over the last H observations; the hidden state holds the H - 1 before the current one."""

    def __init__(self, inputs: int, config: HistoryConfig):
        super().__init__()
        self.length, self.inputs = config.history, inputs
        self.layers = feed_forward(inputs * self.length, config.hidden, config.activation)
        self.output_size = config.hidden[-1] if config.hidden else inputs * self.length
        self.lookback = self.length - 1
        self.hidden_size = self.lookback * inputs

    def forward(self, x: Tensor, hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        steps, num_envs = x.shape[:2]
        past = hidden.unflatten(-1, (self.length - 1, self.inputs)).transpose(0, 1)
        sequence = torch.cat([past, x])  # [H - 1 + T, N, D]
        windows = sequence.unfold(0, self.length, 1).movedim(-1, 2)  # [T, N, H, D]
        if reset is not None:
            # What came before the latest reset reads as zeros, as it does at an episode's start.
            age = torch.full((num_envs,), self.length, device=x.device)
            ages = []
            for t in range(steps):
                age = torch.where(reset[t], 0, age + 1)
                ages.append(age)
            back = torch.arange(self.length - 1, -1, -1, device=x.device)
            windows = windows * (back <= torch.stack(ages)[:, :, None]).unsqueeze(-1)
        return self._over(windows), windows[-1, :, 1:].flatten(1)

    def _over(self, windows: Tensor) -> Tensor:
        """[T, N, H, D] -> [T, N, output_size]."""
        return self.layers(windows.flatten(2))

"""Dilated causal convolutions over time (Bai et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tscli import devices
from tscli.config import ConvolutionsConfig
from tscli.networks.bodies.contract import BaseBody
from tscli.networks.layers import ACTIVATIONS, feed_forward


class BodyConfig(ConvolutionsConfig):
    """Channels and width of the convolutions, and the layers after them."""


class Body(BaseBody):
    """Convolution i has dilation 2^i; the hidden state holds the observations before the current one.

    What came before an episode reads as zeros. A sequence is convolved as a whole, so that neighbouring steps share
    their work and nothing is copied for each step.
    """

    def __init__(self, inputs: int, config: BodyConfig):
        super().__init__()
        self.inputs = inputs
        sizes = [inputs, *config.channels]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(sizes[i], sizes[i + 1], config.kernel, dilation=2**i) for i in range(len(config.channels))
        )
        self.activation = ACTIVATIONS[config.activation]()
        self.layers = feed_forward(sizes[-1], config.hidden, config.activation)
        self.output_size = config.hidden[-1] if config.hidden else sizes[-1]
        self.lookback = (config.kernel - 1) * (2 ** len(config.channels) - 1)
        self.hidden_size = self.lookback * inputs

    def forward(self, x: Tensor, hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        steps, num_envs = x.shape[:2]
        past = hidden.unflatten(-1, (self.lookback, self.inputs)).transpose(0, 1)
        if reset is None:
            sequence = torch.cat([past, x])
            return self.layers(self._convolve(sequence)), sequence[steps:].transpose(0, 1).flatten(1)
        past = past * (~reset[0])[:, None]
        if steps > 1 and not devices.host_may_look(x.device):
            return self._each_step(torch.cat([past, x]), reset)
        # Steps after a later reset in a column of their own, which is zero before it.
        later = reset.clone()
        later[0] = False
        at, env = later.nonzero(as_tuple=True)  # in the order of time, so that an env's latest has the largest number
        source = torch.arange(num_envs, device=x.device).repeat(steps, 1)
        source[at, env] = torch.arange(num_envs, num_envs + len(at), device=x.device)
        source = source.cummax(dim=0).values
        begun = (torch.arange(steps, device=x.device)[:, None] >= at).unsqueeze(-1)
        columns = torch.cat([x, x.index_select(1, env) * begun], dim=1)
        sequence = torch.cat([torch.cat([past, past.new_zeros(self.lookback, len(at), self.inputs)], dim=1), columns])
        y = self.layers(self._convolve(sequence))
        y = y.gather(1, source.unsqueeze(-1).expand(-1, -1, y.shape[-1]))
        return y, sequence[steps:].index_select(1, source[-1]).transpose(0, 1).flatten(1)

    def _convolve(self, sequence: Tensor) -> Tensor:
        """[lookback + T, N, D] -> [T, N, channels]."""
        y = sequence.permute(1, 2, 0)
        for convolution in self.convolutions:
            y = self.activation(convolution(y))
        return y.permute(2, 0, 1)

    def _each_step(self, sequence: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
        """The same with as many calls whatever `reset` holds: a window for each step, zero before its episode."""
        steps, num_envs = reset.shape
        windows = sequence.unfold(0, self.lookback + 1, 1)  # [T, N, D, H]
        at = torch.arange(steps, device=reset.device)[:, None]
        since = torch.where(reset, at, -self.lookback - 1).cummax(dim=0).values  # its episode's first step
        place = at[:, :, None] + torch.arange(-self.lookback, 1, device=reset.device)
        windows = (windows * (place >= since.unsqueeze(-1)).unsqueeze(2)).flatten(0, 1)
        y = self._convolve(windows.permute(2, 0, 1))[-1].unflatten(0, (steps, num_envs))
        return self.layers(y), windows.unflatten(0, (steps, num_envs))[-1, :, :, 1:].transpose(1, 2).flatten(1)

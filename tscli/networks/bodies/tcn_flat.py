"""Convolutions over the last observations laid end to end as one signal, as a public legged-robot library has them."""

from __future__ import annotations

from torch import Tensor, nn

from tscli.config import ConvolutionsConfig, HistoryConfig
from tscli.networks.bodies import history
from tscli.networks.layers import ACTIVATIONS, feed_forward

_DILATIONS, _STRIDES = (1, 1, 2, 1), (1, 2, 1, 2)  # and again, of more than four


class BodyConfig(ConvolutionsConfig, HistoryConfig):
    """How many observations, the convolutions over them, and the layers after these."""


class Body(history.Body):
    """A kernel's neighbours are entries of an observation, not times: this is here to be compared with `tcn`."""

    def __init__(self, inputs: int, config: BodyConfig):
        super().__init__(inputs, config)
        convolutions: list[nn.Module] = []
        length, sizes = inputs * config.history, [1, *config.channels]
        for i in range(len(config.channels)):
            dilation, stride = _DILATIONS[i % 4], _STRIDES[i % 4]
            padding = dilation * (config.kernel - 1) // 2
            convolution = nn.Conv1d(sizes[i], sizes[i + 1], config.kernel, stride, padding, dilation)
            convolutions += [convolution, ACTIVATIONS[config.activation]()]
            length = (length + 2 * padding - dilation * (config.kernel - 1) - 1) // stride + 1
        self.convolutions = nn.Sequential(*convolutions)
        self.layers = feed_forward(length * sizes[-1], config.hidden, config.activation)
        self.output_size = config.hidden[-1] if config.hidden else length * sizes[-1]

    def _over(self, windows: Tensor) -> Tensor:
        signal = windows.flatten(2).flatten(0, 1).unsqueeze(1)  # [T * N, 1, H * D]
        return self.layers(self.convolutions(signal).flatten(1)).unflatten(0, windows.shape[:2])

"""What an image goes through before the body."""

from __future__ import annotations

import math

from torch import Tensor, nn

from tscli.networks.layers import linear


class ImageEncoder(nn.Module):
    """A small CNN for one uint8 image, [..., H, W, C] -> [..., features]; any size from 8 x 8 on."""

    features = 128

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        height, width, channels = shape
        layers: list[nn.Module] = []
        # No gradient needs what comes before a ReLU, and of large tensors the memory costs more than the arithmetic.
        for out in (16, 32, 32):
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.ReLU(inplace=True)]
            height, width, channels = (height + 1) // 2, (width + 1) // 2, out
        # Averaging down to at most 6 x 6 bounds the last layer for large images and keeps where things are.
        pooled = (min(height, 6), min(width, 6))
        layers += [nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), linear(channels * math.prod(pooled), self.features)]
        self.layers = nn.Sequential(*layers, nn.ReLU(inplace=True))

    def forward(self, image: Tensor) -> Tensor:
        batch = image.shape[:-3]
        x = image.flatten(0, -4).movedim(-1, -3) / 255.0  # float32 at once; its channels stay last in memory
        return self.layers(x).unflatten(0, batch)

"""Layers that bodies and heads are made of."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

_MANY = 32_768  # entries; below, calling takes longer than computing


class _FastTanh(torch.autograd.Function):
    """tanh(x) = 2 sigmoid(2x) - 1, with the gradient of tanh."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.sigmoid(x + x).mul_(2).sub_(1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grads[0], y)


class Tanh(nn.Module):
    """tanh. Of large CPU tensors by torch's sigmoid, which takes a third of the time of its tanh (equal to 2e-7)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() < _MANY or x.is_cuda:
            return torch.tanh(x)
        return cast(Tensor, _FastTanh.apply(x))


ACTIVATIONS = {"tanh": Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


def linear(inputs: int, outputs: int, gain: float = math.sqrt(2.0)) -> nn.Linear:
    """A linear layer with orthogonal weights and zero bias (Saxe et al. 2014)."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def feed_forward(inputs: int, widths: tuple[int, ...], activation: str) -> nn.Sequential:
    """Linear layers, each with its non-linearity."""
    layers: list[nn.Module] = []
    for width in widths:
        layers += [linear(inputs, width), ACTIVATIONS[activation]()]
        inputs = width
    return nn.Sequential(*layers)

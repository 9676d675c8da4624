"""A minimal GRU (Feng et al. 2024, "Were RNNs All We Needed?"), whose gate and candidate do not see its memory."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from tscli.config import MemoryConfig
from tscli.networks.bodies.contract import BaseBody
from tscli.networks.layers import feed_forward, linear


class BodyConfig(MemoryConfig):
    """Widths of the layers and of the memory."""


class _Scan(torch.autograd.Function):
    """h[t] = keep[t] h[t - 1] + new[t], over [T, N, S] from h [N, S].

    By hand, since autograd would keep and walk a graph of T small steps.
    """

    @staticmethod
    def forward(ctx: Any, keep: Tensor, new: Tensor, h: Tensor) -> Tensor:
        out = torch.empty_like(new)
        last = h
        for t in range(len(new)):
            last = torch.addcmul(new[t], keep[t], last, out=out[t])
        ctx.save_for_backward(keep, h, out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keep, h, out = ctx.saved_tensors
        into = torch.empty_like(out)
        running = torch.zeros_like(h)
        for t in range(len(out) - 1, -1, -1):
            torch.add(grads[0][t], running, out=into[t])
            running = into[t] * keep[t]
        before = torch.cat([h.unsqueeze(0), out[:-1]])
        return into * before, into, running


class Body(BaseBody):
    """Layers of z = sigmoid(W x), h = (1 - z) h + z V x.

    Since z and V x know nothing of h, all steps of a sequence are two matrix products, and what remains is a scan.
    """

    def __init__(self, inputs: int, config: MemoryConfig):
        super().__init__()
        self.layers = feed_forward(inputs, config.hidden, config.activation)
        width = config.hidden[-1] if config.hidden else inputs
        sizes = [width, *[config.memory] * config.memory_layers]
        self.cells = nn.ModuleList(linear(sizes[i], 2 * config.memory, gain=1.0) for i in range(config.memory_layers))
        self.after = feed_forward(config.memory, config.hidden_after, config.activation)
        self.output_size = config.hidden_after[-1] if config.hidden_after else config.memory
        self.hidden_size = config.memory * config.memory_layers

    def forward(self, x: Tensor, hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        y, lasts = self.layers(x), []
        for cell, h in zip(self.cells, hidden.chunk(len(self.cells), dim=-1), strict=True):
            gate, candidate = cell(y).chunk(2, dim=-1)
            z = torch.sigmoid(gate)
            keep, new = 1 - z, z * candidate
            if reset is not None:
                keep = keep * (~reset).unsqueeze(-1)
            y = torch.addcmul(new, keep, h.unsqueeze(0)) if len(x) == 1 else cast(Tensor, _Scan.apply(keep, new, h))
            lasts.append(y[-1])
        return self.after(y), torch.cat(lasts, dim=-1)

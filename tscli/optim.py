"""Adam over one flat tensor.

Small networks spend more time in an optimiser's bookkeeping than in its arithmetic. Keeping all parameters in one
buffer, of which each is a view, makes clipping and Adam a dozen operations however many layers there are. It also
spares each process the second that torch.optim takes to import its compiler.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["FlatAdam"]


class FlatAdam:
    """Adam (Kingma and Ba 2015) with clipping by the norm of the whole gradient.

    Args:
        parameters: moved into one buffer here, so place the modules on their device first. All of one dtype.
        lr: learning rate; an attribute, to be set by a schedule.
        max_grad_norm: None clips nothing.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        max_grad_norm: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
    ):
        self.lr, self.max_grad_norm, self.betas, self.eps = lr, max_grad_norm, betas, eps
        self._parameters = list(parameters)
        with torch.no_grad():
            self._flat = torch.cat([p.reshape(-1) for p in self._parameters])
            parts = self._flat.split([p.numel() for p in self._parameters])
            for parameter, part in zip(self._parameters, parts, strict=True):
                parameter.data = part.view_as(parameter)
        self._mean, self._square = torch.zeros_like(self._flat), torch.zeros_like(self._flat)
        self._steps = 0
        # cuDNN wants an RNN's weights at the start of a buffer of their own; where they are elsewhere, torch copies
        # them there at every call and warns. That copy is the known price of one buffer for all parameters.
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk of memory")

    def zero_grad(self) -> None:
        """Forget gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients at hand. A parameter without one counts as having a zero gradient."""
        parts = (torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters)
        gradient = torch.cat([part.reshape(-1) for part in parts])
        if self.max_grad_norm is not None:
            gradient.mul_((self.max_grad_norm / (gradient.norm() + 1e-6)).clamp(max=1.0))
        self._steps += 1
        beta_1, beta_2 = self.betas
        self._mean.lerp_(gradient, 1 - beta_1)
        self._square.mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
        correction = (1 - beta_2**self._steps) ** 0.5
        denominator = self._square.sqrt().div_(correction).add_(self.eps)
        self._flat.addcdiv_(self._mean, denominator, value=-self.lr / (1 - beta_1**self._steps))

    def state_dict(self) -> dict[str, Any]:
        """For exact resume; the parameters themselves are their modules' to save."""
        return {"mean": self._mean, "square": self._square, "steps": self._steps, "lr": self.lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])
        self._steps, self.lr = state["steps"], state["lr"]

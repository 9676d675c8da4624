"""Optimisers over one flat tensor.

Small networks spend more time in an optimiser's bookkeeping than in its arithmetic. Keeping all parameters in one
buffer, of which each is a view, makes clipping and Adam a dozen operations however many layers there are. It also
spares each process the second that torch.optim takes to import its compiler.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tscli import devices, ranks


class FlatOptimizer(ABC):
    """Clips by the norm of the whole gradient, and moves all parameters at once.

    Args:
        parameters: moved into one buffer here, so place the modules on their device first. All of one dtype.
        lr: learning rate; an attribute, to be set by a schedule. On a GPU it begins as a tensor, as the number of steps
            is one, so that a schedule by what the device has computed does not wait for it.
        max_grad_norm: None clips nothing.
    """

    lr: float | Tensor

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, max_grad_norm: float | None = None):
        self.max_grad_norm = max_grad_norm
        self._parameters = list(parameters)
        with torch.no_grad():
            self._flat = torch.cat([p.reshape(-1) for p in self._parameters])
            parts = self._flat.split([p.numel() for p in self._parameters])
            for parameter, part in zip(self._parameters, parts, strict=True):
                parameter.data = part.view_as(parameter)
        self.lr, self._steps = self._number(lr), self._number(0)
        # cuDNN wants an RNN's weights at the start of a buffer of their own; where they are elsewhere, torch copies
        # them there at every call and warns. That copy is the known price of one buffer for all parameters.
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk of memory")

    def _number(self, value: float) -> Any:
        """A plain number on a CPU, where reading one costs nothing; else a tensor on the device."""
        return value if devices.host_may_look(self._flat.device) else self._flat.new_tensor(value, dtype=torch.float64)

    def zero_grad(self) -> None:
        """Forget gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients at hand. A parameter without one counts as having a zero gradient."""
        parts = (torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters)
        gradient = torch.cat([part.reshape(-1) for part in parts])
        gradient = ranks.mean(gradient)
        if self.max_grad_norm is not None:
            # In place, and without torch.norm's own Python: two thirds of the time, for a small network.
            norm = torch.linalg.vector_norm(gradient)
            gradient.mul_(norm.add_(1e-6).reciprocal_().mul_(self.max_grad_norm).clamp_(max=1.0))
        self._steps = self._steps + 1
        self._move(gradient)

    @abstractmethod
    def _move(self, gradient: Tensor) -> None:
        """Change `_flat` by the clipped gradient, of the same shape [P]."""

    def _descend(self, size: float | Tensor, numerator: Tensor, denominator: Tensor | None = None) -> None:
        """Take off `size` times the numerator, or the quotient, in one operation where `size` is known here."""
        if isinstance(size, Tensor):
            self._flat.sub_((numerator if denominator is None else numerator / denominator) * size)
        elif denominator is None:
            self._flat.add_(numerator, alpha=-size)
        else:
            self._flat.addcdiv_(numerator, denominator, value=-size)

    @abstractmethod
    def _moments(self) -> dict[str, Tensor]:
        """What it remembers of earlier gradients, by name: [P] each."""

    def forget(self) -> None:
        """Forget all earlier gradients, when some of the parameters begin to learn later than the others.

        Steps without a gradient end Adam's correction for its first ones: those that follow would be several times as
        large.
        """
        for moment in self._moments().values():
            moment.zero_()
        self._steps = self._number(0)

    def state_dict(self) -> dict[str, Any]:
        """For exact resume; the parameters themselves are their modules' to save."""
        return {**self._moments(), "steps": self._steps, "lr": self.lr}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        for name, moment in self._moments().items():
            moment.copy_(state[name])
        self._steps, self.lr = (self._number(float(state[name])) for name in ("steps", "lr"))


class FlatAdam(FlatOptimizer):
    """Adam (Kingma and Ba 2015); with `weight_decay` AdamW (Loshchilov and Hutter 2019)."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        max_grad_norm: float | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
        weight_decay: float = 0.0,
    ):
        super().__init__(parameters, lr, max_grad_norm)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._mean, self._square = torch.zeros_like(self._flat), torch.zeros_like(self._flat)

    def _move(self, gradient: Tensor) -> None:
        if self.weight_decay:
            self._flat.mul_(1 - self.lr * self.weight_decay)
        beta_1, beta_2 = self.betas
        self._mean.lerp_(gradient, 1 - beta_1)
        self._square.mul_(beta_2).addcmul_(gradient, gradient, value=1 - beta_2)
        correction = (1 - beta_2**self._steps) ** 0.5
        denominator = self._square.sqrt().div_(correction).add_(self.eps)
        self._descend(self.lr / (1 - beta_1**self._steps), self._mean, denominator)

    def _moments(self) -> dict[str, Tensor]:
        return {"mean": self._mean, "square": self._square}


class FlatSGD(FlatOptimizer):
    """Gradient descent, without momentum."""

    def _move(self, gradient: Tensor) -> None:
        self._descend(self.lr, gradient)

    def _moments(self) -> dict[str, Tensor]:
        return {}


class FlatRMSprop(FlatOptimizer):
    """RMSprop (Tieleman and Hinton 2012)."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        max_grad_norm: float | None = None,
        decay: float = 0.99,
        eps: float = 1e-8,
    ):
        super().__init__(parameters, lr, max_grad_norm)
        self.decay, self.eps = decay, eps
        self._square = torch.zeros_like(self._flat)

    def _move(self, gradient: Tensor) -> None:
        self._square.mul_(self.decay).addcmul_(gradient, gradient, value=1 - self.decay)
        self._descend(self.lr, gradient, self._square.sqrt().add_(self.eps))

    def _moments(self) -> dict[str, Tensor]:
        return {"square": self._square}


def make_optimizer(
    kind: str, parameters: Iterable[nn.Parameter], lr: float, max_grad_norm: float | None
) -> FlatOptimizer:
    """`adam`, `adamw` (weight decay .01), `sgd` (no momentum) or `rmsprop` (decay .99), with torch's constants.

    Adam's epsilon is 1e-8, not PPO's usual 1e-5: near the teacher gradients of an imitation loss are as small as that,
    and would be slowed down by it.
    """
    if kind == "sgd":
        return FlatSGD(parameters, lr, max_grad_norm)
    if kind == "rmsprop":
        return FlatRMSprop(parameters, lr, max_grad_norm)
    return FlatAdam(parameters, lr, max_grad_norm, eps=1e-8, weight_decay=0.01 if kind == "adamw" else 0.0)

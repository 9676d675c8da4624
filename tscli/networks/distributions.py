"""Action distributions: only what policies need, batched over any leading axes, without torch.distributions' cost.

`kl(p, q)` is KL(p || q) for two distributions of the same kind. All of a distribution's numbers are in `params()`,
which is what a dataset records and `from_params` rebuilds.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user expects
from torch import Tensor

from tscli.config import UserError
from tscli.envs.spaces import ActionSpec, action_scale

_LOG_2PI = math.log(2.0 * math.pi)


class Distribution(ABC):
    """A batch of action distributions; `...` below are the batch axes."""

    @abstractmethod
    def params(self) -> dict[str, Tensor]:
        """{"logits": [..., K]}, {"mean": [..., D], "std": [..., D]} or {"alpha": [..., D], "beta": [..., D]}."""

    @abstractmethod
    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One action per batch entry: [...] int64 (discrete), [..., D] otherwise."""

    @abstractmethod
    def mode(self) -> Tensor:
        """The greedy action."""

    @abstractmethod
    def log_prob(self, action: Tensor) -> Tensor:
        """Log probability (density) of an action: [...]."""

    @abstractmethod
    def entropy(self) -> Tensor:
        """Entropy in nats: [...]."""


class Categorical(Distribution):
    """One choice among K. logits: [..., K], not necessarily normalised."""

    def __init__(self, logits: Tensor):
        self.logits = logits
        self._log_p: Tensor | None = None

    @property
    def log_p(self) -> Tensor:
        """Normalised log probabilities [..., K]."""
        if self._log_p is None:
            self._log_p = F.log_softmax(self.logits, dim=-1)
        return self._log_p

    def params(self) -> dict[str, Tensor]:
        return {"logits": self.logits}

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        # Gumbel-max by exponential race: logits need no normalising, and it has no data-dependent branch.
        race = torch.empty_like(self.logits).exponential_(generator=generator)
        return (self.logits - race.log()).argmax(dim=-1)

    def mode(self) -> Tensor:
        return self.logits.argmax(dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        # As `gather` would, but its gradient takes half the time.
        log_p = self.log_p.reshape(-1, self.logits.shape[-1])
        return -F.nll_loss(log_p, action.reshape(-1), reduction="none").reshape(action.shape)

    def entropy(self) -> Tensor:
        return -(self.log_p.exp() * self.log_p).sum(-1)


class MultiCategorical(Distribution):
    """Several independent choices. logits: [..., sum(nvec)]."""

    def __init__(self, logits: Tensor, nvec: Sequence[int]):
        self.logits, self.nvec = logits, tuple(nvec)
        self.parts = [Categorical(part) for part in logits.split(self.nvec, dim=-1)]

    def params(self) -> dict[str, Tensor]:
        return {"logits": self.logits}

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        return torch.stack([part.sample(generator) for part in self.parts], dim=-1)

    def mode(self) -> Tensor:
        return torch.stack([part.mode() for part in self.parts], dim=-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return torch.stack([part.log_prob(action[..., i]) for i, part in enumerate(self.parts)]).sum(0)

    def entropy(self) -> Tensor:
        return torch.stack([part.entropy() for part in self.parts]).sum(0)


class Gaussian(Distribution):
    """Independent normals. mean: [..., D]; std: broadcastable to it, positive."""

    def __init__(self, mean: Tensor, std: Tensor):
        self.mean, self.std = mean, std

    def params(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "std": self.std.expand_as(self.mean)}

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        noise = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + self.std * noise

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        z = (action - self.mean) / self.std
        return (-0.5 * (z.square() + _LOG_2PI) - self.std.log()).sum(-1)

    def entropy(self) -> Tensor:
        return (0.5 * (1.0 + _LOG_2PI) + self.std.log()).expand_as(self.mean).sum(-1)


class TanhGaussian(Gaussian):
    """A normal squashed into (low, high): action = center + half * tanh(u), u ~ N(mean, std).

    `mean` and `std` are those of u. The KL of two of them is that of their normals, since tanh is a bijection.
    """

    def __init__(self, mean: Tensor, std: Tensor, center: Tensor, half: Tensor):
        super().__init__(mean, std)
        self.center, self.half = center, half

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """[..., D] float64: in float32 tanh is 1 from u = 9 on, and `log_prob` could not tell which u it was."""
        return self.center + self.half * torch.tanh(super().sample(generator).double())

    def mode(self) -> Tensor:
        return self.center + self.half * torch.tanh(self.mean)

    def log_prob(self, action: Tensor) -> Tensor:
        # An action at its bound comes from u = infinity; the last number below 1 keeps the density finite.
        bound = 1.0 - 0.5 * torch.finfo(action.dtype).eps
        u = torch.atanh(((action.double() - self.center) / self.half).clamp(-bound, bound)).to(self.mean.dtype)
        return super().log_prob(u) - (_log_slope(u) + self.half.log()).sum(-1)

    def entropy(self) -> Tensor:
        """That of the underlying normal plus the expected log slope, by quadrature: it has no closed form."""
        nodes, weights = (x.to(self.mean).reshape(-1, *[1] * self.mean.dim()) for x in _quadrature())
        log_slope = (weights * _log_slope(self.mean + self.std * nodes)).sum(0) + self.half.log()
        return super().entropy() + log_slope.sum(-1)


class Beta(Distribution):
    """Independent Betas on (low, high): action = center + half * (2 x - 1), x ~ Beta(alpha, beta).

    Nothing lies outside the bounds, and no probability gathers at them as it does with a clipped normal (Chou, Maturana
    and Scherer 2017). alpha, beta: [..., D], above 1, so that there is one mode within the bounds.
    """

    def __init__(self, alpha: Tensor, beta: Tensor, center: Tensor, half: Tensor):
        self.alpha, self.beta, self.center, self.half = alpha, beta, center, half

    def params(self) -> dict[str, Tensor]:
        return {"alpha": self.alpha, "beta": self.beta}

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        with torch.no_grad():
            # torch.distributions draws gammas with this too, but takes no generator.
            gammas = torch._standard_gamma(torch.stack([self.alpha, self.beta]), generator=generator)  # type: ignore
            x = gammas[0] / gammas.sum(0)
            return self._scaled(x)

    def mode(self) -> Tensor:
        above = self.alpha - 1.0
        return self._scaled(above / (above + self.beta - 1.0))

    def log_prob(self, action: Tensor) -> Tensor:
        a, b = self._exact()
        x = 0.5 * ((action.double() - self.center) / self.half + 1.0)
        # At a bound the density is 0, and its logarithm not finite.
        x = x.clamp(1e-6, 1.0 - 1e-6)
        density = (a - 1.0) * x.log() + (b - 1.0) * torch.log1p(-x) - _log_beta(a, b)
        return (density - self._log_range()).sum(-1).to(self.alpha.dtype)

    def entropy(self) -> Tensor:
        a, b = self._exact()
        both = a + b
        inner = (both - 2.0) * both.digamma() - (a - 1.0) * a.digamma() - (b - 1.0) * b.digamma()
        return (_log_beta(a, b) + inner + self._log_range()).sum(-1).to(self.alpha.dtype)

    def _scaled(self, x: Tensor) -> Tensor:
        return self.center + self.half * (2.0 * x - 1.0)

    def _log_range(self) -> Tensor:
        return (2.0 * self.half).log()

    def _exact(self) -> tuple[Tensor, Tensor]:
        # Large numbers cancel in what follows: in float32 a narrow Beta's density would be off by a percent.
        return self.alpha.double(), self.beta.double()


def _log_beta(a: Tensor, b: Tensor) -> Tensor:
    """Logarithm of the beta function."""
    return a.lgamma() + b.lgamma() - (a + b).lgamma()


def _kl_beta(p: Beta, q: Beta) -> Tensor:
    """KL(p || q) of Betas on the same bounds: [...]."""
    (a, b), (c, d) = p._exact(), q._exact()
    moved = (a - c) * a.digamma() + (b - d) * b.digamma() + (c - a + d - b) * (a + b).digamma()
    return (_log_beta(c, d) - _log_beta(a, b) + moved).sum(-1).to(p.alpha.dtype)


class NoClosedFormError(UserError, TypeError):
    """Two distributions of different kinds, whose divergence has no formula."""


def _log_slope(u: Tensor) -> Tensor:
    """Log |d tanh(u) / du| = 2 (log 2 - u - softplus(-2u)), which does not underflow as log(1 - tanh^2) does."""
    return 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))


@functools.cache
def _quadrature() -> tuple[Tensor, Tensor]:
    """Nodes and weights of a standard normal's expectation (Gauss-Hermite)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(16)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def kl(p: Distribution, q: Distribution) -> Tensor:
    """KL(p || q), exact: [...].

    Raises:
        NoClosedFormError: the distributions are of different kinds.
    """
    if isinstance(p, Categorical) and isinstance(q, Categorical):
        return (p.log_p.exp() * (p.log_p - q.log_p)).sum(-1)
    if isinstance(p, MultiCategorical) and isinstance(q, MultiCategorical):
        return torch.stack([kl(a, b) for a, b in zip(p.parts, q.parts, strict=True)]).sum(0)
    # A squashed normal and a plain one are measured in different units: no closed form compares them.
    if isinstance(p, Gaussian) and isinstance(q, Gaussian) and type(p) is type(q):
        ratio = (p.std / q.std).square()
        distance = ((p.mean - q.mean) / q.std).square()
        return 0.5 * (ratio + distance - 1.0 - ratio.log()).sum(-1)
    if isinstance(p, Beta) and isinstance(q, Beta):
        return _kl_beta(p, q)
    raise NoClosedFormError(
        f"no KL between {type(p).__name__} and {type(q).__name__}: give teacher and student the same distribution "
        "(as in --student.distribution beta), or choose another loss"
    )


def with_std(dist: Distribution, std: Tensor) -> Distribution:
    """A Gaussian of the same means with another deviation, broadcastable to them.

    Raises:
        TypeError: it is no Gaussian.
    """
    if isinstance(dist, TanhGaussian):
        return TanhGaussian(dist.mean, std, dist.center, dist.half)
    if isinstance(dist, Gaussian):
        return Gaussian(dist.mean, std)
    raise TypeError(f"a {type(dist).__name__} has no deviation to set")


def certain(choice: Tensor, action: ActionSpec) -> Distribution:
    """The distribution that has one action alone, where no more is known of a teacher. It has no finite KL.

    Args:
        choice: that action, [...] int64 or [..., D].
        action: the action space.
    """
    if action.is_continuous:
        return Gaussian(choice, torch.zeros_like(choice))
    columns = choice.unsqueeze(-1) if action.kind == "discrete" else choice
    parts = [F.one_hot(columns[..., i], n).to(torch.float32) for i, n in enumerate(action.nvec)]
    return from_params({"logits": torch.cat(parts, dim=-1).log()}, action)


def from_params(params: dict[str, Tensor], action: ActionSpec, squash: bool = False) -> Distribution:
    """Rebuild a distribution from what `params()` gave."""
    if action.kind == "discrete":
        return Categorical(params["logits"])
    if action.kind == "multi_discrete":
        return MultiCategorical(params["logits"], action.nvec)
    if "alpha" in params:
        return Beta(params["alpha"], params["beta"], *action_scale(action, params["alpha"].device))
    if squash:
        return TanhGaussian(params["mean"], params["std"], *action_scale(action, params["mean"].device))
    return Gaussian(params["mean"], params["std"])

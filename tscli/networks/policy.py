"""Policies and critics: a normalised view, a body, a head. A policy's buffers and spec are all that acting needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user expects
from torch import Tensor, nn

from tscli.config import NetworkConfig, UserError
from tscli.envs.spaces import ActionSpec, action_scale
from tscli.envs.views import Obs, ViewSpec
from tscli.networks.bodies import build_body, linear
from tscli.networks.distributions import Beta, Categorical, Distribution, Gaussian, MultiCategorical, TanhGaussian
from tscli.networks.normalize import RunningNorm

__all__ = ["Critic", "Encoder", "Head", "Policy", "PolicySpec"]


@dataclass(frozen=True)
class PolicySpec:
    """What it takes to rebuild a policy before its weights are loaded."""

    view: ViewSpec
    action: ActionSpec
    network: NetworkConfig

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint's header."""
        return {
            "view": self.view.to_json(),
            "action": self.action.to_json(),
            "network": self.network.model_dump(mode="json"),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> PolicySpec:
        """Undo `to_json`."""
        return cls(
            ViewSpec.from_json(data["view"]),
            ActionSpec.from_json(data["action"]),
            NetworkConfig.model_validate(data["network"]),
        )


class ImageEncoder(nn.Module):
    """A small CNN for one uint8 image, [..., H, W, C] -> [..., features]; any size from 8 x 8 on."""

    features = 128

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        height, width, channels = shape
        layers: list[nn.Module] = []
        for out in (16, 32, 32):
            layers += [nn.Conv2d(channels, out, 3, stride=2, padding=1), nn.ReLU()]
            height, width, channels = (height + 1) // 2, (width + 1) // 2, out
        # Averaging down to at most 6 x 6 bounds the last layer for large images and keeps where things are.
        pooled = (min(height, 6), min(width, 6))
        layers += [nn.AdaptiveAvgPool2d(pooled), nn.Flatten(), linear(channels * math.prod(pooled), self.features)]
        self.layers = nn.Sequential(*layers, nn.ReLU())

    def forward(self, image: Tensor) -> Tensor:
        batch = image.shape[:-3]
        x = image.flatten(0, -4).movedim(-1, -3).to(torch.float32) / 255.0
        return self.layers(x).unflatten(0, batch)


class Encoder(nn.Module):
    """View -> latent: the view's vector is normalised, its images go through CNNs, the body adds depth and memory."""

    def __init__(self, view: ViewSpec, config: NetworkConfig):
        super().__init__()
        clip = math.inf if config.normalize_clip is None else config.normalize_clip
        self.norm = RunningNorm(view.vector_size, clip) if config.normalize and view.vector_size else None
        self.images = nn.ModuleDict({_module_name(name): ImageEncoder(shape) for name, shape in view.images.items()})
        self._image_names = tuple(view.images)
        inputs = view.vector_size + ImageEncoder.features * len(self.images)
        self.body = build_body(inputs, config)
        self.output_size, self.hidden_size = self.body.output_size, self.body.hidden_size

    def forward(self, obs: Obs, hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        """obs: [T, N, ...] -> latent [T, N, output_size] and the hidden state after the last step."""
        features = [self.images[_module_name(name)](obs[name]) for name in self._image_names]
        if "vector" in obs:
            vector = obs["vector"]
            features.insert(0, vector if self.norm is None else self.norm(vector))
        return self.body(features[0] if len(features) == 1 else torch.cat(features, -1), hidden, reset)

    def update_normalizer(self, obs: Obs) -> None:
        """Let the normaliser take in observations [..., D]."""
        if self.norm is not None:
            self.norm.update(obs["vector"])


def _module_name(group: str) -> str:
    return group.replace(".", "/")  # torch forbids dots in a module's name


class Head(nn.Module):
    """Latent -> distribution over actions, in the env's own units.

    Raises:
        UserError: a Beta over actions that are discrete or without bounds.
    """

    def __init__(self, inputs: int, action: ActionSpec, config: NetworkConfig):
        super().__init__()
        self.action, self.squash = action, config.squash
        self.is_beta = config.distribution == "beta"
        if self.is_beta and not (action.is_continuous and all(map(math.isfinite, (*action.low, *action.high)))):
            what = "some without bounds" if action.is_continuous else action.kind
            raise UserError(f"a Beta is for continuous actions with bounds, and these are {what}: use gaussian")
        self.network_std = action.is_continuous and (config.std == "network" or self.is_beta)
        outputs = action.num_params * (2 if self.network_std else 1)
        self.linear = linear(inputs, outputs, gain=0.01)  # near-uniform at first (Andrychowicz et al. 2021)
        if action.is_continuous:
            center, half = action_scale(action)
            self.register_buffer("action_center", center, persistent=False)
            self.register_buffer("action_half", half, persistent=False)
            if not self.network_std:
                self.log_std = nn.Parameter(torch.full((action.num_params,), math.log(config.init_std)))
            elif not self.is_beta:  # whose biases of 0 give alpha = beta = 1.69, a deviation of .48 half ranges
                with torch.no_grad():
                    self.linear.bias[action.num_params :] = math.log(config.init_std)

    def forward(self, latent: Tensor, frozen: bool = False) -> Distribution:
        """[..., inputs] -> distribution over [...]; `frozen` lets the gradient reach the latent alone."""
        weight, bias = self.linear.weight, self.linear.bias
        out = F.linear(latent, weight.detach(), bias.detach()) if frozen else self.linear(latent)
        if self.action.kind == "discrete":
            return Categorical(out)
        if self.action.kind == "multi_discrete":
            return MultiCategorical(out, self.action.nvec)
        if self.is_beta:
            # Above 1 also where softplus underflows, and not so narrow that one action is all there is.
            alpha, beta = (1.0 + 1e-6 + F.softplus(out).clamp(max=1e4)).chunk(2, dim=-1)
            return Beta(alpha, beta, self.get_buffer("action_center"), self.get_buffer("action_half"))
        if self.network_std:
            out, log_std = out.chunk(2, dim=-1)
        else:
            log_std = (self.log_std.detach() if frozen else self.log_std).expand_as(out)
        # Outside this range a deviation is either a number of no effect or one that overflows a ratio.
        std = log_std.clamp(-10.0, 2.0).exp()
        center, half = self.get_buffer("action_center"), self.get_buffer("action_half")
        if self.squash:
            return TanhGaussian(out, std, center, half)
        return Gaussian(center + half * out, half * std)

    @torch.no_grad()
    def start_from_std(self, std: Tensor) -> None:
        """Set a state-independent deviation, [D] in the env's units: a student begins with its teacher's."""
        if self.action.is_continuous and not self.network_std:
            scale = torch.ones_like(std) if self.squash else self.get_buffer("action_half")
            self.log_std.copy_((std.to(scale.device) / scale).log())


class Policy(nn.Module):
    """What acts: `dist, hidden = policy(obs, hidden, reset)`.

    obs: dict of [T, N, ...]; hidden: [N, hidden_size]; reset: [T, N] bool or None (no reset within these steps).
    """

    def __init__(self, spec: PolicySpec):
        super().__init__()
        self.spec = spec
        self.encoder = Encoder(spec.view, spec.network)
        self.head = Head(self.encoder.output_size, spec.action, spec.network)

    @property
    def is_recurrent(self) -> bool:
        """Whether it has memory of any kind."""
        return self.encoder.hidden_size > 0

    def initial_hidden(self, num_envs: int) -> Tensor:
        """Zeros [N, hidden_size]: an episode's start."""
        return torch.zeros(num_envs, self.encoder.hidden_size, device=self.head.linear.weight.device)

    def forward(self, obs: Obs, hidden: Tensor, reset: Tensor | None = None) -> tuple[Distribution, Tensor]:
        latent, hidden = self.encoder(obs, hidden, reset)
        return self.head(latent), hidden

    def step(self, obs: Obs, hidden: Tensor, reset: Tensor) -> tuple[Distribution, Tensor]:
        """One step: obs of [N, ...] and reset [N] -> distribution over [N, ...] and the next hidden state."""
        if self.is_recurrent:
            latent, hidden = self.encoder({k: v.unsqueeze(0) for k, v in obs.items()}, hidden, reset.unsqueeze(0))
            return self.head(latent.squeeze(0)), hidden
        latent, hidden = self.encoder(obs, hidden, None)  # any leading axes will do without memory
        return self.head(latent), hidden


class Critic(nn.Module):
    """V(view): called as a policy is, gives [T, N]."""

    def __init__(self, view: ViewSpec, network: NetworkConfig):
        super().__init__()
        self.encoder = Encoder(view, network)
        self.value = linear(self.encoder.output_size, 1, gain=1.0)

    @property
    def is_recurrent(self) -> bool:
        """Whether it has memory of any kind."""
        return self.encoder.hidden_size > 0

    def initial_hidden(self, num_envs: int) -> Tensor:
        """Zeros [N, hidden_size]: an episode's start."""
        return torch.zeros(num_envs, self.encoder.hidden_size, device=self.value.weight.device)

    def forward(self, obs: Obs, hidden: Tensor, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        latent, hidden = self.encoder(obs, hidden, reset)
        return self.value(latent).squeeze(-1), hidden

"""From what a role sees to what its head takes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tscli.config import NetworkConfig
from tscli.envs.views import Obs, ViewSpec
from tscli.networks.bodies import build_body
from tscli.networks.images import ImageEncoder
from tscli.networks.normalize import RunningNorm

__all__ = ["Encoder"]


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

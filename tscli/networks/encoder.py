"""From what a role sees to what its head takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tscli.config import NetworkConfig, UserError
from tscli.envs.views import Obs, ViewSpec
from tscli.networks.bodies import BaseBody, build_body
from tscli.networks.frozen import FrozenEncoder
from tscli.networks.images import ImageEncoder
from tscli.networks.layers import linear
from tscli.networks.normalize import RunningNorm


@dataclass(frozen=True)
class LatentSpec:
    """A latent beside what the body sees (as in RMA, Kumar et al. 2021), and what a second body makes it of.

    Attributes:
        own: entries of the view's vector that the body sees; `tscli.envs.views.entries_of` finds those of a view.
        reads: entries that the latent's encoder reads: privileged ones, or those of which it keeps a history.
        network: that encoder's, of which the body counts alone.
        size: the latent's length.
    """

    own: tuple[int, ...]
    reads: tuple[int, ...]
    network: NetworkConfig
    size: int


class Encoder(nn.Module):
    """View -> what the head takes: the vector is normalised, images go through CNNs, the body adds depth and memory.

    With a `LatentSpec` the body sees the latent in the place of what the latent is made of. `hidden` is then that of
    the latent's encoder `inner`, followed by the body's.

    Attributes:
        lookback: earlier steps that the output depends on, where that is a fixed number.
    """

    inner: BaseBody
    to_latent: nn.Linear

    def __init__(self, view: ViewSpec, config: NetworkConfig, latent: LatentSpec | None = None):
        super().__init__()
        clip = math.inf if config.normalize_clip is None else config.normalize_clip
        self.norm = RunningNorm(view.vector_size, clip) if config.normalize and view.vector_size else None
        images = {name: _image_encoder(shape, config) for name, shape in view.images.items()}
        self.images = nn.ModuleDict({_module_name(name): module for name, module in images.items()})
        self._image_names = tuple(view.images)
        inputs = view.vector_size
        self.inner_size, self.lookback, self.has_latent = 0, 0, latent is not None
        if latent is not None:
            if not latent.reads or not set(latent.own + latent.reads) <= set(range(inputs)):
                raise UserError(f"a latent reads {latent.reads} beside {latent.own} of a view of {inputs} entries")
            self.register_buffer("_own", torch.tensor(latent.own, dtype=torch.int64), persistent=False)
            self.register_buffer("_reads", torch.tensor(latent.reads, dtype=torch.int64), persistent=False)
            self.inner = build_body(len(latent.reads), latent.network)
            self.to_latent = linear(self.inner.output_size, latent.size, gain=1.0)
            inputs = len(latent.own) + latent.size
            self.inner_size, self.lookback = self.inner.hidden_size, self.inner.lookback
        self.body = build_body(inputs + sum(module.features for module in images.values()), config)
        self.lookback += self.body.lookback
        self.output_size, self.hidden_size = self.body.output_size, self.inner_size + self.body.hidden_size

    def forward(self, obs: Obs, hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        """obs: [T, N, ...] -> [T, N, output_size] and the hidden state after the last step."""
        if not self.has_latent:
            vector = [self._vector(obs)] if "vector" in obs else []
            return self._body_of([*vector, *self._features(obs)], hidden, reset)
        latent, inner = self.latent(obs, hidden, reset)
        y, outer = self.behind(latent, obs, hidden[:, self.inner_size :], reset)
        return y, torch.cat([inner, outer], -1)

    def behind(self, latent: Tensor, obs: Obs, hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        """What follows on a latent [T, N, size]: [T, N, output_size] and the body's hidden state, as `hidden` is."""
        own = self._vector(obs).index_select(-1, self.get_buffer("_own"))
        return self._body_of([own, latent, *self._features(obs)], hidden, reset)

    def latent(self, obs: Obs, hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        """The latent alone, of a policy that has one: [T, N, size], and the hidden state [N, inner_size] after it.

        `hidden` is the policy's or, of `inner` alone, its first `inner_size` numbers.
        """
        read = self._vector(obs).index_select(-1, self.get_buffer("_reads"))
        y, inner = self.inner(read, hidden[:, : self.inner_size], reset)
        return self.to_latent(y), inner

    def _vector(self, obs: Obs) -> Tensor:
        return obs["vector"] if self.norm is None else self.norm(obs["vector"])

    def _features(self, obs: Obs) -> list[Tensor]:
        return [self.images[_module_name(name)](obs[name]) for name in self._image_names]

    def _body_of(self, features: list[Tensor], hidden: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.body(features[0] if len(features) == 1 else torch.cat(features, -1), hidden, reset)

    @property
    def frozen(self) -> dict[str, FrozenEncoder]:
        """The encoders that never learn, by their images' names."""
        found = ((name, self.images[_module_name(name)]) for name in self._image_names)
        return {name: module for name, module in found if isinstance(module, FrozenEncoder)}

    @torch.no_grad()
    def features_of(self, obs: Obs) -> Obs:
        """The same with features (float16) for the images of frozen encoders: what is kept to be seen again."""
        made = {name: module(obs[name]).half() for name, module in self.frozen.items() if name in obs}
        return obs | made if made else obs

    def update_normalizer(self, obs: Obs) -> None:
        """Let the normaliser take in observations [..., D]."""
        if self.norm is not None:
            self.norm.update(obs["vector"])


def _image_encoder(shape: tuple[int, ...], config: NetworkConfig) -> ImageEncoder | FrozenEncoder:
    return FrozenEncoder(shape, config.image) if config.image.is_frozen else ImageEncoder(shape)


def _module_name(group: str) -> str:
    return group.replace(".", "/")  # torch forbids dots in a module's name

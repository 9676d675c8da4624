"""Policies and critics: an encoder of a view, and a head. A policy's buffers and spec are all that acting needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from tscli.config import ImageConfig, NetworkConfig, UserError
from tscli.envs.spaces import ActionSpec
from tscli.envs.views import Obs, ViewSpec
from tscli.networks.acting import Acting
from tscli.networks.distributions import Distribution
from tscli.networks.encoder import Encoder, LatentSpec
from tscli.networks.head import Head
from tscli.networks.layers import linear


@dataclass(frozen=True)
class PolicySpec:
    """What it takes to rebuild a policy before its weights are loaded."""

    view: ViewSpec
    action: ActionSpec
    network: NetworkConfig
    latent: LatentSpec | None = None

    @property
    def own_bodies(self) -> dict[str, NetworkConfig]:
        """Those of its networks whose body is in a file of the user's own, by that file's name."""
        networks = [self.network, *([self.latent.network] if self.latent else [])]
        return {Path(network.kind).name: network for network in networks if network.is_own}

    @property
    def frozen_images(self) -> ImageConfig | None:
        """The frozen encoder that its images go through, where there are any."""
        return self.network.image if self.view.images and self.network.image.is_frozen else None

    def to_json(self) -> dict[str, Any]:
        """Plain data for a checkpoint's header; of files of the user's own it has the names alone."""
        data = {"view": self.view.to_json(), "action": self.action.to_json(), "network": _network_json(self.network)}
        if self.latent is not None:
            data["latent"] = {**vars(self.latent), "network": _network_json(self.latent.network)}
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any], files: Mapping[str, Path] = MappingProxyType({})) -> PolicySpec:
        """Undo `to_json`; `files` are those that its bodies may be in, by name, and frozen encoders', by sha256.

        Raises:
            UserError: a body's or an encoder's is not among them.
        """
        network, latent = _network_of(data["network"], files), data.get("latent")
        if latent is not None:
            inner = _network_of(latent["network"], files)
            latent = LatentSpec(tuple(latent["own"]), tuple(latent["reads"]), inner, int(latent["size"]))
        return cls(ViewSpec.from_json(data["view"]), ActionSpec.from_json(data["action"]), network, latent)


def _network_json(network: NetworkConfig) -> dict[str, Any]:
    data = network.model_dump(mode="json")
    if network.is_own:
        data["kind"] = Path(network.kind).name
    if "image" in data:
        data["image"] = {**data["image"], "path": Path(network.image.path).name}
    return data


def _network_of(data: dict[str, Any], files: Mapping[str, Path]) -> NetworkConfig:
    # What names files is put in afterwards: its validation would look at them, and they may have changed since.
    kind, image = data["kind"], data.get("image")
    named: dict[str, Any] = {}
    if str(kind).endswith(".py"):
        if kind not in files:
            raise UserError(f"its body is in {kind}, which is not here: it has to come with that file")
        named = {"kind": str(files[kind]), "sha256": str(data["sha256"])}
    if image is not None:
        sha256 = str(image["sha256"])
        if sha256 not in files:
            raise UserError(
                f"its images go through {image['path']}, which is not here: it has to come with that folder"
            )
        image = ImageConfig.model_construct(kind=str(image["kind"]), path=str(files[sha256]), sha256=sha256)
        named["image"] = image
    plain = {name: value for name, value in data.items() if name not in named}
    return NetworkConfig.model_validate(plain).model_copy(update=named)


def _check_frozen(spec: PolicySpec) -> None:
    where = f'image.kind {spec.network.image.kind}: the view "{spec.view.name}"'
    if not spec.view.images:
        raise UserError(f"{where} has no picture: leave it out, or show one")
    if any(part.is_image and part.dropout for part in spec.view.parts):
        raise UserError(f"{where} loses pictures, whose features are made once: leave its dropout out, or use cnn")


class Policy(nn.Module):
    """What acts: `dist, hidden = policy(obs, hidden, reset)`.

    obs: dict of [T, N, ...]; hidden: [N, hidden_size]; reset: [T, N] bool or None (no reset within these steps).
    """

    def __init__(self, spec: PolicySpec):
        super().__init__()
        if spec.network.image.is_frozen:
            _check_frozen(spec)
        self.spec = spec
        self.encoder = Encoder(spec.view, spec.network, spec.latent)
        self.head = Head(self.encoder.output_size, spec.action, spec.network)
        self._acting: Acting | None = None

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

    def reset(self) -> None:
        """Begin an episode of `act`: nothing is remembered."""
        self._acting = Acting(self)

    def act(self, obs: Any, greedy: bool = True) -> Any:
        """The action for one observation of a plain env, such as Gymnasium's; memory and previous action are kept.

            policy = tscli.load_policy(run)
            obs, _ = env.reset()
            policy.reset()
            action = policy.act(obs)

        Args:
            obs: as the env gives it, without a batch: an array, or a dict in which the policy's view finds its groups.
                A view's noise, delay and dropout are not added: the env's sensors have their own.
            greedy: the mode of the distribution, or a sample.

        Returns:
            an int for discrete actions, else an array [D], within the bounds of continuous ones.

        Raises:
            UserError: the observation lacks what the policy sees, or holds numbers that are not finite.
        """
        self._acting = self._acting or Acting(self)
        return self._acting.act(obs, greedy)


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

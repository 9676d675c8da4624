"""From an encoder's output to a distribution over actions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user expects
from torch import Tensor, nn
from torch.func import functional_call

from tscli.config import NetworkConfig, UserError
from tscli.envs.spaces import ActionSpec, action_scale
from tscli.networks.bodies import body_config
from tscli.networks.distributions import Beta, Categorical, Distribution, Gaussian, MultiCategorical, TanhGaussian
from tscli.networks.layers import ACTIVATIONS, feed_forward, linear


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
        activation = getattr(body_config(config), "activation", "tanh")
        self.layers = feed_forward(inputs, config.head_hidden, activation if activation in ACTIVATIONS else "tanh")
        inputs = config.head_hidden[-1] if config.head_hidden else inputs
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
        if frozen:
            x = functional_call(self.layers, {k: v.detach() for k, v in self.layers.named_parameters()}, latent)
            out = F.linear(x, self.linear.weight.detach(), self.linear.bias.detach())
        else:
            out = self.linear(self.layers(latent))
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

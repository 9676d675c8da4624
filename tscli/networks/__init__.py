"""Networks: bodies with and without memory, action heads, policies and critics behind one interface."""

from tscli.networks.encoder import Encoder, LatentSpec
from tscli.networks.head import Head
from tscli.networks.policy import Critic, Policy, PolicySpec
from tscli.networks.teachers import Actor, Teachers

__all__ = ["Actor", "Critic", "Encoder", "Head", "LatentSpec", "Policy", "PolicySpec", "Teachers"]

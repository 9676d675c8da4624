"""Networks: bodies with and without memory, action heads, policies and critics behind one interface."""

from tscli.networks.policy import Critic, Encoder, Head, Policy, PolicySpec

__all__ = ["Critic", "Encoder", "Head", "Policy", "PolicySpec"]

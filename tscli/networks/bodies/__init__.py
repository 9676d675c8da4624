"""Bodies: the contract, what several share, and one file for each kind, found by its name."""

from tscli.networks.bodies.contract import BaseBody, body_config, build_body
from tscli.networks.bodies.recurrent import Recurrent
from tscli.networks.layers import Tanh, feed_forward, linear

__all__ = ["BaseBody", "Recurrent", "Tanh", "body_config", "build_body", "feed_forward", "linear"]

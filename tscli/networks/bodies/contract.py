"""What a body is: what stands between a normalised view and a head, with or without memory.

Every body is called the same way, so every loop serves them all:

    y, hidden = body(x, hidden, reset)

x is [T, N, D], y [T, N, output_size], `hidden` [N, hidden_size] (one flat tensor, [N, 0] without memory), `reset`
[T, N] bool or None. `reset[t]` zeroes an env's hidden state before step t, and equals `done[t - 1]`. Without memory any
leading axes will do.

One file per kind, here or a user's own: it has a `BodyConfig` (a `tscli.config.Config` that needs the standard library,
pydantic and `tscli.config` alone) and a `Body(BaseBody)` built as `Body(inputs, config)`, on any device, torch's `meta`
too. The file's first sentence stands in the help.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from pydantic import ValidationError
from torch import nn

from tscli.config import Config, NetworkConfig, UserError, one_line
from tscli.networks.own import own_module


class BaseBody(nn.Module):
    """Base: sizes that the rest of a network needs.

    Attributes:
        output_size: length of y.
        hidden_size: length of `hidden`; 0 without memory.
        lookback: earlier steps that y depends on, where that is a fixed number; 0 without memory, or of a memory that
            fades.
    """

    output_size: int
    hidden_size: int = 0
    lookback: int = 0


def _module(config: NetworkConfig) -> ModuleType:
    if not config.is_own:
        return importlib.import_module(f"tscli.networks.bodies.{config.kind}")
    return own_module(config, {"BodyConfig": Config, "Body": BaseBody})


def body_config(config: NetworkConfig) -> Config:
    """The settings of the body that `config.kind` names, as its own file defines them.

    Raises:
        UserError: the user's own file, or a setting of it, is wrong.
    """
    model = _module(config).BodyConfig
    values = config.settings if config.is_own else {name: getattr(config, name) for name in model.model_fields}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{config.kind}: {one_line(error, model, prefix='')}") from None


def build_body(inputs: int, config: NetworkConfig) -> BaseBody:
    """The body that `config.kind` names, for x of that length.

    Raises:
        UserError: the user's own file, or a setting of it, is wrong.
    """
    return _module(config).Body(inputs, body_config(config))

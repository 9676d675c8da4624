"""Settings that several kinds of body have, each with one help text."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tscli.config.base import Config


class LayersConfig(Config):
    """Feed-forward layers."""

    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(64, 64), description="Width of each feed-forward layer; for rnn and gru they come before the memory."
    )
    activation: Literal["tanh", "relu", "elu", "silu"] = Field(
        default="tanh", description="Non-linearity between layers."
    )


class MemoryConfig(LayersConfig):
    """Feed-forward layers before and after a recurrent memory."""

    memory: int = Field(default=64, ge=1, description="Width of the LSTM or GRU.")
    memory_layers: int = Field(default=1, ge=1, le=4, description="Number of stacked LSTM or GRU layers.")
    hidden_after: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="Width of each feed-forward layer between the memory of rnn and gru and the head."
    )


class HistoryConfig(LayersConfig):
    """How many observations are seen at once, and the layers over them."""

    history: int = Field(
        default=8, ge=2, description="Observations that the history network sees, the current one included."
    )


class ConvolutionsConfig(LayersConfig):
    """Convolutions, and the feed-forward layers after them."""

    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(32, 32, 32, 32), min_length=1, description="Channels of each convolution of tcn and tcn_flat."
    )
    kernel: int = Field(
        default=5,
        ge=2,
        description="Width of their kernels: 2, 3 or 4 convolutions of 5 let a tcn see 13, 29 or 61 observations.",
    )

"""A network's configuration: a body, found by the name of its file, and what all networks have."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from tscli.config.base import Config, did_you_mean, kind_shorthand
from tscli.config.images import Image, ImageConfig
from tscli.light import defining, light_class, parse

_FOLDER = Path(__file__).parents[1] / "networks" / "bodies"
# What every version writes of a network; older versions refuse what they do not know.
FIRST = (
    *("kind", "hidden", "activation", "memory", "memory_layers", "hidden_after", "history", "normalize"),
    *("normalize_clip", "std", "init_std", "squash", "distribution"),
)


def read_bodies(folder: Path) -> dict[str, type[Config]]:
    """The settings of each kind of body in a folder, by its name, without loading torch.

    Raises:
        TypeError: they cannot be had without it.
    """
    found = {}
    for path in defining(folder, "BodyConfig"):
        config = light_class(path, "BodyConfig")
        if config is None or not issubclass(config, Config):
            raise TypeError(f"{path}: BodyConfig has to be a Config made of what pydantic and tscli.config have")
        found[path.stem] = config
    return found


def _about(kind: str) -> str:
    """`gru (a GRU)`, of the first sentence in its file."""
    text = " ".join((ast.get_docstring(parse(_FOLDER / f"{kind}.py")) or "").split())
    sentence = re.sub(r" \([^()]*\)", "", re.split(r"\.(?= [A-Z]|$)", text)[0])  # without its source
    return f"{kind} ({sentence[:1].lower()}{sentence[1:]})"


def union(bodies: Mapping[str, type[Config]]) -> dict[str, Any]:
    """Each setting once, in the order in which the bodies give them first, as pydantic's `create_model` takes it.

    Raises:
        TypeError: two bodies have one name for two things.
    """
    found: dict[str, Any] = {}
    owner: dict[str, str] = {}
    for kind, config in bodies.items():
        for name, field in config.model_fields.items():
            first = owner.setdefault(name, kind)
            if repr(field) != repr(bodies[first].model_fields[name]):  # type, bounds, default and help
                raise TypeError(f'the bodies {first} and {kind} differ in "{name}": make it the same, or rename one')
            found[name] = (field.annotation, field)
    return found


BODIES = read_bodies(_FOLDER)

if TYPE_CHECKING:
    _Bodies = Config
else:
    _kind = Field(default="mlp", description=f"Kinds: {', '.join(map(_about, BODIES))}, or a .py file of yours.")
    _Bodies = create_model("_Bodies", __base__=Config, kind=(Literal[tuple(BODIES)] | str, _kind), **union(BODIES))


class NetworkConfig(_Bodies):
    """The body of a policy or critic, what stands between a view and the action head, and that head.

    It has the settings of every kind of body, of which each takes its own.
    """

    if TYPE_CHECKING:
        kind: str

        def __init__(self, **settings: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

    normalize: bool = Field(default=True, description="Normalise vector observations by running mean and deviation.")
    normalize_clip: float | None = Field(
        default=10.0, gt=0, description="Deviations at which normalised observations are cut off; none cuts nothing."
    )
    std: Literal["state_independent", "network"] = Field(
        default="state_independent",
        description="Where a Gaussian policy's deviation comes from: one parameter or the network.",
    )
    init_std: float = Field(
        default=1.0, gt=0, description="Initial deviation of a Gaussian policy, 1 = half the action range."
    )
    squash: bool = Field(
        default=False, description="Pass Gaussian actions through tanh, so that they never leave their bounds."
    )

    distribution: Literal["gaussian", "beta"] = Field(
        default="gaussian",
        description="Of continuous actions; beta needs bounds, never leaves them, and has no use for std or init_std.",
    )
    head_hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="Width of each layer between the body and the actions; a critic has none."
    )
    image: Image = Field(ImageConfig(), description="What a view's pictures go through before they reach the body.")
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings of a body of your own: --set network.settings.width=32.",
        json_schema_extra={"flag": False},
    )
    sha256: str = Field(
        default="",
        validate_default=True,
        description="Of the file of a body of your own, found by itself.",
        json_schema_extra={"flag": False},
    )

    @property
    def is_own(self) -> bool:
        """Whether `kind` is the path of a file of the user's own."""
        return self.kind.endswith(".py")

    @property
    def head_kind(self) -> tuple[str, bool]:
        """`distribution` and `squash`: the KL compares continuous actions of policies that are alike in both."""
        return self.distribution, self.squash

    @field_validator("kind", mode="before")
    @classmethod
    def _a_body_that_there_is(cls, value: Any) -> Any:
        if not isinstance(value, str) or value in BODIES:
            return value
        if value.lower() == "lstm":
            raise ValueError("the LSTM is called rnn here")
        if not value.endswith(".py"):
            hint = did_you_mean(value, BODIES)
            raise ValueError(f"there is no such body, {hint}{'' if hint.endswith('?') else ', or a .py file of yours'}")
        if not Path(value).is_file():
            raise ValueError("there is no such file")
        return str(Path(value).absolute())  # a run is read from other folders than the one it began in

    @field_validator("sha256")
    @classmethod
    def _the_file_is_as_it_was(cls, value: str, info: ValidationInfo) -> str:
        kind = str(info.data.get("kind"))
        if not kind.endswith(".py"):
            return ""
        from tscli.files import file_hash  # which needs this room

        found = file_hash(Path(kind))
        if value not in ("", found):
            raise ValueError(f"{kind} has changed since: restore it, or start anew")
        return found

    @model_validator(mode="after")
    def _a_beta_is_within_its_bounds(self) -> NetworkConfig:
        if self.distribution == "beta" and self.squash:
            raise ValueError("squash is for gaussian actions, and a beta's are within their bounds: leave it out")
        return self

    @model_serializer(mode="wrap")
    def _as_older_versions_read_it(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """In the order of the first version; what came later is left out at its default."""
        data, fields = handler(self), type(self).model_fields
        later = [name for name in data if name not in FIRST]
        later = [n for n in later if getattr(self, n) != fields[n].get_default(call_default_factory=True)]
        return {name: data[name] for name in (*FIRST, *later) if name in data}


# `--student rnn` and `student: rnn` are short for `--student.kind rnn`.
Network = Annotated[NetworkConfig, BeforeValidator(kind_shorthand)]

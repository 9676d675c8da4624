"""The base of every configuration: how strings become values, and the errors that a user sees."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

MOST = 10**12  # of any whole number: two of them multiplied are still a number of torch's
LARGEST = 1e30  # of any other: a float32 some way from its end


class UserError(Exception):
    """Bad input. The message is one line: what was given, why it cannot be used, and what to do instead.

    The command line prints it without a traceback and exits with code 2.
    """


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """The end of an error line: the closest option, or all of them when none is close."""
    names = sorted(set(options))
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"choose from: {', '.join(names)}" if names else "there is none to choose from"


def is_yaml(name: str) -> bool:
    """Whether a word that may be a task's name is the path of a YAML file instead."""
    return name.endswith((".yaml", ".yml"))


def kind_shorthand(value: Any) -> Any:
    """A word where a mapping is expected is its `kind`: `--student rnn` is short for `--student.kind rnn`."""
    return {"kind": value} if isinstance(value, str) else value


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def positional(default: Any = ..., **kwargs: Any) -> Any:
    """A pydantic field that the command line takes without a flag: `tscli train-teacher cartpole`."""
    return Field(default, json_schema_extra={"positional": True}, **kwargs)


def _is_optional(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def _is_sequence(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_sequence(arg) for arg in get_args(annotation))
    return get_origin(annotation) in (tuple, list)


class Config(BaseModel):
    """Base of every configuration: frozen, unknown keys refused, strings from a command line understood.

    `"none"` means None where None is allowed, and `"64,64"` means (64, 64) where a sequence is expected; all
    else that is a string is left to pydantic, so that the command line and YAML are validated alike.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _from_string(cls, value: Any, info: Any) -> Any:
        if not isinstance(value, str):
            return value
        annotation = cls.model_fields[info.field_name].annotation
        if value.lower() == "none" and _is_optional(annotation):
            return None
        if _is_sequence(annotation):
            return [part.strip() for part in value.strip("[]()").split(",") if part.strip()]
        return value

    @field_validator("*")
    @classmethod
    def _no_larger_than_torch_takes(cls, value: Any) -> Any:
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and abs(number) > MOST:
                raise ValueError(f"no whole number here is larger than {MOST}")
            if isinstance(number, float) and abs(number) > LARGEST:
                raise ValueError(f"no number here is larger than {LARGEST:g}")
        return value


def merge_nested(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Both as one nested dict; where a key stands in both, `high` wins, key by key."""
    result = dict(low)
    for name, value in high.items():
        below = result.get(name)
        result[name] = merge_nested(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def one_line(error: ValidationError, model: type[BaseModel] | None = None, prefix: str = "--") -> str:
    """The first problem of a pydantic error as one line, named as the user would write it (`--student.hidden`)."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"] if not isinstance(part, int)]
    name = ".".join(path).replace("_", "-") if prefix else ".".join(path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        owner = _model_at(model, path[:-1]) if model is not None else None
        hint = did_you_mean(path[-1], owner.model_fields) if owner is not None else "it is not a setting"
        return f'unknown setting "{name}": {hint}{more}'
    if problem["type"] == "missing":
        return f"{prefix}{name} is required{more}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    # A model-level check has no field of its own: its message already names the settings.
    if not path:
        return f"{message}{more}"
    return f"{prefix}{name} {problem['input']!r}: {message}{more}"


def _model_at(model: type[BaseModel] | None, path: list[str]) -> type[BaseModel] | None:
    for name in path:
        # What is no field is a key of the mapping that the field before holds.
        if model is not None and name in model.model_fields:
            model = _model_in(model.model_fields[name].annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation names, however deep: in `Network | None`, in `dict[str, tuple[ViewPart, ...]]`."""
    arguments = get_args(annotation)
    if not arguments and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in arguments if (found := _model_in(argument)) is not None), None)

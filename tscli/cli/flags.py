"""The command-line flags of a config class: one for each setting, nested ones with a dot (`--student.hidden 64`).

Values stay strings on their way (booleans stay booleans): pydantic alone decides what they mean.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tscli.config import Config, NetworkConfig, StageConfig
from tscli.launch.settings import is_positional, members, nested_model

GENERAL = "general"
# annotated_types' bounds, by name: the package comes with pydantic and is none of ours.
_BOUNDS = {"Ge": "at least", "Gt": "above", "Le": "at most", "Lt": "below"}
_REQUIRED = inspect.Parameter.empty
_TYPE_NAMES = {int: "N", float: "X", bool: "on|off", str: "TEXT"}


@dataclass(frozen=True)
class Flag:
    """One setting as the command line takes and shows it."""

    path: tuple[str, ...]
    field: FieldInfo
    default: Any
    panel: str
    description: str
    hidden: bool = False

    @property
    def identifier(self) -> str:
        """Name of the parameter in the command's signature."""
        return "__".join(self.path)

    @property
    def option(self) -> str:
        """`--student.memory-layers`."""
        return "--" + ".".join(self.path).replace("_", "-")

    @property
    def is_switch(self) -> bool:
        """Whether it is `--x` and `--no-x` rather than `--x VALUE`."""
        return set(members(self.field.annotation)) <= {bool, type(None)}

    @property
    def choices(self) -> list[str]:
        """The words that a `Literal` allows, the default first."""
        words = [str(w) for m in members(self.field.annotation) if get_origin(m) is Literal for w in get_args(m)]
        return sorted(words, key=lambda word: word != str(self.default))

    @property
    def metavar(self) -> str:
        """What stands for the value in the help: `N`, `X`, `A|B`, `N,N`."""
        if is_positional(self.field):
            return self.path[0].replace("_", "-").upper()
        return "|".join(dict.fromkeys(_type_name(member) for member in members(self.field.annotation))) or "TEXT"

    @property
    def help(self) -> str:
        """Description, default and limits in one line; the last bracket holds the facts."""
        facts = [_default_text(self.default)]
        if self.choices:
            none = self.default in (None, _REQUIRED)
            facts.append(f"one of {', '.join(self.choices)}" if none else f"or {', '.join(self.choices[1:])}")
        facts.extend(_limits(self.field))
        return f"{self.description} [{'; '.join(fact for fact in facts if fact)}]".replace(" []", "")


def flags_of(model: type[Config], command: str) -> list[Flag]:
    """All flags of a config class: the command's own, then nested ones, then those that every stage has."""
    own: list[Flag] = []
    nested: list[Flag] = []
    shown: dict[type[BaseModel], str] = {}
    general: list[Flag] = []
    for name, field in model.model_fields.items():
        default = _REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
        inner = nested_model(field)
        if inner is not None:
            nested.extend(_nested_flags((name,), field, default, shown.get(inner)))
            shown.setdefault(inner, name)
        elif issubclass(model, StageConfig) and name in StageConfig.model_fields:
            general.append(Flag((name,), field, default, GENERAL, field.description or ""))
        else:
            own.append(Flag((name,), field, default, command, field.description or ""))
    return own + nested + general


def _nested_flags(path: tuple[str, ...], field: FieldInfo, default: Any, like: str | None) -> Iterator[Flag]:
    """The flags of a nested field. `like` names a field of the same class, whose help stands for this one's too."""
    model = nested_model(field)
    assert model is not None
    panel = " ".join(path).replace("_", " ")
    if issubclass(model, NetworkConfig) and not panel.endswith("network"):
        panel += " network"
    for name, inner in model.model_fields.items():
        value = getattr(default, name) if isinstance(default, model) else inner.get_default(call_default_factory=True)
        if isinstance(inner.json_schema_extra, dict) and inner.json_schema_extra.get("flag") is False:
            continue
        if nested_model(inner) is not None:
            yield from _nested_flags((*path, name), inner, value, like)
            continue
        text = inner.description or ""
        if name == "kind":
            more = f"With --{'.'.join(path)}.hidden and all the others of --{like}." if like else text
            both = " ".join(part for part in (field.description, more) if part)
            yield Flag(path, inner, value if default is not None else None, panel, both)
        yield Flag((*path, name), inner, value, panel, text, hidden=name == "kind" or like is not None)


def parameter(flag: Flag) -> inspect.Parameter:
    """The flag as a parameter that typer understands. Left out it is None, which means "not given"."""
    kind: Any = str
    if is_positional(flag.field):
        many = any(get_origin(member) in (tuple, list) for member in members(flag.field.annotation))
        kind = list[str] if many else str
        info = typer.Argument(metavar=flag.metavar, help=flag.help, show_default=False)
    else:
        name, value = flag.option, {"metavar": flag.metavar, "autocompletion": _completion(flag.choices)}
        if flag.is_switch:
            kind, name, value = bool, f"{flag.option}/--no-{flag.option[2:]}", {}
        info = typer.Option(
            name, help=flag.help, rich_help_panel=flag.panel, hidden=flag.hidden, show_default=False, **value
        )
    annotation = Annotated[kind | None, info]
    return inspect.Parameter(flag.identifier, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _completion(choices: list[str]) -> Any:
    return (lambda incomplete: [word for word in choices if word.startswith(incomplete)]) if choices else None


def given(flags: list[Flag], values: dict[str, Any]) -> dict[str, Any]:
    """The settings that the user gave, by dotted name."""
    return {".".join(flag.path): values[flag.identifier] for flag in flags if values[flag.identifier] is not None}


def _type_name(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return "CHOICE"
    if get_origin(annotation) in (tuple, list):
        inner = next((arg for arg in get_args(annotation) if arg is not Ellipsis), str)
        name = _type_name(members(inner)[0])
        return f"{name},{name}" if name != "TEXT" else "A,B"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "TEXT"
    return _TYPE_NAMES.get(annotation, getattr(annotation, "__name__", "TEXT").upper())


def _default_text(default: Any) -> str:
    if default is _REQUIRED:
        return "required"
    if default is None:
        return "default none"
    if isinstance(default, bool):
        return f"default {'on' if default else 'off'}"
    if isinstance(default, (tuple, list)):
        return f"default {','.join(map(str, default))}" if default else ""
    return f"default {default:g}" if isinstance(default, float) else f"default {default}" if default != "" else ""


def _limits(field: FieldInfo) -> Iterator[str]:
    metadata = list(field.metadata)
    for member in get_args(field.annotation):
        if get_origin(member) is Annotated:
            metadata.extend(get_args(member)[1:])
    rules = [rule for item in metadata for rule in getattr(item, "metadata", None) or [item]]
    found = {type(rule).__name__: rule for rule in rules}
    bounds = {kind: getattr(found[kind], kind.lower()) for kind in _BOUNDS if kind in found}
    if "Ge" in bounds and "Le" in bounds:
        yield f"{bounds['Ge']} to {bounds['Le']}"
        return
    for kind, bound in bounds.items():
        yield f"{_BOUNDS[kind]} {bound}"

"""Where a setting comes from: defaults, the task, a preset, a file, `--set`, flags; the later place wins.

Each place is a `Layer`. A layer's keys are checked against the config class by themselves, so that an error names the
place; values are validated once, merged, by pydantic alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tscli.config import Config, StageConfig, UserError, did_you_mean, merge_nested, one_line
from tscli.launch.scripts import Script, find_scripts, light_config, methods_of

if TYPE_CHECKING:
    from tscli.tasks import Task


@dataclass(frozen=True)
class Layer:
    """Settings from one place, nested as the config is.

    `source` names the place in an error line; "" stands for flags, which need no more than their own name.
    `by_user` is False where a run names the place, and not the user.
    """

    source: str
    values: dict[str, Any]
    by_user: bool = True


def nested_model(field: FieldInfo) -> type[BaseModel] | None:
    """The config class of a nested field (`student: Network`), also where None is allowed; else None."""
    plain = [member for member in members(field.annotation) if get_origin(member) is None and isinstance(member, type)]
    return next((member for member in plain if issubclass(member, BaseModel)), None)


def members(annotation: Any) -> list[Any]:
    """The members of a union without `Annotated` and None; any other annotation alone."""
    if get_origin(annotation) is Annotated:
        return members(get_args(annotation)[0])
    if get_origin(annotation) in (tuple, list, dict, Literal) or not get_args(annotation):
        return [annotation]
    return [inner for member in get_args(annotation) if member is not type(None) for inner in members(member)]


def make_layer(source: str, values: Any, model: type[BaseModel]) -> Layer:
    """A layer with dotted keys unfolded (`student.hidden: 64`) and every key known to the config class.

    Raises:
        UserError: An unknown key, or no mapping where one is needed.
    """
    where = f" in {source}" if source else ""
    if not isinstance(values, Mapping):
        raise UserError(f"settings{where} must be `name: value` pairs, not {values!r}")
    return Layer(source, _unfold(values, model, where, ""))


def _unfold(values: Mapping[Any, Any], model: type[BaseModel], where: str, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for written, value in values.items():
        head, _, rest = str(written).partition(".")
        name = _field_name(written)
        field = model.model_fields.get(name)
        if field is None:
            if name == "method" and not prefix:
                raise UserError(
                    f"the method{where} cannot be set there, it decides which settings there are: use --method"
                )
            raise UserError(f'unknown setting "{prefix}{head}"{where}: {_hint(name, model, prefix)}')
        inner = nested_model(field)
        if rest and inner is None and get_origin(field.annotation) is not dict:
            raise UserError(f'unknown setting "{prefix}{written}"{where}: {prefix}{name} has no settings of its own')
        if rest:
            value = {rest: value}
        elif inner is not None and isinstance(value, str) and value.lower() != "none" and "kind" in inner.model_fields:
            value = {"kind": value}
        if inner is not None and isinstance(value, Mapping):
            value = _unfold(value, inner, where, f"{prefix}{name}.")
        earlier = found.get(name)
        found[name] = merge_nested(earlier, value) if isinstance(earlier, dict) and isinstance(value, dict) else value
    return found


def _hint(name: str, model: type[BaseModel], prefix: str) -> str:
    hint = did_you_mean(name, model.model_fields)
    return hint.replace('"', f'"{prefix}', 1) if prefix and hint.startswith("did") else hint


def merge(layers: list[Layer]) -> dict[str, Any]:
    """All layers as one nested dict; later ones win, setting by setting."""
    return functools.reduce(merge_nested, (layer.values for layer in layers), {})


def parse_assignments(assignments: list[str]) -> dict[str, str]:
    """`["lr=1e-3", "student.hidden=64,64"]` as a mapping; a later one wins.

    Raises:
        UserError: One has no `=`.
    """
    values = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise UserError(f'--set "{assignment}" is no assignment: write --set key=value')
        values[key.strip()] = value.strip()
    return values


def task_layers(task: Task, script: Script, preset: str | None, model: type[BaseModel]) -> list[Layer]:
    """What a task says about a command: `stages`, then the preset, each for the command and then for its method.

    What stands under a command is for all its methods, so a method passes over a setting that only another one has.

    Raises:
        UserError: An unknown preset or setting in the task, or a command that is nearly one of ours.
    """
    scripts = find_scripts()
    known = {s.command for s in scripts} | {s.name for s in scripts} | {script.command, script.name}
    places = [(f"task {task.name}, stages", task.stages)]
    if preset is not None:
        if preset not in task.presets:
            raise UserError(f'task {task.name} has no preset "{preset}": {did_you_mean(preset, task.presets)}')
        places.append((f"task {task.name}, presets.{preset}", task.presets[preset]))
    family = [member for member in methods_of(script.command, scripts) if member.path != script.path]
    layers = []
    for source, commands in places:
        for command in commands:
            hint = did_you_mean(command, known)
            if command not in known and hint.startswith("did") and not _is_own(command, task):
                raise UserError(f'unknown command "{command}" in {source}: {hint}')
        for command in dict.fromkeys((script.command, script.name)):
            settings = dict(commands.get(command) or {})
            unknown = {key for key in settings if _field_name(key) not in model.model_fields}
            if unknown and command == script.command and family:
                others = {name for member in family for name in light_config(member).model_fields}
                settings = {k: v for k, v in settings.items() if k not in unknown or _field_name(k) not in others}
            layers.append(make_layer(f"{source}.{command}", settings, model))
    return layers


def check_stages(task: Task) -> None:
    """Validate what a task says of commands, presets included, as if each was called.

    Raises:
        UserError: The first problem.
    """
    for preset in (None, *task.presets):
        named = {*task.stages, *(task.presets[preset] if preset else ())}
        for script in find_scripts():
            if script.command == "train-teacher" or named & {script.command, script.name}:
                model = light_config(script)
                own = {"task": task.name} if "task" in model.model_fields else {}
                build_config(
                    model, [*task_layers(task, script, preset, model), make_layer("", own, model)], script.command
                )


def _is_own(command: str, task: Task) -> bool:
    """Whether it is a script of the user's own, here or beside the task's file: settings that the others pass over."""
    folders = (Path(), task.place or Path())
    return any((folder / f"{command.replace('-', '_')}.py").is_file() for folder in folders)


def _field_name(key: Any) -> str:
    return str(key).partition(".")[0].replace("-", "_")


def stage_layers(
    script: Script, model: type[Config], own: list[Layer], preset: str | None, runs_dir: Path, task: str | None = None
) -> list[Layer]:
    """All layers of a command, the task's below what the user gave.

    The task is the stage's `task` setting; where that is not set and need not be, it is the one of the run that the
    stage continues from, unless `task` names it.
    """
    name, by_user = task, True
    if name is None and issubclass(model, StageConfig):
        given = merge(own)
        name = given.get("task")
        if not name and not ("task" in model.model_fields and model.model_fields["task"].is_required()):
            from tscli.runs import parent_task

            texts = {key: field for key, field in model.model_fields.items() if members(field.annotation) == [str]}
            named = {key: given[key] for key in given if key in texts and str(given[key]).lower() != "none"}
            from_pairs = "pairs" in texts and texts["pairs"].annotation is str  # rather than to begin with, or none
            name, by_user = parent_task(runs_dir, script.command, named, from_pairs), False
    if not name:
        if preset is not None:
            raise UserError(f"--preset {preset} needs a task: presets are written in the task's file")
        return own
    from tscli.tasks import load_task

    theirs = task_layers(load_task(str(name), by_user), script, preset, model)
    return [replace(layer, by_user=by_user) for layer in theirs] + own


def build_config(model: type[Config], layers: list[Layer], command: str) -> Config:
    """Validate the merged layers.

    Raises:
        UserError: The first problem, with the place that the value came from.
    """
    try:
        return model.model_validate(merge([_defaults(model), *layers]))
    except ValidationError as error:
        raise UserError(_explain(error, model, layers, command)) from None


def _defaults(model: type[Config]) -> Layer:
    """What the script itself sets within nested fields, so that `--student rnn` keeps the script's other choices."""
    values = {}
    for name, field in model.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            values[name] = default.model_dump(exclude_unset=True)
    return Layer("", values)


def _explain(error: ValidationError, model: type[Config], layers: list[Layer], command: str) -> str:
    problem = error.errors()[0]
    path = [part for part in problem["loc"] if isinstance(part, str)]
    field = model.model_fields.get(path[0]) if path else None
    if problem["type"] == "missing" and field is not None and is_positional(field):
        name = path[0].replace("_", "-").upper()
        return f"{name} is missing: tscli {command} {name}"
    source = next((layer.source for layer in reversed(layers) if path and _has(layer.values, path)), "")
    return f"{source}: {one_line(error, model, prefix='')}" if source else one_line(error, model)


def _has(values: Any, path: list[str]) -> bool:
    return not path or (isinstance(values, dict) and path[0] in values and _has(values[path[0]], path[1:]))


def is_positional(field: FieldInfo) -> bool:
    """Whether the command line takes the field without a flag."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("positional"))

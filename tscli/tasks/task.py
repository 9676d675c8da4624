"""Tasks: one YAML file that names an env, its views, who sees which, and tuned settings per stage.

Light: no torch, so that listing tasks and reading one's settings stays fast.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from tscli.config import Config, UserError, ViewPart, did_you_mean, is_yaml, merge_nested, one_line, parse_view


class Task(Config):
    """What a task's YAML file may hold."""

    name: str = Field(description="Short name, as typed on the command line.")
    about: str = Field("", description="One sentence.")
    env: dict[str, Any] = Field(description="`kind`, and the settings of that kind of env.")
    teacher_env: dict[str, Any] = Field(
        default_factory=dict,
        description="Settings that replace those of `env` in `train-teacher`, which may have to know more places.",
    )
    eval_env: dict[str, Any] = Field(
        default_factory=dict, description="Settings that replace those of `env` wherever a policy is evaluated."
    )
    report_env: dict[str, Any] = Field(
        default_factory=dict, description="More of them, where a policy is reported on rather than chosen."
    )
    views: dict[str, tuple[ViewPart, ...]] = Field(description="What a role may see, by name.")
    teacher: str = Field("full", description="The teacher's view.")
    student: str = Field("full", description="The student's view.")
    stages: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="Tuned settings by command (train-teacher, distill, distill-dagger, ...)."
    )
    presets: dict[str, dict[str, dict[str, Any]]] = Field(
        default_factory=dict, description="Named sets of settings by command, chosen with --preset."
    )
    pipeline: list[dict[str, dict[str, Any]]] | None = Field(
        None, description="Stages that `tscli pipeline` runs, in order."
    )
    methods: dict[str, Any] = Field(
        default_factory=dict, description="Methods that `tscli compare` knows on this task, besides its own."
    )
    _source: str = PrivateAttr("")

    @property
    def source(self) -> str:
        """What it was loaded by: its name, a file's path, or a Gymnasium id."""
        return self._source or self.name

    @field_validator("views", mode="before")
    @classmethod
    def _parse_views(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError("views is a mapping from a name to a list of parts")
        return {name: _parse_parts(name, parts) for name, parts in value.items()}

    @model_validator(mode="after")
    def _roles_have_views(self) -> Task:
        for role in ("teacher", "student"):
            view = getattr(self, role)
            if view not in self.views:
                raise ValueError(f'{role}: there is no view "{view}": {did_you_mean(view, self.views)}')
        return self

    def view(self, expression: str) -> tuple[ViewPart, ...]:
        """A named view, or one written out (`0,2`, `state[position] + previous_action`)."""
        if expression in self.views:
            return self.views[expression]
        parts = parse_view(expression)
        in_use = {part.group for named in self.views.values() for part in named}
        looks_like_name = len(parts) == 1 and not parts[0].index and parts[0].group not in in_use
        if looks_like_name and did_you_mean(expression, self.views).startswith("did"):
            raise UserError(f'task {self.name} has no view "{expression}": {did_you_mean(expression, self.views)}')
        return parts


def _parse_parts(name: str, parts: Any) -> list[Any]:
    if isinstance(parts, str):
        parts = [parts]
    if not isinstance(parts, (list, tuple)):
        raise ValueError(f'view "{name}" is a list of parts, such as [state, previous_action]')
    out: list[Any] = []
    for part in parts:
        try:
            out.extend(parse_view(part) if isinstance(part, str) else [_index_as_strings(part)])
        except UserError as error:
            raise ValueError(str(error)) from None
    return out


def _index_as_strings(part: Any) -> Any:
    if isinstance(part, dict) and isinstance(part.get("index"), list):
        return {**part, "index": [str(entry) for entry in part["index"]]}
    return part


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        UserError: the file is missing, is no YAML, or holds something other than a mapping.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds no mapping: write one `key: value` per line")
    return data


def _bundled() -> dict[str, Path]:
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def task_names() -> list[str]:
    """Names of the tasks that come with tscli."""
    return list(_bundled())


def load_task(name: str) -> Task:
    """A task by name, by the path of a YAML file, or by a Gymnasium id.

    An id gets an automatic task of Gymnasium's own env with one view, "full" (all groups). So `Pendulum-v1` is that env
    with the settings' defaults, and `pendulum` the task that comes with tscli, tuned and with a student's view.

    Raises:
        UserError: no such task, or a file that is not a valid one.
    """
    task = _find(name)
    task._source = name
    return task


def _find(name: str) -> Task:
    bundled = _bundled()
    if name in bundled:
        return _read(bundled[name])
    if is_yaml(name):
        beside = str(Path(name).resolve().parent)
        if beside not in sys.path:  # last: a file there must not stand in for a package
            sys.path.append(beside)
        return _read(Path(name))
    import gymnasium

    if name in gymnasium.registry or ":" in name:
        return _automatic(name)
    ids = [*bundled, *gymnasium.registry]
    raise UserError(f'unknown task "{name}": {_closest(name, bundled, ids)}')


def _closest(name: str, bundled: dict[str, Path], ids: list[str]) -> str:
    hint = did_you_mean(name, ids)
    return hint if hint.startswith("did") else f"{did_you_mean(name, bundled)}, a YAML file, or any Gymnasium id"


def _read(path: Path) -> Task:
    data = _with_base(path)
    data.setdefault("name", path.stem)
    if isinstance(data.get("env"), dict) and "views" not in data:
        data["views"] = _all_groups(data["env"])
    try:
        return Task.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{path}: {one_line(error, Task, prefix='')}") from None


def _with_base(path: Path) -> dict[str, Any]:
    """A file's entries over those of the task that it extends, which may extend another one."""
    data = load_yaml(path)
    base = data.pop("extends", None)
    if base is None:
        return data
    bundled = _bundled()
    if base not in bundled:
        raise UserError(f'{path}: extends: no task "{base}" comes with tscli: {did_you_mean(str(base), bundled)}')
    return merge_nested(_with_base(bundled[base]), data)


def _automatic(env_id: str) -> Task:
    """Every group to both roles; `--obs` with indices or keys narrows the student's."""
    env = {"kind": "gym", "id": env_id}
    about = {"name": env_id, "about": f"Gymnasium's {env_id}.", "env": env}
    return Task.model_validate({**about, "views": _all_groups(env)})


def _all_groups(settings: dict[str, Any]) -> dict[str, Any]:
    """The views of a task that names none: one, "full", of all that its env shows."""
    from tscli.envs import make_env

    env = make_env(settings, 1)
    groups = list(env.groups)
    env.close()
    return {"full": [{"group": group} for group in groups]}

"""Tasks: one YAML file that names an env, its views, who sees which, and tuned settings per stage.

Light: no torch, so that listing tasks and reading one's settings stays fast.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr, ValidationError, field_validator, model_validator

from tscli import trust
from tscli.config import Config, UserError, ViewPart, did_you_mean, is_yaml, merge_nested, one_line, parse_view
from tscli.plain import read_mapping
from tscli.tasks.files import code_files, model_files


class Task(Config):
    """What a task's YAML file may hold."""

    name: str = Field(description="Short name, as typed on the command line.")
    about: str = Field("", description="One sentence.")
    folder: str = Field("", description="Where modules and models lie that it names, if not beside it.")
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

    @property
    def place(self) -> Path | None:
        """Where the modules and models lie that it names; None where there is no file."""
        return task_place(Path(self.source), self.folder) if is_yaml(self.source) else None

    def code(self) -> set[tuple[str, str]]:
        """What code its envs name, as `trust.check` takes it."""
        return _codes(dict(self), self.place)

    def files(self) -> set[Path]:
        """The user's own files that its envs are made of: models and modules, and what these name."""
        folder = self.place
        envs = [env for env in (self.env, self.teacher_env, self.eval_env, self.report_env) if env]
        tasks = [env["tasks"] for env in envs if isinstance(env.get("tasks"), dict)]  # of mixtures
        members = [member for named in tasks for member in named.values() if isinstance(member, dict)]
        called = [*(self.env | env for env in envs), *members]
        found = {path for env in called for module in trust.own_modules(env, folder) for path in code_files(module)}
        for text in trust.texts(envs):
            with contextlib.suppress(OSError, ValueError):  # what no path can be
                named = {path for path in (Path(text), (folder or Path()) / text) if path.is_file()}
                found |= {file for path in named for file in model_files(path)}
        return found

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


def task_place(path: Path, folder: Any) -> Path:
    """The folder that a task's file names as `folder`, relative to its own, which it is else."""
    beside = path.absolute().parent
    return beside / folder if isinstance(folder, str) else beside


def _codes(task: Mapping[str, Any], folder: Path | None) -> set[tuple[str, str]]:
    names = ("env", "teacher_env", "eval_env", "report_env")
    env, teacher, select, report = (task[name] if isinstance(task.get(name), dict) else {} for name in names)
    return {code for overlay in ({}, teacher, select, select | report) for code in _code(env | overlay, folder)}


def _code(env: dict[str, Any], folder: Path | None) -> set[tuple[str, str]]:
    found = {trust.named_code(env, folder)} - {None}
    members = env.get("tasks")
    for member in members.values() if isinstance(members, dict) else ():  # of a mixture: settings, or names of tasks
        found |= _code(member, folder) if isinstance(member, dict) else _code({"kind": "gym", "id": member}, None)
    return {code for code in found if code is not None}


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


def _bundled() -> dict[str, Path]:
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def task_names() -> list[str]:
    """Names of the tasks that come with tscli."""
    return list(_bundled())


def load_task(name: str, named: bool = False) -> Task:
    """A task by name, by the path of a YAML file, or by a Gymnasium id.

    An id gets an automatic task of Gymnasium's own env with one view, "full" (all groups). So `Pendulum-v1` is that env
    with the settings' defaults, and `pendulum` the task that comes with tscli, tuned and with a student's view.

    Args:
        name: one of these.
        named: this user has named it, and so the code that its env names may run, now and later. A file in a run folder
            is named by that run, and not by whoever writes its path.

    Raises:
        UserError: no such task, a file that is not a valid one, or one that names code which nobody here has named.
    """
    bundled = _bundled()
    if name in bundled:
        task = _read(bundled[name])
    elif is_yaml(name):
        path = Path(name)
        data = _with_base(path)
        folder = task_place(path, data.get("folder"))
        # Before anything is built of it, as the views of a task that has none are.
        _check_code(_codes(data, folder), name, named and not trust.in_run(path))
        for env in (data.get(name) for name in ("env", "teacher_env", "eval_env", "report_env")):
            if isinstance(env, dict) and isinstance(env.get("model"), str) and (folder / env["model"]).is_file():
                env["model"] = str(folder / env["model"])  # a robot's MJCF beside it
        if str(folder) not in sys.path:  # last: a file there must not stand in for a package
            sys.path.append(str(folder))
        task = _task_of(path, data)
    else:
        _check_code(_code({"kind": "gym", "id": name}, None), f"task {name}", named)
        task = _by_id(name, bundled)
    task._source = name
    return task


def _check_code(code: set[tuple[str, str]], owner: str, named: bool) -> None:
    for what, sha256 in sorted(code):
        if named:
            trust.allow(sha256)
        else:
            trust.check(what, sha256, owner)


def _by_id(name: str, bundled: dict[str, Path]) -> Task:
    import gymnasium

    if name in gymnasium.registry or ":" in name:
        return _automatic(name)
    ids = [*bundled, *gymnasium.registry]
    raise UserError(f'unknown task "{name}": {_closest(name, bundled, ids)}')


def _closest(name: str, bundled: dict[str, Path], ids: list[str]) -> str:
    hint = did_you_mean(name, ids)
    return hint if hint.startswith("did") else f"{did_you_mean(name, bundled)}, a YAML file, or any Gymnasium id"


def _read(path: Path) -> Task:
    return _task_of(path, _with_base(path))


def _task_of(path: Path, data: dict[str, Any]) -> Task:
    data.setdefault("name", path.stem)
    if isinstance(data.get("env"), dict) and "views" not in data:
        data["views"] = _all_groups(data["env"])
    try:
        return Task.model_validate(data)
    except ValidationError as error:
        raise UserError(f"{path}: {one_line(error, Task, prefix='')}") from None


def _with_base(path: Path) -> dict[str, Any]:
    """A file's entries over those of the task that it extends, which may extend another one."""
    data = read_mapping(path)
    base = data.pop("extends", None)
    if base is None:
        return data
    bundled = _bundled()
    if not isinstance(base, str) or base not in bundled:
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

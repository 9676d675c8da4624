"""Methods: lists of commands with settings, as plain data from YAML. A pipeline runs one, a comparison several.

Where the same name stands in several places the last one wins: `methods.yaml` beside this file, the task's `methods:`
section, the user's own file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError

from tscli.config import Config, UserError, did_you_mean, one_line
from tscli.plain import read_yaml
from tscli.tasks import Task

BUNDLED = Path(__file__).with_name("methods.yaml")


def _stage_calls(value: Any) -> Any:
    """`[train-teacher, {collect: {episodes: 5}}]` with every entry as one command and its settings."""
    if not isinstance(value, (list, tuple)):
        raise ValueError("stages is a list such as [train-teacher: {seed: 2}, collect]")
    calls = []
    for entry in value:
        entry = {entry: {}} if isinstance(entry, str) else entry
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise ValueError(f"a stage is one command with its settings, not {entry!r}")
        ((command, settings),) = entry.items()
        if str(command).endswith(".py"):  # a script of the user's, from wherever this is read again
            command = str(Path(command).absolute())
        calls.append({command: settings or {}})
    return calls


# Commands in order, each with its settings.
StageCalls = Annotated[tuple[dict[str, dict[str, Any]], ...], BeforeValidator(_stage_calls)]


class Method(Config):
    """One entry of a file of methods."""

    about: str = Field("", description="One sentence.")
    stages: StageCalls = Field(min_length=1, description="Commands in order, with settings.")


def known_methods(task: Task, file: Path | None = None) -> dict[str, Method]:
    """Every method that can be compared on a task, those that come with tscli first.

    Args:
        task: whose own methods come next.
        file: a YAML file of the user's: names with `about` and `stages`, or with the list of stages alone.

    Raises:
        UserError: a file that is missing or has a mistake.
    """
    places = [(BUNDLED.name, read_yaml(BUNDLED)), (f"task {task.name}, methods", task.methods)]
    if file is not None:
        places.append((file.name, read_yaml(file)))
    found: dict[str, Method] = {}
    for place, entries in places:
        if not isinstance(entries, Mapping):
            raise UserError(f"{place} holds no methods: write one `name: [stages]` per line")
        for name, entry in entries.items():
            entry = entry if isinstance(entry, Mapping) else {"stages": entry}
            try:
                found[str(name)] = Method.model_validate(entry)
            except ValidationError as error:
                raise UserError(f"{place}, {name}: {one_line(error, Method, prefix='')}") from None
    return found


def choose_methods(names: str, known: Mapping[str, Method]) -> dict[str, Method]:
    """The methods of `bc,dagger,sitt`, in that order; the beginning of a name does where no other begins so.

    Raises:
        UserError: an unknown or doubled name, or none at all.
    """
    chosen: dict[str, Method] = {}
    for name in filter(None, (part.strip() for part in names.split(","))):
        begin_so = [one for one in known if one.startswith(name)]
        if name not in known and len(begin_so) == 1:
            name = begin_so[0]
        if name not in known:
            raise UserError(f'--methods: there is no method "{name}": {did_you_mean(name, known)}')
        if name in chosen:
            raise UserError(f'--methods names "{name}" twice: once is enough')
        chosen[name] = known[name]
    if not chosen:
        raise UserError(f"--methods names none: {did_you_mean('', known)}")
    return chosen

"""What a comparison consists of: its description, and the cells that it needs, all checked before one starts."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from tscli.compare.cells import Cell, Step, make_cell, make_step
from tscli.config import Config, StageConfig, UserError, did_you_mean, is_yaml
from tscli.files import atomic_write
from tscli.launch.methods import Method
from tscli.launch.scripts import Script, find_script, find_scripts, light_config
from tscli.launch.settings import build_config, make_layer
from tscli.launch.start import Place, plan
from tscli.plain import read_mapping
from tscli.tasks import Task, load_task, task_place

MAX_SEED = 2**31


class Comparison(Config):
    """All that the figures of a comparison depend on, besides the versions of the code."""

    task: str = Field(description="A task's name, a task's YAML file, or any Gymnasium id.")
    methods: dict[str, Method] = Field(min_length=1, description="What is compared, by name.")
    seeds: tuple[int, ...] = Field(min_length=1, description="Of each method.")
    episodes: int = Field(500, ge=1, le=1_000_000, description="Episodes on which each policy is measured at the end.")
    metric: Literal["auto", "success_rate", "return", "length"] = Field(
        "auto", description="What is compared; auto takes the success rate where the env tells it, else the return."
    )
    budget: int | None = Field(None, ge=1, description="total_steps of every stage that starts from the task itself.")
    preset: str | None = Field(None, description="One of the task's named sets of settings.")
    assignments: dict[str, str] = Field(default_factory=dict, description="Settings by `stage.key`.")
    sweeps: dict[str, tuple[str, ...]] = Field(default_factory=dict, description="Values to try, by `stage.key`.")
    methods_file: str | None = Field(None, description="Where the user's own methods stood; they are among `methods`.")


@dataclass(frozen=True)
class Variant:
    """One row of the table: a method, with one value for each swept setting that it has."""

    method: str
    swept: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """`sitt penalty_coef=0.2`."""
        return " ".join([self.method, *(f"{key.partition('.')[2]}={value}" for key, value in self.swept.items())])


@dataclass(frozen=True)
class Row:
    """A variant with one seed: the chain of cells that ends with its evaluation."""

    variant: Variant
    seed: int
    cells: tuple[Cell, ...]


@dataclass
class Layout:
    """Everything that a comparison needs."""

    task: Task
    rows: list[Row]
    notes: list[str]

    @property
    def cells(self) -> list[Cell]:
        """Each cell once, after those that it needs: seed by seed, so that early seeds are complete early."""
        by_seed = sorted(self.rows, key=lambda row: row.seed)
        return list({cell.key: cell for row in by_seed for cell in row.cells}.values())


@dataclass(frozen=True, eq=False)
class _Call:
    """One stage of a method: its script, and the settings that the method gives it."""

    script: Script
    model: type[Config]
    place: str
    settings: dict[str, Any]

    def is_called(self, name: str) -> bool:
        return name.replace("_", "-") in (self.script.command, self.script.name)

    def has(self, key: str) -> bool:
        return key.partition(".")[0].replace("-", "_") in self.model.model_fields

    def fixes(self, key: str) -> bool:
        """Whether the method itself sets it: that is what makes it this method."""
        value: Any = make_layer(self.place, self.settings, self.model).values
        for name in key.replace("-", "_").split("."):
            if not isinstance(value, Mapping):
                return True
            if name not in value:
                return False
            value = value[name]
        return not isinstance(value, Mapping)


def parse_seeds(text: str) -> tuple[int, ...]:
    """`5` is 0 to 4; `3,4,7` are these.

    Raises:
        UserError: something else, or a seed that is too large or doubled.
    """
    parts = [part.strip() for part in text.split(",")]
    if "," in text and not parts[-1]:  # `7,` is the seed 7
        parts = parts[:-1]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f'--seeds "{text}": give their number (5 means 0 to 4), or a list such as 3,4,7')
    numbers = tuple(int(part) for part in parts)
    if "," not in text:
        if numbers[0] < 1 or numbers[0] > 10_000:
            raise UserError(f"--seeds {text}: at least 1 seed is needed, and 10000 at the most")
        return tuple(range(numbers[0]))
    if len(set(numbers)) < len(numbers) or max(numbers) >= MAX_SEED:
        raise UserError(f"--seeds {text}: name each seed once, and none from {MAX_SEED} on")
    return numbers


def parse_sweep(texts: list[str]) -> dict[str, tuple[str, ...]]:
    """`["sitt.penalty_coef=0,.1"]` as a mapping; values that hold commas are separated by semicolons.

    Raises:
        UserError: one has no `=`, no value, or a value twice.
    """
    found = {}
    for text in texts:
        key, equals, values = text.partition("=")
        parts = tuple(part.strip() for part in values.split(";" if ";" in values else ",") if part.strip())
        if not equals or not parts or len(set(parts)) < len(parts):
            raise UserError(f'--sweep "{text}": write stage.key=value,value,... with each value once')
        found[key.strip()] = parts
    return found


def lay_out(comparison: Comparison, runs_dir: Path) -> Layout:
    """All cells of a comparison.

    Raises:
        UserError: any mistake in any setting of any method.
    """
    planner = _Planner(comparison, runs_dir)
    rows: list[Row] = []
    cells: dict[str, Cell] = {}
    for name, calls in planner.calls.items():
        for variant in planner.variants(name):
            steps = [planner.step(call, variant) for call in calls]
            for seed in comparison.seeds:
                chain: list[Cell] = []
                for step in steps:
                    cell = make_cell(step, seed, chain[-1] if chain else None, runs_dir)
                    chain.append(cells.setdefault(cell.key, cell))
                    if variant.label not in chain[-1].serves:
                        chain[-1].serves.append(variant.label)
                rows.append(Row(variant, seed, tuple(chain)))
    return Layout(planner.task, rows, planner.notes)


class _Planner:
    """Hands every stage of every method its settings."""

    def __init__(self, comparison: Comparison, runs_dir: Path):
        self.comparison, self.runs_dir = comparison, runs_dir
        self.task = load_task(comparison.task)
        self.notes: list[str] = []
        self._scripts = find_scripts()
        self._models: dict[Path, type[Config]] = {}
        self._steps: dict[str, Step] = {}
        # What stands for the task's own in a method; a task without a network for its student leaves the default.
        self._filled = {
            "{teacher}": self.task.teacher,
            "{student}": self.task.student,
            "{student_network}": self.task.stages.get("distill", {}).get("student"),
        }
        self._task_name = kept_task(comparison.task, runs_dir)
        self.calls = {name: list(self._calls(name, method)) for name, method in comparison.methods.items()}
        self._assigned = {key: self._targets("--set", key, value) for key, value in comparison.assignments.items()}
        self._swept = {key: self._targets("--sweep", key, values[0]) for key, values in comparison.sweeps.items()}

    def _calls(self, name: str, method: Method) -> Iterator[_Call]:
        """A method's stages; the last one measures."""
        stages = [*method.stages]
        if not any(self._script(stage).command == "eval" for stage in stages[-1:]):
            stages.append({"eval": {}})
        for stage in stages:
            script = self._script(stage)
            model = self._models.setdefault(script.path, light_config(script))
            if not issubclass(model, StageConfig):
                raise UserError(f"method {name}: `tscli {script.command}` makes no run, so it cannot be compared")
            ((_, settings),) = stage.items()
            own = {k: self._filled.get(v, v) if isinstance(v, str) else v for k, v in settings.items() if k != "method"}
            own = {k: v for k, v in own.items() if v is not None or settings[k] is None}
            yield _Call(script, model, f"method {name}, {script.name}", own)

    def _script(self, stage: Mapping[str, Mapping[str, Any]]) -> Script:
        ((command, settings),) = stage.items()
        return find_script(command, settings.get("method"), self._scripts)

    def _targets(self, flag: str, key: str, value: str) -> set[_Call]:
        """What a `stage.key` is for: stages of that name which have it and leave it open.

        Raises:
            UserError: there is none.
        """
        name, _, setting = key.partition(".")
        if setting == "seed" or (name, setting) == ("eval", "episodes"):
            wanted = "--seeds" if setting == "seed" else "--episodes"
            raise UserError(f"{flag} {key}={value}: that is for {wanted} to say, for all methods")
        if flag == "--set" and key in self.comparison.sweeps:
            raise UserError(f"--set {key}={value}: --sweep {key} goes through its values: leave one of them out")
        calls = [call for chain in self.calls.values() for call in chain]
        named = [call for call in calls if call.is_called(name)]
        if not named or not setting:
            hint = did_you_mean(name, {call.script.command for call in calls} | {call.script.name for call in calls})
            raise UserError(f'{flag} {key}={value}: write stage.key=value; there is no stage "{name}" here: {hint}')
        known = [call for call in named if call.has(setting)] or named
        for call in known:
            make_layer(flag, {setting: value}, call.model)  # an unknown setting is refused here
        fixed = [call for call in known if call.fixes(setting)]
        if len(fixed) == len(known):
            raise UserError(f"{flag} {key}={value}: {fixed[0].place} sets it itself, which makes it that method")
        for call in fixed:
            self.notes.append(f"{flag} {key}: {call.place}, sets it itself and stays as it is")
        return {call for call in known if call not in fixed}

    def variants(self, name: str) -> list[Variant]:
        """A method with every combination of the swept values that it takes."""
        keys = [key for key, targets in self._swept.items() if not targets.isdisjoint(self.calls[name])]
        combinations = itertools.product(*(self.comparison.sweeps[key] for key in keys))
        return [Variant(name, dict(zip(keys, values, strict=True))) for values in combinations]

    def step(self, call: _Call, variant: Variant) -> Step:
        """A stage with its settings: the task's, the method's, then what the command line says."""
        fields = call.model.model_fields
        places: list[Place] = [(call.place, call.settings)]
        starts_from_task = "task" in fields and fields["task"].is_required()
        if starts_from_task:
            places.insert(0, ("", {"task": self._task_name}))
        if call.script.command == "eval" and "episodes" in fields:
            places.append(("--episodes", {"episodes": self.comparison.episodes}))
        if starts_from_task and "total_steps" in fields and self.comparison.budget is not None:
            places.append(("--budget", {"total_steps": self.comparison.budget}))
        assigned = ("--set", self.comparison.assignments, self._assigned)
        for source, values, targets in (assigned, ("--sweep", variant.swept, self._swept)):
            places += [(source, {k.partition(".")[2]: v}) for k, v in values.items() if call in targets[k]]
        known = json.dumps([str(call.script.path), [values for _, values in places]], default=str)
        if known not in self._steps:
            what = plan(
                call.script, places, runs_dir=self.runs_dir, preset=self.comparison.preset, task=self._task_name
            )
            config = build_config(call.model, what.layers, call.script.command)
            self._steps[known] = make_step(call.script, config, self.task, self.runs_dir)
        return self._steps[known]


def kept_task(name: str, runs_dir: Path) -> str:
    """The task's name; of a file the path of a copy, which stays as it is while cells are made from it."""
    if not is_yaml(name):
        return name
    source = Path(name)
    written = read_mapping(source)  # whose modules and models are not copied
    text = yaml.safe_dump(written | {"folder": str(task_place(source, written.get("folder")))}, sort_keys=False)
    kept = runs_dir.absolute() / "cells" / "tasks" / hashlib.sha256(text.encode()).hexdigest()[:12] / source.name
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(kept, text)
    return str(kept)

"""Cells: one stage of one method with one seed, kept so that the same computation is never done twice.

    runs/cells/3f1c09a2b4de/
        cell.json       what it is, and what its name was computed from
        settings.yaml   what its command was last called with
        log.txt         what its command said
        0001-sitt-color_maze-seed0/

A cell's folder is a runs folder of its own with a single run in it, so that no command ever takes a cell's run for "the
newest". Its name is a hash of everything that its result depends on: the script, its settings, the task's env and
views, and the cell before it. What shares all of that is one cell, whichever comparison asks for it.
"""

from __future__ import annotations

import ast
import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, get_args

import yaml

from tscli.config import Config, UserError
from tscli.files import atomic_write, file_hash
from tscli.launch.scripts import Script, script_folders
from tscli.runs import Run, find_run, list_runs
from tscli.runs.folder import FINISHED
from tscli.runs.watching import CELLS
from tscli.tasks import Task, load_task
from tscli.tasks.files import code_files

# What of a task a cell's figures depend on; its settings are in the cell's own already.
_ENVS = ("env", "teacher_env", "eval_env", "report_env", "views", "teacher", "student")

SCHEMA = 1
FOLDER = "cells"  # in the runs folder
LOG = "log.txt"
# Settings that may name a run. Those of `TAKEN` that are left empty take the newest that the cells before have made.
REFERENCES = ("run", "teacher", "pairs", "student")
TAKEN = REFERENCES[:3]
# Checkpoints and what is said beforehand change no result, and the task's content stands for its name.
_NOT_HASHED = ("checkpoint_every", "diagnose", "film_every", "task", "seed")


@dataclass(eq=False)
class Cell:
    """One stage of one method with one seed."""

    key: str  # sha256 of all that the result depends on
    script: Script
    settings: dict[str, Any]  # resolved, and without the runs that it continues from
    seed: int  # among them
    takes: tuple[str, ...]  # settings that the runs of the cells before fill in
    code: str  # hash of the script's
    before: Cell | None  # the cell that this one comes after in its chain
    runs_dir: Path  # where the comparisons' runs live; cells lie in a folder in there
    serves: list[str] = field(default_factory=list)  # labels of the table's rows

    @property
    def folder(self) -> Path:
        """Where it lives."""
        return self.runs_dir / FOLDER / self.key[:12]

    @property
    def log(self) -> Path:
        """What its command said."""
        return self.folder / LOG

    @property
    def name(self) -> str:
        """`distill-bc seed 3`."""
        return f"{self.script.name} seed {self.seed}"

    @property
    def title(self) -> str:
        """`train-teacher seed 3 (bc, dagger)`, with the rows of the table that it serves."""
        more = f" and {len(self.serves) - 3} more" if len(self.serves) > 3 else ""
        return f"{self.name} ({', '.join(self.serves[:3])}{more})"

    @property
    def chain(self) -> list[Cell]:
        """The cells before it, the first one first, and itself."""
        return [*(self.before.chain if self.before else []), self]

    @property
    def allowed_steps(self) -> int:
        """Env steps that its settings let it take at the most; 0 where they count none."""
        return int(self.settings.get("total_steps") or 0)

    def run(self) -> Run | None:
        """The run in its folder, whatever its status; None before there is one."""
        runs = list_runs(self.folder)
        return runs[-1] if runs else None

    def finished_run(self) -> Run | None:
        """The run in its folder if it is finished."""
        run = self.run()
        return run if run is not None and run.status == FINISHED else None

    def prepare(self) -> None:
        """Write what its command reads, with the runs of the cells before it, which are finished.

        Raises:
            UserError: the script is another one by now, or the disk is full.
        """
        if code_hash(self.script.path) != self.code:
            raise UserError(f"{self.script.path} has changed since the comparison began: give the same command again")
        made: dict[str, str] = {}
        for cell in self.chain[:-1]:
            run = cell.finished_run()
            assert run is not None, f"{cell.name} comes first"
            made |= dict.fromkeys(run.offers, str(run.path.resolve()))
        settings = self.settings | {name: made[name] for name in self.takes if name in made}
        description = {"schema": SCHEMA, "key": self.key, "command": self.script.command, "method": self.script.method}
        description |= {"settings": self.settings, "after": self.before.key if self.before else None}
        atomic_write(self.folder / "cell.json", json.dumps(description, indent=1))
        atomic_write(self.folder / "settings.yaml", yaml.safe_dump(settings, sort_keys=False))

    def words(self, resume: bool) -> list[str]:
        """What to type behind `tscli` to start it, or to continue its unfinished run."""
        known = self.script.path.parent in script_folders()
        words = [self.script.command] if known else ["run", str(self.script.path)]
        if known and self.script.method:
            words += ["--method", self.script.method]
        words += ["--runs-dir", str(self.folder)]
        return [*words, "--resume"] if resume else [*words, "--config", str(self.folder / "settings.yaml")]

    def clear(self) -> None:
        """Remove what an attempt has left that cannot be continued."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)


@dataclass(frozen=True)
class Step:
    """One stage of a method with all its settings, before it has a seed."""

    script: Script
    settings: dict[str, Any]  # resolved; runs that the user names are paths
    takes: tuple[str, ...]  # as in `Cell`
    code: str
    identity: str  # hash of all that its result depends on besides seed and the cells before


def make_step(script: Script, config: Config, task: Task, runs_dir: Path) -> Step:
    """A step from a stage's validated settings; its task's env and views count, since its file may change.

    Args:
        script, config: the stage.
        task: of the stages around it, and its own where it names none.
        runs_dir: where the runs are that its settings name.

    Raises:
        UserError: a setting names a run that is not there, or not finished.
    """
    settings = config.model_dump(mode="json")
    takes, named = [], {}
    for name, info in type(config).model_fields.items():
        if name not in REFERENCES or str not in (info.annotation, *get_args(info.annotation)):
            continue
        if settings[name]:
            run = find_run(runs_dir, settings[name])
            if run.status != FINISHED:
                raise UserError(f"{name} {settings[name]}: {run.name} is {run.status}: resume it first (--resume)")
            settings[name] = str(run.path.resolve())
            named[name] = [run.manifest[key] for key in ("config_hash", "created", "artifacts")]
        elif settings[name] == "" and name in TAKEN:
            takes.append(name)
    if settings.get("task"):
        task = load_task(settings["task"])
    code = code_hash(script.path)
    content = {
        "tscli": metadata.version("tscli"),
        "command": [script.command, script.method],
        "code": code,
        "settings": {name: value for name, value in settings.items() if name not in _NOT_HASHED} | named,
        "task": task.model_dump(mode="json", include=set(_ENVS)),
    }
    files = task.files()  # robots and code of the user's own
    if script.path.resolve().parent not in script_folders():
        files |= code_files(script.path) - {script.path}
    if files:
        content["files"] = sorted(map(file_hash, files))
    return Step(script, settings, tuple(takes), code, _hash(content))


def make_cell(step: Step, seed: int, before: Cell | None, runs_dir: Path) -> Cell:
    """The cell of a step with a seed, after another one."""
    key = _hash([SCHEMA, step.identity, seed, before.key if before else None])
    return Cell(key, step.script, step.settings | {"seed": seed}, seed, step.takes, step.code, before, runs_dir)


def note_cells(folder: Path, cells: Sequence[Cell]) -> None:
    """Write down which cells a run is made of, in its folder.

    Raises:
        UserError: the disk is full.
    """
    # What tells them apart comes first: a narrow terminal shows no more.
    listed = [{"title": f"{', '.join(cell.serves)}: {cell.name}", "folder": cell.folder.name} for cell in cells]
    atomic_write(folder / CELLS, json.dumps({"cells": listed}, indent=1))


def code_hash(path: Path) -> str:
    """Of a script's code, without comments and layout; "" while somebody is in the middle of editing it."""
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return ""
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

"""Run folders: what a stage leaves behind, and how the next stage finds it.

    runs/0007-distill-dagger-cartpole-seed1/
        config.yaml          resolved settings
        task/                copy of the task's YAML file, where it has one of the user's own
        metrics.jsonl        one line per logged point
        tensorboard/, wandb/ the same for these, where they were asked for
        policy.safetensors   the artifact (or pairs/, or report.json)
        checkpoint.pt        what --resume continues from, gone once finished
        manifest.json        status, versions, parents with hashes, what it holds, final metrics

`tscli.runs.writer` writes them. This module does not import torch.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tscli.config import UserError, did_you_mean, is_yaml, one_line
from tscli.files import file_hash
from tscli.plain import read_json, read_mapping
from tscli.runs.locks import is_locked
from tscli.runs.manifest import SCHEMA, Manifest
from tscli.runs.seals import unseal

TASK_FOLDER = "task"
NOTE = "note.txt"  # what the user wrote about it; not in the manifest, which is the run's own
REMOVED = ".removed"  # among the runs, left by `tscli runs rm`
FINISHED, RUNNING, STOPPED, FAILED = "finished", "running", "stopped", "failed"


@dataclass(frozen=True, repr=False)
class Run:
    """One run folder, read."""

    path: Path
    manifest: dict[str, Any]

    def __repr__(self) -> str:
        from tscli.runs.words import headline

        return f"<Run {', '.join(filter(None, [self.name, self.status, headline(self)]))}>"

    def _repr_html_(self) -> str:
        """A notebook shows its final metrics."""
        cells = {self.name: self.status, **self.metrics}
        shown = {name: f"{value:.5g}" if isinstance(value, float) else str(value) for name, value in cells.items()}
        rows = (f"<tr><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>" for name, text in shown.items())
        return f"<table>{''.join(rows)}</table>"

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def number(self) -> int:
        """Its place in the order of creation."""
        return int(self.manifest["number"])

    @property
    def command(self) -> str:
        """The command that made it, such as "train-teacher"."""
        return str(self.manifest["command"])

    @property
    def method(self) -> str | None:
        """The command's method, such as "dagger"."""
        return self.manifest.get("method")

    @property
    def task(self) -> str:
        """The task's name, or the path of its YAML file: the run's own copy where the user's is gone."""
        task = str(self.manifest["task"])
        copy = self.task_copy
        return task if copy is None or Path(task).is_file() else str(copy)

    @property
    def task_copy(self) -> Path | None:
        """The task's YAML file as it was when the run began; None where the task is no file."""
        path = self.path / TASK_FOLDER / Path(self.manifest["task"]).name
        return self._kept(f"{TASK_FOLDER}/{path.name}").resolve() if path.is_file() else None

    @property
    def task_name(self) -> str:
        """The task's name; of a file that without folder and ending."""
        return task_stem(str(self.manifest["task"]))

    @property
    def seed(self) -> int | None:
        """The seed of its random streams; None for a comparison, which has one for each of its cells."""
        return self.manifest["seed"]

    @property
    def status(self) -> str:
        """finished, running, stopped or failed. A run whose process is gone without a word counts as stopped."""
        status = self.manifest["status"]
        return STOPPED if status == RUNNING and not is_locked(self.path) else status

    @property
    def holds(self) -> tuple[str, ...]:
        """What later stages may take from it: "policy", "pairs", "report"."""
        return tuple(self.manifest["holds"])

    @property
    def role(self) -> str | None:
        """Whose policy it is: "teacher" or "student"."""
        return self.manifest.get("role")

    @property
    def teacher_policy(self) -> str | None:
        """Which of its policies is a teacher's: "policy", or "teacher" where one was trained with its student."""
        if self.role == "teacher":
            return "policy"
        return "teacher" if "teacher.safetensors" in self.manifest["artifacts"] else None

    @property
    def offers(self) -> tuple[str, ...]:
        """The settings of later stages that may name it: "run", "teacher", "pairs"."""
        if "policy" in self.holds:
            return ("run", "teacher") if self.teacher_policy else ("run",)
        return ("pairs",) if "pairs" in self.holds else ()  # what a student gathered along its way is its own

    @property
    def parents(self) -> list[str]:
        """Names of the runs it was made from."""
        return [parent["name"] for parent in self.manifest["parents"].values()]

    @property
    def teachers(self) -> list[str]:
        """Names of the runs whose policies labelled it, in the order in which `teacher_by` counts them."""
        parents = self.manifest["parents"]
        return [parents[role]["name"] for role in teacher_roles(parents)]

    @property
    def teacher_by(self) -> str:
        """What said which of several teachers labels a row; "" where there was one."""
        return str(self.manifest.get("teacher_by", ""))

    @property
    def metrics(self) -> dict[str, Any]:
        """Final metrics."""
        return self.manifest["metrics"]

    def teacher_metric(self, name: str) -> float | None:
        """A figure of its teacher's final evaluation, such as "return"; `metrics` have a student's in its place."""
        found = self.metrics.get(f"{'eval' if self.role == 'teacher' else 'eval_teacher'}/{name}")
        return found if isinstance(found, (int, float)) else None

    @property
    def note(self) -> str:
        """The line that its user wrote about it, or ""."""
        try:
            return " ".join((self.path / NOTE).read_text(encoding="utf-8")[:200].split())
        except (OSError, UnicodeDecodeError):
            return ""

    @property
    def created(self) -> str:
        """ISO time of its start."""
        return str(self.manifest["created"])

    @property
    def config(self) -> dict[str, Any]:
        """Its resolved settings."""
        return read_mapping(self._kept("config.yaml"))

    @property
    def report(self) -> dict[str, Any]:
        """What it measured, from report.json; empty where it wrote none.

        Raises:
            UserError: the file has changed.
        """
        path = self._kept("report.json")
        return read_json(path) if path.is_file() else {}

    @property
    def points(self) -> list[dict[str, float | None]]:
        """What it logged, from metrics.jsonl; a line that a crash has cut is passed over.

        Raises:
            UserError: the file has changed since the run finished.
        """
        path = self._kept("metrics.jsonl")
        found = []
        for line in path.read_bytes().splitlines() if path.is_file() else ():
            with contextlib.suppress(ValueError, RecursionError):
                point = json.loads(line)
                if isinstance(point, dict):
                    found.append({k: v for k, v in point.items() if v is None or isinstance(v, (int, float))})
        return found

    def _kept(self, name: str) -> Path:
        """A file that it began or finished with.

        Raises:
            UserError: it is missing or has changed.
        """
        path, began = self.path / name, self.manifest.get("files", {})
        sha256 = began.get(name, self.manifest["artifacts"].get(name))
        if sha256 is not None and (not path.is_file() or file_hash(path) != sha256):
            since = "the run began" if name in began else "its run finished"
            raise UserError(f"{path} has changed since {since}: restore it from a copy, or start anew")
        return path

    def parent(self, role: str) -> Run:
        """The run it was made from, in that role ("teacher", "pairs", "policy"), unchanged since.

        Raises:
            UserError: there is none, it is gone, or its policy has changed.
        """
        entry = self.manifest["parents"].get(role)
        if entry is None:
            raise UserError(f"run {self.name} was not made from a {role}")
        parent = read_run(_existing(self.path.parent / entry.get("path", entry["name"]), self.name))
        if entry.get("sha256"):
            if parent.manifest.get("artifacts", {}).get("policy.safetensors") != entry["sha256"]:
                raise UserError(f"{parent.name} has changed since {self.name} was made from it: make {self.name} again")
            parent.policy_path()  # refuses a file that differs from what its run wrote
        return parent

    def policy_path(self, which: str = "policy") -> Path:
        """The policy's file, checked against the hash in the manifest.

        Raises:
            UserError: the run holds no policy, or the file has changed.
        """
        path = self.path / f"{which}.safetensors"
        expected = self.manifest.get("artifacts", {}).get(path.name)
        if "policy" in self.holds and expected is None:
            kept = [Path(name).stem for name in self.manifest["artifacts"] if name.endswith(".safetensors")]
            raise UserError(f"--which {which}: run {self.name} has no such policy: choose {' or '.join(kept)}")
        if expected is None:
            raise UserError(
                f"run {self.name} ({self.command}) holds no policy: name one made by train-teacher or distill"
            )
        if not path.exists() or file_hash(path) != expected:
            raise UserError(f"{path} has changed since its run finished: train it again, or restore it from a copy")
        return path


def teacher_roles(parents: Mapping[str, Any]) -> list[str]:
    """Which of a run's parents are its teachers: "teacher", and "teacher-2" and so on where there were several."""
    return [role for role in parents if role == "teacher" or role.startswith("teacher-")]


def _existing(path: Path, child: str) -> Path:
    if not (path / "manifest.json").exists():
        raise UserError(f"{path.name}, which {child} was made from, is gone: restore it, or make {child} again")
    return path


def check_target(option: str, path: Path, force: bool) -> None:
    """Refuse a file to be written that would cost something, before anything is computed.

    Raises:
        UserError: it is a folder, its folder is not there or not for writing, a run's, or, without `force`, there is a
            file already.
    """
    whole = path.absolute()
    if path.is_dir() or not whole.parent.is_dir():
        reason = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UserError(f"{option} {path}: {reason}: name a file in a folder that exists")
    if not os.access(path if path.exists() else whole.parent, os.W_OK):
        raise UserError(f"{option} {path}: writing there is not allowed: name another place")
    if any((folder / "manifest.json").exists() for folder in (whole.parent, whole.parent.parent)):
        raise UserError(f"{option} {path} is among the files of a run: name a place outside of its folder")
    if path.exists() and not force:
        raise UserError(f"{option} {path} exists: name another file, or give --force")


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: it is none, its manifest is damaged, or a newer tscli wrote it.
    """
    file = path / "manifest.json"
    try:
        manifest = read_json(file)
    except FileNotFoundError:
        raise UserError(f"{path} is no run folder: it has no manifest.json") from None
    schema = manifest.get("schema")
    if type(schema) is int and schema > SCHEMA:  # and may name its entries otherwise
        raise UserError(f"{path.name} has schema {schema}, this tscli reads up to {SCHEMA}: upgrade tscli")
    try:
        Manifest.model_validate(manifest)
        return Run(path, unseal(manifest))
    except ValueError as error:
        why = one_line(error, prefix="") if isinstance(error, ValidationError) else error
        raise UserError(f"{file} is damaged ({why}): restore it, or delete the run") from None


def list_runs(runs_dir: Path) -> list[Run]:
    """Every readable run, oldest first. Folders that are no runs are passed over."""
    if not runs_dir.is_dir():
        return []
    runs = []
    for path in runs_dir.iterdir():
        if (path / "manifest.json").exists():
            with contextlib.suppress(UserError):
                runs.append(read_run(path))
    return sorted(runs, key=lambda run: run.number)


def find_run(runs_dir: Path, ref: str) -> Run:
    """A run by path, folder name or number.

    Raises:
        UserError: there is no such run.
    """
    path = Path(ref)
    if (path / "manifest.json").exists():
        return read_run(path)
    runs = list_runs(runs_dir)
    for run in runs:
        if ref == run.name or (ref.isdecimal() and int(ref) == run.number):
            return run
    if ref.isdecimal():
        for manifest in runs_dir.glob(f"{ref.zfill(4)}-*/manifest.json"):
            read_run(manifest.parent)  # one that is there and is damaged: it says how
    if path.is_dir():
        raise UserError(f"{path} is no run folder: it has no manifest.json")
    if not runs:
        raise UserError(f'no run "{ref}": there are no runs in {runs_dir}; start with `tscli train-teacher cartpole`')
    hint = did_you_mean(ref, [run.name for run in runs])
    if ref.isdecimal() or not hint.startswith("did"):
        newest = ", ".join(run.name for run in runs[:-4:-1])
        hint = f"it has {len(runs)}, the newest are {newest}" if len(runs) > 3 else f"it has {newest}"
    raise UserError(f'no run "{ref}" in {runs_dir}: {hint}; `tscli runs` lists all')


def find_unfinished(runs_dir: Path, command: str, method: str | None, ref: str) -> Run:
    """The run that `--resume` continues: the named one, or the newest unfinished one of that command.

    Raises:
        UserError: none fits, it is finished, or another process is still at it.
    """
    if ref:
        run = find_run(runs_dir, ref)
        if run.status == FINISHED:
            raise UserError(f"--resume {ref}: {run.name} is finished, there is nothing to resume")
        if run.command != command:
            raise UserError(
                f"--resume {ref}: {run.name} is a {run.command} run: use `tscli {run.command} --resume {ref}`"
            )
    else:
        fitting = [r for r in list_runs(runs_dir) if r.command == command and r.status in (STOPPED, FAILED)]
        fitting = [r for r in fitting if method is None or r.method == method]
        if not fitting:
            raise UserError(f"--resume: no unfinished {command} run in {runs_dir}: start anew without --resume")
        run = fitting[-1]
    if run.status == RUNNING:
        raise UserError(f"--resume: {run.name} is still running (process {run.manifest.get('pid')})")
    return run


def last_removed(runs_dir: Path) -> int:
    """The highest number that a removed run had, which is not given again; 0 where none was removed."""
    try:
        return int((runs_dir / REMOVED).read_bytes()[:9])
    except (OSError, ValueError):
        return 0


def task_stem(task: str) -> str:
    """A task's name; of a file that without folder and ending."""
    return Path(task).stem if is_yaml(task) else task

"""What belongs to a run: the policy that it is about, who taught it, its pairs, and what measured it."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tscli.config import UserError, is_yaml
from tscli.config.base import flat
from tscli.launch.scripts import find_script, light_config
from tscli.launch.settings import merge, task_layers
from tscli.pairs import Pairs, PairsError
from tscli.runs import Run, list_runs, read_run
from tscli.runs.folder import FINISHED
from tscli.tasks import Task, load_task

FLAGS = {"teacher": "teacher", "start": "teacher", "pairs": "pairs"}  # which says a run's parent, by its role


@dataclass(frozen=True)
class Story:
    """A run with all that it was made from and, if it holds a policy, the newest evaluation of it.

    Attributes:
        run: the one that was asked for.
        chain: the runs of it, the oldest first.
        subject: the policy that it is about; the run itself where there is none.
        evaluation: the run that measured it, None where none has.
    """

    run: Run
    chain: list[Run]
    subject: Run
    evaluation: Run | None

    @cached_property
    def report(self) -> dict[str, Any]:
        """What `tscli eval` has measured; empty where nothing has."""
        return self.evaluation.report if self.evaluation is not None else {}

    @cached_property
    def task(self) -> Task | None:
        """The task; None where its file is gone, or cannot be read here."""
        with contextlib.suppress(UserError):
            return load_task(self.subject.task)
        return None

    @cached_property
    def pairs(self) -> dict[str, Pairs]:
        """The datasets of the chain that can be read, by run."""
        found = {}
        for run in self.chain:
            with contextlib.suppress(UserError, PairsError, OSError):
                if (run.path / "pairs").is_dir():
                    found[run.name] = Pairs(run.path / "pairs", verify="size")
        return found

    @property
    def teachers(self) -> list[Run]:
        """Whom the subject has learnt from."""
        return [run for run in self.chain if run.name in self.subject.teachers]


def story_of(run: Run) -> Story:
    """Gather what belongs to a run; a parent that is gone is left out."""
    chain: dict[str, Run] = {}

    def add(child: Run) -> None:
        """Each after those that it was made from."""
        for entry in child.manifest["parents"].values():
            with contextlib.suppress(UserError):
                if entry["name"] not in chain:
                    add(read_run(child.path.parent / entry.get("path", entry["name"])))
        chain[child.name] = child

    add(run)
    ordered = list(chain.values())
    subject = next((one for one in ordered[::-1] if "policy" in one.holds), run)

    def measures(other: Run) -> bool:
        about = other.manifest["parents"].get("policy", {}).get("name")
        is_one = other.command == "eval" and other.status == FINISHED and (other.path / "report.json").is_file()
        return is_one and about == subject.name

    others = list_runs(run.path.parent) if not measures(run) else [run]
    evaluation = max(filter(measures, others), key=lambda one: one.number, default=None)
    if evaluation is not None and evaluation.name not in chain:
        ordered.append(evaluation)
    return Story(run, ordered, subject, evaluation)


def setting(value: Any) -> str:
    """A setting as it is typed."""
    if isinstance(value, (list, tuple)):
        return ",".join(map(setting, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Changed:
    """A setting of a run that is not the command's default."""

    name: str
    value: str
    default: str
    by_task: bool  # the task says so


def changed_settings(run: Run, task: Task | None) -> list[Changed]:
    """Settings that differ from the defaults; empty where the run's script is not one of ours.

    Which runs it was made from, and its task, are no such settings: the lineage has them.
    """
    try:
        script = find_script(run.command, run.method)
        model = light_config(script)
        written = merge(task_layers(task, script, None, model)) if task is not None else {}
        config = run.config
    except UserError:
        return []
    fields = {name: field for name, field in model.model_fields.items() if not field.is_required()}
    plain = model.model_construct(**{n: f.get_default(call_default_factory=True) for n, f in fields.items()})
    defaults, tasks = flat(plain.model_dump(mode="json")), flat(written)
    parents = run.manifest["parents"]
    flags = {"policy": "run"} | FLAGS
    apart = {"task", *parents, *(flag for role, flag in flags.items() if role in parents)}
    changes = []
    for name, value in flat(config).items():
        written, default = setting(value), setting(defaults.get(name, ""))
        by_task = name in tasks and setting(tasks[name]) == written
        # Also what was set back to the default, against the task.
        if name.partition(".")[0] not in apart and (written != default or (name in tasks and not by_task)):
            changes.append(Changed(name, written, default, by_task))
    return changes


def command_of(run: Run, task: Task | None) -> str:
    """What to type for the same run, as far as its manifest tells; of files and runs elsewhere their names."""
    parents = {role: entry["name"] for role, entry in run.manifest["parents"].items()}
    words = ["tscli", run.command, *(["--method", run.method] if run.method else [])]
    where = str(run.manifest["task"])
    where = Path(where).name if is_yaml(where) else where
    if "policy" in parents:
        words.insert(2, parents["policy"])
        words += ["--task", where] if run.config.get("task") else []
    elif not parents or run.config.get("task"):
        words.insert(2, where)
    for role, flag in FLAGS.items():
        if role in parents:
            words += [f"--{flag}", parents[role]]
    for change in changed_settings(run, task):
        if not change.by_task:
            words += ["--set", f"{change.name}={change.value}"]
    return shlex.join(words)


def film_of(run: Run | None) -> Path | None:
    """The film of an evaluation; None where it has none."""
    found = sorted(run.path.glob("film*.*")) if run is not None else []
    return next((path for path in found if path.suffix in (".gif", ".mp4")), None)

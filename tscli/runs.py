"""Run folders: what a stage leaves behind, and how the next stage finds it.

    runs/0007-distill-dagger-cartpole-seed1/
        config.yaml          resolved settings
        task/                copy of the task's YAML file, where it has one of the user's own
        metrics.jsonl        one line per logged point
        tensorboard/, wandb/ the same for these, where they were asked for
        policy.safetensors   the artifact (or pairs/, or report.json)
        checkpoint.pt        what --resume continues from, gone once finished
        manifest.json        status, versions, parents with hashes, what it holds, final metrics

Every file is written under a temporary name and renamed; the manifest comes last, so a run that says `finished` is
whole. This module does not import torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml

from tscli.config import Config, UserError, did_you_mean, is_yaml
from tscli.files import atomic_write, file_hash

if TYPE_CHECKING:
    from rich.console import Console

    from tscli.networks import Policy
    from tscli.progress import Progress
    from tscli.sinks import Sinks

__all__ = [
    "Lock",
    "Run",
    "RunWriter",
    "Session",
    "Stopped",
    "find_run",
    "find_unfinished",
    "list_runs",
    "lock_folder",
    "newest_run",
    "parent_task",
    "run_refs",
    "teacher_roles",
]

SCHEMA = 1
TASK_FOLDER = "task"
# What every manifest has, by type; the rest has a default.
_MANIFEST = {
    **{"number": int, "command": str, "task": str, "status": str, "created": str},
    **{"parents": dict, "holds": list, "artifacts": dict, "metrics": dict},
}
FINISHED, RUNNING, STOPPED, FAILED = "finished", "running", "stopped", "failed"


class Stopped(Exception):  # noqa: N818 - no error: the user asked for it
    """Ctrl-C or SIGTERM: the checkpoint is written, the run can be resumed."""


@dataclass(frozen=True)
class Run:
    """One run folder, read."""

    path: Path
    manifest: dict[str, Any]

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
        return path.resolve() if path.is_file() else None

    @property
    def task_name(self) -> str:
        """The task's name; of a file that without folder and ending."""
        return _task_name(str(self.manifest["task"]))

    @property
    def seed(self) -> int | None:
        """The seed of its random streams; None for a comparison, which has one for each of its cells."""
        return self.manifest["seed"]

    @property
    def status(self) -> str:
        """finished, running, stopped or failed. A run whose process is gone without a word counts as stopped."""
        status = self.manifest["status"]
        return STOPPED if status == RUNNING and not _is_locked(self.path) else status

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

    @property
    def created(self) -> str:
        """ISO time of its start."""
        return str(self.manifest["created"])

    @property
    def config(self) -> dict[str, Any]:
        """Its resolved settings."""
        return yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))

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
        if "policy" not in self.holds or expected is None:
            raise UserError(
                f"run {self.name} ({self.command}) holds no policy: name one made by train-teacher or distill"
            )
        if not path.exists() or file_hash(path) != expected:
            raise UserError(f"{path} has changed since its run finished: train it again, or restore it from a copy")
        return path


def teacher_roles(parents: Mapping[str, Any]) -> list[str]:
    """Which of a run's parents are its teachers: "teacher", and "teacher-2" and so on where there were several."""
    return [role for role in parents if role == "teacher" or role.startswith("teacher-")]


def run_refs(setting: str) -> list[str]:
    """The runs that a setting names: one, or several separated by commas; [""] for the newest.

    Raises:
        UserError: nothing stands beside a comma.
    """
    if Path(setting).exists():  # also one in a folder with a comma in its name
        return [setting]
    refs = [part.strip() for part in setting.split(",")]
    if len(refs) > 1 and not all(refs):
        raise UserError(f'--teacher "{setting}" has a comma without a run beside it: write it as in --teacher 1,2')
    return refs


def _existing(path: Path, child: str) -> Path:
    if not (path / "manifest.json").exists():
        raise UserError(f"{path.name}, which {child} was made from, is gone: restore it, or make {child} again")
    return path


def read_run(path: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: it is none, its manifest is damaged, or a newer tscli wrote it.
    """
    file = path / "manifest.json"
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        schema = _entry(manifest, "schema", int)
        if schema <= SCHEMA:  # a newer one may name them otherwise
            for name, kind in _MANIFEST.items():
                _entry(manifest, name, kind)
            if manifest.get("seed", "") is not None:  # as a comparison's is
                _entry(manifest, "seed", int)
            for parent in manifest["parents"].values():
                _entry(parent, "name", str)
    except FileNotFoundError:
        raise UserError(f"{path} is no run folder: it has no manifest.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged ({error}): restore it, or delete the run") from None
    if schema > SCHEMA:
        raise UserError(f"{path.name} has schema {schema}, this tscli reads up to {SCHEMA}: upgrade tscli")
    return Run(path, manifest)


def _entry(data: Any, name: str, kind: type) -> Any:
    """An entry of a mapping.

    Raises:
        ValueError: it is missing or of another type, or there is no mapping.
    """
    value = data.get(name) if isinstance(data, dict) else None
    if not isinstance(value, kind):
        raise ValueError(f'no "{name}" of type {kind.__name__}')
    return value


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
        if ref == run.name or (ref.isdigit() and int(ref) == run.number):
            return run
    if path.is_dir():
        raise UserError(f"{path} is no run folder: it has no manifest.json")
    if not runs:
        raise UserError(f'no run "{ref}": there are no runs in {runs_dir}; start with `tscli train-teacher cartpole`')
    hint = did_you_mean(ref, [run.name for run in runs])
    if ref.isdigit() or not hint.startswith("did"):
        newest = ", ".join(run.name for run in runs[:-4:-1])
        hint = f"it has {len(runs)}, the newest are {newest}" if len(runs) > 3 else f"it has {newest}"
    raise UserError(f'no run "{ref}" in {runs_dir}: {hint}; `tscli runs` lists all')


def newest_run(
    runs_dir: Path,
    ref: str,
    holds: str,
    flag: str,
    role: str | None = None,
    fits: Callable[[Run], bool] | None = None,
    commands: tuple[str, ...] = (),
) -> Run:
    """The run that `ref` names or, when it is empty, the newest finished one that fits.

    Args:
        runs_dir: where to look.
        ref: path, name, number, or "" for the newest.
        holds: "policy" or "pairs".
        flag: the setting that names such a run, for the error line; "" where it has no flag.
        role: of the policy, "teacher" or "student"; None takes either. A run that trained a teacher together with its
            student counts as a teacher's where it is named, see `Run.teacher_policy`.
        fits: what else the newest one has to be.
        commands: only runs of these commands, where the newest is asked for; empty takes any.

    Raises:
        UserError: none fits, or the named one does not.
    """
    what = f"a {role}'s policy" if role else {"policy": "a policy"}.get(holds, holds)
    named = f"--{flag} {ref}" if flag else f"run {ref}"
    if ref:
        run = find_run(runs_dir, ref)
        has_role = role in (None, run.role) or (role == "teacher" and run.teacher_policy is not None)
        if holds not in run.holds or not has_role:
            raise UserError(f"{named}: {run.name} is a {run.command} run, which does not hold {what}")
        if run.status != FINISHED:
            raise UserError(f"{named}: {run.name} is {run.status}, not finished: resume it first (--resume)")
        return run
    fitting = [r for r in list_runs(runs_dir) if holds in r.holds and r.status == FINISHED]
    fitting = [r for r in fitting if role is None or r.role == role]
    fitting = [r for r in fitting if not commands or r.command in commands]
    fitting = [r for r in fitting if fits is None or fits(r)]
    if not fitting:
        with_flag = f" with --{flag}" if flag else ""
        maker = "tscli distill" if role == "student" else "tscli train-teacher cartpole"
        if holds == "pairs":
            maker = "tscli collect"
        raise UserError(f"no finished run in {runs_dir} holds {what}: run `{maker}` first, or name one{with_flag}")
    return fitting[-1]


def parent_task(runs_dir: Path, command: str, values: dict[str, Any]) -> str | None:
    """The task of the run that a stage without a task of its own would continue from; None when there is none.

    `values` holds what the user has set so far, of which `teacher`, `pairs` and `run` name runs.
    """
    for key in ("run", "pairs", "teacher"):
        if values.get(key):
            refs = run_refs(str(values[key])) if key == "teacher" else [str(values[key])]
            return find_run(runs_dir, refs[0]).task
    role = {"eval": None, "export": None, "finetune": "student"}.get(command, "teacher")
    with contextlib.suppress(UserError):
        return newest_run(runs_dir, "", "policy", "teacher", role).task
    return None


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


@dataclass
class Session:
    """How a stage was called: where runs live, and how to speak to the user."""

    runs_dir: Path = field(default_factory=lambda: Path(os.environ.get("TSCLI_RUNS", "runs")))
    resume: Run | None = None
    quiet: bool = False
    json: bool = False
    log: Console | None = None  # progress and remarks; stderr on the command line
    console: Console | None = None  # results; stdout on the command line
    script: Path | None = None
    sinks: tuple[str, ...] | None = None  # where metrics go besides their file; None: nowhere, or on as before a resume

    def say(self, text: str) -> None:
        """One remark, such as which run was taken."""
        if not self.quiet and self.log is not None:
            self.log.print(text, highlight=False, soft_wrap=True)

    def note(self, text: str) -> None:
        """`say` of a text that others have written, in which brackets are no markup."""
        from rich.markup import escape

        self.say(escape(text))

    def show(self, result: Any, data: Any) -> None:
        """A result on stdout: something that rich can print or, with --json, the same as plain data."""
        if self.json:
            print(json.dumps(data, indent=1))
        elif self.console is not None:
            self.console.print(result)

    def start(
        self,
        config: Config,
        command: str,
        task: str,
        *,
        method: str | None = None,
        role: str | None = None,
        parents: dict[str, Run] | None = None,
        checkpoints: bool = True,
    ) -> RunWriter:
        """Open the run folder, or with `resume` the one to continue. Use it as a context manager.

        Without `checkpoints` Ctrl-C ends the stage at once, since there is none to wait for.
        """
        return RunWriter(self, config, command, task, method, role, parents or {}, checkpoints)

    def progress(self, total: int, unit: str = "steps") -> Progress:
        """A live line on a terminal, plain lines in a pipe, nothing when quiet."""
        from tscli.progress import Progress

        return Progress(None if self.quiet else self.log, total, unit)


class RunWriter:
    """A run in the making. Leaving the `with` block without `finish` marks it stopped or failed."""

    def __init__(
        self,
        session: Session,
        config: Config,
        command: str,
        task: str,
        method: str | None,
        role: str | None,
        parents: dict[str, Run],
        checkpoints: bool,
    ):
        self._session, self._config, self._checkpoints = session, config, checkpoints
        self._stop_asked = False
        self._sinks: Sinks | None = None
        self._old_handlers: dict[int, Any] = {}
        self.state: dict[str, Any] | None = None
        """What the checkpoint held, when this run is resumed."""
        entries = {key: _parent_entry(run, session.runs_dir) for key, run in parents.items()}
        settings = _with_parents(config, entries)
        if session.resume is not None:  # which may be reading its copy of the task's file
            task = str(session.resume.manifest["task"])
            if settings.get("task"):
                settings["task"] = session.resume.config["task"]
        config_hash = _hash(settings)
        self._identity = _hash([command, method, task, config_hash, entries])
        if session.resume is None:
            slug = re.sub(r"[^A-Za-z0-9_.]+", "_", _task_name(task))
            seed = settings.get("seed")
            name = "-".join(filter(None, [command, method, slug, f"seed{seed}" if seed is not None else None]))
            self.path, number = _make_folder(session.runs_dir, name)
            self.manifest = {
                "schema": SCHEMA,
                "number": number,
                "command": command,
                "method": method,
                "task": task,
                "seed": seed,
                "role": role,
                "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "config_hash": config_hash,
                "parents": entries,
                "holds": [],
                "artifacts": {},
                "metrics": {},
                "seconds": 0.0,
            }
        else:
            self.path, self.manifest = session.resume.path, dict(session.resume.manifest)
            if self.manifest["config_hash"] != config_hash:
                raise UserError(f"--resume: the settings of {self.name} have changed since: restore its config.yaml")
            if self.manifest["parents"] != entries:
                raise UserError(f"--resume: a run that {self.name} was made from has changed since: start it anew")
        self._metrics = self.path / "metrics.jsonl"
        self._checkpoint = self.path / "checkpoint.pt"
        self._started = self._last_checkpoint = time.monotonic()
        self._lock = lock_folder(self.path)
        try:
            self._open(settings)
            self._open_sinks(settings)
        except BaseException as error:
            self._lock.close()
            if session.resume is None:  # a full disk: nothing of it is of use
                shutil.rmtree(self.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise UserError(f"cannot write {self.path}: {error.strerror}: free some space") from None
            raise

    def _open(self, settings: dict[str, Any]) -> None:
        """Read the checkpoint, then write what says that the run is being worked on."""
        if self._session.resume is None:
            atomic_write(self.path / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
            self._keep_task_file()
        elif self._checkpoint.exists():
            from tscli.checkpoint import load_state

            self.state = load_state(self._checkpoint)
            if self.state.get("_run") != self._identity:
                raise UserError(f"{self._checkpoint} is another run's: restore it, or start anew without --resume")
            self.manifest["seconds"] = self.state["_seconds"]
        self._truncate_metrics(self.state["_metrics_bytes"] if self.state else 0)
        self._seconds_before = float(self.manifest["seconds"])
        self._log_file = open(self._metrics, "ab")  # noqa: SIM115 - open for the run's life
        self.manifest |= {
            "status": RUNNING,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "versions": _versions(),
            "git_commit": _git_commit(),
        }
        self._write_manifest()

    def _open_sinks(self, settings: dict[str, Any]) -> None:
        wanted = self._session.sinks
        names = tuple(self.manifest.get("sinks", ())) if wanted is None else wanted
        if not names:
            return
        from tscli.sinks import Sinks

        self._sinks = Sinks(names, self.path, settings, self.manifest, self.read_metrics(), self._session.note)
        self._write_manifest()

    def _keep_task_file(self) -> None:
        """Copy the task's YAML file: the run then serves its children wherever they are made and whatever is moved."""
        source = Path(self.manifest["task"])
        if is_yaml(source.name) and source.is_file():
            (self.path / TASK_FOLDER).mkdir()
            atomic_write(self.path / TASK_FOLDER / source.name, source.read_bytes())

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def __enter__(self) -> RunWriter:
        with contextlib.suppress(ValueError):  # signals reach the main thread alone
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old_handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        with contextlib.suppress(OSError):  # a full disk, of which `log` has told
            self._log_file.close()
        if self._sinks is not None:
            self._sinks.close(self.manifest["metrics"], self.manifest["status"] == FINISHED)
        if self.manifest["status"] == RUNNING:
            stopped = kind is not None and issubclass(kind, (Stopped, KeyboardInterrupt))
            self.manifest["status"] = STOPPED if stopped else FAILED
            self.manifest["error"] = None if stopped else (str(error) if error else "ended without a result")
            self.manifest["seconds"] = self._seconds()
            with contextlib.suppress(UserError):  # a full disk: the first error is the one to report
                self._write_manifest()
        self._lock.close()

    def log(self, metrics: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl. Numbers only; NaN and infinity, which JSON lacks, are written as null.

        Raises:
            UserError: the disk is full.
        """
        line = _finite(metrics)
        try:
            self._log_file.write(json.dumps(line).encode() + b"\n")
            self._log_file.flush()
        except OSError as error:
            raise UserError(f"cannot write {self._metrics}: {error.strerror}: free some space, then --resume") from None
        if self._sinks is not None:
            self._sinks.log(line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines logged so far."""
        return [json.loads(line) for line in self._metrics.read_text(encoding="utf-8").splitlines()]

    def fresh_folder(self, name: str) -> Path:
        """A subfolder, emptied: what an earlier attempt left before its first checkpoint cannot be continued."""
        path = self.path / name
        if path.exists():
            shutil.rmtree(path)
        path.mkdir()
        return path

    def save_policy(self, policy: Policy, which: str = "policy") -> None:
        """Write `<which>.safetensors` and note its hash; "policy" is the one that later stages take."""
        from tscli.checkpoint import save_policy_file

        path = self.path / f"{which}.safetensors"
        save_policy_file(path, policy)
        self.manifest["artifacts"][path.name] = file_hash(path)
        if "policy" not in self.manifest["holds"]:
            self.manifest["holds"].append("policy")
        self.manifest["view"] = policy.spec.view.to_json()
        self.manifest["action"] = policy.spec.action.to_json()
        self._write_manifest()

    def save_if_due(self, state: Callable[[], dict[str, Any]], every: float) -> None:
        """At the end of an iteration: write a checkpoint when `every` seconds have passed or the user wants to stop.

        Raises:
            Stopped: after Ctrl-C or SIGTERM, once the checkpoint is safe.
        """
        if self._stop_asked or time.monotonic() - self._last_checkpoint >= every:
            self.checkpoint(state())
        if self._stop_asked:
            raise Stopped(self.name)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Write what `--resume` needs. Metrics logged later are dropped by a resume, which logs them again."""
        from tscli.checkpoint import save_state

        try:
            os.fsync(self._log_file.fileno())
        except OSError as error:
            raise UserError(f"cannot write {self._metrics}: {error.strerror}: free some space, then --resume") from None
        size = self._log_file.tell()
        extra = {"_run": self._identity, "_metrics_bytes": size, "_seconds": self._seconds()}
        save_state(self._checkpoint, {**state, **extra})
        self._last_checkpoint = time.monotonic()

    def finish(self, metrics: dict[str, Any], holds: tuple[str, ...] = (), **details: Any) -> Run:
        """Mark the run finished. `details` go into the manifest."""
        self.manifest |= details
        self.manifest |= {"status": FINISHED, "metrics": _finite(metrics), "seconds": self._seconds()}
        self.manifest["finished"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        self.manifest["holds"] = sorted({*self.manifest["holds"], *holds})
        self.manifest.pop("error", None)
        self._write_manifest()
        self._checkpoint.unlink(missing_ok=True)
        return Run(self.path, self.manifest)

    def _seconds(self) -> float:
        return round(self._seconds_before + time.monotonic() - self._started, 3)

    def _write_manifest(self) -> None:
        atomic_write(self.path / "manifest.json", json.dumps(self.manifest, indent=1))

    def _truncate_metrics(self, size: int) -> None:
        self._metrics.touch()
        os.truncate(self._metrics, min(size, self._metrics.stat().st_size))

    def _on_signal(self, number: int, frame: object) -> None:
        if self._stop_asked or not self._checkpoints:  # the second one does not wait for the iteration
            raise KeyboardInterrupt
        self._stop_asked = True
        self._session.say("stopping after this iteration; once more to stop at once")


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _with_parents(config: Config, parents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings, with the runs that were taken in the place of "the newest".

    A resumed run continues from the same ones, whatever has been made since.
    """
    settings = config.model_dump(mode="json")
    for key, entry in parents.items():
        name = "run" if key == "policy" else key
        if settings.get(name) == "":
            chosen = [parents[role] for role in teacher_roles(parents)] if key == "teacher" else [entry]
            settings[name] = ",".join(one.get("path", one["name"]) for one in chosen)
    if settings.get("pairs") == "" and type(None) in get_args(type(config).model_fields["pairs"].annotation):
        settings["pairs"] = None  # there were none
    return settings


def _finite(metrics: dict[str, Any]) -> dict[str, Any]:
    return {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in metrics.items()}


def _task_name(task: str) -> str:
    return Path(task).stem if is_yaml(task) else task


def _make_folder(runs_dir: Path, name: str) -> tuple[Path, int]:
    """Take the next number. Several processes may do so at once: whoever makes the folder first has it."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with _numbering(runs_dir):
            taken = [int(p.name.split("-")[0]) for p in runs_dir.iterdir() if re.match(r"\d{4,}-", p.name)]
            number = max(taken, default=0) + 1
            path = runs_dir / f"{number:04d}-{name}"
            path.mkdir()
            return path, number
    except OSError as error:
        raise UserError(
            f"cannot create a run in {runs_dir}: {error.strerror}: choose another with --runs-dir"
        ) from None


@contextlib.contextmanager
def _numbering(runs_dir: Path) -> Iterator[None]:
    handle = lock_folder(runs_dir, wait=True)
    try:
        yield
    finally:
        handle.close()


class Lock:
    """An advisory lock on a folder, held until closed or until the process is gone, however it goes."""

    def __init__(self, path: Path, wait: bool = False, shared: bool = False, name: str = ".lock"):
        self._file = open(path / name, "a+b")  # noqa: SIM115 - held for the lock's life
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(self._file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(self._file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            self._file.close()
            raise

    def fileno(self) -> int:
        """What a child process must inherit to hold the lock too, where there is such a thing."""
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()


def lock_folder(path: Path, wait: bool = False, name: str = ".lock") -> Lock:
    """Lock a folder, by a file of that name in it, until the lock is closed.

    Raises:
        UserError: another process has it, and `wait` is False.
    """
    try:
        return Lock(path, wait, name=name)
    except (BlockingIOError, PermissionError):  # the second on Windows
        raise UserError(f"another process is at work in {path.name}: wait for it to end") from None


def _is_locked(path: Path) -> bool:
    if not (path / ".lock").exists():
        return False
    try:
        Lock(path, shared=True).close()  # shared, so that two who look at once do not take each other for the owner
    except OSError:
        return True
    return False


def _parent_entry(run: Run, runs_dir: Path) -> dict[str, Any]:
    entry = {"name": run.name, "sha256": run.manifest.get("artifacts", {}).get("policy.safetensors")}
    # A run that was named by its path may live elsewhere.
    beside = run.path.resolve().parent == runs_dir.resolve()
    return entry if beside else {**entry, "path": str(run.path.resolve())}


def _versions() -> dict[str, str]:
    names = ("tscli", "torch", "numpy", "gymnasium", "h5py")
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _git_commit() -> str | None:
    """Of the checkout that the code runs from; None for an installed wheel."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None

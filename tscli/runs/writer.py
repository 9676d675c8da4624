"""A run in the making: the folder that a stage fills.

Every file is written under a temporary name and renamed; the manifest comes last, so a run that says `finished` is
whole. What is in a folder, and how it is found, is in `tscli.runs.folder`. This module does not import torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml

from tscli import ranks
from tscli.config import Config, UserError, is_yaml
from tscli.files import atomic_write, file_hash
from tscli.runs.folder import (
    FAILED,
    FINISHED,
    RUNNING,
    SCHEMA,
    STOPPED,
    TASK_FOLDER,
    Run,
    last_removed,
    read_run,
    task_stem,
    teacher_roles,
)
from tscli.runs.locks import lock_folder
from tscli.runs.provenance import git_commit, versions
from tscli.runs.seals import Journal, seal

if TYPE_CHECKING:
    from tscli.networks import Policy
    from tscli.runs.session import Session
    from tscli.runs.sinks import Sinks


class Stopped(Exception):  # noqa: N818 - no error: the user asked for it
    """Ctrl-C or SIGTERM: the checkpoint is written, the run can be resumed."""


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
        self._stop_asked = self._best_is_newer = False
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
        # A setting that a later version has come to know is at its default, by which it changes nothing.
        config_hash = _hash(settings if session.resume is None else _within(settings, session.resume.config))
        self._identity = _hash([command, method, task, config_hash, entries])
        if session.resume is None:
            slug = re.sub(r"[^A-Za-z0-9_.]+", "_", task_stem(task))
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
                "created": _now(),
                "config_hash": config_hash,
                "parents": entries,
                "files": {},
                "holds": [],
                "artifacts": {},
                "metrics": {},
                "seconds": 0.0,
            }
        else:
            self.path = session.resume.path
        self._metrics = self.path / "metrics.jsonl"
        self._checkpoint = self.path / "checkpoint.pt"
        self._started = self._last_checkpoint = time.monotonic()
        self._lock = lock_folder(self.path)
        try:
            if session.resume is not None:
                self.manifest = self._taken_up(config_hash, entries)
            self._open(settings)
            self._open_sinks(settings)
        except BaseException as error:
            self._lock.close()
            if session.resume is None:  # a full disk: nothing of it is of use
                shutil.rmtree(self.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise UserError(f"cannot write {self.path}: {error.strerror}: free some space") from None
            raise

    def _taken_up(self, config_hash: str, entries: dict[str, Any]) -> dict[str, Any]:
        """The manifest of the run to resume, read once nobody else can write it any more.

        Raises:
            UserError: it cannot go on with these settings, or a policy is not the one that it wrote.
        """
        manifest = dict(read_run(self.path).manifest)
        if manifest["status"] == FINISHED:
            raise UserError(f"--resume: {self.name} is finished, there is nothing to resume")
        if (began := manifest.get("processes", 1)) != ranks.size():
            raise UserError(f"--resume: {self.name} was begun by {began} processes, not {ranks.size()}: use as many")
        if manifest["config_hash"] != config_hash:
            raise UserError(f"--resume: the settings of {self.name} have changed since: restore its config.yaml")
        if manifest["parents"] != entries:
            raise UserError(f"--resume: a run that {self.name} was made from has changed since: start it anew")
        replaced = manifest.pop("replaced", {})
        for name, sha256 in list(manifest["artifacts"].items()):
            path = self.path / name
            found = file_hash(path) if path.is_file() else None
            if found != sha256 and (name not in replaced or found != replaced[name]):
                raise UserError(f"{path} has changed since the run wrote it: restore it, or start anew")
            if found is not None:
                manifest["artifacts"][name] = found
            else:  # killed before the first one took its place
                del manifest["artifacts"][name]
        return manifest

    def _open(self, settings: dict[str, Any]) -> None:
        """Read the checkpoint, then write what says that the run is being worked on."""
        if self._session.resume is None:
            self._keep("config.yaml", yaml.safe_dump(settings, sort_keys=False).encode())
            self._keep_task_file()
        elif self._checkpoint.exists():
            from tscli.runs.checkpoint import load_state

            self.state = load_state(self._checkpoint)
            if self.state.get("_run") != self._identity:
                raise UserError(f"{self._checkpoint} is another run's: restore it, or start anew without --resume")
            self.manifest["seconds"] = self.state["_seconds"]
        elif self.manifest.get("checkpointed"):
            raise UserError(f"{self._checkpoint} is gone: restore it, or start anew without --resume")
        ranks.agree((self.path, self.state.get("_token", 0) if self.state else 0))  # the others wait for the folder
        logged = self.state or {"_metrics_bytes": 0}
        self._journal = Journal(self._metrics, logged["_metrics_bytes"], logged.get("_metrics_sha256"))
        self._seconds_before = float(self.manifest["seconds"])
        self.manifest |= {"status": RUNNING, "pid": os.getpid(), "host": socket.gethostname()}
        self.manifest |= {"versions": versions(), "git_commit": git_commit()}
        if ranks.size() > 1:
            self.manifest["processes"] = ranks.size()
        self._write_manifest()

    def _open_sinks(self, settings: dict[str, Any]) -> None:
        wanted = self._session.sinks
        names = tuple(self.manifest.get("sinks", ())) if wanted is None else wanted
        if not names:
            return
        from tscli.runs.sinks import Sinks

        self._sinks = Sinks(names, self.path, settings, self.manifest, self.read_metrics(), self._session.note)
        self._write_manifest()

    def _keep_task_file(self) -> None:
        """Copy the task's YAML file: the run then serves its children wherever they are made and whatever is moved."""
        source = Path(self.manifest["task"])
        if is_yaml(source.name) and source.is_file():
            (self.path / TASK_FOLDER).mkdir()
            self._keep(f"{TASK_FOLDER}/{source.name}", source.read_bytes())

    def _keep(self, name: str, data: bytes) -> None:
        """Write a file that stays as it is, and note its hash."""
        atomic_write(self.path / name, data)
        self.manifest["files"][name] = hashlib.sha256(data).hexdigest()

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
            self._journal.close()
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
        with self._telling_of_a_full_disk():
            self._journal.append(json.dumps(line).encode() + b"\n")
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
        from tscli.networks.files import save_policy_file

        path = self.path / f"{which}.safetensors"
        new = path.with_name(f".{path.name}.new")
        save_policy_file(new, policy)
        self._best_is_newer |= which == "policy"
        # The manifest first: after a kill in between, the file is the one that is replaced.
        artifacts = self.manifest["artifacts"]
        self.manifest["replaced"] = self.manifest.get("replaced", {}) | {path.name: artifacts.get(path.name)}
        artifacts[path.name] = file_hash(new)
        if "policy" not in self.manifest["holds"]:
            self.manifest["holds"].append("policy")
        self.manifest["view"] = policy.spec.view.to_json()
        self.manifest["action"] = policy.spec.action.to_json()
        self._write_manifest()
        os.replace(new, path)

    def save_if_due(self, state: Callable[[], dict[str, Any]], every: float, exact: bool = True) -> None:
        """At the end of an iteration: write a checkpoint when `every` seconds have passed or the user wants to stop.

        Args:
            state: makes what is to be kept.
            every: seconds.
            exact: what comes after a checkpoint comes again alike. Where it does not, a new best policy is due for one
                at once: a resumed run would forget how good it was, and overwrite it with a worse one.

        Raises:
            Stopped: after Ctrl-C or SIGTERM, once the checkpoint is safe.
        """
        is_new_best = self._best_is_newer and not exact
        due = self._stop_asked or is_new_best or time.monotonic() - self._last_checkpoint >= every
        stop, due = ranks.most([float(self._stop_asked), float(due)])
        if due:
            self.checkpoint(state())
        if stop:
            raise Stopped(self.name)

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Write what `--resume` needs. Metrics logged later are dropped by a resume, which logs them again."""
        from tscli.runs.checkpoint import save_state

        with self._telling_of_a_full_disk():
            size, sha256 = self._journal.committed()
        extra = {"_run": self._identity, "_metrics_bytes": size, "_metrics_sha256": sha256, "_seconds": self._seconds()}
        if ranks.size() > 1:  # those of the others are named by a token, so that all that is resumed is of one moment
            extra["_token"] = ranks.agree(size)
            ranks.barrier()
        save_state(self._checkpoint, {**state, **extra})
        if not self.manifest.get("checkpointed"):  # without which there is nothing to be lost by starting again
            self.manifest["checkpointed"] = True
            self._write_manifest()
        ranks.barrier()
        self._last_checkpoint, self._best_is_newer = time.monotonic(), False

    def finish(self, metrics: dict[str, Any], holds: tuple[str, ...] = (), **details: Any) -> Run:
        """Mark the run finished. `details` go into the manifest."""
        self.manifest |= details
        self.manifest |= {"status": FINISHED, "metrics": _finite(metrics), "seconds": self._seconds()}
        self.manifest["finished"] = _now()
        self.manifest["holds"] = sorted({*self.manifest["holds"], *holds})
        written = [path for path in (self._metrics, self.path / "report.json") if path.is_file()]
        self.manifest["artifacts"] |= {path.name: file_hash(path) for path in written}
        for name in ("error", "replaced", "checkpointed"):
            self.manifest.pop(name, None)
        self._write_manifest()
        for path in self.path.glob("checkpoint*.pt"):
            path.unlink()
        ranks.barrier()
        return Run(self.path, self.manifest)

    @contextlib.contextmanager
    def _telling_of_a_full_disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self._metrics}: {error.strerror}: free some space, then --resume") from None

    def _seconds(self) -> float:
        return round(self._seconds_before + time.monotonic() - self._started, 3)

    def _write_manifest(self) -> None:
        atomic_write(self.path / "manifest.json", json.dumps(seal(self.manifest), indent=1))

    def _on_signal(self, number: int, frame: object) -> None:
        if self._stop_asked or not self._checkpoints:  # the second one does not wait for the iteration
            raise KeyboardInterrupt
        self._stop_asked = self._session.stop_asked = True
        self._session.say("stopping after this iteration; once more to stop at once")


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _within(settings: dict[str, Any], begun: dict[str, Any]) -> dict[str, Any]:
    """The settings that a run began with, by name, as they are now."""
    return {
        name: _within(value, begun[name]) if isinstance(value, dict) and isinstance(begun[name], dict) else value
        for name, value in settings.items()
        if name in begun
    }


def _with_parents(config: Config, parents: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The settings, with the runs that were taken in the place of "the newest".

    A resumed run continues from the same ones, whatever has been made since.
    """
    settings = config.model_dump(mode="json")
    for key, entry in parents.items():
        name = "run" if key in ("policy", "student") else key
        if settings.get(name) == "":
            chosen = [parents[role] for role in teacher_roles(parents)] if key == "teacher" else [entry]
            settings[name] = ",".join(one.get("path", one["name"]) for one in chosen)
    if settings.get("pairs") == "" and type(None) in get_args(type(config).model_fields["pairs"].annotation):
        settings["pairs"] = None  # there were none
    return settings


def _finite(metrics: dict[str, Any]) -> dict[str, Any]:
    return {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in metrics.items()}


def _make_folder(runs_dir: Path, name: str) -> tuple[Path, int]:
    """Take the next number. Several processes may do so at once: whoever makes the folder first has it."""
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(lock_folder(runs_dir, wait=True)):
            taken = [int(p.name.split("-")[0]) for p in runs_dir.iterdir() if re.match(r"\d{4,9}-", p.name)]
            number = max(last_removed(runs_dir), 0, *taken) + 1
            path = runs_dir / f"{number:04d}-{name}"
            path.mkdir()
            return path, number
    except OSError as error:
        raise UserError(
            f"cannot create a run in {runs_dir}: {error.strerror}: choose another with --runs-dir"
        ) from None


def _parent_entry(run: Run, runs_dir: Path) -> dict[str, Any]:
    entry = {"name": run.name, "sha256": run.manifest.get("artifacts", {}).get("policy.safetensors")}
    # A run that was named by its path may live elsewhere.
    beside = run.path.resolve().parent == runs_dir.resolve()
    return entry if beside else {**entry, "path": str(run.path.resolve())}


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")

"""`tscli pipeline`: all stages of a task in order, in one process, from one description that is checked first."""

from __future__ import annotations

import contextlib
import hashlib
import json as json_module
import shlex
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from rich.markup import escape

from tscli.config import Config, UserError, did_you_mean, is_yaml, one_line
from tscli.files import atomic_write
from tscli.launch.methods import StageCalls
from tscli.launch.scripts import Script, find_script, find_scripts, light_config
from tscli.launch.settings import parse_assignments
from tscli.launch.start import Place, Plan, launch, plan
from tscli.plain import read_json, read_yaml
from tscli.runs import Run, Stopped, find_run, list_runs
from tscli.runs.folder import FINISHED
from tscli.runs.session import Session
from tscli.runs.words import headline, outcome
from tscli.tasks import load_task
from tscli.terminal.progress import short_time
from tscli.terminal.tables import FitTable

STATE = "pipeline.json"  # in the runs folder: how far the newest pipeline is
DEFAULT_STAGES = ["train-teacher", "collect", "distill", {"eval": {"render": "gif", "record": 2}}]


class Description(Config):
    """What a pipeline's YAML file may hold."""

    task: str = Field(description="A task's name, a task's YAML file, or any Gymnasium id.")
    seed: int | None = Field(None, ge=0, description="Seed of every stage.")
    preset: str | None = Field(None, description="One of the task's named sets of settings.")
    stages: StageCalls = Field(min_length=1, description="Commands in order, with settings.")


@dataclass
class Stage:
    """One stage of a pipeline: its script, where its settings stand, and the run that it made."""

    script: Script
    places: list[Place]
    fields: frozenset[str]  # of its config, those that may name a run
    run: Run | None = None
    resume: str | None = None
    after: int = 0  # the newest run's number when it started
    parents: dict[str, str] = field(default_factory=dict)


def describe(what: str) -> tuple[Description, str]:
    """The description behind `what`, as `run_pipeline` takes it, and the name of the place where it stands.

    Raises:
        UserError: None of these, or a file with a mistake.
    """
    if is_yaml(what):
        data = read_yaml(Path(what))
        if isinstance(data, dict) and isinstance(data.get("stages"), list):
            try:
                return Description.model_validate(data), Path(what).name
            except ValidationError as error:
                raise UserError(f"{what}: {one_line(error, Description, prefix='')}") from None
    stages = load_task(what, named=True).pipeline
    values = {"task": what, "stages": DEFAULT_STAGES if stages is None else stages}
    return Description.model_validate(values), "the default pipeline" if stages is None else f"task {what}, pipeline"


def run_pipeline(
    what: str, seed: int | None, assignments: list[str], preset: str | None, resume: bool, session: Session
) -> list[Run]:
    """Run every stage, each from the one before, and write a report.

    Args:
        what: A task's name, a Gymnasium id, a task's YAML file, or a pipeline's.
        seed, preset: None leaves them to the description.
        assignments: `stage.key=value` texts.
        resume: Continue the newest unfinished pipeline.
        session: Where runs live, and how to speak to the user.

    Raises:
        UserError: Any mistake in any stage, before the first one starts.
    """
    description, place = describe(what)
    if preset is not None:
        description = description.model_copy(update={"preset": preset})
    stages = _stages(description, place, seed, parse_assignments(assignments))
    for stage in stages:
        _plan(stage, description, session)
    again = _command(what, seed, assignments, preset)
    state = _State(session.runs_dir / STATE, _fingerprint(description, seed, assignments), again)
    if resume:
        state.read(stages, session)
    _check_films(description, stages)
    names = " > ".join(stage.script.name for stage in stages)
    session.note(f"pipeline {description.task}: {names}")

    started = time.monotonic()
    made: dict[str, str] = {}
    for position, stage in enumerate(stages):
        if stage.run is None:
            stage.parents = {name: run for name, run in made.items() if name in stage.fields}
            if stage.resume is None:
                stage.after = max((run.number for run in list_runs(session.runs_dir)), default=0)
            state.write(stages, "running")
            title = f"[{position + 1}/{len(stages)}] {stage.script.name}"
            session.note(f"\n{title}{f', resuming {stage.resume}' if stage.resume else ''}")
            stage.run = _start(_plan(stage, description, session), session, again)
            session.note(f"wrote {', '.join(filter(None, [str(stage.run.path), outcome(stage.run)]))}")
            if session.stop_asked and stage is not stages[-1]:  # too late for that stage, which has ended
                state.write(stages, "running")
                session.say(f"the pipeline is not finished; to go on: [bold cyan]{escape(again)}[/]")
                raise Stopped(f"after {stage.script.name}")
        else:
            session.note(f"\n[{position + 1}/{len(stages)}] {stage.script.name}: {stage.run.name} is finished already")
        made |= dict.fromkeys(stage.run.offers, stage.run.name)
    state.write(stages, "finished")
    runs = [stage.run for stage in stages if stage.run is not None]
    _report(description, stages, runs, time.monotonic() - started, session)
    return runs


def _stages(description: Description, place: str, seed: int | None, assigned: dict[str, str]) -> list[Stage]:
    """Find every script and hand each its settings; `--seed`, then `--set stage.key=value`, win over the file."""
    scripts = find_scripts()
    stages = []
    for entry in description.stages:
        ((command, written),) = entry.items()
        settings = dict(written)
        method = settings.pop("method", None)
        script = find_script(command, method, scripts)
        places: list[Place] = [(f"{place}, {command}", settings)]
        model = light_config(script)
        fields = frozenset(name for name, field in model.model_fields.items() if field.annotation is str)
        # Stages that need not be told their task inherit it from the run that they continue from.
        if "task" in fields and model.model_fields["task"].is_required():
            places.insert(0, (f"{place}, task", {"task": description.task}))
        if description.seed is not None and "seed" in model.model_fields:
            places.insert(0, (f"{place}, seed", {"seed": description.seed}))
        if seed is not None and "seed" in model.model_fields:
            places.append(("", {"seed": seed}))
        stages.append(Stage(script, places, fields))
    for key, value in assigned.items():
        name, _, setting = key.partition(".")
        chosen = [s for s in stages if name.replace("_", "-") in (s.script.command, s.script.name)]
        if not chosen or not setting:
            hint = did_you_mean(name, {stage.script.command for stage in stages})
            raise UserError(f'--set {key}={value}: write stage.key=value; there is no stage "{name}" here: {hint}')
        for stage in chosen:
            stage.places.append(("--set", {setting: value}))
    return stages


def _plan(stage: Stage, description: Description, session: Session) -> Plan:
    """Validate a stage's settings, with the runs that it continues from once they are known."""
    if stage.resume is not None:
        return plan(stage.script, [], runs_dir=session.runs_dir, resume=stage.resume)
    # What the user names wins over what the stages before have made.
    places: list[Place] = [("the stages before", stage.parents), *stage.places]
    return plan(stage.script, places, runs_dir=session.runs_dir, preset=description.preset, task=description.task)


def _start(what: Plan, session: Session, again: str) -> Run:
    try:
        # With --json the report alone goes to stdout; what the stages print goes to stderr.
        with contextlib.redirect_stdout(sys.stderr) if session.json else contextlib.nullcontext():
            run = launch(what, session)
    except BaseException:
        session.say(f"the pipeline is not finished; to go on: [bold cyan]{escape(again)}[/]")
        raise
    if run is None:
        raise UserError(f"`tscli {what.script.command}` makes no run, so it cannot be a stage of a pipeline")
    return run


def _command(what: str, seed: int | None, assignments: list[str], preset: str | None) -> str:
    """What to type to continue this pipeline."""
    words = ["tscli", "pipeline", what, *(["--seed", str(seed)] if seed is not None else [])]
    words += [*(["--preset", preset] if preset else []), *(word for one in assignments for word in ("--set", one))]
    return shlex.join([*words, "--resume"])


def _fingerprint(description: Description, seed: int | None, assignments: list[str]) -> str:
    content = [description.model_dump(mode="json"), seed, assignments]
    return hashlib.sha256(json_module.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_films(description: Description, stages: list[Stage]) -> None:
    """What the last stage's film needs is looked for before the first stage trains.

    Raises:
        UserError: a package, a program or the screen is missing.
    """
    for stage in stages:
        settings = {key: value for _, values in stage.places for key, value in values.items()}
        render, record = str(settings.get("render", "none")), str(settings.get("record", 0))
        if stage.script.command == "eval" and (render != "none" or record != "0"):
            from tscli.training.setup import film_env

            env = film_env(load_task(description.task), render if render != "none" else "gif")
            if env is not None:
                env.close()


def unfinished(runs_dir: Path) -> str | None:
    """What to type to continue the newest pipeline; None where it is finished, or there is none."""
    try:
        saved = _Saved.model_validate(read_json(runs_dir / STATE))
        return saved.resume if saved.status != "finished" else None
    except (OSError, UserError, ValidationError):
        return None


class _Entry(BaseModel):
    stage: str
    run: str | None
    after: int


class _Saved(BaseModel):
    status: str
    created: str
    resume: str
    fingerprint: str
    stages: list[_Entry]


class _State:
    """How far the newest pipeline is, in a file."""

    def __init__(self, path: Path, fingerprint: str, again: str):
        self._path, self._fingerprint, self._again = path, fingerprint, again
        self._created = datetime.now(timezone.utc).isoformat(timespec="seconds")

    def write(self, stages: list[Stage], status: str) -> None:
        entries = [
            {"stage": s.script.name, "run": s.run.name if s.run is not None else None, "after": s.after} for s in stages
        ]
        content = {"schema": 1, "status": status, "created": self._created, "resume": self._again}
        content["fingerprint"] = self._fingerprint
        self._path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self._path, json_module.dumps({**content, "stages": entries}, indent=1))

    def read(self, stages: list[Stage], session: Session) -> None:
        """Mark the stages that are finished, and the run that the first unfinished one continues.

        Raises:
            UserError: There is no unfinished pipeline here, or it is another one.
        """
        try:
            saved = _Saved.model_validate(read_json(self._path))
        except FileNotFoundError:
            raise UserError(
                f"--resume: there is no pipeline in {session.runs_dir}: start one without --resume"
            ) from None
        except ValidationError as error:
            problem = one_line(error, prefix="")
            raise UserError(f"{self._path} is damaged ({problem}): start anew without --resume") from None
        self._created = saved.created
        if saved.status == "finished":
            raise UserError(f"--resume: the newest pipeline in {session.runs_dir} is finished: start anew without it")
        if saved.fingerprint != self._fingerprint or len(saved.stages) != len(stages):
            raise UserError(
                f"--resume: the unfinished pipeline in {session.runs_dir} has other settings: "
                "give the same task, seed, stages and --set, or start anew without --resume"
            )
        for stage, entry in zip(stages, saved.stages, strict=True):
            stage.after = entry.after
            if not _take_up(stage, entry, session):
                break


def _take_up(stage: Stage, entry: _Entry, session: Session) -> bool:
    """Note what a stage has done before; True if it is finished."""
    if entry.run is not None:
        stage.run = find_run(session.runs_dir, entry.run)
        return True
    # Killed in between: the run is there, though the note about it is not.
    mine = [run for run in list_runs(session.runs_dir) if run.number > stage.after]
    mine = [run for run in mine if (run.command, run.method) == (stage.script.command, stage.script.method)]
    if mine and mine[-1].status == FINISHED:
        stage.run = mine[-1]
        return True
    if mine:
        stage.resume = mine[-1].name
    return False


def _report(description: Description, stages: list[Stage], runs: list[Run], seconds: float, session: Session) -> None:
    """Print what was made and write it beside the last run, as Markdown and JSON."""
    rows = []
    for stage, run in zip(stages, runs, strict=True):
        row = {"stage": stage.script.name, "run": run.name, "seconds": float(run.manifest.get("seconds") or 0)}
        rows.append(row | {"result": headline(run), "metrics": run.metrics})
    seconds = max(seconds, sum(row["seconds"] for row in rows))  # some stages may have been made before a stop
    content = {"task": description.task, "seed": description.seed, "seconds": round(seconds, 1), "stages": rows}
    base = runs[-1].path.with_name(f"{runs[-1].name}.report")
    pictures = [path for run in runs for path in sorted(run.path.iterdir()) if path.suffix in (".gif", ".png", ".mp4")]
    content["pictures"] = [str(path) for path in pictures]
    atomic_write(base.with_name(base.name + ".json"), json_module.dumps(content, indent=1))
    atomic_write(base.with_name(base.name + ".md"), _markdown(description, rows, pictures, base.parent))
    session.show(_table(rows, seconds), content)
    session.note(f"report: {base}.md and .json")
    for path in pictures:
        if path.suffix in (".gif", ".mp4"):
            session.note(f"film:   {path}")


def _table(rows: list[dict[str, Any]], seconds: float) -> FitTable:
    table = FitTable(("run", "stage", "time", "result"), right=("run", "time"), give_way={"stage": 12, "time": 0})
    for row in rows:
        number = str(int(row["run"].partition("-")[0]))
        table.add(f"[bold cyan]{number}[/]", row["stage"], short_time(row["seconds"]), row["result"])
    table.add("", "[dim]all[/]", short_time(seconds), "")
    return table


def _markdown(description: Description, rows: list[dict[str, Any]], pictures: list[Path], base: Path) -> str:
    lines = [f"# Pipeline {description.task}", "", "| stage | run | time | result |", "|---|---|---|---|"]
    lines += [f"| {r['stage']} | {r['run']} | {short_time(r['seconds'])} | {r['result']} |" for r in rows]
    for row in rows:
        numbers = {name: value for name, value in row["metrics"].items() if isinstance(value, (int, float))}
        if numbers:
            lines += ["", f"## {row['stage']}", "", "| metric | value |", "|---|---|"]
            lines += [f"| {name} | {value:.5g} |" for name, value in numbers.items()]
    if pictures:
        lines += ["", "## Pictures", ""]
        lines += [f"![{path.stem}]({path.relative_to(base).as_posix()})" for path in pictures]
    return "\n".join(lines) + "\n"

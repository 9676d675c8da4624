"""Starting a script with settings from wherever they come: the command line, a pipeline, or Python."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tscli import trust
from tscli.config import Config, NetworkConfig, StageConfig, UserError, is_yaml
from tscli.files import file_hash
from tscli.launch.scripts import Script, find_script, light_config, load_script
from tscli.launch.settings import Layer, build_config, make_layer, parse_assignments, stage_layers
from tscli.plain import read_yaml

if TYPE_CHECKING:
    from tscli.networks import Policy
    from tscli.pairs import Pairs
    from tscli.runs import Run
    from tscli.runs.session import Session

# Where settings stand, for an error line, and which they are.
Place = tuple[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Plan:
    """A script and its settings, checked as far as that goes without running it."""

    script: Script
    layers: list[Layer]
    resume: Run | None = None


def default_runs_dir() -> Path:
    """`./runs`, or what the environment variable TSCLI_RUNS says."""
    return Path(os.environ.get("TSCLI_RUNS", "runs"))


def plan(
    script: Script,
    places: Sequence[Place],
    *,
    runs_dir: Path,
    preset: str | None = None,
    resume: str | None = None,
    task: str | None = None,
) -> Plan:
    """Merge all settings of a command and validate them, without loading torch where the script allows.

    Args:
        places: Where settings stand and which they are, the weakest place first; "" stands for flags.
        resume: A run to continue, "" for the newest unfinished one, None to start anew.
        task: The task, where it is known before the runs that it could be inherited from.

    Raises:
        UserError: Unknown or invalid settings, an unknown task or preset, nothing to resume.
    """
    model = light_config(script)
    own = [_with_task_file(make_layer(source, values, model)) for source, values in places]
    if resume is not None:
        return _resumed(script, model, own, preset, runs_dir, resume)
    layers = stage_layers(script, model, own, preset, runs_dir, task)
    _check_code(build_config(model, layers, script.typed), layers)
    return Plan(script, layers)


def _with_task_file(layer: Layer) -> Layer:
    """The layer with the path of a task's file in full: a run is read from other folders than the one it began in."""
    task = layer.values.get("task")
    if not isinstance(task, str) or not is_yaml(task) or not Path(task).is_file():
        return layer
    return replace(layer, values={**layer.values, "task": str(Path(task).absolute())})


def _own_bodies(config: Config) -> dict[str, NetworkConfig]:
    return {name: value for name, value in config if isinstance(value, NetworkConfig) and value.is_own}


def _check_code(config: Config, layers: list[Layer]) -> None:
    """Refuse to run a body's file that a run names, a task that it came with included, and not this user.

    Raises:
        UserError: says which, and what to do.
    """
    for name, network in _own_bodies(config).items():
        given = [(layer, layer.values[name]) for layer in layers if name in layer.values]
        naming = [layer for layer, value in given if not isinstance(value, dict) or "kind" in value]
        if naming and naming[-1].by_user:
            trust.allow(network.sha256)
        elif naming:
            trust.check(network.kind, network.sha256, naming[-1].source)


def given_places(config: Path | None, assignments: list[str], source: str, values: Mapping[str, Any]) -> list[Place]:
    """The places of one call: a settings file, then `--set`, then what was given directly."""
    places: list[Place] = [(config.name, read_yaml(config) or {})] if config is not None else []
    if config is not None and trust.in_run(config):
        _check_settings(config, places[0][1])
    places.append(("--set", parse_assignments(assignments)))
    return [*places, (source, values)]


def _check_settings(file: Path, values: Any) -> None:
    """Refuse code that the settings of a run name, where they are given as a file of settings.

    Raises:
        UserError: says which, and what to do.
    """
    from tscli.tasks import load_task

    task = values.get("task") if isinstance(values, dict) else None
    if task and isinstance(task, str):
        load_task(task)
    for text in trust.texts(values):
        if text.endswith(".py") and Path(text).is_file():
            trust.check(text, file_hash(Path(text)), str(file))


def _resumed(
    script: Script, model: type[Config], own: list[Layer], preset: str | None, runs_dir: Path, ref: str
) -> Plan:
    """The settings of the run to continue. Those that the user gave as well must be the same.

    Raises:
        UserError: Nothing to resume, or a setting that differs.
    """
    from tscli.runs import find_unfinished

    if not issubclass(model, StageConfig):
        raise UserError(f"--resume: `tscli {script.command}` makes no run, so there is nothing to resume")
    if preset is not None:
        raise UserError(f"--preset {preset}: a resumed run keeps its settings, leave --preset out")
    run = find_unfinished(runs_dir, script.command, script.method, ref)
    layer = replace(make_layer(f"{run.name}/config.yaml", run.config, model), by_user=False)
    kept = build_config(model, [layer], script.command)
    wanted = build_config(model, [layer, *own], script.command)
    _check_code(wanted, [layer, *own])
    for name in model.model_fields:
        old, new = getattr(kept, name), getattr(wanted, name)
        if old != new:
            raise UserError(
                f"--resume: a resumed run keeps its settings, and {name} is {old!r} in {run.name}, not {new!r}: "
                "leave it out, or start anew without --resume"
            )
    if layer.values.get("task") and run.task_copy is not None:  # as it was when the run began, or gone since
        layer = replace(layer, values={**layer.values, "task": str(run.task_copy)})
    return Plan(script, [layer], run)


def launch(what: Plan, session: Session) -> Run | None:
    """Load the script, torch and all, and run its `main`."""
    module = load_script(what.script)
    config = build_config(module.Config, what.layers, what.script.command)
    for network in _own_bodies(config).values():
        trust.allow(network.sha256, keep=False)  # also of a run that was made with the same file
    session.resume = what.resume
    session.command, session.method = what.script.command, what.script.method
    return module.main(config, session)


def run(
    command: str,
    *,
    method: str | None = None,
    preset: str | None = None,
    config: str | Path | None = None,
    resume: str | None = None,
    runs_dir: str | Path | None = None,
    log_to: Iterable[str] | None = None,
    quiet: bool = True,
    **settings: Any,
) -> Run:
    """Run a stage from Python, with the same settings and checks as on the command line.

    `tscli.run("distill", method="bc", student="rnn", obs="partial", seed=1)`; nested settings are dicts
    (`student={"kind": "rnn", "memory": 32}`).

    Args:
        command: Such as "train-teacher", or the path of a script of your own.
        method: Of a command that has several.
        preset: Name of one of the task's presets.
        config: A YAML file of settings.
        resume: A run to continue, "" for the newest unfinished one.
        runs_dir: Where runs live; `./runs` or TSCLI_RUNS when left out.
        log_to: Where metrics go besides metrics.jsonl: "tensorboard", "wandb".
        quiet: Say nothing while it works, and show no tables; else a notebook shows them as such.
        **settings: The script's settings.

    Raises:
        UserError: Bad input, in one line.
    """
    from rich.console import Console

    from tscli.runs.session import Session
    from tscli.runs.sinks import parse_sinks

    sinks = None if log_to is None else parse_sinks(log_to)
    where = Path(runs_dir) if runs_dir is not None else default_runs_dir()
    places = given_places(Path(config) if config is not None else None, [], f"tscli.run({command!r})", settings)
    what = plan(find_script(command, method), places, preset=preset, runs_dir=where, resume=resume)
    log, console = (None, None) if quiet else (Console(stderr=True), Console())
    done = launch(what, Session(runs_dir=where, quiet=quiet, log=log, console=console, sinks=sinks))
    if done is None:
        raise UserError(f"`tscli {command}` makes no run: call it on the command line")
    return done


def _as_run(which: Run | str | Path) -> Run:
    from tscli.runs import Run, find_run

    return which if isinstance(which, Run) else find_run(default_runs_dir(), str(which))


def load_policy(which: Run | str | Path, device: str = "cpu", trust: bool = False) -> Policy:
    """The policy that a run holds, ready to act.

    Args:
        which: A run, or its path, folder name or number.
        device: Where its weights go.
        trust: Run the code that came with it, where it has a body of its maker's own.

    Raises:
        UserError: No such run, it holds no policy, the file has changed, or it came with code.
    """
    from tscli.networks.files import load_policy_file

    return load_policy_file(_as_run(which).policy_path(), device, trusted=trust)


def open_pairs(which: Run | str | Path) -> Pairs:
    """The paired dataset that a run holds.

    Args:
        which: A run, or its path, folder name or number; or the path of a pairs folder or of its `dataset.h5`.

    Raises:
        UserError: No such run, it holds no pairs, or a file is damaged.
    """
    from tscli.pairs import Pairs

    if isinstance(which, (str, Path)) and Path(which).exists():
        return Pairs(which)
    return Pairs(_as_run(which).path)

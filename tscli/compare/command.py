"""`tscli compare`: methods x seeds on one task, in parallel processes, with what is finished kept and used again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.markup import escape

from tscli import trust
from tscli.compare.board import Board
from tscli.compare.cells import note_cells
from tscli.compare.crew import CellsStopped, Crew, default_jobs
from tscli.compare.plan import Comparison, Layout, lay_out, parse_seeds
from tscli.config import UserError, is_yaml, one_line
from tscli.launch.methods import choose_methods, known_methods
from tscli.launch.start import default_runs_dir
from tscli.runs import Run, Stopped, find_unfinished, list_runs, read_run
from tscli.runs.seals import content_hash
from tscli.runs.session import Session
from tscli.tasks import Task, load_task
from tscli.terminal.progress import short_count

COMMAND = "compare"


class CellsFailed(Exception):  # noqa: N818 - as `Stopped`: what there is has been reported
    """Some cells failed; the report says which, and is about the others."""


def describe(task: str, methods: str, seeds: str, methods_file: Path | None, settings: Mapping[str, Any]) -> Comparison:
    """A comparison from the words of the command line; of `settings`, None leaves one at its default.

    Raises:
        UserError: an unknown task or method, or a value that cannot be.
    """
    values = {name: value for name, value in settings.items() if value is not None}
    values["task"] = str(Path(task).absolute()) if is_yaml(task) else task
    values["methods"] = choose_methods(methods, known_methods(load_task(task, named=True), methods_file))
    values["methods_file"] = str(methods_file) if methods_file is not None else None
    values["seeds"] = parse_seeds(seeds)
    try:
        comparison = Comparison.model_validate(values)
    except ValidationError as error:
        raise UserError(one_line(error, Comparison)) from None
    for _, sha256 in _files(comparison):
        trust.allow(sha256)
    return comparison


def _files(comparison: Comparison) -> list[tuple[str, str]]:
    """The user's own scripts and bodies that it names, with the hash of all that it says."""
    settings = comparison.model_dump(mode="json")
    return [(text, content_hash(settings)) for text in trust.texts(settings) if ".py" in text]


def find_comparison(wanted: Comparison | None, resume: str | None, session: Session) -> Comparison:
    """What to compare; an unfinished run of it is put into `session.resume`.

    Args:
        wanted: what the command line describes; None takes that of the run to resume.
        resume: a comparison's run to continue, "" for the newest unfinished one; None continues one of the same
            description if there is one.
        session: where runs live.

    Raises:
        UserError: nothing to resume, or it compares something else.
    """
    if resume is None:
        if wanted is None:
            raise UserError(f"TASK is missing: tscli {COMMAND} TASK --methods bc,dagger,sitt")
        for run in list_runs(session.runs_dir):
            if run.command == COMMAND and run.status in ("stopped", "failed") and _described(run) == wanted:
                session.resume = run
        return wanted
    session.resume = find_unfinished(session.runs_dir, COMMAND, None, resume)
    found = _described(session.resume)
    for what, sha256 in _files(found):
        trust.check(what, sha256, session.resume.name)
    if wanted is not None and found != wanted:
        raise UserError(
            f"--resume: {session.resume.name} compares something else: leave out all but --resume to continue it, "
            "or leave out --resume, since finished cells are used again anyway"
        )
    return found


def _described(run: Run) -> Comparison:
    try:
        return Comparison.model_validate(run.config)
    except ValidationError as error:
        raise UserError(f"{run.path / 'config.yaml'}: {one_line(error, Comparison, prefix='')}") from None


def compare(comparison: Comparison, jobs: int | None, session: Session) -> Run:
    """Run every cell that is not finished yet, and write a report.

    Args:
        comparison: what to compare.
        jobs: processes at a time; None takes as many as there are CPUs for.
        session: with `resume` the comparison's run to continue.

    Raises:
        UserError: any mistake in any setting of any method, before the first cell starts.
        CellsFailed: after the report, if cells have failed.
        Stopped: after Ctrl-C or SIGTERM.
    """
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs}: at least 1 process is needed")
    layout = lay_out(comparison, session.runs_dir)
    _check_metric(comparison, layout.task)
    jobs = jobs or default_jobs(layout.cells)
    where = ["--runs-dir", str(session.runs_dir)] if session.runs_dir != default_runs_dir() else []
    command = shlex.join(["tscli", *words(comparison), *where])
    with session.start(comparison, COMMAND, comparison.task, checkpoints=False) as run:
        note_cells(run.path, layout.cells)
        board = Board(None if session.quiet else session.log, jobs)
        sinks = session.sinks
        if sinks is None:  # as before a resume, also for cells that had not begun by then
            sinks = tuple(run.manifest.get("sinks", ())) or None
        crew = Crew(layout.cells, jobs, session.say, board.show, sinks)
        _announce(comparison, layout, crew, jobs, session)
        try:
            with board:
                crew.run()
        except CellsStopped:
            kept = f"{len(crew.finished)} of {len(crew.cells)} cells are finished and kept"
            session.say(f"{kept}; to go on: [bold cyan]{escape(command)}[/]")
            raise Stopped(run.name) from None
        return _finish(comparison, layout, crew, command, run, session)


def _finish(comparison: Comparison, layout: Layout, crew: Crew, command: str, run: Any, session: Session) -> Run:
    """Write and show the report."""
    from tscli.compare import report
    from tscli.compare.results import read_results
    from tscli.report.write import announce_page

    results = read_results(comparison, layout, crew.failed, command)
    files = report.write_files(results, run.path)
    session.show(report.screen_table(results), report.plain(results))
    for note in report.remarks(results):
        session.say(f"[dim]{escape(note)}[/]")
    session.note(f"report: {run.path}: {', '.join(path.name for path in files)}")
    announce_page(read_run(run.path), session)
    if crew.failed:
        for line in report.problems(results):
            session.say(f"[red]failed[/] {escape(line)}")
        logs = [str(cell.log) for cell in crew.cells if cell.key in crew.failed]
        session.note(f"log{'s' if len(logs) > 1 else ''}: {', '.join(logs[:3])}{', ...' if len(logs) > 3 else ''}")
        raise CellsFailed(f"{len(crew.failed)} of {len(crew.cells)} cells failed; the same command tries them again")
    figures = {f"{results.metric.name}/{row.variant.label}": row.estimate.mean for row in results.rows}
    return run.finish(figures, holds=("report",))


def _announce(comparison: Comparison, layout: Layout, crew: Crew, jobs: int, session: Session) -> None:
    labels = list(dict.fromkeys(row.variant.label for row in layout.rows))
    seeds = ",".join(map(str, comparison.seeds))
    session.note(
        f"comparing {len(labels)} x {len(comparison.seeds)} on {layout.task.name}: {len(crew.cells)} cells, "
        f"{crew.reused} of them finished already, {jobs} at a time; seeds {seeds}"
    )
    allowed = {row.variant.label: sum(cell.allowed_steps for cell in row.cells) for row in layout.rows}
    session.note(f"env steps allowed: {', '.join(f'{label} {short_count(n)}' for label, n in allowed.items())}")
    for note in dict.fromkeys(layout.notes):
        session.note(note)


def _check_metric(comparison: Comparison, task: Task) -> None:
    """Only the env knows whether it has successes, so it is made, where they are asked for.

    Raises:
        UserError: it has none.
    """
    if comparison.metric == "success_rate":
        from tscli.envs import make_env

        env = make_env({**task.env, **task.eval_env}, 1)
        env.close()
        if not env.has_success:
            raise UserError(f"--metric success_rate: the env of {task.name} tells no success: choose return")


def words(comparison: Comparison) -> list[str]:
    """What to type behind `tscli` for the same comparison."""
    seeds = ",".join(map(str, comparison.seeds))
    if comparison.seeds == tuple(range(len(comparison.seeds))):
        seeds = str(len(comparison.seeds))
    elif len(comparison.seeds) == 1:
        seeds += ","
    found = [COMMAND, comparison.task, "--methods", ",".join(comparison.methods), "--seeds", seeds]
    for name in ("episodes", "metric", "budget", "preset", "methods_file"):
        value = getattr(comparison, name)
        if value != Comparison.model_fields[name].default:
            found += [f"--{name.replace('_', '-')}", str(value)]
    found += [word for key, value in comparison.assignments.items() for word in ("--set", f"{key}={value}")]
    for key, values in comparison.sweeps.items():
        found += ["--sweep", f"{key}={(';' if any(',' in value for value in values) else ',').join(values)}"]
    return found

"""The commands: one for each script, built when it is called, and tscli's own."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from tscli import ranks
from tscli.cli import pages
from tscli.cli.flags import GENERAL, flags_of, given, parameter
from tscli.cli.words import closest, word_after
from tscli.config import StageConfig, UserError
from tscli.launch.scripts import Script, copy_of, find_script, find_scripts, light_config, methods_of, read_script
from tscli.launch.settings import is_positional
from tscli.launch.start import default_runs_dir, given_places, launch, plan

# Flags that every script command has besides those of its config; the key is the parameter's name, which no setting's
# can be (settings have no leading underscore).
_COMMON = {
    "_config": (Path, "--config", "FILE", "YAML file of settings; flags win over it."),
    "_set": (list[str], "--set", "KEY=VALUE", "One setting, such as student.hidden=64,32; may be repeated."),
    "_runs_dir": (Path, "--runs-dir", "DIR", "Where runs live. [default ./runs, or $TSCLI_RUNS]"),
    "_json": (bool, "--json", None, "Print the result as JSON."),
    "_quiet": (bool, "--quiet", None, "No progress and no remarks."),
    "_trust": (bool, "--trust", None, "Run code that came with a run, such as a body in a file of its maker's own."),
    "_debug": (bool, "--debug", None, "Show tracebacks."),
}
_STAGE_ONLY = {
    "_preset": (str, "--preset", "NAME", "One of the task's named sets of settings."),
    "_resume": (str, "--resume", "[RUN]", "Continue a run, the newest unfinished one when none is named."),
    "_log_to": (list[str], "--log-to", "SINK", "Where metrics go as well: tensorboard, wandb; may be repeated."),
    "_num_processes": (int, "--num-processes", "N", "Processes that train together, each with its share of the envs."),
}


class Page(TyperCommand):
    """A command whose help is our own page."""

    source = ""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the page; nothing is left for the formatter."""
        pages.command_page(ctx, self, self.source)


class Commands(TyperGroup):
    """tscli's own commands, and one for each script that is found."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Scripts in pipeline order, then our own."""
        return list(dict.fromkeys([*(script.command for script in find_scripts()), *super().list_commands(ctx)]))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """One command, with its default method when it has several; None when there is none."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        family = methods_of(cmd_name, find_scripts())
        return script_command(family[0], family) if family else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the words ask for; its flags depend on `--method` and, for `run`, on the file."""
        name, *rest = args
        if name == "run" and rest and not rest[0].startswith("-"):
            script = read_script(Path(rest[0]))
            return f"run {rest[0]}", script_command(script, [script]), rest[1:]
        own = super().get_command(ctx, name)
        if own is not None:
            return name, own, rest
        scripts = find_scripts()
        family = methods_of(name, scripts)
        if not family:
            if ctx.resilient_parsing:
                return None, None, rest
            raise UserError(f'unknown command "{name}": {closest(name, self.list_commands(ctx))}')
        method = word_after("--method", rest) or _resumed_method(family, rest)
        return name, script_command(find_script(name, method, scripts), family), rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The first page."""
        pages.first_page(find_scripts(), None, default_runs_dir())


def _resumed_method(family: list[Script], words: list[str]) -> str | None:
    """With `--resume` and no `--method`, the method is that of the run to continue."""
    ref = word_after("--resume", words)
    if ref is None or len(family) == 1:
        return None
    from tscli.runs import find_unfinished

    runs_dir = word_after("--runs-dir", words)
    return find_unfinished(Path(runs_dir) if runs_dir else default_runs_dir(), family[0].command, None, ref).method


def script_command(script: Script, family: list[Script]) -> Any:
    """The typer command of a script: a flag for each setting, and those that all scripts share."""
    model = light_config(script)
    flags = flags_of(model, script.command)
    common = {**(_STAGE_ONLY if issubclass(model, StageConfig) else {}), **_COMMON}
    taken = {option for _, option, _, _ in common.values()} | {"--method", "--help"}
    for flag in flags:
        if flag.option in taken:
            raise UserError(f'{script.path}: a setting cannot be called "{flag.path[0]}", every command has that flag')
    methods = [member.method for member in family if member.method]

    # A stage that goes on from a teacher takes it without a flag, as those that go on from any run do.
    from_teacher = ("teacher",) in [flag.path for flag in flags] and not any(
        is_positional(flag.field) for flag in flags
    )

    def call(**values: Any) -> None:
        settings = given(flags, values)
        if values.get("_run"):
            if "teacher" in settings:
                raise UserError(f"{values['_run']} and --teacher {settings['teacher']} are two teachers: give one")
            settings["teacher"] = values["_run"]
        _run_script(script, settings, values)

    parameters = [parameter(flag) for flag in flags]
    if len(methods) > 1:
        text = f"{' '.join(f'{member.method}: {member.about}' for member in family)} [default {methods[0]}]"
        parameters.insert(0, _option("_method", str, "--method", "|".join(map(str, methods)), text, script.command))
    if from_teacher:
        argument = typer.Argument(metavar="RUN", help="The same as --teacher.", show_default=False)
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters.append(inspect.Parameter("_run", kind, default=None, annotation=Annotated[str | None, argument]))
    for name, (kind, option, metavar, text) in common.items():
        parameters.append(_option(name, kind, option, metavar, text, GENERAL))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    source = f"Source: {script.path}\nA copy to change: tscli cp {script.name} mine.py"
    page = type("ScriptPage", (Page,), {"source": source, "method": script.method if len(methods) > 1 else None})
    single = typer.Typer(add_completion=False)
    single.command(script.command, cls=page, help=_about(script))(call)
    return typer.main.get_command(single)


def _option(name: str, kind: Any, option: str, metavar: str | None, text: str, panel: str) -> inspect.Parameter:
    info = typer.Option(option, metavar=metavar, help=text, rich_help_panel=panel, show_default=False)
    default = False if kind is bool else None
    annotation = Annotated[kind if kind is bool else kind | None, info]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _about(script: Script) -> str:
    """The script's docstring up to the second blank line: its headline and what it does."""
    import ast

    text = ast.get_docstring(ast.parse(script.path.read_text(encoding="utf-8"))) or ""
    return "\n\n".join(text.split("\n\n")[:2])


def _run_script(script: Script, settings: dict[str, Any], values: dict[str, Any]) -> None:
    runs_dir = values["_runs_dir"] or default_runs_dir()
    places = given_places(values["_config"], values["_set"] or [], "", settings)
    resume, preset = values.get("_resume"), values.get("_preset")
    alone = ranks.rank() == 0  # of several processes one speaks
    calling = session(runs_dir, quiet=values["_quiet"] or not alone, json=values["_json"], log_to=values.get("_log_to"))
    what = plan(script, places, preset=preset, runs_dir=runs_dir, resume=resume)
    made = launch(what, calling)
    if made is not None:
        if alone and calling.json and "report" not in made.holds:  # a report has been shown by its script
            from tscli.cli.show import run_data

            calling.show(None, run_data(made))
        calling.say(pages.closing_words(made))


def session(runs_dir: Path, quiet: bool, json: bool, log_to: list[str] | None = None) -> Any:
    """How stages speak when called from the command line: results on stdout, progress and remarks on stderr.

    Raises:
        UserError: `log_to` names an unknown sink, or one whose package is missing.
    """
    from tscli.runs.session import Session
    from tscli.runs.sinks import parse_sinks

    sinks = parse_sinks(log_to) if log_to else None
    if quiet:  # Gymnasium's remarks go through the standard library
        warnings.filterwarnings("ignore", message=r"(\x1b\[\d+m)*(WARN|DEPRECATED)")
    log = pages.console(stderr=True)
    return Session(runs_dir, quiet=quiet, json=json, console=pages.console(), log=log, sinks=sinks)


RunsDir = Annotated[Path | None, typer.Option(metavar="DIR", help="Where runs live. [default ./runs, or $TSCLI_RUNS]")]
LogTo = Annotated[list[str] | None, typer.Option("--log-to", metavar="SINK", help=_STAGE_ONLY["_log_to"][-1])]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
Preset = Annotated[str | None, typer.Option(metavar="NAME", help=_STAGE_ONLY["_preset"][-1])]
Quiet = Annotated[bool, typer.Option("--quiet", help=_COMMON["_quiet"][-1])]
Trust = Annotated[bool, typer.Option("--trust", help=_COMMON["_trust"][-1])]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]

app = typer.Typer(cls=Commands, add_completion=True, invoke_without_command=True)


@app.callback()
def _root(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    debug: Debug = False,
) -> None:
    if version:
        import tscli

        print(f"tscli {tscli.__version__}")
    elif ctx.invoked_subcommand is None:
        pages.first_page(find_scripts(), None, default_runs_dir())


@app.command(cls=Page)
def tasks(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="A task, a YAML file, or a Gymnasium id.")
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """The tasks: environments, their views and sizes."""
    from tscli.cli import show

    show.tasks(name, json)


@app.command(cls=Page)
def runs(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN]", help="A run's number, name or path; or rm RUN ..., or note RUN TEXT."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="rm: remove without asking.")] = False,
    force: Annotated[bool, typer.Option("--force", help="rm: also what other runs were made from.")] = False,
    runs_dir: RunsDir = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """The runs so far and what each was made from.

    `tscli runs rm 3 4` removes runs, and asks first; `tscli runs note 3 the one for the talk` keeps a line beside a
    run, which is shown here.
    """
    from tscli.cli import manage, show

    where = runs_dir or default_runs_dir()
    first, rest = (words or [None])[0], (words or [])[1:]
    if first == "rm":
        for removed in manage.remove(where, rest, yes, force):
            print(f"removed {removed.path}")
    elif first == "note":
        noted = manage.note(where, rest)
        print(f"{noted.name}: {noted.note or 'no note'}")
    elif rest:
        raise UserError(f"tscli runs shows one run, or all: {first} {' '.join(rest)} are several")
    else:
        show.runs(where, first, json)


@app.command(cls=Page)
def cp(
    script: Annotated[str, typer.Argument(metavar="SCRIPT", help="Such as train-teacher or distill-bc.")],
    dest: Annotated[Path, typer.Argument(metavar="DEST.py", help="The new file, or a folder.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    debug: Debug = False,
) -> None:
    """Copy a script, to change it into your own."""
    source = find_script(script)
    if dest.is_dir():
        dest = dest / source.path.name
    if dest.suffix != ".py":
        raise UserError(f"{dest} does not end in .py: name the copy like mine.py")
    if dest.exists() and not force:
        raise UserError(f"{dest} exists: choose another name, or --force to overwrite it")
    if dest.exists() and dest.samefile(source.path):
        raise UserError(f"{dest} is the script itself: choose another name")
    try:
        dest.write_text(copy_of(source), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {dest}: {error.strerror}") from None
    print(f"copied {source.name} to {dest}")
    print(f"next: change it, then `tscli run {dest}`; `tscli run {dest} --help` shows its flags")


@app.command("run", cls=Page)
def run_file(
    file: Annotated[str, typer.Argument(metavar="FILE.py", help="The script; its own flags follow it.")],
    debug: Debug = False,
) -> None:
    """Run a script of your own with flags like the others.

    `tscli run mine.py --help` shows its flags. `tscli cp train-teacher mine.py` gives you one to start from.
    """
    raise UserError(f"write the file before its flags: tscli run {file} ...")


@app.command(cls=Page)
def doctor(runs_dir: RunsDir = None, json: Json = False, debug: Debug = False) -> None:
    """Check this machine and this installation."""
    from tscli.cli.doctor import check

    check(runs_dir or default_runs_dir(), json)


@app.command(cls=Page)
def pipeline(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task, or a YAML file of a task or a pipeline.")],
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of every stage.")] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="STAGE.KEY=VALUE", help="One setting of one stage; may be repeated."),
    ] = None,
    preset: Preset = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue this task's unfinished pipeline; give its settings again.")
    ] = False,
    log_to: LogTo = None,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """All stages of a task in order, from one validated description.

    Every setting of every stage is checked before the first one starts. A file holds `task`, `seed` and `stages`, a
    list such as [train-teacher: {total_steps: 100000}, collect, distill: {method: dagger, student: rnn}, eval].
    """
    from tscli.launch.pipeline import run_pipeline
    from tscli.report.write import announce_page

    calling = session(runs_dir or default_runs_dir(), quiet, json, log_to)
    made = run_pipeline(task, seed, assignments or [], preset, resume, calling)
    announce_page(made[-1], calling)


@app.command(cls=Page)
def compare(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="A task, a YAML file, or a Gymnasium id.")] = None,
    methods: Annotated[
        str | None, typer.Option(metavar="A,B", help="What to compare. [default bc,dagger,no-align,sitt]")
    ] = None,
    seeds: Annotated[str | None, typer.Option(metavar="N", help="5 means 0 to 4; 3,4,7 are these. [default 5]")] = None,
    budget: Annotated[
        int | None, typer.Option(metavar="N", help="Env steps that reinforcement learning may take in every method.")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE.KEY=V,V", help="Values to try for a setting; repeated: all combinations."),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="STAGE.KEY=VALUE", help="One setting; may be repeated.")
    ] = None,
    preset: Preset = None,
    methods_file: Annotated[Path | None, typer.Option(metavar="FILE", help="YAML file of methods of your own.")] = None,
    episodes: Annotated[
        int | None, typer.Option(metavar="N", help="Episodes that measure each policy at the end. [default 500]")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(metavar="CHOICE", help="The figure to compare. [default auto; or success_rate, return, length]"),
    ] = None,
    jobs: Annotated[int | None, typer.Option(metavar="N", help="Processes at a time. [default one per CPU]")] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="[RUN]", help="Continue the newest unfinished comparison, or this."),
    ] = None,
    log_to: LogTo = None,
    runs_dir: RunsDir = None,
    json: Json = False,
    quiet: Quiet = False,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Methods x seeds on one task, in parallel, with a table and pictures.

    Every cell of the grid is a run in runs/cells. Cells that are finished are used again, by the same command after a
    stop and by every other comparison; so 5 seeds can follow 3, and a sweep a comparison. A method is a list of stages
    with settings: bc, dagger, no-align, sitt, asymmetric, and those of your own file.
    """
    from tscli.compare.command import CellsFailed, describe, find_comparison
    from tscli.compare.command import compare as run_comparison
    from tscli.compare.plan import parse_sweep
    from tscli.launch.settings import parse_assignments

    wanted, given = None, {"budget": budget, "preset": preset, "episodes": episodes, "metric": metric}
    given |= {"sweeps": parse_sweep(sweep or []), "assignments": parse_assignments(assignments or [])}
    if task is not None:
        wanted = describe(task, methods or "bc,dagger,no-align,sitt", seeds or "5", methods_file, given)
    elif any((methods, seeds, methods_file, *given.values())):  # which would change nothing of the one to resume
        raise UserError("TASK is missing: give it with the settings, or --resume without any of them")
    calling = session(runs_dir or default_runs_dir(), quiet, json, log_to)
    try:
        made = run_comparison(find_comparison(wanted, resume, calling), jobs, calling)
    except CellsFailed as error:
        calling.say(f"[red]{error}[/]")
        raise typer.Exit(1) from None
    calling.say(pages.closing_words(made))

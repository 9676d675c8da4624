"""What the command line shows: the first page, the help of a command, and what to run next."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from tscli.launch.scripts import Script
    from tscli.runs import Run

_FROM_ELSEWHERE = ("merge", "convert")  # whose pairs are of any teacher, and which begin anew after a stop
TAGLINE = "a teacher that sees everything, a student that sees what the robot will see"
OWN_COMMANDS = {
    "pipeline": "All stages of a task in order, from one validated description.",
    "compare": "Methods x seeds on one task, in parallel, with a table and pictures.",
    "tasks": "The tasks: environments, their views and sizes.",
    "runs": "The runs so far and what each was made from.",
    "cp": "Copy a script, to change it into your own.",
    "run": "Run a script of your own with flags like the others.",
    "doctor": "Check this machine and this installation.",
}


def console(stderr: bool = False) -> Console:
    """A rich console that is readable in a pipe too: never wider than 110 columns."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return Console(stderr=stderr, highlight=False, width=min(found.width, 110) if found.is_terminal else 110)


def first_page(scripts: list[Script], runs: list[Run] | None, runs_dir: Path) -> None:
    """Print what there is to type, in pipeline order; with `runs`, also where the user stands."""
    from rich.markup import escape
    from rich.table import Table

    out = console()
    out.print(f"\n[bold]tscli[/]  [dim]{TAGLINE}[/]\n")
    groups: dict[str, list[tuple[str, str]]] = {}
    for script in scripts:
        if script.method is None or script.default_method:
            methods = [s.method for s in scripts if s.command == script.command and s.method]
            about = f"{script.about} [dim]--method {'|'.join(methods)}[/]" if len(methods) > 1 else escape(script.about)
            groups.setdefault(script.folder, []).append((script.command, about))
    groups["around them"] = list(OWN_COMMANDS.items())
    width = max(len(name) for rows in groups.values() for name, _ in rows)
    for title, rows in groups.items():
        table = Table.grid(padding=(0, 2))
        table.add_column(width=width + 2, style="bold cyan", no_wrap=True)
        table.add_column()
        for name, about in rows:
            table.add_row(f"  {name}", about)
        out.print(f"[bold]{title}[/]")
        out.print(table)
        out.print()
    out.print("[dim]Options of a command: tscli COMMAND --help. Shell completion: tscli --install-completion.[/]")
    if runs is not None:
        _where_you_stand(out, runs, runs_dir)
    out.print()


def _where_you_stand(out: Console, runs: list[Run], runs_dir: Path) -> None:
    from rich.markup import escape
    from rich.table import Table

    from tscli.runs.watching import trend
    from tscli.runs.words import headline, made_by

    if runs:
        out.print(f"\n[bold]newest runs in {runs_dir}[/]")
        table = Table.grid(padding=(0, 2))
        for run in runs[-4:]:
            about = (made_by(run), escape(run.task_name), status_text(run), f"[cyan]{trend(run)}[/]", headline(run))
            table.add_row(f"  {run.number}", *about)
        out.print(table)
    out.print(f"\nNext: [bold cyan]{escape(next_step(runs))}[/]")


def closing_words(run: Run) -> str:
    """What a command says at its end: what it wrote, and what to run next."""
    from rich.markup import escape

    from tscli.runs import list_runs
    from tscli.runs.words import outcome

    result, command = outcome(run), next_step(list_runs(run.path.parent), run)
    return f"wrote {escape(str(run.path))}{f', {result}' if result else ''}\nnext: [bold cyan]{escape(command)}[/]"


def status_text(run: Run) -> str:
    """The run's status, coloured."""
    style = {"finished": "green", "running": "yellow", "stopped": "yellow", "failed": "red"}.get(run.status, "")
    return f"[{style}]{run.status}[/]" if style else run.status


def next_step(runs: list[Run], after: Run | None = None) -> str:
    """The command that continues from what there is, or from one run; it names the run where it would take another."""
    if after is None and runs and runs[-1].status in ("stopped", "failed") and runs[-1].command not in _FROM_ELSEWHERE:
        from tscli.launch.pipeline import unfinished

        return unfinished(runs[-1].path.parent) or f"tscli {runs[-1].command} --resume"
    if after is None and runs and runs[-1].status == "running":
        return "tscli watch"
    finished = [run for run in runs if run.status == "finished"]
    newest = after or (finished[-1] if finished else None)
    if newest is None:
        return "tscli train-teacher cartpole"
    if "policy.onnx" in newest.manifest["artifacts"]:
        examples = (Path("examples/run_exported.py"), Path(__file__).parents[2] / "examples/run_exported.py")
        runner = next((path for path in examples if path.is_file()), None)  # which comes with the source alone
        return f"python {runner} {newest.path / 'policy.onnx'}" if runner else "tscli report"
    return f"tscli {_following(newest, newest.name != finished[-1].name)}{_elsewhere(newest)}"


def _following(run: Run, is_named: bool) -> str:
    """What comes after a run; `is_named` where a stage that is told nothing would go on from another one."""
    if run.manifest.get("next"):  # the run itself knows best
        return str(run.manifest["next"])
    number = f" {run.number}" if is_named else ""
    if run.command == "train-teacher" and run.config.get("latent_size"):
        return f"distill --method latent{' --teacher' + number if number else ''}"
    if "policy" in run.holds and run.role == "teacher":
        return f"collect --teacher{number}" if number else "collect"
    if "policy" in run.holds:  # DAgger's student brings the pairs that it gathered: they come second
        return f"eval{number} --render gif"
    if "pairs" not in run.holds:
        return f"runs {run.number}"
    if run.command not in _FROM_ELSEWHERE:
        return f"distill{' --pairs' + number if number else ''}{_body(run.task)}"
    # Of whatever teacher; where that is not here, its labels are.
    if "teacher" in run.manifest["parents"]:
        return f"distill --pairs {run.number}{_body(run.task)}"
    return f"distill --method bc --pairs {run.number} --loss cross_entropy"


def _body(task: str) -> str:
    """The body of a student, where it sees less than its teacher and the task has no settings for it."""
    from tscli.config import UserError, is_yaml
    from tscli.tasks import load_task, task_names

    with contextlib.suppress(UserError):
        found = load_task(task) if is_yaml(task) or task in task_names() else None  # others: all see the same
        if found is not None and found.student != found.teacher and "distill" not in found.stages:
            return " --student rnn"
    return ""


def _elsewhere(run: Run) -> str:
    from tscli.launch.start import default_runs_dir

    where = run.path.parent
    is_default = where.absolute() == default_runs_dir().absolute()
    return "" if is_default else f" --runs-dir {shlex.quote(str(where))}"


def command_page(ctx: Any, command: Any, source: str = "") -> None:
    """Print a command's help: usage, what it does, its arguments, and its options in panels."""
    from rich.text import Text

    out = console()
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    usage = " ".join([ctx.command_path, *(param.metavar or param.name.upper() for param in arguments), "[options]"])
    out.print(Text(f"\n{usage}", style="bold"))
    for paragraph in (command.help or "").strip().split("\n\n"):
        out.print(Text("\n" + re.sub(r"\s*\n\s*", " ", paragraph)))
    panels: dict[str, list[Any]] = {}
    for param in command.params:
        if not getattr(param, "hidden", False):
            default = "arguments" if param.param_type_name == "argument" else "options"
            panels.setdefault(getattr(param, "rich_help_panel", None) or default, []).append(param)
    rows = {title: [(_spelling(param), param.help or "") for param in params] for title, params in panels.items()}
    width = min(34, max((len(name) for panel in rows.values() for name, _ in panel), default=0))
    for title, panel in rows.items():
        _panel(out, title, panel, width)
    if source:
        out.print(Text(f"\n{source}", style="dim"))
    out.print()


def _panel(out: Console, title: str, rows: list[tuple[str, str]], width: int) -> None:
    from rich.table import Table
    from rich.text import Text

    out.print(f"\n[bold]{title}[/]")
    table = Table.grid(padding=(0, 2))
    table.add_column(width=width + 2)
    table.add_column()
    for name, text in rows:
        flag, _, value = name.partition(" ")
        match = re.fullmatch(r"(.*?)\s*(\[[^\[\]]*\])?", text, re.DOTALL)
        body, facts = match.groups() if match else (text, None)
        table.add_row(
            Text.assemble("  ", (flag, "bold cyan"), " " if value else "", (value, "yellow")),
            Text.assemble(body, " " if body and facts else "", (facts or "", "dim")),
        )
    out.print(table)


def _spelling(param: Any) -> str:
    """`--lr X`, `--[no-]anneal-lr`, `TASK`."""
    if param.param_type_name == "argument":
        return param.metavar or param.name.upper()
    if param.secondary_opts:
        return f"--[no-]{param.opts[0][2:]}"
    names = ", ".join(sorted(param.opts, key=len))
    return names if getattr(param, "is_flag", False) else f"{names} {param.metavar or 'TEXT'}"

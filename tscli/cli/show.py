"""`tscli tasks` and `tscli runs`: what there is to train on, and what has been trained."""

from __future__ import annotations

import json as json_module
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tscli.cli.pages import console, next_step, status_text
from tscli.config import UserError, is_yaml
from tscli.config.base import flat
from tscli.launch.settings import check_stages
from tscli.runs import Run, find_run, list_runs
from tscli.runs.watching import trend
from tscli.runs.words import headline, made_by
from tscli.tasks import Task, load_task, task_names
from tscli.terminal.progress import short_time
from tscli.terminal.tables import NARROW_GAP, FitTable


def tasks(name: str | None, as_json: bool) -> None:
    """Print all tasks that come with tscli, or one in detail.

    Raises:
        UserError: There is no such task, or its file or its views are wrong.
    """
    chosen = [load_task(name, named=True)] if name else [load_task(each) for each in task_names()]
    if name and is_yaml(name):
        check_stages(chosen[0])
    if as_json:
        described = [_describe(task) if name else _describe_or_say(task) for task in chosen]
        print(json_module.dumps(described[0] if name else described, indent=2))
        return
    out = console()
    if name:
        _task_page(out, chosen[0], name)
    else:
        _task_table(out, chosen)


def _describe(task: Task) -> dict[str, Any]:
    """A task with the sizes of its groups and views, which only its env knows."""
    from tscli.envs import make_env
    from tscli.envs.views import resolve_view

    with warnings.catch_warnings():  # of models that others wrote
        warnings.simplefilter("ignore")
        env = make_env(task.env, 1)
    try:
        views = {name: resolve_view(name, parts, env.groups, env.action) for name, parts in task.views.items()}
        groups = {
            name: {"shape": list(group.shape), "fields": list(group.fields), "about": group.about}
            | {"units": list(group.units), "privileged": group.privileged}
            for name, group in env.groups.items()
        }
        action = env.action.to_json()
    finally:
        env.close()
    sizes = {
        name: {"size": view.vector_size, "images": {group: list(shape) for group, shape in view.images.items()}}
        | {"parts": [_part_text(part) for part in task.views[name]]}
        for name, view in views.items()
    }
    found = {"name": task.name, "about": task.about, "env": task.env, "action": action, "groups": groups}
    return found | {"views": sizes, **{key: getattr(task, key) for key in ("teacher", "student", "stages", "presets")}}


def _describe_or_say(task: Task) -> dict[str, Any]:
    """One of many: where a package for it is not installed the others are shown all the same."""
    try:
        return _describe(task)
    except UserError as error:
        return {"name": task.name, "about": task.about, "env": task.env, "missing": str(error)}


def _part_text(part: Any) -> str:
    index = f"[{', '.join(part.index)}]" if part.index else ""
    extras = [f"{name} {value:g}" for name in ("noise", "delay", "dropout") if (value := getattr(part, name))]
    return f"{part.group}{index}" + (f" ({', '.join(extras)})" if extras else "")


def _task_table(out: Console, chosen: list[Task]) -> None:
    titles = ("task", "env", "teacher", "student", "views (size)")
    table = FitTable(titles, give_way={"env": 0, "teacher": 0, "student": 0})
    for task in chosen:
        described = _describe_or_say(task)
        views = ", ".join(f"{name} ({_size(view)})" for name, view in described.get("views", {}).items())
        if "missing" in described:
            views = described["missing"]
        table.add(f"[bold cyan]{task.name}[/]", str(task.env["kind"]), task.teacher, task.student, views)
    out.print()
    out.print(table)
    out.print("\nAny Gymnasium id is a task too (tscli train-teacher Pendulum-v1), and so is your own YAML file.")
    out.print("[dim]One task in detail: tscli tasks NAME[/]\n")


def _size(view: dict[str, Any]) -> str:
    images = [f"{group} {'x'.join(map(str, shape))}" for group, shape in view["images"].items()]
    return " + ".join(([str(view["size"])] if view["size"] else []) + images)


def _task_page(out: Console, task: Task, given: str) -> None:
    described = _describe(task)
    out.print(f"\n[bold cyan]{task.name}[/]  {escape(task.about)}\n")
    table = Table.grid(padding=(0, 2))
    settings = ", ".join(f"{key} {value}" for key, value in task.env.items() if key != "kind")
    table.add_row("env", f"{task.env['kind']}{' (' + settings + ')' if settings else ''}")
    table.add_row("action", _action_text(described["action"]))
    for name, group in described["groups"].items():
        shape = "x".join(map(str, group["shape"]))
        text = f"{name} \\[{shape}] {', '.join(group['fields'])}"
        table.add_row("group", text + (" [yellow]privileged[/]" if group["privileged"] else ""))
    for name, view in described["views"].items():
        roles = [role for role in ("teacher", "student") if described[role] == name]
        mark = f"  [green]{' and '.join(roles)}[/]" if roles else ""
        table.add_row("view", f"[bold]{name}[/] ({_size(view)}): {escape(' + '.join(view['parts']))}{mark}")
    for name, stages in (("settings", task.stages), *((f"preset {key}", value) for key, value in task.presets.items())):
        for command, settings in stages.items():
            words = ", ".join(f"{key} {_value(value)}" for key, value in flat(settings).items())
            table.add_row(name, f"{command}: {escape(words)}")
    out.print(table)
    out.print(f"\nNext: [bold cyan]tscli train-teacher {escape(given)}[/]\n")


def _action_text(action: dict[str, Any]) -> str:
    names = f": {', '.join(action['names'])}" if action["names"] else ""
    if action["kind"] == "continuous":
        sides = [f"{_bound(low)} to {_bound(high)}" for low, high in zip(action["low"], action["high"], strict=True)]
        return f"continuous, {len(sides)} ({', '.join(dict.fromkeys(sides))}){names}"
    return f"{action['kind'].replace('_', '-')}, {' x '.join(map(str, action['nvec']))}{names}"


def _bound(value: float | None) -> str:
    return "unbounded" if value is None else f"{value:g}"


def runs(runs_dir: Path, ref: str | None, as_json: bool) -> None:
    """Print all runs as a tree of what was made from what, or one in detail.

    Raises:
        UserError: There is no such run.
    """
    if ref is not None:
        run = find_run(runs_dir, ref)
        if as_json:
            print(json_module.dumps(run_data(run) | {"config": run.config, "files": _files(run)}, indent=2))
        else:
            _run_page(console(), run)
        return
    found = list_runs(runs_dir)
    if as_json:
        print(json_module.dumps([run_data(run) for run in found], indent=2))
        return
    out = console()
    if not found:
        out.print(f"There are no runs in {runs_dir} yet.\nNext: [bold cyan]{escape(next_step(found))}[/]")
        return
    _run_tree(out, found)


def run_data(run: Run) -> dict[str, Any]:
    """A run as plain data."""
    names = ("number", "name", "path", "command", "method", "task", "seed", "status", "holds", "role", "parents")
    found = {name: getattr(run, name) for name in (*names, "created", "metrics", "note")}
    return found | {"path": str(run.path), "holds": list(run.holds)}


def _run_tree(out: Console, found: list[Run]) -> None:
    titles = ("run", "task", "seed", "return", "result", "took", "when")
    give_way = {"took": 0, "return": 0, "task": 10, "when": 0, "run": 20}
    table = FitTable(titles, right=("seed", "took"), give_way=give_way, gap=NARROW_GAP)
    for guide, run in lineage(found):
        # A run that is finished has its result to say so.
        result = (headline(run) if run.status == "finished" else "") or status_text(run)
        result += f"  [dim]{escape(run.note)}[/]" if run.note else ""
        took = short_time(float(run.manifest.get("seconds") or 0))
        seed = "" if run.seed is None else str(run.seed)
        cells = (escape(run.task_name), seed, f"[cyan]{trend(run)}[/]", result, took, age(run.created))
        table.add(f"[dim]{guide}[/][bold cyan]{run.number}[/] {made_by(run)}", *cells)
    out.print()
    out.print(table)
    out.print(f"\nNext: [bold cyan]{escape(next_step(found))}[/]   [dim]One run in detail: tscli runs NUMBER[/]\n")


def lineage(found: list[Run]) -> list[tuple[str, Run]]:
    """Runs in tree order, each with the lines that lead to it.

    A run stands under its newest parent that is there; runs without one are roots.
    """
    by_name = {run.name: run for run in found}
    children: dict[str | None, list[Run]] = {}
    for run in found:
        parents = [by_name[name] for name in run.parents if name in by_name]
        newest = max(parents, key=lambda parent: parent.number).name if parents else None
        children.setdefault(newest, []).append(run)
    rows: list[tuple[str, Run]] = []

    def add(run: Run, lead: str, is_last: bool, depth: int) -> None:
        rows.append((lead + ("" if depth == 0 else "└─ " if is_last else "├─ "), run))
        below = children.get(run.name, [])
        for child in below:
            deeper = lead + ("" if depth == 0 else "   " if is_last else "│  ")
            add(child, deeper, child is below[-1], depth + 1)

    for root in children.get(None, []):
        add(root, "", True, 0)
    return rows


def age(created: str) -> str:
    """How long ago that was."""
    try:
        then = datetime.fromisoformat(created)
    except ValueError:
        return created
    if then.tzinfo is None:
        then = then.replace(tzinfo=timezone.utc)
    seconds = (datetime.now(timezone.utc) - then).total_seconds()
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit} ago" if seconds < 14 * 86400 else created[:10]
    return f"{max(seconds, 0):.0f}s ago"


def _files(run: Run) -> dict[str, int]:
    paths = sorted(path for path in run.path.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(run.path).as_posix(): path.stat().st_size for path in paths}


def _run_page(out: Console, run: Run) -> None:
    method = f" --method {run.method}" if run.method else ""
    out.print(f"\n[bold cyan]{run.name}[/]  {status_text(run)}  [dim]{escape(str(run.path))}[/]")
    if run.manifest.get("error"):
        out.print(f"[red]{escape(str(run.manifest['error']))}[/]")
    seed = "" if run.seed is None else f", seed {run.seed}"
    table = Table.grid(padding=(0, 2))
    table.add_row("made by", f"tscli {run.command}{method}, task {escape(run.task)}{seed}")
    table.add_row("when", f"{run.created} ({age(run.created)}), {short_time(float(run.manifest.get('seconds') or 0))}")
    table.add_row("made from", ", ".join(run.parents) or "nothing")
    if run.note:
        table.add_row("note", escape(run.note))
    table.add_row("holds", ", ".join(run.holds) or "nothing")
    out.print(table)
    files = {name: _bytes(size) for name, size in _files(run).items()}
    for title, rows in (("metrics", run.metrics), ("settings", flat(run.config)), ("files", files)):
        if rows:
            out.print(f"\n[bold]{title}[/]")
            table = Table.grid(padding=(0, 2))
            for name, value in rows.items():
                table.add_row(f"  {name}", escape(_value(value)))
            out.print(table)
    out.print()


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return "none" if value is None else str(value) if not isinstance(value, dict) else json_module.dumps(value)


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"

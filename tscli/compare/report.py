"""What a comparison leaves behind: a table on the screen and as Markdown, the figures as JSON and CSV, and pictures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tscli.compare import pictures
from tscli.compare.results import (
    IQM_FROM,
    METRICS,
    Metric,
    Outcome,
    Results,
    Summary,
    digits_of,
    env_steps,
    measures_table,
)
from tscli.files import atomic_write
from tscli.terminal.progress import short_count, short_time
from tscli.terminal.tables import FitTable, interval

# --- the table --------------------------------------------------------------------------------------------------------

Column = tuple[str, Callable[[Summary], str]]


def _columns(results: Results) -> list[Column]:
    """Titles and cells. Columns that would be empty are left out."""
    metric, digits = results.metric, results.digits

    def text(value: float | None) -> str:
        return metric.text(value, digits)

    def spread(row: Summary) -> str:
        sd = f" ± {text(row.estimate.sd)}" if row.estimate.count > 1 else ""
        return f"{text(row.estimate.mean)}{sd}" if row.estimate.count else "-"

    columns: list[Column] = [
        ("method", lambda row: row.variant.label),
        ("seeds", _seeds),
        (f"{metric.heading}{' [%]' if metric.percent else ''}", spread),
        ("95 % interval", lambda r: interval(r.estimate.low, r.estimate.high, text) if r.estimate.count > 1 else "-"),
        ("each seed", lambda row: ", ".join(text(outcome.student[metric.name]) for outcome in row.finished) or "-"),
    ]
    if any(row.iqm is not None for row in results.rows):
        columns.append(("IQM", lambda row: text(row.iqm)))
    if any(row.teacher is not None for row in results.rows):
        columns.append(("teacher", lambda row: text(row.teacher)))
        columns.append(("gap", lambda row: text(row.gap)))
    if metric.name != "return":
        decimals = digits_of([row.mean_return for row in results.rows])
        columns.append(("return", lambda row: METRICS["return"].text(row.mean_return, decimals)))
    if results.layout.task.teacher_env:
        columns.append(
            ("trains in", lambda row: ", ".join(dict.fromkeys(place for _, place in results.trains_in(row.variant))))
        )
    columns.append(("env steps", lambda row: short_count(row.env_steps) if row.finished else "-"))
    if any(row.frames > 0 for row in results.rows):
        columns.append(("frames", lambda row: short_count(row.frames) if row.finished else "-"))
    columns.append(("allowed", lambda row: short_count(row.allowed_steps) if row.allowed_steps else "-"))
    columns.append(("time", lambda row: short_time(row.seconds) if row.finished else "-"))
    return columns


def _seeds(row: Summary) -> str:
    done, asked = len(row.finished), len(row.outcomes)
    return str(done) if done == asked else f"{done} of {asked}"


def screen_table(results: Results) -> FitTable:
    """For the terminal: columns give way where it is narrow, the figure last."""
    columns = _columns(results)
    titles = [title for title, _ in columns]
    droppable = ["allowed", "time", "IQM", "gap", "frames", "env steps", "trains in", "each seed", "teacher", "seeds"]
    if results.metric.name != "return":
        droppable.insert(0, "return")
    table = FitTable(
        titles,
        right=titles[1:],
        give_way={title: 0 for title in droppable if title in titles},
        title=f"{results.title} over {results.comparison.episodes} episodes, mean ± sd of the seeds",
    )
    for row in results.rows:
        cells = [cell(row) for _, cell in columns]
        table.add(f"[bold cyan]{cells[0]}[/]", *cells[1:2], f"[bold]{cells[2]}[/]", *cells[3:])
    return table


# One sentence on what the interval is, of shares and of other figures; the coverages are simulated in the tests.
SHARES = (
    "The 95 % interval is for the mean of all seeds that might have been taken, Clopper and Pearson's for seeds that "
    "succeed or fail as a whole, and so covers it in 95 % of comparisons or more, whatever the seeds are like: 3 of 3 "
    "that succeed leave room down to 29 %, 10 of 10 down to 69 %."
)
FIGURES = (
    "The 95 % interval is for the mean of all seeds that might have been taken, by Student's t, and covers it in 95 % "
    "of comparisons where seeds are normally distributed, from 2 seeds on (in 88 to 91 % where they are as skewed as "
    "an exponential distribution); seeds that are all alike say nothing of their spread."
)


def explanations(results: Results) -> list[str]:
    """What the columns mean."""
    comparison, metric = results.comparison, results.metric
    notes = [
        f"{metric.heading.capitalize()} of the greedy policy over {comparison.episodes} episodes per seed: the same "
        "episodes for every method of a seed, and others than those by which a run chose the policy that it kept.",
        f"Mean ± standard deviation over seeds. {SHARES if metric.percent else FIGURES}",
    ]
    if any(row.iqm is not None for row in results.rows):
        notes.append(f"IQM: mean of the middle half of the seeds (Agarwal et al. 2021), from {IQM_FROM} seeds on.")
    if any(row.teacher is not None for row in results.rows):
        notes.append("Teacher: on the same episodes. Gap: teacher less student.")
    if results.layout.task.teacher_env:
        notes.append(
            "Trains in: sections of the task's file, stage by stage under Methods. teacher_env may be easier than env, "
            "in which students train; teacher and student that share their steps share env."
        )
    notes.append(
        "Env steps: taken to train teacher and student and to collect, mean over seeds; those of evaluations are not "
        "counted. Allowed: the sum of total_steps of the stages that have it; a stage rounds it up to whole "
        "iterations, and stops before it where it has reached its goal."
    )
    if any(row.frames > 0 for row in results.rows):
        notes.append("Frames: pictures that were taken to train and to collect, counted as env steps are.")
    return [*notes, "Time: of all stages of one seed, one after the other, as measured beside the other processes."]


def remarks(results: Results) -> list[str]:
    """What is particular about these figures."""
    notes = []
    missing = [outcome for outcome in results.found if not outcome.student]
    if missing:
        notes.append(f"Not in: {len(missing)} of {len(results.found)}. Figures are over the seeds that are in.")
    allowed = {row.allowed_steps for row in results.rows}
    if len(allowed) > 1:
        with_budget = results.comparison.budget is not None
        more = "the budget is of reinforcement learning alone" if with_budget else "--budget N sets those of RL"
        notes.append(f"Env steps allowed differ between methods ({more}); those that collect takes come beside them.")
    cells = results.layout.cells
    over = [cell.title for cell in cells if env_steps(cell.finished_run()) > 1.1 * cell.allowed_steps > 0]
    if over:
        more = f" and {len(over) - 1} more" if len(over) > 1 else ""
        notes.append(f"More env steps than allowed: {over[0]}{more}. One iteration takes num_envs x rollout_steps.")
    versions = _versions(results)
    if len(versions) > 1:
        notes.append(f"Cells were made with different versions: {'; '.join(versions)}.")
    return notes + list(dict.fromkeys(results.layout.notes))


def _versions(results: Results) -> list[str]:
    runs = [run for cell in results.layout.cells if (run := cell.finished_run()) is not None]
    named = [{k: run.manifest.get("versions", {}).get(k) for k in ("tscli", "torch", "python")} for run in runs]
    return sorted({", ".join(f"{name} {version}" for name, version in each.items() if version) for each in named})


def problems(results: Results) -> list[str]:
    """One line for every chain that failed."""
    failed = [outcome for outcome in results.found if not outcome.student and outcome.problem != "unfinished"]
    return list(dict.fromkeys(f"{outcome.row.variant.label}, {outcome.problem}" for outcome in failed))


# --- files ------------------------------------------------------------------------------------------------------------


def write_files(results: Results, folder: Path) -> list[Path]:
    """Write everything into the comparison's run folder.

    Raises:
        UserError: the disk is full.
    """
    drawn = list(pictures.draw(results, folder))
    atomic_write(folder / "results.json", json.dumps(plain(results), indent=1))
    atomic_write(folder / "results.csv", _csv(results))
    atomic_write(folder / "table.md", _markdown(results, drawn))
    return [folder / "table.md", folder / "results.json", folder / "results.csv", *drawn]


def _markdown(results: Results, pictures: Sequence[Path]) -> str:
    columns = _columns(results)
    lines = [f"# {results.title}", "", f"    {results.command}", ""]
    lines += _markdown_table(
        [title for title, _ in columns], [[cell(row) for _, cell in columns] for row in results.rows]
    )
    lines += ["", *(f"- {note}" for note in (*remarks(results), *explanations(results)))]
    lines += ["", *(f"![{path.stem}]({path.name})" for path in pictures)]
    lines += ["", "## Methods", "", "| method | stages | trains in | |", "|---|---|---|---|"]
    for name, method in results.comparison.methods.items():
        stages = ", ".join(_stage_text(stage) for stage in method.stages)
        variant = next(row.variant for row in results.rows if row.variant.method == name)
        places = ", ".join(f"{stage}: {place}" for stage, place in results.trains_in(variant))
        lines.append(f"| {name} | {stages} | {places} | {method.about} |")
    titles, measured = measures_table([_plain_row(row, results) for row in results.rows])
    if measured:
        lines += ["", "## What the env measures", "", *_markdown_table(titles, measured, words=2)]
    failures = problems(results)
    if failures:
        lines += ["", "## Failed", "", *(f"- {line}" for line in failures)]
    return "\n".join(lines) + "\n"


def _markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Lines of a table; all columns but the first ones, which hold words, are flush right."""
    rule = f"|{'---|' * words}{'---:|' * (len(titles) - words)}"
    return [f"| {' | '.join(titles)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]


def _stage_text(stage: dict[str, dict[str, Any]]) -> str:
    ((command, settings),) = stage.items()
    command = Path(command).name
    return f"{command} ({', '.join(f'{k} {v}' for k, v in settings.items())})" if settings else command


def plain(results: Results) -> dict[str, Any]:
    """All figures as plain data; figures that are missing are null."""
    return {
        "schema": 1,
        "task": results.layout.task.name,
        "command": results.command,
        "metric": results.metric.name,
        "episodes": results.comparison.episodes,
        "seeds": list(results.comparison.seeds),
        "rows": [_plain_row(row, results) for row in results.rows],
        "outcomes": [_plain_outcome(outcome, results.metric) for outcome in results.found],
        "notes": [*remarks(results), *explanations(results)],
        "failed": problems(results),
    }


def _plain_row(row: Summary, results: Results) -> dict[str, Any]:
    done = bool(row.estimate.count)
    return {
        "label": row.variant.label,
        "method": row.variant.method,
        "swept": row.variant.swept,
        "seeds_in": len(row.finished),
        "mean": row.estimate.mean if done else None,
        "sd": row.estimate.sd if row.estimate.count > 1 else None,
        "values": [outcome.student[results.metric.name] for outcome in row.finished],
        "measures": _plain_measures(row),
        "interval": [row.estimate.low, row.estimate.high] if row.estimate.count > 1 else None,
        "iqm": row.iqm,
        "teacher": row.teacher,
        "gap": row.gap,
        "return": row.mean_return if done else None,
        "trains_in": results.trains_in(row.variant),
        "env_steps": row.env_steps if done else None,
        "frames": row.frames if done else None,
        "allowed_steps": row.allowed_steps or None,
        "seconds": row.seconds if done else None,
    }


def _plain_measures(row: Summary) -> dict[str, dict[str, list[float]]]:
    """What the env measures of the student, and of its teacher, by name: a figure for each seed."""
    found: dict[str, dict[str, list[float]]] = {}
    for outcome in row.finished:
        for who, measures in outcome.measures.items():
            for name, value in measures.items():
                found.setdefault(who, {}).setdefault(name, []).append(value)
    return found


def _plain_outcome(outcome: Outcome, metric: Metric) -> dict[str, Any]:
    """One line of the CSV file."""
    row: dict[str, Any] = {"method": outcome.row.variant.method, "seed": outcome.row.seed}
    row |= outcome.row.variant.swept | {name: outcome.student.get(name) for name in METRICS}
    row |= {f"teacher_{name}": outcome.teacher.get(name) for name in METRICS}
    row |= {"gap": outcome.gap(metric.name), **outcome.extra}
    row |= outcome.measures.get("student", {})
    row |= {f"teacher_{name}": value for name, value in outcome.measures.get("teacher", {}).items()}
    row |= {"env_steps": outcome.env_steps, "frames": outcome.frames}
    row |= {"allowed_steps": sum(cell.allowed_steps for cell in outcome.row.cells)}
    row |= {"seconds": round(outcome.seconds, 3), "problem": outcome.problem}
    for cell in outcome.row.cells:
        run = cell.run()
        row[f"{cell.script.command} cell"] = str(run.path) if run is not None else str(cell.folder)
    return row


def _csv(results: Results) -> str:
    rows = [_plain_outcome(outcome, results.metric) for outcome in results.found]
    names = list(dict.fromkeys(name for row in rows for name in row))
    # Cells' paths last, whatever the order in which methods have named them.
    names = sorted(names, key=lambda name: name.endswith(" cell"))
    buffer = io.StringIO(newline="")
    writer = csv.DictWriter(buffer, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()

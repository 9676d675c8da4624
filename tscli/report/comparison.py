"""The page of a comparison: its table, curves, every seed, performance profiles, and links to its cells' pages."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tscli.compare.results import METRICS, Metric, digits_of, mean_curve, measures_table, run_curves
from tscli.config import UserError
from tscli.learning import statistics
from tscli.plain import read_json
from tscli.report.charts import Bar, Series, curves, intervals
from tscli.report.markup import Html, facts, grid, join, page, picture, section, table, tag
from tscli.report.story import story_of
from tscli.runs import Run, read_run
from tscli.tasks import load_task
from tscli.terminal.progress import short_count, short_time
from tscli.terminal.tables import interval

RESULTS = "results.json"


def comparison_page(run: Run, alone: bool = False) -> str:
    """The page of a comparison, from the figures in its folder and the runs of its cells.

    Args:
        run: the comparison.
        alone: without links to the pages of its cells, for a page that lies elsewhere.

    Raises:
        UserError: it has written no figures yet.
    """
    try:
        data = read_json(run.path / RESULTS)
    except FileNotFoundError:
        raise UserError(
            f"{run.name} has no {RESULTS}: continue it with `tscli compare --resume {run.number}`"
        ) from None
    metric = METRICS[data["metric"]]
    for row in data["rows"]:  # which an earlier version's rows lack
        row.setdefault("values", [outcome[metric.name] for outcome in _outcomes(data, row)])
    measured = {row["label"]: list(_measured(run, data, row)) for row in data["rows"]}
    sweep = run.path / "sweep.png"
    versions = ", ".join(f"{name} {value}" for name, value in run.manifest.get("versions", {}).items())
    return page(
        f"{run.name}: tscli",
        tag("h1", f"{data['task']}: {' beside '.join(row['label'] for row in data['rows'])}"),
        tag("p", _sentence(data, metric), class_="lead"),
        tag("p", run.note, class_="note") if run.note else "",
        _what_it_is(run, data),
        section("The figures", _table(data, metric), _charts(data, metric)),
        section("What the env measures", _measures(data)),
        section("How it was learnt", _curves(data["rows"], measured, metric)),
        section(
            "The sweep",
            picture(sweep, "Mean over seeds and 95 % interval; teachers dashed.") if sweep.is_file() else "",
        ),
        section("Where they go", _visits(measured)),
        section("Every cell", _cells(run, data["rows"], measured, metric, alone)),
        section("Failed", tag("ul", *(tag("li", line) for line in data["failed"])) if data["failed"] else ""),
        section("What the columns mean", tag("ul", *(tag("li", note) for note in data["notes"]))),
        section("Again", tag("pre", data["command"]), facts([("began", run.created), ("versions", versions)])),
    )


def _measured(run: Run, data: dict[str, Any], row: dict[str, Any]) -> Iterable[tuple[dict[str, Any], Run]]:
    """The outcomes of a row that are in, each with the run that measured it."""
    for outcome in _outcomes(data, row):
        written = [Path(value) for name, value in outcome.items() if name.endswith(" cell")]
        # Where the comparison lies now: it may have been moved.
        last = run.path.parent.joinpath("cells", *written[-1].parts[-2:])
        if (last / "manifest.json").is_file():
            yield outcome, read_run(last)


def _outcomes(data: dict[str, Any], row: dict[str, Any]) -> list[dict[str, Any]]:
    """What came of a row's seeds, of those that are in."""
    wanted = {"method": row["method"], **row["swept"]}
    return [one for one in data["outcomes"] if not one["problem"] and all(one.get(k) == v for k, v in wanted.items())]


def _sentence(data: dict[str, Any], metric: Metric) -> Html:
    done = [row for row in data["rows"] if row["mean"] is not None]
    if not done:
        return Html("No cell is finished.")
    digits = digits_of([row["mean"] for row in done])
    best = max(done, key=lambda row: row["mean"])
    equal = [row["label"] for row in done if row["mean"] == best["mean"]]
    reached = f"{metric.text(best['mean'], digits)}{' %' if metric.percent else ''}"
    seeds, share = len(data["seeds"]), " %" if metric.percent else ""
    runs = f"with {seeds} seeds each" if seeds > 1 else "with one seed"
    text = f"{len(data['rows'])} methods {runs}, {data['episodes']} episodes per policy. "
    if len(equal) == len(done) > 1:
        return join([text, f"All of them have the same mean {metric.heading}, {reached}."])
    if len(equal) > 1:
        text += f"{', '.join(equal)} have the highest mean {metric.heading}, {reached}"
    else:
        text += f"{best['label']} has the highest mean {metric.heading}, {reached}"
    rest = sorted((row for row in done if row["label"] not in equal), key=lambda row: -row["mean"])
    if rest:
        text += (
            f", before {', '.join(row['label'] + ' with ' + metric.text(row['mean'], digits) + share for row in rest)}"
        )
    rivals = [row["label"] for row in rest if _overlap(row, best)]
    if len(equal) == 1 and rest and best["interval"]:
        text += (
            f"; its interval overlaps with that of {', '.join(rivals)}, which more seeds would narrow"
            if rivals
            else "; no other interval overlaps"
        )
    gaps = [f"{row['label']}'s by {metric.text(row['gap'], digits)}{share}" for row in done if row["gap"] is not None]
    if gaps:
        text += f". Students fall short of their teachers: {', '.join(gaps)}"
    return join([text, "."])


def _what_it_is(run: Run, data: dict[str, Any]) -> Html:
    """The task and each method in a sentence."""
    rows: list[tuple[object, object]] = []
    with contextlib.suppress(UserError):
        rows.append((data["task"], load_task(run.task).about))
    with contextlib.suppress(UserError):
        methods = run.config.get("methods", {})
        rows += [(name, method["about"]) for name, method in methods.items() if method.get("about")]
    return facts(rows) if rows else Html()


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if not one["interval"] or not other["interval"]:
        return True
    return one["interval"][1] >= other["interval"][0] and other["interval"][1] >= one["interval"][0]


def _table(data: dict[str, Any], metric: Metric) -> Html:
    digits = digits_of([row["mean"] for row in data["rows"] if row["mean"] is not None])

    def text(value: float | None) -> str:
        return metric.text(value, digits)

    rows = []
    for row in data["rows"]:
        spread = f" ± {text(row['sd'])}" if row["sd"] is not None else ""
        cells = [tag("b", row["label"]), f"{row['seeds_in']} of {len(data['seeds'])}", f"{text(row['mean'])}{spread}"]
        bounds = row["interval"]
        cells.append(interval(bounds[0], bounds[1], text) if bounds else "-")
        cells += [text(row["iqm"]), text(row["teacher"]), text(row["gap"])]
        cells.append(METRICS["return"].text(row["return"], digits_of([row["return"] or 0.0])))
        cells.append(short_count(row["env_steps"]) if row["env_steps"] is not None else "-")
        cells.append(short_count(row["frames"]) if row.get("frames") else "-")
        cells.append(short_time(row["seconds"]) if row["seconds"] is not None else "-")
        rows.append(cells)
    heading = f"{metric.heading}{' [%]' if metric.percent else ''}"
    titles = [
        "method",
        "seeds",
        heading,
        "95 % interval",
        "IQM",
        "teacher",
        "gap",
        "return",
        "env steps",
        "frames",
        "time",
    ]
    kept = [i for i in range(len(titles)) if i < 4 or any(cells[i] != "-" for cells in rows)]
    return table([titles[i] for i in kept], [[cells[i] for i in kept] for cells in rows], "figures")


def _measures(data: dict[str, Any]) -> Html:
    titles, lines = measures_table(data["rows"])
    return table(titles, [[tag("b", label), *cells] for label, *cells in lines], "figures") if lines else Html()


def _charts(data: dict[str, Any], metric: Metric) -> Html:
    bars, profiles = [], []
    scale, unit = (100.0, " [%]") if metric.percent else (1.0, "")
    done = [(i, row) for i, row in enumerate(data["rows"]) if row["values"]]
    every = sorted({scale * value for _, row in done for value in row["values"]})
    if not every:
        return Html()
    for i, row in done:
        low, high = row["interval"] or (row["mean"], row["mean"])
        values = [scale * value for value in row["values"]]
        bars.append(Bar(row["label"], scale * row["mean"], scale * low, scale * high, i, values))
        profiles.append(_profile(row["label"], values, i, [0.0, *every, scale] if metric.percent else every))
    note = "Share of seeds that reach more than a figure, with pointwise 95 % intervals (Agarwal et al. 2021)."
    charts = [
        intervals(f"{metric.heading}{unit}, mean and 95 % interval", metric.heading + unit, bars, "A dot is a seed."),
        curves("performance profiles", metric.heading + unit, profiles, (0.0, 1.0)),
    ]
    return join([grid(*charts), tag("p", note, class_="intro")])


def _profile(label: str, values: Sequence[float], colour: int, every: Sequence[float]) -> Series:
    """Share of seeds above each figure, which falls where one of the seeds stands."""
    at = np.unique(np.concatenate([np.linspace(every[0], every[-1], 60), every]))
    above = np.array([[value > level for level in at] for value in values], dtype=np.float64)
    band = statistics.share_curve(above)
    return Series(label, at.tolist(), band.value.tolist(), colour, band.low.tolist(), band.high.tolist())


def _curves(
    rows: Sequence[dict[str, Any]], measured: dict[str, list[tuple[dict[str, Any], Run]]], metric: Metric
) -> Html:
    scale, unit = (100.0, " [%]") if metric.percent else (1.0, "")
    students: list[Series] = []
    teachers: list[Series] = []
    for i, row in enumerate(rows):
        found = [
            run_curves([one for one in story_of(run).chain if one.command != "eval"], outcome[metric.name], metric)
            for outcome, run in measured[row["label"]]
        ]
        for lines, part, dashed in ((students, 0, False), (teachers, 1, True)):
            whole = [curve for pair in found if (curve := pair[part]) is not None]
            if whole:
                x, band = mean_curve(whole, metric)
                low, high = ((scale * np.nan_to_num(side)).tolist() for side in (band.low, band.high))
                value = (scale * band.value).tolist()
                lines.append(Series(row["label"], x.tolist(), value, i, low, high, dashed))
    bounds = (0.0, scale) if metric.percent else None
    label = "env steps, the teacher's included"
    charts = [
        curves(f"student: {metric.heading}{unit}", label, students, bounds),
        curves(f"its teacher: {metric.heading}{unit}", label, teachers, bounds),
    ]
    return grid(*charts) if any(charts) else Html()


def _visits(measured: dict[str, list[tuple[dict[str, Any], Run]]]) -> Html:
    """The map of each method's first seed, where the env has one."""
    first = {label: found[0] for label, found in measured.items() if found}
    drawn = [
        picture(cell.path / "visits.png", f"{label}, seed {outcome['seed']}")
        for label, (outcome, cell) in first.items()
        if (cell.path / "visits.png").is_file()
    ]
    return tag("div", *drawn, class_="grid wide") if drawn else Html()


def _cells(
    run: Run,
    rows: Sequence[dict[str, Any]],
    measured: dict[str, list[tuple[dict[str, Any], Run]]],
    metric: Metric,
    alone: bool,
) -> Html:
    lines = []
    for row in rows:
        figures: list[Html] = []
        for outcome, cell in measured[row["label"]]:
            words = f"seed {outcome['seed']}"
            linked = words if alone else tag("a", words, href=_link(run, cell))
            figures.append(join([", " if figures else "", linked, f": {metric.text(outcome[metric.name])}"]))
        if figures:
            lines.append([tag("b", row["label"]), join(figures)])
    title = "its seeds" if alone else "pages of its seeds, which lie beside this one"
    return table(["method", title], lines, "wrap") if lines else Html()


def _link(run: Run, cell: Run) -> str:
    return Path(os.path.relpath(cell.path / "report.html", run.path)).as_posix()


def measured_runs(run: Run) -> list[Run]:
    """The runs that a comparison's page links to."""
    data = read_json(run.path / RESULTS)
    return [cell for row in data["rows"] for _, cell in _measured(run, data, row)]

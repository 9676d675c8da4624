"""What a search has found: tables for the screen and as Markdown, plain data, and one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.markup import escape

from tscli.diagnose.probe import HISTORY
from tscli.files import atomic_write
from tscli.sensors.bearing import Bearing
from tscli.sensors.results import Results
from tscli.sensors.search import Measured, Scale
from tscli.sensors.sets import Candidate
from tscli.terminal.tables import FitTable, decimals, interval

if TYPE_CHECKING:
    from rich.console import Group

SCHEMA = 1
RESULTS = "sensors.json"
NOTHING = 0.1  # of the gain over random actions: what is left of a policy that does not work
_UNITS = {"noise": "sd", "delay": "steps", "dropout": "%"}


# --- sentences --------------------------------------------------------------------------------------------------------


def of(candidate: Candidate) -> str:
    """`state[angle] with memory`."""
    return f"{candidate.names} with{'' if candidate.memory else 'out'} memory"


def result_line(candidate: Candidate, measured: Measured, scale: Scale) -> str:
    """`state[angle] with memory: return 312.0, 61 % of what the teacher gains over random actions`."""
    value = _text(measured.mean, scale)
    gain = _percent(scale.share(measured.mean))
    return f"{escape(of(candidate))}: return {value}, {gain} of what the teacher gains over random actions"


def sentence(results: Results) -> str:
    """What was found, in one sentence."""
    text = "; ".join(_clause(results, one) for one in results.full)
    return f"{text[:1].upper()}{text[1:]}."


def _clause(results: Results, full: Candidate) -> str:
    mode, number = results.mode(full), len(results.sensors)
    top = f"{results.found[full].mean:.{_digits(results.scale)}f}"
    if results.is_hopeless(full):
        return f"{mode} students reach {top} even with all sensors, too little to tell (try longer distillations)"
    chosen = next(one for one in results.kept if one.memory == full.memory)
    value = f"{results.found[chosen].mean:.{_digits(results.scale)}f}"
    verb = "is" if len(chosen.sensors) == 1 else "are"
    text = f"{mode} {chosen.names} {verb} enough (return {value}, of all {number} sensors {top})"
    if chosen == full:
        text = f"{mode} it takes {'all ' if number > 1 else ''}{chosen.names} (return {value})"
    left = {one.name: results.left(less) for one in chosen.sensors if (less := chosen.without(one)) in results.found}
    if not left:
        return text
    needed = [name for name, share in left.items() if share < NOTHING]
    if needed:
        return f"{text}, and without {' or '.join(needed)} nothing works"
    worst = min(left, key=lambda name: left[name])
    return f"{text}, and without {worst} {_percent(left[worst])} is left"


def next_command(results: Results, teacher: str) -> str:
    """What to type behind `tscli` for a student that sees what is kept."""
    best = results.best
    return f'distill --teacher {teacher} --obs "{best.view}" --student {results.bodies[best.memory]}'


def _percent(share: float) -> str:
    return f"{100 * max(share, 0.0):.0f} %"


def _text(value: float, scale: Scale) -> str:
    return f"{round(value, _digits(scale)) + 0.0:.{_digits(scale)}f}"  # no -0.0


def _digits(scale: Scale) -> int:
    return decimals(max(abs(scale.teacher), abs(scale.chance)))


# --- tables -----------------------------------------------------------------------------------------------------------


class Table(NamedTuple):
    """One of the tables, as text."""

    heading: str
    titles: list[str]
    rows: list[list[str]]


def tables(results: Results) -> list[Table]:
    """What the probes say, what the students reach, and what the kept ones bear."""
    return [_probes(results), _lengths(results), _students(results), *_bearings(results)]


def _probes(results: Results) -> Table:
    names = ("alone", "alone_past", "others", "others_past")
    titles = ["sensor", "alone", f"its last {HISTORY}", "the others", f"their last {HISTORY}"]
    heading = f"How much of the teacher's action can be told from it ({_percent(results.told.nothing)} from nothing)"
    rows = [
        [sensor.name, *(_percent(scores[name]) if name in scores else "-" for name in names)]
        for sensor, scores in results.told.rows
    ]
    return Table(heading, titles, rows)


def _lengths(results: Results) -> Table:
    rows = [[name, *map(_percent, scores.values())] for name, scores in results.told.lengths.items()]
    steps = next(iter(results.told.lengths.values()))
    titles = ["sensors", *(f"last {n}" if n > 1 else "now" for n in steps)]
    return Table("The same from the last observations and actions", titles, rows)


def _students(results: Results) -> Table:
    def text(value: float) -> str:
        return _text(value, results.scale)

    rows = []
    for one in sorted(results.found, key=lambda c: (not c.memory, -c.cost, -results.found[c].mean)):
        estimate = results.found[one].estimate
        count = f"{one.cost:g}" if results.has_costs else str(len(one.sensors))
        cells = ["with" if one.memory else "without", count, one.names, text(estimate.mean)]
        cells.append(interval(estimate.low, estimate.high, text))
        rows.append([*cells, _percent(results.left(one)), "kept" if one in results.kept else ""])
    titles = ["memory", "cost" if results.has_costs else "number", "sensors", "return", "95 % interval", "left", ""]
    scale = results.scale
    of_each = f", {results.students} of each with an interval over these," if results.students > 1 else ""
    heading = f"Students{of_each} over {results.episodes} episodes; "
    heading += f"teacher {text(scale.teacher)}, random {text(scale.chance)}"
    return Table(heading, titles, rows)


def _bearings(results: Results) -> list[Table]:
    found = []
    for candidate, bearings in results.bearings.items():
        rows = []
        for sensor in candidate.sensors:
            mine = {one.kind: _borne(one) for one in bearings if one.sensor == sensor}
            rows.append([sensor.name, *(mine.get(kind, "-") for kind in _UNITS)])
        heading = f"Borne {results.mode(candidate)} before {_percent(results.scale.loss)} is lost"
        found.append(Table(heading, ["sensor", *_UNITS], rows))
    return found


def _borne(one: Bearing) -> str:
    """`0.3 sd (0.02 rad), not 0.5`: the highest level that was borne, and the next one, which was not."""
    factor = 100 if one.kind == "dropout" else 1
    text = f"{factor * one.bears:g} {_UNITS[one.kind]}" if one.bears else "none"
    text += f" ({one.physical})" if one.physical else ""
    return text if one.falls is None else f"{text}, not {factor * one.falls:g}"


def screen(results: Results) -> Group:
    """For the terminal."""
    from rich.console import Group

    shown: list[Any] = []
    for heading, titles, rows in tables(results):
        words = ("sensor", "sensors", "memory")
        give_way = {"95 % interval": 0, "memory": 7, "sensors": 16, "sensor": 12}
        table = FitTable(
            titles,
            right=[title for title in titles if title not in words],
            give_way={title: width for title, width in give_way.items() if title in titles},
            title=heading,
        )
        for row in rows:
            table.add(*(f"[bold green]{escape(cell)}[/]" if row[-1] == "kept" else escape(cell) for cell in row))
        shown += [table, ""]
    return Group(*shown, f"[bold]{escape(sentence(results))}[/]")


# --- files ------------------------------------------------------------------------------------------------------------


def plain(results: Results, command: str) -> dict[str, Any]:
    """All figures as plain data."""
    told, scale = results.told, results.scale
    rows = [{"sensor": sensor.name, **scores} for sensor, scores in told.rows]
    return {
        "schema": SCHEMA,
        "task": results.task,
        "command": command,
        "sentence": sentence(results),
        "episodes": results.episodes,
        "loss": scale.loss,
        "teacher": scale.teacher,
        "random": scale.chance,
        "sensors": [{"name": one.name, "cost": one.cost} for one in results.sensors],
        "probes": {"nothing": told.nothing, "history": HISTORY, "rows": rows, "lengths": told.lengths},
        "candidates": [_plain_candidate(results, one) for one in results.found],
        "bearings": [
            {"sensors": [one.name for one in chosen.sensors], "memory": chosen.memory, "rows": list(map(_plain, found))}
            for chosen, found in results.bearings.items()
        ],
        "tables": [table._asdict() for table in tables(results)],
    }


def _plain_candidate(results: Results, one: Candidate) -> dict[str, Any]:
    measured = results.found[one]
    estimate = measured.estimate
    return {
        "name": one.names,
        "sensors": [sensor.name for sensor in one.sensors],
        "memory": one.memory,
        "body": results.bodies[one.memory],
        "view": one.view,
        "cost": one.cost,
        "return": estimate.mean,
        "interval": [estimate.low, estimate.high],
        "values": measured.returns.mean(axis=1).tolist(),
        "left": results.left(one),
        "kept": one in results.kept,
    }


def _plain(one: Bearing) -> dict[str, Any]:
    named = {"sensor": one.sensor.name, "kind": one.kind, "bears": one.bears, "falls": one.falls}
    return named | {"left": one.left, "physical": one.physical}


def write_files(results: Results, command: str, folder: Path) -> None:
    """`sensors.json` and `table.md`.

    Raises:
        UserError: the disk is full.
    """
    atomic_write(folder / RESULTS, json.dumps(plain(results, command), indent=1))
    lines = [f"# {results.task}: what has to be sensed", "", f"    {command}", "", sentence(results), ""]
    for heading, titles, rows in tables(results):
        lines += [f"{heading}:", "", f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}"]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    atomic_write(folder / "table.md", "\n".join([*lines, "![return against sensors](sensors.png)", ""]))

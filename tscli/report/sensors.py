"""The page of `tscli sensors`: what has to be sensed, in one sentence, a picture and tables."""

from __future__ import annotations

from typing import Any

from tscli.config import UserError
from tscli.plain import read_json
from tscli.report.charts import Bar, intervals
from tscli.report.markup import Html, facts, page, picture, section, table, tag
from tscli.runs import Run

RESULTS, PICTURE = "sensors.json", "sensors.png"


def sensors_page(run: Run) -> str:
    """The page, from the figures in the run's folder.

    Raises:
        UserError: it has written none yet.
    """
    try:
        data = read_json(run.path / RESULTS)
    except FileNotFoundError:
        raise UserError(
            f"{run.name} has no {RESULTS}: continue it with `tscli sensors --resume {run.number}`"
        ) from None
    drawn = run.path / PICTURE
    caption = "A dot is a student with its 95 % interval; filled: kept; the line joins the best of each cost."
    versions = ", ".join(f"{name} {value}" for name, value in run.manifest.get("versions", {}).items())
    return page(
        f"{run.name}: tscli",
        tag("h1", f"{data['task']}: what has to be sensed"),
        tag("p", data["sentence"], class_="lead"),
        tag("p", run.note, class_="note") if run.note else "",
        section("Return against sensors", picture(drawn, caption) if drawn.is_file() else "", _bars(data)),
        *(section(one["heading"], table(one["titles"], one["rows"], "figures")) for one in data["tables"]),
        section("Again", tag("pre", data["command"]), facts([("began", run.created), ("versions", versions)])),
    )


def _bars(data: dict[str, Any]) -> Html:
    """Every student, those with memory first, under each other."""
    bars = []
    for memory in (True, False):
        chosen = [one for one in data["candidates"] if one["memory"] == memory]
        for one in sorted(chosen, key=lambda one: (-one["cost"], -one["return"])):
            label = f"{', '.join(one['sensors'])} with{'' if memory else 'out'} memory{', kept' if one['kept'] else ''}"
            low, high = one["interval"]
            bars.append(Bar(label, one["return"], low, high, 0 if memory else 1, one["values"]))
    return intervals("every student", "return", bars, "A dot is a seed; the interval is 95 %.")

"""How good a policy is: what an evaluation has measured, as a sentence's words, tables and a chart."""

from __future__ import annotations

from typing import Any

from tscli.report.charts import Bar, intervals
from tscli.report.data import MEASURES
from tscli.report.markup import Html, facts, grid, join, table, tag
from tscli.terminal.tables import decimals, interval

STUDENT, TEACHER = 0, 1  # their colours


def reached(report: dict[str, Any]) -> str:
    """` It reaches a return of 312.0 (95 % interval ...), its teacher 480.0, over 100 episodes`; nothing of none."""
    found = report.get("policies", {})
    if not found:
        return ""
    role = "student" if "student" in found else next(iter(found))
    words = f". It reaches {_value(found[role]['greedy'])}"
    if "teacher" in found and role == "student":
        words += f", its teacher {_value(found['teacher']['greedy'])}"
    return f"{words}, over {report['episodes']} episodes" if "episodes" in report else words


def _value(measured: dict[str, Any]) -> str:
    found = measured["return"]
    mean = f"{found['mean']:.{decimals(found['mean'])}f}"
    spread = "in every episode" if found.get("sd") == 0 else f"(95 % interval {_spread(found)})"
    words = f"a return of {mean} {spread}"
    if "success_rate" in measured:
        words += f" and success in {100 * measured['success_rate']['mean']:.1f} %"
    return words


def _spread(found: dict[str, Any], places: int | None = None) -> str:
    digits = decimals(found["mean"]) if places is None else places
    return interval(found["low"], found["high"], lambda v: f"{v:.{digits}f}") if "low" in found else "-"


def figures(report: dict[str, Any]) -> Html:
    """Table and chart of an evaluation; nothing where there is none."""
    found = report.get("policies", {})
    if not found:
        return Html()
    # By a script of the user's own a mode may be missing.
    modes = [(role, e, e[mode], mode) for role, e in found.items() for mode in ("greedy", "sampled") if mode in e]
    places = decimals(max((abs(one["return"]["mean"]) for _, _, one, _ in modes), default=0.0))
    rows, bars = [], []
    for role, entry, one, mode in modes:
        value, success = one["return"], one.get("success_rate")
        cells = [role, entry.get("view", ""), mode, tag("b", f"{value['mean']:.{places}f}"), _spread(value, places)]
        cells.append(f"{value['sd']:.{places}f}" if "sd" in value else "-")
        share = f"{100 * success['mean']:.1f} %" if success else "-"
        within = f"{100 * success['low']:.1f} to {100 * success['high']:.1f} %" if success else "-"
        rows.append([*cells, share, within, f"{one['length']['mean']:.0f}"])
        ends = value.get("low", value["mean"]), value.get("high", value["mean"])
        bars.append(Bar(f"{role}, {mode}", value["mean"], *ends, TEACHER if role == "teacher" else STUDENT))
    titles = ["policy", "view", "acts", "return", "95 % interval", "sd", "success", "its interval", "length"]
    told = [i for i in range(len(titles)) if any(row[i] != "-" for row in rows)]
    titles, rows = [titles[i] for i in told], [[row[i] for i in told] for row in rows]
    near = []
    if "gap" in report:
        low, high = report["gap_interval"]
        text = f"{report['gap']:.{places}f} ({interval(low, high, lambda v: f'{v:.{places}f}')})"
        near.append(("gap, teacher less student", text))
    for name, value in report.get("student_states", {}).items():
        text = f"{100 * value:.1f} %" if name == "action_agreement" else f"{value:.4g}"
        near.append((f"{MEASURES.get(name, name)}, on the student's states", text))
    chart = intervals("Return, with its 95 % interval", "return", bars)
    return join([table(titles, rows, "figures"), _measures(found), facts(near), chart and grid(chart)])


def _measures(found: dict[str, Any]) -> Html:
    """What the env measures of the greedy policies beside their returns."""
    told = {role: entry.get("greedy", {}).get("measures", {}) for role, entry in found.items()}
    names = list(dict.fromkeys(name for one in told.values() for name in one))
    rows = [[name, *(_measure(one.get(name)) for one in told.values())] for name in names]
    return table(["greedy, mean and 95 % interval", *told], rows) if rows else Html()


def _measure(found: dict[str, Any] | None) -> str:
    if found is None:
        return "-"
    if found["low"] == found["high"]:  # such as the largest of all
        return f"{found['mean']:.3g}"
    return f"{found['mean']:.3g} ({interval(found['low'], found['high'], lambda v: f'{v:.3g}')})"

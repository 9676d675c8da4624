"""The table of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.markup import escape

from tscli.terminal.tables import FitTable, decimals, interval


def eval_table(report: dict[str, Any]) -> FitTable:
    """The report as a table: one row per policy and mode, and for greedy ones one per task of a mixture."""
    entries = report["policies"]
    has_success = any("success_rate" in entry["greedy"] for entry in entries.values())
    numbers = ["return", "95 % interval", "sd", *(["success", "its interval"] if has_success else []), "length"]
    table = FitTable(
        ["policy", "view", "acts", *numbers],
        right=numbers,
        give_way={"its interval": 0, "view": 7} if has_success else {"view": 7},
        title=f"{report['task']}: {report['episodes']} episodes, seed {report['seed']}",
        caption="\n".join(filter(None, [_comparison(report) if "gap" in report else "", *_measures(report)])),
    )
    text = _text(report)
    rows = [(role, entry, mode, entry[mode]) for role, entry in entries.items() for mode in ("greedy", "sampled")]
    for role, entry, mode, whole in rows:
        tasks = whole.get("tasks", {}) if mode == "greedy" else {}
        for what, found in {role: whole, **{f"  {escape(name)}": part for name, part in tasks.items()}}.items():
            value = found["return"]
            cells = [what, escape(entry["view"]), mode, f"[bold]{text(value['mean'])}[/]"]
            cells += [interval(value["low"], value["high"], text), text(value["sd"])]
            if has_success:
                share = found["success_rate"]
                cells += [f"{100 * share['mean']:.0f} %", f"{100 * share['low']:.1f} to {100 * share['high']:.1f} %"]
            table.add(*cells, f"{found['length']['mean']:.0f}")
    return table


def _text(report: dict[str, Any]) -> Callable[[float], str]:
    """How a return is written: with the decimals that the largest one of the report asks for."""
    means = (entry[mode]["return"]["mean"] for entry in report["policies"].values() for mode in ("greedy", "sampled"))
    places = decimals(max(map(abs, means)))
    return lambda value: f"{value:.{places}f}"


def _measures(report: dict[str, Any]) -> list[str]:
    """What the env measured of the greedy policies, and where it was varied, a line each."""
    places = [("", report["policies"])]
    places += [(f"{row['setting']} {row['value']}: ", row["policies"]) for row in report.get("varied", [])]
    lines = []
    for where, entries in places:
        for role, entry in entries.items():
            found = entry.get("greedy", entry)
            told = [f"return {_text(report)(found['return']['mean'])}"] if where else []
            told += [_measure(name, value["mean"]) for name, value in found.get("measures", {}).items()]
            lines += [f"{where}{role}: {', '.join(told)}"] if told else []
    return lines


def _measure(name: str, value: float) -> str:
    what, _, unit = name.partition(" [")
    return f"{what} {value:.3g} {unit.rstrip(']')}".strip()


def _comparison(report: dict[str, Any]) -> str:
    states = report["student_states"]
    same = states.get("action_agreement")
    near = f"actions equal {100 * same:.1f} %" if same is not None else f"distance {states['action_distance']:.3g}"
    if "action_distance_p99" in states:  # not in older reports
        near += f" (of the largest hundredth {states['action_distance_p99']:.3g} and more)"
    if "kl_teacher_student" in states:
        near += f", KL {states['kl_teacher_student']:.3g}"
    text, (low, high) = _text(report), report["gap_interval"]
    return f"gap {text(report['gap'])} ({interval(low, high, text)})\non the student's states: {near}"

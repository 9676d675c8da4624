"""The table of an evaluation."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from tscli.terminal.tables import FitTable, decimals


def eval_table(report: dict[str, Any]) -> FitTable:
    """The report as a table: one row per policy and mode, and for greedy ones one per task of a mixture."""
    entries = report["policies"]
    has_success = any("success_rate" in entry["greedy"] for entry in entries.values())
    numbers = ["return", "95 % interval", "sd", *(["success"] if has_success else []), "length"]
    table = FitTable(
        ["policy", "view", "acts", *numbers],
        right=numbers,
        give_way={"view": 7},
        title=f"{report['task']}: {report['episodes']} episodes, seed {report['seed']}",
        caption=_comparison(report) if "gap" in report else "",
    )
    places = _decimals(report)
    rows = [(role, entry, mode, entry[mode]) for role, entry in entries.items() for mode in ("greedy", "sampled")]
    for role, entry, mode, whole in rows:
        tasks = whole.get("tasks", {}) if mode == "greedy" else {}
        for what, found in {role: whole, **{f"  {escape(name)}": part for name, part in tasks.items()}}.items():
            value = found["return"]
            cells = [what, escape(entry["view"]), mode, f"[bold]{value['mean']:.{places}f}[/]"]
            cells += [f"{value['low']:.{places}f} to {value['high']:.{places}f}", f"{value['sd']:.{places}f}"]
            cells += [f"{100 * found['success_rate']['mean']:.0f} %"] if has_success else []
            table.add(*cells, f"{found['length']['mean']:.0f}")
    return table


def _decimals(report: dict[str, Any]) -> int:
    """As the largest return of the report asks for."""
    means = (entry[mode]["return"]["mean"] for entry in report["policies"].values() for mode in ("greedy", "sampled"))
    return decimals(max(map(abs, means)))


def _comparison(report: dict[str, Any]) -> str:
    states = report["student_states"]
    same = states.get("action_agreement")
    near = f"actions equal {100 * same:.1f} %" if same is not None else f"distance {states['action_distance']:.3g}"
    if "kl_teacher_student" in states:
        near += f", KL {states['kl_teacher_student']:.3g}"
    places = _decimals(report)
    gap, low, high = (f"{value:.{places}f}" for value in (report["gap"], *report["gap_interval"]))
    return f"gap {gap} ({low} to {high})\non the student's states: {near}"

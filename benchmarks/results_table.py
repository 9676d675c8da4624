"""One table of every method on every task, from the reports that `tscli compare` has written.

    for task in cartpole tiger_door ...; do tscli compare $task --methods bc,dagger,... --metric return --seeds 10; done
    python benchmarks/results_table.py runs > table.md

Takes the newest finished comparison of each task under the folder, and of each method in it: a task may have several
comparisons with other methods. A cell holds the mean return over seeds, its 95 % interval (Student's t), the
number of seeds, the env steps taken (teacher's, student's and collected ones together), and every seed's return.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tscli.terminal.tables import interval

ORDER = ("ppo", "asymmetric", "bc", "dagger", "online", "finetune", "advisor", "gpo", "sitt")


def number(value: float) -> str:
    """Three digits, whatever the size."""
    size = abs(value)
    return (
        f"{value:.0f}"
        if size >= 100
        else f"{value:.1f}"
        if size >= 10
        else f"{value:.3f}"
        if size < 2
        else f"{value:.2f}"
    )


def steps(value: float) -> str:
    """In thousands or millions."""
    return f"{value / 1e6:.2f}M" if value >= 1e6 else f"{value / 1e3:.0f}k"


def read(folders: list[Path]) -> dict[str, dict[str, dict[str, Any]]]:
    """Task -> method -> summary; of several comparisons the newest that has the method."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    paths = [path for folder in folders for path in folder.glob("*-compare-*/results.json")]
    for path in sorted(paths, key=lambda p: p.stat().st_mtime):
        results = json.loads(path.read_text())
        for row in results["rows"]:
            if not row["swept"] and row["seeds_in"] and results["metric"] == "return":
                found.setdefault(results["task"], {})[row["label"]] = row
    return found


def cell(row: dict[str, Any] | None) -> str:
    """One method on one task."""
    if row is None:
        return ""
    count = row["seeds_in"]
    lines = [f"**{number(row['mean'])}**", f"{count} seed{'s' if count > 1 else ''}, {steps(row['env_steps'])}"]
    if row["interval"] is not None:  # which one seed does not have
        low, high = row["interval"]
        lines.insert(1, interval(low, high, number))
        lines.append(", ".join(map(number, row["values"])))
    return "<br>".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of runs")
    found = read(parser.parse_args().folders)
    methods = [m for m in ORDER if any(m in rows for rows in found.values())]
    methods += sorted({m for rows in found.values() for m in rows} - set(methods))
    print("| task | teacher | " + " | ".join(f"`{m}`" for m in methods) + " |")
    print("|---" * (len(methods) + 2) + "|")
    for task, rows in sorted(found.items()):
        # The teacher that the imitating methods share; sitt and gpo bring their own.
        teachers = [
            rows[m]["teacher"] for m in ("dagger", "bc", "online") if m in rows and rows[m]["teacher"] is not None
        ]
        teacher = number(teachers[0]) if teachers else ""
        print(f"| `{task}` | {teacher} | " + " | ".join(cell(rows.get(m)) for m in methods) + " |")


if __name__ == "__main__":
    main()

"""The figures of benchmarks/README.md: whole commands over several seeds, each from process start to exit.

    python benchmarks/pipeline_figures.py cartpole --seeds 10
    python benchmarks/pipeline_figures.py acrobot --seeds 3
    python benchmarks/pipeline_figures.py pendulum --seeds 3

For each seed it runs `tscli train-teacher`, `tscli distill --student rnn --obs partial` and `tscli eval` in a folder of
its own, as a user would, and prints a row; the last rows are medians and worst cases.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch


def call(*words: str, runs: Path) -> float:
    """Run one tscli command quietly; seconds from process start to exit."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tscli", *words, "--runs-dir", str(runs), "--quiet"], check=True)
    return time.perf_counter() - start


def manifest(runs: Path, command: str) -> tuple[Path, dict[str, Any]]:
    """The newest run of a command."""
    path = max(p for p in runs.iterdir() if f"-{command}-" in p.name)
    return path, json.loads((path / "manifest.json").read_text())


def first_reached(path: Path, bar: float) -> tuple[int, float] | None:
    """Env steps and loop seconds when the greedy policy first reached a return."""
    for line in (path / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry.get("eval/return") is not None and entry["eval/return"] >= bar:
            return entry["step"], entry["loop_seconds"]
    return None


def one_seed(task: str, seed: int, episodes: int, bar: float, collect: bool) -> dict[str, float]:
    """All stages with one seed."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        row: dict[str, float] = {"seed": seed}
        row["teacher s"] = call("train-teacher", task, "--seed", str(seed), runs=runs)
        path, about = manifest(runs, "train-teacher")
        reached = first_reached(path, bar)
        row["steps"], row["loop s to bar"] = reached if reached else (float("nan"), float("nan"))
        row["loop s"] = about["metrics"]["loop_seconds"]
        if collect:
            row["collect s"] = call("collect", "--seed", str(seed), runs=runs)
        words = ("distill", "--student", "rnn", "--obs", "partial", "--seed", str(seed))
        row["student s"] = call(*words, runs=runs)
        path, about = manifest(runs, "distill")
        row["student loop s"] = about["metrics"]["loop_seconds"]
        subprocess.run(
            [sys.executable, "-m", "tscli", "eval", "--episodes", str(episodes), "--runs-dir", str(runs)],
            check=True,
            capture_output=True,
        )
        path, _ = manifest(runs, "eval")
        policies = json.loads((path / "report.json").read_text())["policies"]
        row["teacher"] = policies["teacher"]["greedy"]["return"]["mean"]
        row["student"] = policies["student"]["greedy"]["return"]["mean"]
        return row


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=100, help="of the final evaluation, on seeds of its own")
    parser.add_argument("--bar", type=float, default=475.0, help="return that counts as reached")
    parser.add_argument("--collect", action="store_true", help="run `tscli collect` before distilling")
    args = parser.parse_args()

    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {versions}")
    rows: list[dict[str, float]] = []
    for seed in range(1, args.seeds + 1):
        rows.append(one_seed(args.task, seed, args.episodes, args.bar, args.collect))
        if seed == 1:
            print("".join(f"{name:>15}" for name in rows[0]))
        print("".join(f"{value:15.4g}" for value in rows[-1].values()), flush=True)
    for label, pick in (("min", min), ("median", statistics.median), ("max", max)):
        values = [pick([row[name] for row in rows]) for name in rows[0]]
        print(f"{label:>15}" + "".join(f"{value:15.4g}" for value in values[1:]))


if __name__ == "__main__":
    main()

"""SITT's figures of benchmarks/README.md: `tscli sitt` over several seeds, then `tscli eval` on unseen mazes.

    python benchmarks/sitt_figures.py --seeds 10

A row per seed: env steps and seconds from process start to exit, and what student and teacher do in 500 mazes that
neither trained them nor chose the checkpoint. A teacher's return of 10 means that it walked round the maze, since the
path through it pays for each cell.
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

import torch


def one_seed(task: str, seed: int, episodes: int, settings: list[str]) -> dict[str, float]:
    """Train with one seed and evaluate."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        tscli = [sys.executable, "-m", "tscli"]
        start = time.perf_counter()
        subprocess.run(
            [*tscli, "sitt", task, "--seed", str(seed), "--runs-dir", str(runs), "--quiet", *settings], check=True
        )
        seconds = time.perf_counter() - start
        subprocess.run(
            [*tscli, "eval", "--episodes", str(episodes), "--runs-dir", str(runs)], check=True, capture_output=True
        )
        trained, evaluated = sorted(runs.glob("0*"))
        metrics = json.loads((trained / "manifest.json").read_text())["metrics"]
        policies = json.loads((evaluated / "report.json").read_text())["policies"]
        row = {"seed": seed, "steps": metrics["step"], "seconds": seconds}
        for role in ("student", "teacher"):
            greedy = policies[role]["greedy"]
            row[f"{role} success"] = greedy["success_rate"]["mean"]
            row[f"{role} return"] = greedy["return"]["mean"]
        return row


def main() -> None:
    """Run all seeds and print the table. What follows the options is given to `tscli sitt`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="color_maze")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=500, help="of the evaluation")
    args, settings = parser.parse_known_args()

    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {versions}")
    rows = []
    for seed in range(args.seeds):
        rows.append(one_seed(args.task, seed, args.episodes, settings))
        if seed == 0:
            print("".join(f"{name:>17}" for name in rows[0]))
        print("".join(f"{value:17.4g}" for value in rows[-1].values()), flush=True)
    for label, pick in (("min", min), ("median", statistics.median), ("max", max)):
        values = [pick([row[name] for row in rows]) for name in rows[0]]
        print(f"{label:>17}" + "".join(f"{value:17.4g}" for value in values[1:]))


if __name__ == "__main__":
    main()

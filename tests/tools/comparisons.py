"""Comparisons of two toy methods that take no time, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stage_tools import RUNS

from tscli.compare.cells import Cell
from tscli.compare.command import describe
from tscli.compare.crew import Crew
from tscli.compare.plan import Layout, lay_out

# Two scripts of the user's own, which need no torch: a stage that fails, waits or finishes as its settings say, and
# one that measures it.
_HEAD = """
import json
from pathlib import Path
from pydantic import Field
from tscli.config import StageConfig, UserError, positional
from tscli.runs import Run, find_run
from tscli.runs.session import Session
"""
LEARN = f'''"""Learn."""{_HEAD}

class Config(StageConfig):
    task: str = positional(description="The task.")
    total_steps: int = Field(100, description="Env steps at the most.")
    level: float = Field(1.0, ge=0, description="How good it gets.")
    fails: int = Field(-1, description="The seed that fails.")
    waits: int = Field(-1, description="The seed that waits until it is told to stop, the first time.")


def main(config: Config, session: Session) -> Run:
    with session.start(config, "learn", config.task, role="student", checkpoints=False) as run:
        with open("calls.txt", "a") as calls:
            calls.write(f"{{config.level:g}}/{{config.seed}} ")
        if config.seed == config.fails and not Path("mended").exists():
            raise UserError("the lamp is off: switch it on")
        if config.seed == config.waits and session.resume is None:
            with open("started", "w") as started, open("never") as never:
                never.read()
        for step in (50, 100):
            run.log({{"step": step, "eval/return": config.level * step, "eval_teacher/return": 2.0 * step}})
        return run.finish({{"step": 90 + config.seed}}, holds=("policy",))


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)
'''
MEASURE = f'''"""Measure."""{_HEAD}
COMMAND = "eval"


class Config(StageConfig):
    run: str = positional("", description="The run.")
    episodes: int = Field(1, description="Episodes.")


def main(config: Config, session: Session) -> Run:
    learnt = find_run(session.runs_dir, config.run)
    with session.start(config, "eval", learnt.task, parents={{"policy": learnt}}) as run:
        values = {{"student": learnt.config["level"] * (1 + config.seed), "teacher": 20.0}}
        report = {{k: {{"greedy": {{"return": {{"mean": v}}, "length": {{"mean": 7.0}}}}}} for k, v in values.items()}}
        report["student"]["greedy"]["measures"] = {{"speed [m/s]": {{"mean": 2.0 * config.seed}}}}
        (run.path / "report.json").write_text(json.dumps({{"policies": report, "student_states": {{"near": 0.5}}}}))
        return run.finish({{}}, holds=("report",))
'''
METHODS = """
weak: {about: Learns a little., stages: [learn.py, measure.py]}
strong: [{learn.py: {level: 3}}, measure.py]
"""
TOYS = ("compare", "cartpole", "--methods-file", "methods.yaml", "--quiet")


def calls(folder: Path) -> list[str]:
    """`level/seed` of every time that `learn.py` was run, in no order."""
    return sorted((folder / "calls.txt").read_text().split())


def report_of(folder: Path) -> dict[str, Any]:
    """The figures in the folder of a comparison's run."""
    return json.loads((folder / "results.json").read_text())


def plan(methods: str, seeds: str = "2", task: str = "color_maze", **settings: Any) -> Layout:
    """The cells of real methods."""
    return lay_out(describe(task, methods, seeds, None, settings), RUNS)


def cells_of(layout: Layout, label: str, seed: int = 0) -> tuple[Cell, ...]:
    """The chain of one row of the table with one seed."""
    (found,) = (row.cells for row in layout.rows if (row.variant.label, row.seed) == (label, seed))
    return found


def crew_of(toys: Path) -> tuple[Crew, list[str]]:
    """A crew for the toy method with seed 0, and what it says."""
    comparison = describe("cartpole", "weak", "1", Path("methods.yaml"), {})
    said: list[str] = []
    return Crew(lay_out(comparison, RUNS).cells, 1, said.append, lambda crew: None), said

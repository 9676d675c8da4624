"""The figures of a comparison: read from its cells' runs, one outcome per method and seed, then one summary per row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tscli.compare.plan import Comparison, Layout, Row, Variant
from tscli.learning import statistics
from tscli.runs import Run

IQM_FROM = 5  # seeds, from which on the interquartile mean is given


class Metric(NamedTuple):
    """What is compared, and how it is said."""

    name: str  # in reports
    heading: str
    percent: bool = False

    def text(self, value: float | None, digits: int = 1) -> str:
        """A value as a reader expects it."""
        if value is None or not math.isfinite(value):
            return "-"
        return f"{100 * value:.1f}" if self.percent else f"{value:.{digits}f}"


# In order of preference: the first one that every policy has been measured by is taken where none is asked for.
_ORDER = (Metric("success_rate", "success", percent=True), Metric("return", "return"), Metric("length", "length"))
METRICS = {metric.name: metric for metric in _ORDER}


@dataclass
class Outcome:
    """What came of a method with one seed."""

    row: Row
    student: dict[str, float] = field(default_factory=dict)  # by metric; empty while its chain is unfinished
    teacher: dict[str, float] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)  # how near the student is to its teacher
    measures: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # what the env measures, of "student", "teacher"
    env_steps: int = 0
    frames: int = 0
    seconds: float = 0.0
    problem: str = ""

    def gap(self, metric: str) -> float | None:
        """What the student is short of its teacher; None without a teacher."""
        return self.teacher[metric] - self.student[metric] if metric in self.teacher and self.student else None


@dataclass
class Summary:
    """A row of the table: a variant over its seeds."""

    variant: Variant
    outcomes: list[Outcome]  # of all seeds
    finished: list[Outcome]  # of the seeds that are in
    estimate: statistics.Estimate
    iqm: float | None
    teacher: float | None
    gap: float | None
    mean_return: float
    env_steps: float  # mean over the seeds that are in
    frames: float  # as well
    allowed_steps: int
    seconds: float


@dataclass
class Results:
    """All figures of a comparison, ready to be written and shown."""

    comparison: Comparison
    layout: Layout
    metric: Metric
    found: list[Outcome]
    rows: list[Summary]
    command: str

    def trains_in(self, variant: Variant) -> list[tuple[str, str]]:
        """Each stage with the section of the task's file that it trains or collects in; `env` if it cannot choose."""
        cells = next(row.cells for row in self.layout.rows if row.variant == variant)
        stages = (cell for cell in cells if cell.script.command != "eval")
        return [(cell.script.name, cell.settings.get("train_in", "env")) for cell in stages]

    @property
    def title(self) -> str:
        """`color_maze: greedy success`."""
        return f"{self.layout.task.name}: greedy {self.metric.heading}"

    @property
    def digits(self) -> int:
        """Decimals of a figure that is no share."""
        return digits_of([row.estimate.mean for row in self.rows])


def digits_of(values: Sequence[float]) -> int:
    """Decimals that give a column some three or four figures."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 1 if largest >= 10 else 2 if largest >= 1 else 3


def read_results(comparison: Comparison, layout: Layout, failed: Mapping[str, str], command: str) -> Results:
    """Read all cells; `failed` says by key why cells failed, `command` is what to type for the same comparison."""
    found = _outcomes(layout.rows, failed)
    metric = _chosen_metric(comparison, found)
    return Results(comparison, layout, metric, found, _summaries(found, metric), command)


def env_steps(run: Run | None) -> int:
    """Env steps that a run has taken to train or to collect; those of its evaluations are not counted by any stage."""
    metrics = run.metrics if run is not None else {}
    # Of collecting, "steps" are those that were kept.
    return int(next((metrics[name] for name in ("step", "env_steps", "steps") if metrics.get(name)), 0))


def _outcomes(rows: Sequence[Row], failed: Mapping[str, str]) -> list[Outcome]:
    """Read what every chain has come to."""
    found = []
    for row in rows:
        runs = [cell.finished_run() for cell in row.cells]
        outcome = Outcome(row, env_steps=sum(map(env_steps, runs)))
        outcome.frames = sum(int(run.metrics.get("frames", 0)) for run in runs if run is not None)
        outcome.seconds = sum(float(run.manifest.get("seconds") or 0) for run in runs if run is not None)
        problems = [f"{cell.name}: {failed[cell.key]}" for cell in row.cells if cell.key in failed]
        outcome.problem = problems[0] if problems else "" if runs[-1] is not None else "unfinished"
        if runs[-1] is not None:
            _read_report(outcome, runs[-1])
        found.append(outcome)
    return found


def _read_report(outcome: Outcome, run: Run) -> None:
    """The figures of greedy policies from `tscli eval`'s report, or from what another script has measured."""
    report = run.report
    if not report:
        measured = {name: run.metrics.get(f"eval/{name}") for name in METRICS}
        outcome.student = {name: float(value) for name, value in measured.items() if value is not None}
        return
    # Where a teacher is all that was trained, as by asymmetric PPO, it is the method's policy.
    role = "student" if "student" in report["policies"] else next(iter(report["policies"]))
    for name, entry in report["policies"].items():
        figures = {key: entry["greedy"][key]["mean"] for key in METRICS if key in entry["greedy"]}
        if name == role:
            outcome.student = figures
        else:
            outcome.teacher = figures
        measures = {key: found["mean"] for key, found in entry["greedy"].get("measures", {}).items()}
        if measures:
            outcome.measures["student" if name == role else "teacher"] = measures
    outcome.extra = report.get("student_states", {})


def _chosen_metric(comparison: Comparison, found: Sequence[Outcome]) -> Metric:
    """What is compared: what the user asked for, else the first of METRICS that every policy was measured by."""
    if comparison.metric != "auto":
        return METRICS[comparison.metric]
    measured = [outcome.student for outcome in found if outcome.student]
    shared = (metric for metric in _ORDER if measured and all(metric.name in each for each in measured))
    return next(shared, METRICS["return"])


def _summaries(found: Sequence[Outcome], metric: Metric) -> list[Summary]:
    """One summary per variant, in order."""
    grouped: dict[str, list[Outcome]] = {}
    for outcome in found:
        grouped.setdefault(outcome.row.variant.label, []).append(outcome)
    return [_summary(group, metric) for group in grouped.values()]


def _summary(group: list[Outcome], metric: Metric) -> Summary:
    done = [outcome for outcome in group if metric.name in outcome.student]
    values = np.array([outcome.student[metric.name] for outcome in done])
    several_shares = metric.percent and len(values) > 1
    gaps = [gap for outcome in done if (gap := outcome.gap(metric.name)) is not None]
    teachers = [outcome.teacher[metric.name] for outcome in done if metric.name in outcome.teacher]
    return Summary(
        variant=group[0].row.variant,
        outcomes=group,
        finished=done,
        estimate=statistics.share(values) if several_shares else statistics.student_mean(values),
        iqm=float(statistics.interquartile_mean(values)) if len(values) >= IQM_FROM else None,
        teacher=float(np.mean(teachers)) if teachers else None,
        gap=float(np.mean(gaps)) if gaps else None,
        mean_return=_mean([outcome.student.get("return", math.nan) for outcome in done]),
        env_steps=_mean([float(outcome.env_steps) for outcome in done]),
        frames=_mean([float(outcome.frames) for outcome in done]),
        allowed_steps=sum(cell.allowed_steps for cell in group[0].row.cells),
        seconds=_mean([outcome.seconds for outcome in done]),
    )


def measures_table(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """What the env measures, as titles and lines of text: mean ± standard deviation over the seeds that are in.

    Args:
        rows: of results.json, where an earlier version's have no "measures".
    """
    told = [(row["label"], who, found) for row in rows for who, found in row.get("measures", {}).items()]
    names = list(dict.fromkeys(name for _, _, found in told for name in found))
    lines = [[label, who, *(_spread(found.get(name, [])) for name in names)] for label, who, found in told]
    return ["method", "policy", *names], lines


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "-"
    sd = f" ± {np.std(values, ddof=1):.3g}" if len(values) > 1 else ""
    return f"{np.mean(values):.3g}{sd}"


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan


class Curve(NamedTuple):
    """Evaluations [K] of one seed while it trained, against env steps since its chain began."""

    steps: np.ndarray
    values: np.ndarray


def training_curves(outcome: Outcome, metric: Metric) -> tuple[Curve | None, Curve | None]:
    """The curve of a method's policy and its teacher's; None where there is none.

    A student that takes no steps of its own, as by behaviour cloning, is a point: its final figure at its chain's end.
    """
    runs = [run for cell in outcome.row.cells if (run := cell.finished_run()) is not None]
    return run_curves(runs, outcome.student[metric.name], metric) if outcome.student else (None, None)


def run_curves(runs: Sequence[Run], final: float, metric: Metric) -> tuple[Curve | None, Curve | None]:
    """The same from a chain of runs, the first one first, and what its policy has come to."""
    last = max((i for i, run in enumerate(runs) if "policy" in run.holds), default=None)
    if last is None:
        return None, None
    spent, teacher = 0, None
    for run in runs[:last]:
        teacher = (_logged(run, f"eval/{metric.name}", spent) if run.role == "teacher" else None) or teacher
        spent += env_steps(run)
    teacher = _logged(runs[last], f"eval_teacher/{metric.name}", spent) or teacher
    point = Curve(np.array([spent]), np.array([final]))
    return _logged(runs[last], f"eval/{metric.name}", spent) or point, teacher


def _logged(run: Run, name: str, spent: int) -> Curve | None:
    """What a run logged by that name, against its steps after those that were spent before it."""
    found = [(line.get("step"), line.get(name)) for line in run.points]
    points = [(spent + step, value) for step, value in found if step is not None and value is not None]
    if not points:
        return None
    steps, values = zip(*points, strict=True)
    return Curve(np.array(steps), np.array(values))


def mean_curve(curves: Sequence[Curve], metric: Metric) -> tuple[np.ndarray, statistics.Band]:
    """Mean over seeds at common steps, with its interval at each of them.

    A seed that stopped early keeps its last value from there on. Before all seeds have a first value there is no mean.
    """
    mean = statistics.share_curve if metric.percent and len(curves) > 1 else statistics.student_curve
    if all(len(curve.steps) == 1 for curve in curves):
        values = np.array([curve.values for curve in curves])
        return np.mean([curve.steps for curve in curves], axis=0), mean(values)
    start, end = max(curve.steps[0] for curve in curves), max(curve.steps[-1] for curve in curves)
    every = np.unique(np.concatenate([curve.steps for curve in curves]))
    steps = every[(every >= start) & (every <= end)]
    if len(steps) > 200:
        steps = np.linspace(start, end, 200)
    values = np.stack([np.interp(steps, curve.steps, curve.values) for curve in curves])
    return steps, mean(values)

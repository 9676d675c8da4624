"""What is said of a run in a few words."""

from __future__ import annotations

from tscli.runs.folder import Run
from tscli.terminal.tables import decimals


def made_by(run: Run) -> str:
    """`distill dagger`: the command, and its method if it has several."""
    return f"{run.command} {run.method}" if run.method else run.command


def headline(run: Run) -> str:
    """What a run is remembered by in a few words, "" when it has no return."""
    found = run.metrics.get("eval/return", run.metrics.get("return_mean"))
    if not isinstance(found, (int, float)):
        return ""
    places = decimals(found)
    words = f"return {found:.{places}f}"
    if "pairs" in run.holds and "policy" not in run.holds and "episodes" in run.metrics:
        words = f"{run.metrics['episodes']} episodes, {words}"
    return f"{words}, gap {run.metrics['gap']:.{places}f}" if "gap" in run.metrics else words


def outcome(run: Run) -> str:
    """The headline, and over how few episodes a stage has measured it: `tscli eval` may find another figure."""
    few = run.config.get("eval_episodes")
    return f"{headline(run)} over {few} episodes" if few and headline(run) else headline(run)

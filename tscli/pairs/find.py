"""Which pairs folder a user means by a path, a run's number, or nothing."""

from __future__ import annotations

from pathlib import Path

from tscli.pairs import pairs_folder
from tscli.runs import find_run, newest_run
from tscli.runs.session import Session

__all__ = ["find_pairs"]


def find_pairs(session: Session, ref: str) -> Path:
    """The pairs folder of a run (number, name or path), a pairs folder or a `dataset.h5`; "" is the newest run's.

    Raises:
        UserError: there are no pairs there.
    """
    if not ref:
        run = newest_run(session.runs_dir, "", "pairs", "")
        session.say(f"pairs: {run.name}")
        return pairs_folder(run.path)
    return pairs_folder(ref if Path(ref).exists() else find_run(session.runs_dir, ref).path)

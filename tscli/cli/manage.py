"""`tscli runs rm` and `tscli runs note`: runs removed, and words kept beside them."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tscli.config import UserError
from tscli.files import atomic_write
from tscli.runs import Run, find_run, list_runs
from tscli.runs.chain import chain_of
from tscli.runs.folder import NOTE, REMOVED, last_removed
from tscli.runs.locks import lock_folder


def remove(runs_dir: Path, refs: list[str], yes: bool, force: bool) -> list[Run]:
    """Delete runs with all that they hold, once the user has said yes; an empty list where they said no.

    Raises:
        UserError: no such run, one that is at work or that others were made from, or nobody to ask.
    """
    if not refs:
        raise UserError("runs rm needs a run: tscli runs rm 3")
    chosen = {run.name: run for run in (find_run(runs_dir, ref) for ref in refs)}
    every = list_runs(runs_dir)
    by_name = {run.name: run for run in every}
    made_from = {run.name: {parent.name for parent in chain_of(run, by_name)} for run in every}
    depend = [name for name, parents in made_from.items() if name not in chosen and not parents.isdisjoint(chosen)]
    if depend and not force:
        raise UserError(
            f"runs rm {' '.join(refs)}: {', '.join(depend)} descend from it: remove them as well, or --force"
        )
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"runs rm {' '.join(refs)}: there is nobody to ask: add --yes")
        if input(f"remove {', '.join(chosen)}? [y/N] ").strip().lower() not in ("y", "yes"):
            return []
    for run in chosen.values():
        lock = lock_folder(run.path)  # refuses one that is at work
        number = max(run.number, last_removed(run.path.parent))
        atomic_write(run.path.parent / REMOVED, f"{number}\n")
        shutil.rmtree(run.path)
        lock.close()
    return list(chosen.values())


def note(runs_dir: Path, words: list[str]) -> Run:
    """Keep a line of words beside a run, which `tscli runs` shows; no words take it away.

    Raises:
        UserError: no such run, or more than fits on a line.
    """
    if not words:
        raise UserError('runs note needs a run: tscli runs note 3 "the one for the talk"')
    run, text = find_run(runs_dir, words[0]), " ".join(" ".join(words[1:]).split())
    if len(text) > 200:
        raise UserError(f"runs note: {len(text)} characters are more than a line of 200: say it shorter")
    if text:
        atomic_write(run.path / NOTE, text + "\n")
    else:
        (run.path / NOTE).unlink(missing_ok=True)
    return run

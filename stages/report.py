"""Write a page to look at: what was learnt from whom, how it went, how good it is, and how to do it again.

One HTML file in the run's folder, with its curves, tables and films inside: it needs no server and no network, and can
be sent as it is. A run's page tells of all that the run was made from and of the newest evaluation of its policy; a
comparison's shows its methods beside each other and links to a page of each cell. `tscli pipeline` and
`tscli compare` write theirs by themselves.
"""

from __future__ import annotations

import webbrowser
from pathlib import Path

import torch
from pydantic import Field
from rich.markup import escape

from tscli.config import Config as BaseConfig
from tscli.config import UserError, positional
from tscli.report.rerun import write_rerun
from tscli.report.story import story_of
from tscli.report.write import write_page
from tscli.runs import check_target, find_run, list_runs
from tscli.runs.session import Session

ORDER = 45


class Config(BaseConfig):
    """Which runs get their page."""

    run: tuple[str, ...] = positional((), description="Runs: number, name or path; empty: the newest finished one.")
    megabytes: float = Field(
        5.0, gt=0, description="Size of a run's page at the most: films and pictures of episodes are made to fit."
    )
    to: str = Field(
        "", description="Write the page of one run into this file, to be sent alone, instead of its folder."
    )
    rerun: str = Field(
        "",
        description="Also write what `tscli eval --record` has kept into this file, for Rerun's viewer.",
    )
    force: bool = Field(False, description="Overwrite what is at these paths.")
    open: bool = Field(False, description="Open the pages in a browser.")


def main(config: Config, session: Session) -> None:
    """Find the runs, then write the page of each."""
    torch.set_num_threads(1)  # what a page measures are small networks: on a busy machine threads wait for each other
    chosen = [find_run(session.runs_dir, ref) for ref in config.run]
    if not config.run:
        chosen = [run for run in list_runs(session.runs_dir) if run.status == "finished"][-1:]
        if not chosen:
            raise UserError(f"no finished run in {session.runs_dir}: run `tscli pipeline cartpole` first, or name one")
    for option, text, ending in (("--to", config.to, ".html"), ("--rerun", config.rerun, ".rrd")):
        if text and len(chosen) > 1:
            raise UserError(f"{option} {text} is of one run, not of {len(chosen)}")
        if text and Path(text).suffix != ending:
            raise UserError(f"{option} {text}: end it in {ending}")
        if text:
            check_target(option, Path(text), config.force)
    where = Path(config.to) if config.to else None
    if config.rerun:
        write_rerun(story_of(chosen[0]).evaluation, Path(config.rerun))
    pages = [write_page(run, round(1e6 * config.megabytes), where) for run in chosen]
    written = {"pages": [str(page) for page in pages]} | ({"rerun": [config.rerun]} if config.rerun else {})
    session.show(escape("\n".join(path for paths in written.values() for path in paths)), written)
    for page in pages if config.open else ():
        if not webbrowser.open(page.resolve().as_uri()):
            session.note(f"no browser was found here: open {page}")


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

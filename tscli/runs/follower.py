"""What a process other than rank 0 has of a run: it writes its own checkpoint, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tscli import ranks
from tscli.config import UserError
from tscli.runs.folder import Run, read_run
from tscli.runs.writer import Stopped


def own_checkpoint(folder: Path, token: int) -> Path:
    """This process's checkpoint of the moment that rank 0's checkpoint names by its token."""
    return folder / f"checkpoint-rank{ranks.rank()}-{token}.pt"


class Follower:
    """A `RunWriter` in all that stages ask of it, beside the one that rank 0 has."""

    def __init__(self, resumed: bool):
        from tscli.runs.checkpoint import load_state

        self.path, token = ranks.agree((Path(), 0))  # rank 0 says when the folder is there
        self.state: dict[str, Any] | None = None
        if resumed and token:
            path = own_checkpoint(self.path, token)
            if not path.exists():
                raise UserError(f"{path} is missing, so the run cannot be resumed: start it anew")
            self.state = load_state(path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def log(self, metrics: dict[str, Any]) -> None:
        """Rank 0 has the same."""

    def save_policy(self, policy: Any, which: str = "policy") -> None:
        """Rank 0 has the same."""

    def read_metrics(self) -> list[dict[str, Any]]:
        """None: rank 0 has them."""
        return []

    def save_if_due(self, state: Any, every: float, exact: bool = True) -> None:
        """As rank 0 does, at the same iteration."""
        stop, due = ranks.most([0.0, 0.0])
        if due:
            save_own(self.path, state(), ranks.agree(0))
        if stop:
            raise Stopped(self.name)

    def finish(self, metrics: dict[str, Any], *args: Any, **details: Any) -> Run:
        """Wait until rank 0 has finished it."""
        ranks.barrier()
        return read_run(self.path)


def save_own(folder: Path, state: dict[str, Any], token: int) -> None:
    """Write this process's checkpoint; the one before goes once rank 0's, which names the new one, is safe."""
    from tscli.runs.checkpoint import save_state

    path = own_checkpoint(folder, token)
    save_state(path, state)
    ranks.barrier()  # rank 0 writes its own after this one
    ranks.barrier()
    for old in folder.glob(f"checkpoint-rank{ranks.rank()}-*.pt"):
        if old != path:
            old.unlink()

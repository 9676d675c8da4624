"""JSON files that carry a checksum of their own content: `pairs.json` and the shards' sidecars."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tscli.config import UserError, one_line
from tscli.files import atomic_write
from tscli.plain import read_json
from tscli.runs.seals import content_hash


class PairsError(UserError):
    """A file of a pairs folder is missing or damaged, or is not what its sidecar says. One line, with the fix."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what}; restore the file from a copy or collect again (`tscli verify` lists every fault)"
        )


def write_sealed(path: Path, data: dict[str, Any]) -> None:
    """Write JSON with a checksum of its content (key `check`)."""
    atomic_write(path, json.dumps({**data, "check": content_hash(data)}))


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote, without its checksum.

    Raises:
        PairsError: no such file, not JSON, or a content that is not what was written.
    """
    try:
        data = read_json(path)
        if data.pop("check", None) == content_hash(data):
            return data
    except FileNotFoundError:
        raise PairsError(path, "missing") from None
    except UserError as error:
        raise PairsError(path, "damaged") from error
    raise PairsError(path, "damaged (its content does not match its checksum)")


@contextlib.contextmanager
def well_formed(path: Path) -> Iterator[None]:
    """What is made of a sealed file's content; a true checksum does not say that it has the right entries.

    Raises:
        PairsError: it does not.
    """
    try:
        yield
    except ValidationError as error:
        raise PairsError(path, f"malformed ({one_line(error, prefix='')})") from None
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise PairsError(path, f"malformed ({type(error).__name__}: {' '.join(str(error).split())[:120]})") from None

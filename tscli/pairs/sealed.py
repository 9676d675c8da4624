"""JSON files that carry a checksum of their own content: `pairs.json` and the shards' sidecars."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tscli.config import UserError
from tscli.files import atomic_write
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
        data = json.loads(path.read_bytes())
        if data.pop("check") == content_hash(data):
            return data
    except FileNotFoundError:
        raise PairsError(path, "missing") from None
    # Flipped bits can make it anything: no JSON, no UTF-8, no dict, no checksum.
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    raise PairsError(path, "damaged (its content does not match its checksum)")

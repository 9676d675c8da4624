"""The ingredients of a view, in a task's file and written out on the command line."""

from __future__ import annotations

import re

from pydantic import Field

from tscli.config.base import Config, UserError


class ViewPart(Config):
    """One ingredient of a view: a group of observations, or the previous action, and what a sensor does to it."""

    group: str = Field(description='Name of an observation group, or "previous_action".')
    index: tuple[str, ...] = Field(
        default=(), description="Entries to keep: numbers, ranges (0:3) or names; empty keeps all."
    )
    noise: float = Field(default=0.0, ge=0, description="Deviation of Gaussian noise on each entry; 0 adds none.")
    delay: int = Field(default=0, ge=0, description="Control steps that the reading is old; 0 is fresh.")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a reading is lost and reads as zeros."
    )


_PART = re.compile(r"\s*(?P<group>[\w.\-/]+)\s*(\[(?P<index>[^\]]*)\])?\s*")
_BARE_INDEX = re.compile(r"\s*[\d:]+(\s*,\s*[\d:]+)*\s*")


def parse_view(text: str) -> tuple[ViewPart, ...]:
    """Read a view's expression: parts joined by `+`, each a group with optional entries in brackets.

    `state[0,2] + previous_action`, `state[position, angle]`, `camera`; bare numbers (`0,2`) are entries of the only
    group, whose name is then "".

    Raises:
        UserError: not an expression of that form.
    """
    parts = []
    for piece in text.split("+"):
        if _BARE_INDEX.fullmatch(piece):
            parts.append(ViewPart(group="", index=tuple(p.strip() for p in piece.split(","))))
            continue
        match = _PART.fullmatch(piece)
        if match is None:
            raise UserError(f'view "{text}" cannot be read: write it like "0,2" or "state[0,2] + previous_action"')
        index = tuple(p.strip() for p in (match["index"] or "").split(",") if p.strip())
        parts.append(ViewPart(group=match["group"], index=index))
    return tuple(parts)

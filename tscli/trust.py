"""Whose code may run: what this user named in settings of their own and, with --trust, what a run names."""

from __future__ import annotations

import os

from tscli.config import UserError

TRUST = "TSCLI_TRUST"  # the environment variable behind --trust, so that processes started from here follow
_allowed: set[str] = set()


def allow(sha256: str) -> None:
    """Take note of the content of a file that the user named."""
    _allowed.add(sha256)


def check(file: str, sha256: str, owner: str) -> None:
    """Refuse to run a file that a run names, unless the user has named its content or trusts all.

    Args:
        file: where it is, for the error line.
        sha256: of its content.
        owner: what names it.

    Raises:
        UserError: says whose code would run, and what to do.
    """
    if sha256 not in _allowed and os.environ.get(TRUST) != "1":
        advice = "read it, then add --trust (in Python: load_policy(..., trust=True))"
        raise UserError(f"{owner} would run code of its own, {file}: {advice}")

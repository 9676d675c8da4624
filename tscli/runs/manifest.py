"""What stands in a run's manifest, by type: whoever reads one need not ask again."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

SCHEMA = 1
_Name = Annotated[str, StringConstraints(max_length=255)]


class Parent(BaseModel):
    """A run that another one was made from."""

    name: _Name
    path: str | None = None
    sha256: str | None = None


class Manifest(BaseModel):
    """The entries that are read again; there may be more, for people."""

    model_config = ConfigDict(strict=True, extra="allow")

    schema_number: int = Field(alias="schema", ge=1)
    number: int = Field(ge=0, lt=2**31)
    command: str
    task: Annotated[str, StringConstraints(max_length=4096)]
    status: str
    created: str
    parents: dict[str, Parent]
    holds: list[str]
    artifacts: dict[_Name, str]
    files: dict[str, str] = {}
    metrics: dict[str, Any]
    seed: int | None = None
    method: str | None = None
    role: str | None = None
    seconds: float = Field(default=0.0, ge=0)
    config_hash: str = ""
    versions: dict[str, str | None] = {}
    sinks: dict[str, str] = {}
    processes: int = Field(default=1, ge=1)
    checkpointed: bool = False
    teacher_by: str = ""
    error: str | None = None

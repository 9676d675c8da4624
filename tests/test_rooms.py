"""Imports point down: a room never imports one above it, and nothing imports a script."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "tscli"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parts[len(PACKAGE.parts)] not in ("stages", "datasets"))

# From the bottom up; the rooms of one floor may import each other. The command line reaches scripts by path only.
FLOORS = (
    {"config", "devices", "files", "light", "plain", "ranks", "streams", "terminal", "traces", "trust"},
    {"envs", "tasks"},
    {"networks"},
    {"pictures"},
    {"runs"},
    {"pairs"},
    {"learning"},
    {"training"},
    {"launch"},
    {"compare", "diagnose", "interop", "report", "sensors"},
    {"cli"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
MOST_LINES = 400


def imported(tree: ast.AST) -> set[str]:
    """Rooms that a file imports when it runs; what stands under `if TYPE_CHECKING` is not run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{name}" for name in names]
        found |= {name.split(".")[1] for name in names if name.startswith("tscli.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_downwards(path: Path) -> None:
    room = path.relative_to(PACKAGE).with_suffix("").parts[0]
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES, "split it"
    rooms = imported(ast.parse(text))
    assert not rooms & {"stages", "datasets"}, "the library never imports a script"
    if room in ("__init__", "__main__"):
        return
    assert room in FLOOR, f"give {room} its floor here"
    higher = {other for other in rooms if FLOOR.get(other, 0) > FLOOR[room]}
    assert not higher, f"{room} stands below {sorted(higher)}"

"""Imports point one way: a lower layer never imports a higher one, and nothing imports a script."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tscli"
FILES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in ("stages", "datasets")
)

# From the bottom up; modules of one layer may import each other, and `pairs_format` is of the layer of `pairs`. The
# command line, on top, reaches scripts by path only.
LAYERS = (
    {"config", "files", "locks", "rl", "streams", "spaces", "normalize", "distributions", "optim", "stats", "tables"},
    {"envs", "gymnasium_api", "networks", "views", "tasks"},
    {"pairs", "checkpoint", "rollout", "imitation", "export", "foreign", "minari"},
    {"runs", "session", "progress", "plots", "sinks"},
    {"stage", "film", "pairs_find", "visits", "diagnose"},
    {"scripts", "settings", "flags", "launch", "pages", "methods", "cells"},
    {"show", "doctor", "pipeline", "compare"},
    {"commands"},
    {"cli", "__main__", "leash"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def level_of(module: str) -> int | None:
    """The layer of a module, or of the one that its name begins with."""
    return LEVEL.get(module, LEVEL.get(module.split("_")[0]))


def imported(tree: ast.AST) -> set[str]:
    """Our modules that a file imports when it runs; what stands under `if TYPE_CHECKING` is not run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "tscli":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tscli."):
            found.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tscli.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_downwards(path: Path) -> None:
    name = path.relative_to(PACKAGE).with_suffix("").parts[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = imported(tree)
    assert not names & {"stages", "datasets"}, "the library never imports a script"
    if name == "__init__":
        return
    level = level_of(name)
    assert level is not None, f"give {name} its layer here"
    higher = {other for other in names if (level_of(other) or 0) > level}
    assert not higher, f"{name} stands below {sorted(higher)}"

"""Imports point one way: a lower layer never imports a higher one, and nothing imports a script."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "tscli"
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] not in ("stages", "datasets"))

# From the bottom up. Modules of one layer may import each other; `cli` and what belongs to it reach scripts by path.
LAYERS = (
    {"config", "files", "rl", "streams", "spaces", "normalize", "distributions"},
    {"envs", "networks", "views", "tasks"},
    {"pairs", "pairs_format", "pairs_writer", "checkpoint", "rollout"},
    {"runs", "progress", "plots"},
    {"stage", "evaluation", "render"},
    {"scripts", "settings", "flags", "launch", "pages", "show", "doctor", "pipeline", "commands", "cli", "__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


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
    assert name in LEVEL, f"give {name} its layer here"
    higher = {other for other in names if LEVEL.get(other, -1) > LEVEL[name]}
    assert not higher, f"{name} stands below {sorted(higher)}"

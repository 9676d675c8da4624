"""Files of the user's own that a task or a script is made of, so that a change of any of them is noticed.

Light: no torch, and nothing of what is found is run.
"""

from __future__ import annotations

import ast
import contextlib
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

_FOLDERS = ("assetdir", "meshdir", "texturedir")  # of MJCF's compiler


def code_files(path: Path) -> set[Path]:
    """A module, or all of its package, with the modules and packages beside it that it imports, and so on."""
    if path.is_dir() or path.name == "__init__.py":
        return set((path if path.is_dir() else path.parent).rglob("*.py"))

    def named_in(module: Path) -> set[Path]:
        names = set()
        for node in ast.walk(ast.parse(module.read_bytes())):
            if isinstance(node, ast.Import):
                names |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {node.module} if node.module else {name.name for name in node.names}
        tops = {name.partition(".")[0] for name in names} - {"tscli"}  # of which the version tells
        packages = {found for top in tops for found in (path.parent / top).rglob("*.py")}
        return packages | {path.parent / f"{top}.py" for top in tops}

    return _all_from(path, named_in)


def model_files(path: Path) -> set[Path]:
    """A robot's model with all that its MJCF includes and names, meshes and textures too."""
    folders, names = {path.parent}, set[str]()

    def named_in(model: Path) -> set[Path]:
        if model.suffix.lower() == ".xml":
            elements = list(ElementTree.parse(model).iter())
            names.update(text for one in elements for key, text in one.attrib.items() if key.startswith("file"))
            # An included file's names may be relative to the first one's folders, which are all that MuJoCo has.
            folders.update(path.parent / one.attrib[key] for one in elements for key in _FOLDERS if key in one.attrib)
        return {folder / name for folder in folders for name in names}

    return _all_from(path, named_in)


def _all_from(first: Path, named_in: Callable[[Path], set[Path]]) -> set[Path]:
    """A file and those that it names, and so on; what cannot be read names nothing."""
    found: set[Path] = set()
    todo = {first}
    while todo:
        path = todo.pop()
        found.add(path)
        with contextlib.suppress(OSError, ValueError, SyntaxError):  # also ElementTree's ParseError
            todo |= {one for one in named_in(path) if one not in found and one.is_file()}
    return found

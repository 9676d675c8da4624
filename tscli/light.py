"""Config classes read from a file whose other parts load torch: settings and `--help` must not wait for it.

A file is parsed, and of its statements no more is run than its light imports, and the constants and classes that its
`*Config` classes are made of. This module needs the standard library alone.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# What a file may import for its config classes to be light.
_LIGHT_PACKAGES = frozenset({"pydantic", "annotated_types", "typing_extensions"}) | sys.stdlib_module_names
_LIGHT_MODULES = frozenset({"tscli.config"})


def parse(path: Path) -> ast.Module:
    """A file as a tree, parsed once until it changes: one command looks at the same files several times.

    Raises:
        OSError, SyntaxError, UnicodeDecodeError: it cannot be read, or is not Python.
    """
    status = path.stat()
    return _parse_version(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _parse_version(path: Path, mtime_ns: int, size: int) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def light_class(path: Path, name: str) -> type | None:
    """A file's `*Config` class of that name; None where there is none, or where one of them needs a heavy import."""
    nodes = _light_nodes(parse(path), name)
    if nodes is None:
        return None
    found = getattr(execute(path, ast.Module(body=nodes, type_ignores=[]), "light"), name, None)
    return found if isinstance(found, type) else None


def execute(path: Path, code: ast.Module | bytes | None, kind: str) -> ModuleType:
    """Run a file, the chosen statements of it, or the text that it had, as a module with a private name."""
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    name = f"_tscli_{kind}_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {path}")
    module = importlib.util.module_from_spec(spec)
    # pydantic looks annotations up in sys.modules, so the module must stand there while it runs and after.
    sys.modules[name] = module
    try:
        if code is None:
            spec.loader.exec_module(module)
        else:
            exec(compile(code, str(path), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _light_nodes(tree: ast.Module, needs: str) -> list[ast.stmt] | None:
    """The statements that `*Config` classes need, in order; None when one needs a heavy import, or without `needs`."""
    definitions = dict(_definitions(tree))
    light = [node for node in tree.body if _is_light_import(node)]
    known = {name for node in light for name in _imported(node)} | set(dir(builtins)) | {"__name__", "__file__"}
    wanted = [name for name, node in definitions.items() if isinstance(node, ast.ClassDef) and name.endswith("Config")]
    if needs not in wanted:
        return None
    # Everything else at the top level, heavy imports and functions included, counts as heavy.
    top_level = {name for node in tree.body for name in _bound(node)}
    needed: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in needed or name in known:
            continue
        node = definitions.get(name)
        if node is None:
            if name in top_level:
                return None
            continue  # a local variable of a method
        needed.add(name)
        wanted.extend(_used(node))
    body = {id(definitions[name]) for name in needed} | {id(node) for node in light}
    return [node for node in tree.body if id(node) in body]


def _definitions(tree: ast.Module) -> Iterator[tuple[str, ast.stmt]]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield node.name, node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            for name in _bound(node):
                yield name, node


def _is_light_import(node: ast.stmt) -> bool:
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        return node.level == 0 and (module in _LIGHT_MODULES or module.split(".")[0] in _LIGHT_PACKAGES)
    if isinstance(node, ast.Import):
        return all(alias.name.split(".")[0] in _LIGHT_PACKAGES for alias in node.names)
    return False


def _imported(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0]


def _bound(node: ast.stmt) -> Iterator[str]:
    """Names that a top-level statement binds, those inside `if TYPE_CHECKING:` and the like included."""
    yield from _imported(node)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            yield from (sub.id for sub in ast.walk(target) if isinstance(sub, ast.Name))
    elif isinstance(node, (ast.If, ast.Try, ast.With)):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                yield from _bound(child)


def _used(node: ast.stmt) -> Iterator[str]:
    """Names that a statement reads, also those in annotations given as strings."""
    for sub in ast.walk(node):
        if isinstance(sub, ast.Name):
            yield sub.id
        elif isinstance(sub, ast.AnnAssign) and isinstance(sub.annotation, ast.Constant):
            text = sub.annotation.value
            if isinstance(text, str):
                yield from (name.id for name in ast.walk(ast.parse(text, mode="eval")) if isinstance(name, ast.Name))


def defining(folder: Path, name: str) -> list[Path]:
    """The Python files of a folder that define a class of that name; read as text, since importing may cost a lot."""
    return [path for path in sorted(folder.glob("*.py")) if f"\nclass {name}(" in path.read_text(encoding="utf-8")]

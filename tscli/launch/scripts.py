"""Finding scripts, reading their settings without importing torch, and loading them by path.

A script is one file in `stages/` or `datasets/`, or a user's own: a docstring, a `Config`, a `main(config, session)`.
Nothing is registered: the file's name is its command. Scripts are loaded by path under a private name, since
top-level packages called `stages` or `datasets` would overwrite other people's.
"""

from __future__ import annotations

import ast
import contextlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tscli.light import execute, light_class, parse
from tscli.plain import refuse

if TYPE_CHECKING:
    from tscli.config import Config

FOLDERS = ("stages", "datasets")
_CONSTANTS = {"COMMAND": str, "METHOD": str, "DEFAULT_METHOD": bool, "ORDER": int}


@dataclass(frozen=True)
class Script:
    """What a script says of itself, read from its text without running it."""

    path: Path
    command: str
    about: str  # the docstring's first line
    method: str | None = None
    default_method: bool = False
    order: int = 1000

    @property
    def name(self) -> str:
        """`distill-bc` for a method of `distill`, else the command."""
        return f"{self.command}-{self.method}" if self.method else self.command

    @property
    def typed(self) -> str:
        """What stands behind `tscli` to run it: `eval`, or `run mine.py` for a user's own."""
        return self.command if self.path.parent in script_folders() else f"run {self.path}"

    @property
    def folder(self) -> str:
        """`stages` or `datasets`; for a user's own script the folder that it lies in."""
        return self.path.parent.name


def _parse(path: Path, read: Callable[[Path], ast.Module] = parse) -> ast.Module:
    if path.suffix != ".py" and path.is_file():  # of which some, such as `episodes: 4`, are valid Python
        refuse(f"{path} does not end in .py: settings go with --config {path}, a pipeline with `tscli pipeline`")
    try:
        return read(path)
    except OSError:
        refuse(f"{path}: there is no such script; `tscli` lists the commands that come with it")
    except (SyntaxError, UnicodeDecodeError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        refuse(f"{path}{line} is not valid Python: {error.args[0]}")


def _head(path: Path) -> ast.Module:
    """What stands above the first class or function: parsing all of every script is half of the time of `--help`."""
    text = path.read_text(encoding="utf-8")
    with contextlib.suppress(SyntaxError):  # such a line in the docstring, for one
        return ast.parse(re.split(r"^(?:class|def|async def|@)", text, maxsplit=1, flags=re.MULTILINE)[0])
    return parse(path)


def _constants(tree: ast.Module, path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        target, value = node.targets[0] if isinstance(node, ast.Assign) else node.target, node.value
        if not isinstance(target, ast.Name) or target.id not in _CONSTANTS:
            continue
        if not isinstance(value, ast.Constant) or not isinstance(value.value, _CONSTANTS[target.id]):
            kind = _CONSTANTS[target.id].__name__
            refuse(f"{path}, line {node.lineno}: {target.id} must be a plain {kind}, it is read without running")
        found[target.id] = value.value
    return found


def read_script(path: Path) -> Script:
    """What a script says of itself.

    Raises:
        UserError: The file is missing, is not Python, or gives a constant that cannot be read without running it.
    """
    return _read(path, _parse(path))


def _read(path: Path, tree: ast.Module) -> Script:
    constants = _constants(tree, path)
    docstring = ast.get_docstring(tree) or ""
    return Script(
        path=path,
        command=constants.get("COMMAND", path.stem.replace("_", "-")),
        about=docstring.split("\n", 1)[0].strip(),
        method=constants.get("METHOD"),
        default_method=constants.get("DEFAULT_METHOD", False),
        order=constants.get("ORDER", 1000),
    )


def script_folders() -> list[Path]:
    """Where the scripts lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = [package / name for name in FOLDERS if (package / name).is_dir()]
    if inside:
        return inside
    # Never look beside an installed package: site-packages/datasets is somebody else's.
    checkout = package.parent
    return [
        checkout / name for name in FOLDERS if (checkout / "pyproject.toml").is_file() and (checkout / name).is_dir()
    ]


def find_scripts(folders: list[Path] | None = None) -> list[Script]:
    """Every script that comes with tscli, in pipeline order; their constants stand above their classes.

    Raises:
        UserError: Two scripts claim the same command and method, or a command has no or two default methods.
    """
    paths = [path for folder in folders or script_folders() for path in sorted(folder.glob("*.py"))]
    found = [_read(path, _parse(path, _head)) for path in paths]
    scripts = sorted(found, key=lambda s: (s.order, s.command, not s.default_method, s.method or ""))
    seen: dict[tuple[str, str | None], Script] = {}
    for script in scripts:
        key = (script.command, script.method)
        if key in seen:
            refuse(f"{script.path} and {seen[key].path} are both `tscli {script.name}`: rename one")
        seen[key] = script
    for command in {script.command for script in scripts}:
        family = methods_of(command, scripts)
        if len(family) > 1 and sum(script.default_method for script in family) != 1:
            refuse(f"`tscli {command}` needs exactly one script with DEFAULT_METHOD = True")
    return scripts


def methods_of(command: str, scripts: list[Script]) -> list[Script]:
    """The scripts of one command, the default method first."""
    return [script for script in scripts if script.command == command]


def find_script(name: str, method: str | None = None, scripts: list[Script] | None = None) -> Script:
    """The script behind `distill`, `distill-bc`, `distill_bc`, or a path that ends in `.py`.

    Raises:
        UserError: There is no such command or method; the message has the closest one.
    """
    from tscli.config import UserError, did_you_mean

    if name.endswith(".py"):
        return read_script(Path(name))
    scripts = find_scripts() if scripts is None else scripts
    wanted = name.replace("_", "-")
    if method is None:
        for script in scripts:
            if wanted in (script.name, script.path.stem.replace("_", "-")):
                return script
    family = methods_of(wanted, scripts)
    if not family:
        names = {script.command for script in scripts} | {script.name for script in scripts}
        raise UserError(f'there is no command "{name}": {did_you_mean(wanted, names)}')
    if method is None:
        return family[0]
    for script in family:
        if script.method == method:
            return script
    methods = [script.method for script in family if script.method]
    if not methods:
        raise UserError(f"`tscli {wanted}` has no methods to choose from: leave out --method {method}")
    raise UserError(f'`tscli {wanted}` has no method "{method}": {did_you_mean(method, methods)}')


def copy_of(script: Script) -> str:
    """The script's text for a file of another name. It keeps its command, and so what tasks say about that."""
    text = script.path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    if "COMMAND" in _constants(tree, script.path):
        return text
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    last = max((node.end_lineno or node.lineno for node in imports), default=0)
    lines = text.splitlines(keepends=True)
    blank = [] if last < len(lines) and lines[last].strip() == "" else ["\n"]
    lines[last:last] = ["\n", f'COMMAND = "{script.command}"\n', *blank]
    return "".join(lines)


def load_script(script: Script) -> ModuleType:
    """Run the whole script file, torch and all, and give its module.

    Raises:
        UserError: The file has no `Config` class or no `main` function.
    """
    from tscli.config import Config, UserError

    if script.path.resolve().parent not in script_folders():
        # A user's script may import its neighbours, as it may under `python mine.py`; last, so that it hides nothing.
        folder = str(script.path.resolve().parent)
        if folder not in sys.path:
            sys.path.append(folder)
    module = execute(script.path, None, "full")
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and issubclass(config, Config)) or not callable(getattr(module, "main", None)):
        raise UserError(
            f"{script.path} is no script: it needs a `Config(StageConfig)` class and `main(config, session)`"
        )
    return module


def light_config(script: Script) -> type[Config]:
    """The script's `Config`, from its light imports, constants and `*Config` classes alone where that is possible.

    Falls back on loading the whole script when the classes need more than that.
    """
    from tscli.config import Config

    _parse(script.path)  # says what is wrong with the file
    config = light_class(script.path, "Config")
    if config is not None and issubclass(config, Config):
        return config
    return load_script(script).Config

"""What is installed, with which versions, and whether README and docs say what is there."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import email
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tscli.cli.app import normalize
from tscli.cli.commands import app
from tscli.launch import scripts

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = ("tscli", "stages", "datasets", "pyproject.toml", "README.md", "LICENSE")
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
SETUP = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt . && .venv/bin/tscli pipeline cartpole"
TESTS = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt '.[test]' && .venv/bin/pytest -n 2"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


# --- the wheel --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built from a copy, so that nothing is left in the checkout."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGED:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    build = "import sys, setuptools.build_meta as b; b.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, "dist"], cwd=source, check=True, capture_output=True)
    (found,) = (source / "dist").glob("*.whl")
    return found


def names_in(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_brings_no_top_level_package_but_tscli(wheel: Path) -> None:
    top = {name.partition("/")[0] for name in names_in(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"tscli"}


def test_the_wheel_carries_every_script_and_its_folders_are_no_packages(wheel: Path) -> None:
    names = names_in(wheel)
    for folder in ("stages", "datasets"):
        expected = {f"tscli/{folder}/{path.name}" for path in (ROOT / folder).glob("*.py")}
        assert expected and {n for n in names if n.startswith(f"tscli/{folder}/") and n.endswith(".py")} == expected
        assert f"tscli/{folder}/__init__.py" not in names
    assert "tscli/datasets/README.md" in names


def test_the_wheel_carries_every_module_and_task(wheel: Path) -> None:
    package = ROOT / "tscli"
    files = [path for pattern in ("*.py", "*.yaml", "py.typed") for path in package.rglob(pattern)]
    assert {path.relative_to(ROOT).as_posix() for path in files} <= names_in(wheel)


# --- the versions -----------------------------------------------------------------------------------------------------


def requirements_of(wheel: Path) -> list[Requirement]:
    (name,) = (name for name in names_in(wheel) if name.endswith(".dist-info/METADATA"))
    found = email.message_from_bytes(zipfile.ZipFile(wheel).read(name)).get_all("Requires-Dist") or []
    return [Requirement(text) for text in found]


def pins(python: str) -> dict[str, list[str]]:
    """The versions that constraints.txt gives each package, on Linux with that Python."""
    environment: dict[str, Any] = {**default_environment(), "python_version": python, "sys_platform": "linux"}
    found: dict[str, list[str]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        pin = Requirement(line)
        (exact,) = pin.specifier
        assert exact.operator == "==", line
        if pin.marker is None or pin.marker.evaluate(environment):
            found.setdefault(canonicalize_name(pin.name), []).append(exact.version)
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_pin_every_dependency_once_and_within_its_bounds(wheel: Path, python: str) -> None:
    pinned = pins(python)
    assert [name for name, versions in pinned.items() if len(versions) > 1] == []
    for requirement in requirements_of(wheel):
        if requirement.name == "tscli":  # `dev` includes `test`
            continue
        assert canonicalize_name(requirement.name) in pinned, f"{requirement} is not in constraints.txt"
        (version,) = pinned[canonicalize_name(requirement.name)]
        assert version in requirement.specifier, f"{requirement} excludes the pinned {version}"


def test_no_pin_is_of_one_machine_alone() -> None:
    # `+cpu` and the like come with `pip freeze`; nobody else's index has them.
    assert "+" not in (ROOT / "constraints.txt").read_text(encoding="utf-8")


# --- README and docs --------------------------------------------------------------------------------------------------


def test_readme_and_ci_run_have_the_same_test_command() -> None:
    readme = [line.strip() for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()]
    assert SETUP in readme
    assert TESTS in readme
    assert TESTS in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith("http")]
    assert [link for link in local if not (page.parent / link).exists()] == []


def commands_in(page: Path) -> list[list[str]]:
    """The words behind `tscli` in every line of a code block that begins with it."""
    found = []
    for line in page.read_text(encoding="utf-8").splitlines():
        match = re.match(r"\s*(?:\$ )?tscli (.+)", line)
        if match and line.startswith("    "):
            found.append(shlex.split(match[1], comments=True))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_exist_with_all_their_flags(page: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(scripts.find_script("distill", "bc", scripts.find_scripts()).path, "mine.py")
    shutil.copytree(ROOT / "examples", "examples")
    group: Any = typer.main.get_command(app)
    context = group.context_class(group, info_name="tscli", resilient_parsing=False)
    for words in commands_in(page):
        if words[0].startswith("-") or "RUN" in words:
            continue
        flags = [word.partition("=")[0] for word in normalize(words) if word.startswith("--")]
        if "--resume" in flags:  # looks for a run before it knows its flags
            words = [word for word in words if word != "--resume"]
        _, command, _ = group.resolve_command(context, words)
        known = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
        assert set(flags) <= known | {"--help"}, f"{page.name}: tscli {shlex.join(words)}"


def test_every_method_and_task_is_named_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for script in scripts.find_scripts():
        assert f"tscli {script.command}" in text or f"`{script.command}`" in text, script.command
        assert script.method is None or f"`{script.method}`" in text or f"--method {script.method}" in text, script.name
    for task in (ROOT / "tscli" / "tasks").glob("*.yaml"):
        assert f"`{task.stem}`" in text, task.stem

"""`tscli doctor`: whether this machine and this installation can do the work, in sentences."""

from __future__ import annotations

import json as json_module
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from rich.table import Table
from rich.text import Text

from tscli.cli.pages import console
from tscli.config import UserError


class Finding(NamedTuple):
    """One sentence about one thing."""

    level: Literal["ok", "note", "broken"]
    about: str
    text: str


def check(runs_dir: Path, as_json: bool) -> None:
    """Look at everything, and print what was found.

    Raises:
        UserError: something is broken.
    """
    findings = list(_look(runs_dir))
    broken = [finding for finding in findings if finding.level == "broken"]
    if as_json:
        print(json_module.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        marks = {"ok": ("ok", "green"), "note": ("note", "yellow"), "broken": ("broken", "bold red")}
        table = Table.grid(padding=(0, 2))
        for level, about, text in findings:
            table.add_row(Text(*marks[level]), Text(about, style="bold"), Text(text))
        out = console()
        out.print()
        out.print(table)
        out.print("" if broken else "\n[green]Everything that tscli needs works.[/]\n")
    if broken:
        raise UserError("; ".join(f"{finding.about}: {finding.text}" for finding in broken))


def _look(runs_dir: Path) -> Iterator[Finding]:
    checks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("python", _python),
        ("packages", _packages),
        ("torch", _torch),
        ("processor", _processor),
        ("ffmpeg", _ffmpeg),
        ("runs", lambda: _runs(runs_dir)),
        ("scripts", _scripts),
        ("speed", _speed),
    )
    for about, look in checks:
        try:
            yield from look()
        except Exception as error:  # one broken part must not hide what the others say
            yield Finding("broken", about, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _python() -> Iterator[Finding]:
    text = f"{platform.python_version()} at {sys.executable}, on {platform.system()} {platform.machine()}"
    good = sys.version_info >= (3, 10)
    yield Finding("ok" if good else "broken", "python", text if good else f"{text}: tscli needs 3.10 or newer")


def _packages() -> Iterator[Finding]:
    good = []
    for requirement in metadata.requires("tscli") or []:
        if "extra ==" in requirement:
            continue
        match = re.match(r"([\w.-]+)\s*\(?([^);]*)", requirement)
        if match is None:
            continue
        name, bounds = match.groups()
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding("broken", name, f"not installed: pip install '{name}{bounds}'")
            continue
        if version_fits(found, bounds):
            good.append(f"{name} {found}")
        else:
            yield Finding("broken", name, f"{found}, but tscli needs {bounds}: pip install '{name}{bounds}'")
    yield Finding("ok", "packages", ", ".join(good))


def version_fits(found: str, bounds: str) -> bool:
    """Whether a version keeps to bounds such as `>=2.6,<3`; only numbers are compared, `+cpu` and the like are not."""
    have = _numbers(found)
    for bound in filter(None, (part.strip() for part in bounds.split(","))):
        match = re.match(r"(>=|<=|==|!=|<|>|~=)\s*([\d.]+)", bound)
        if match is None:
            continue
        operator, want = match[1], _numbers(match[2])
        size = max(len(have), len(want))
        left, right = have + (0,) * (size - len(have)), want + (0,) * (size - len(want))
        fits = {
            ">=": left >= right,
            "<=": left <= right,
            "==": left == right,
            "!=": left != right,
            "<": left < right,
            ">": left > right,
            "~=": left >= right and have[: len(want) - 1] == want[:-1],
        }
        if not fits[operator]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _torch() -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        yield Finding("ok", "torch", f"{torch.__version__} with CUDA {torch.version.cuda}: {', '.join(names)}")
    elif torch.version.cuda:
        text = f"{torch.__version__} is built for CUDA {torch.version.cuda}, but sees no GPU: it runs on the CPU"
        yield Finding("note", "torch", text)
    else:
        yield Finding("ok", "torch", f"{torch.__version__}, for the CPU; the small tasks are fastest there")


def _processor() -> Iterator[Finding]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    more = f"; OMP_NUM_THREADS is {threads}" if threads else ""
    text = f"{usable} of {os.cpu_count()} cores usable{more}; stages take 1 unless --threads says more"
    yield Finding("ok", "processor", text)


def _ffmpeg() -> Iterator[Finding]:
    path = shutil.which("ffmpeg")
    missing = Finding("note", "ffmpeg", "not found: --render gif works, --render mp4 does not")
    yield Finding("ok", "ffmpeg", f"{path}: --render mp4 works") if path else missing


def _runs(runs_dir: Path) -> Iterator[Finding]:
    place = runs_dir.resolve()
    while not place.exists():
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"tscli")
    except OSError as error:
        yield Finding("broken", "runs", f"cannot write in {place}: {error.strerror}; choose another with --runs-dir")
        return
    free = shutil.disk_usage(place).free / 1e9
    text = f"{runs_dir} can be written to, {free:.1f} GB free"
    yield Finding("ok" if free > 1 else "note", "runs", text if free > 1 else f"{text}: large datasets will not fit")


def _scripts() -> Iterator[Finding]:
    from tscli.launch.scripts import find_scripts, light_config, script_folders

    scripts = find_scripts()
    if not scripts:
        yield Finding("broken", "scripts", "none found: the installation is incomplete, install tscli again")
        return
    for script in scripts:
        light_config(script)
    folders = ", ".join(str(folder) for folder in script_folders())
    yield Finding("ok", "scripts", f"{len(scripts)} in {folders}")


def _speed() -> Iterator[Finding]:
    """One forward and backward pass of a small policy, the size that the bundled tasks use."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh())
        batch = torch.zeros(512, 4)
        started, passes = time.perf_counter(), 0
        while time.perf_counter() - started < 0.3:
            model(batch).sum().backward()
            passes += 1
        rate = passes / (time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    slow = rate < 300
    text = f"{rate:.0f} training passes per second of a small network on one core"
    yield Finding("note" if slow else "ok", "speed", f"{text}: slow, is the machine busy?" if slow else text)

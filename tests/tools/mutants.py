"""Would the quick tests notice? Breaks one thing at a time, and counts how often they do.

`mutants.yaml` has the list: for each file the tests that should notice, and mutants: what each breaks, the text as it
stands, and the text in its place. The tree is copied, a mutant applied, its file's tests run until the first fails, and
the text put back. What was found stays in a file, so that a stopped count goes on; a mutant is tried again once its
file or its tests have changed. Tests run in forks of this process, which has imported torch for all of them.

    python tests/tools/mutants.py [--only stages/sitt.py] [--only "the head"] [--again] [--list]

Exit code 1 where a mutant survived, 2 where the list does not fit the code.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import itertools
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import h5py  # noqa: F401 - what is imported here need not be in each fork
import matplotlib.pyplot as plt  # noqa: F401
import pytest
import torch
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
FORK = multiprocessing.get_context("fork")
COPIED = ("tscli", "stages", "datasets", "tests", "examples", "pyproject.toml", "README.md")


class Mutant(NamedTuple):
    """One change of one file; `survives` is the reason where no test can notice it."""

    file: str
    breaks: str
    old: str
    new: str
    tests: tuple[str, ...]
    survives: str = ""

    @property
    def name(self) -> str:
        """As it is printed, and chosen by `--only`."""
        return f"{self.file}: {self.breaks}"

    @property
    def key(self) -> str:
        """Changes with all that the answer depends on."""
        digest = hashlib.sha256(repr(self).encode())
        for path in (ROOT / self.file, *(ROOT / test.split("::")[0] for test in self.tests)):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]


def read_mutants() -> list[Mutant]:
    """The list, in its order.

    Raises:
        SystemExit: an old text does not stand in its file exactly once, or a test not in its own.
    """
    found, wrong = [], []
    for file, entry in yaml.safe_load((HERE / "mutants.yaml").read_text()).items():
        text = (ROOT / file).read_text()
        for path, _, name in (test.partition("::") for test in entry["tests"]):
            if f"def {name.split('[')[0]}(" not in (ROOT / path).read_text() and name:
                wrong.append(f"{file}: its test {name} does not stand in {path}")
        for fields in entry["mutants"]:
            breaks, old, new, *why = fields
            mutant = Mutant(file, breaks, old, new, tuple(entry["tests"]), *why)
            count = text.count(mutant.old)
            if count != 1:
                wrong.append(f"{mutant.name}: its text stands {count} times in the file, so the mutant is stale")
            found.append(mutant)
    for name in {mutant.name for mutant in found}:
        if sum(mutant.name == name for mutant in found) > 1:
            wrong.append(f"{name}: stands twice in the list")
    if wrong:
        print(*wrong, sep="\n", file=sys.stderr)
        raise SystemExit(2)
    return found


def run_tests(tree: Path, tests: tuple[str, ...], limit: float) -> str:
    """How the tests end in that copy of the tree: "passed", "timed out", or the first that failed."""
    child = FORK.Process(target=_exit_with_tests, args=(tree, tests))
    child.start()
    child.join(limit)
    if child.is_alive():
        child.kill()
        child.join()
        return "timed out"
    if child.exitcode == 0:
        return "passed"
    said = (tree / "output").read_text()
    failed = [line for line in said.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[-1].split(" - ")[0].split("::")[-1] if failed else said[-300:]


def _exit_with_tests(tree: Path, tests: tuple[str, ...]) -> None:
    code = _tests(tree, tests)
    sys.stdout.flush()
    os._exit(code)


def _tests(tree: Path, tests: tuple[str, ...]) -> int:
    output = os.open(tree / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(tree)
    sys.path.insert(0, str(tree))
    os.environ["PYTHONPATH"] = str(tree)  # for the processes that tests start
    return int(pytest.main(["-x", "--tb=no", "-p", "no:cacheprovider", "-rfE", *tests]))


def try_file(tree: Path, mutants: list[Mutant], limit: float) -> Iterator[tuple[Mutant, str]]:
    """What the tests say of a file's mutants, one after the other.

    Raises:
        SystemExit: they fail without any mutant.
    """
    ours, theirs = FORK.Pipe()
    child = FORK.Process(target=_try_file, args=(tree, mutants, limit, theirs))
    child.start()
    theirs.close()
    whole = ours.recv()
    if whole != "passed":
        print(f"{mutants[0].file}: without any mutant its tests do not pass: {whole}", file=sys.stderr)
        raise SystemExit(2)
    yield from ((mutant, ours.recv()) for mutant in mutants)
    child.join()


def _try_file(tree: Path, mutants: list[Mutant], limit: float, pipe: Connection) -> None:
    if mutants[0].file.startswith("stages/"):
        # A stage is loaded anew by each call of its command, and all else may stay as the first run has imported it.
        pipe.send("failed" if _tests(tree, mutants[0].tests) else "passed")
    else:
        pipe.send(run_tests(tree, mutants[0].tests, limit))
    for mutant in mutants:
        pipe.send(try_out(tree, mutant, limit))


def try_out(tree: Path, mutant: Mutant, limit: float) -> str:
    """What the tests say of a mutant."""
    path = tree / mutant.file
    text = path.read_text()
    # Python would take a compiled file of the same second and size for the new text's.
    compiled = Path(importlib.util.cache_from_source(str(path)))
    try:
        path.write_text(text.replace(mutant.old, mutant.new))
        compiled.unlink(missing_ok=True)
        return run_tests(tree, mutant.tests, limit)
    finally:
        path.write_text(text)
        compiled.unlink(missing_ok=True)


def main() -> int:
    """Try the mutants that are asked for, and print which survive."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--only", action="append", default=[], help="mutants whose name has this in it; may be repeated"
    )
    parser.add_argument("--again", action="store_true", help="also those whose answer is known")
    parser.add_argument("--list", action="store_true", help="print the list, run nothing")
    parser.add_argument("--timeout", type=float, default=240, help="seconds until tests count as hanging")
    parser.add_argument("--results", type=Path, default=ROOT / "build/mutants.jsonl", help="where answers are kept")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = [m for m in read_mutants() if not options.only or any(part in m.name for part in options.only)]
    if options.list:
        print(*(mutant.name for mutant in chosen), sep="\n")
        return 0
    options.results.parent.mkdir(parents=True, exist_ok=True)
    lines = options.results.read_text().splitlines() if options.results.exists() and not options.again else []
    known: dict[str, Any] = {line["key"]: line["found"] for line in map(json.loads, lines)}
    missing = [mutant for mutant in chosen if mutant.key not in known]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in COPIED if missing else ():
            source = ROOT / name
            copy: Any = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, tree / name)
        number = 0
        for _, group in itertools.groupby(missing, lambda mutant: mutant.file):
            for mutant, found in try_file(tree, list(group), options.timeout):
                number += 1
                known[mutant.key] = found
                with options.results.open("a") as file:
                    file.write(json.dumps({"key": mutant.key, "name": mutant.name, "found": found}) + "\n")
                said = "SURVIVED" if found == "passed" else f"caught by {found}"
                print(f"[{number}/{len(missing)}] {mutant.name}: {said}", flush=True)
    survivors = [mutant for mutant in chosen if known[mutant.key] == "passed"]
    caught = len(chosen) - len(survivors)
    print(f"\n{caught} of {len(chosen)} mutants caught ({100 * caught / max(1, len(chosen)):.1f} %)")
    for mutant in survivors:
        print(f"survived: {mutant.name}" + (f" ({mutant.survives})" if mutant.survives else ""))
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())

"""Damage to files and careless words, drawn from a seed; what a command makes of them, judged."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import random
import re
import resource
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tscli.cli.app import main

SECONDS, MEGABYTES = 5.0, 1024
EVAL = ("eval", "1", "--episodes", "4", "--num-envs", "4", "--json", "--quiet")
# What is asked after a file in a folder was damaged, by the folder's or file's first letters.
QUESTIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "0001": (("runs", "1", "--json"), ("export", "1", "--format", "nothing"), EVAL),
    "0002": (("describe", "2", "--json"), ("verify", "2", "--json"), ("runs", "2", "--json")),
    "task.yaml": (("tasks", "task.yaml", "--json"),),
    "pipeline.yaml": (("pipeline", "pipeline.yaml", "--resume", "--quiet"),),
    "methods.yaml": (("compare", "task.yaml", "--methods", "nothing", "--methods-file", "methods.yaml"),),
    "settings.yaml": (("eval", "1", "--config", "settings.yaml", "--json", "--quiet"),),
}
# Files whose every bit counts: what is answered after damage is what was answered before. The others are text that
# people write, where another number is another question.
SEALED = (".safetensors", "pairs.json", ".h5", "00000.json")
TASK = """extends: cartpole
about: A test's.
views:
  seen: [{group: state, index: [0, 2], noise: 0.0}]
student: seen
stages:
  eval: {episodes: 4, num_envs: 4}
"""
PIPELINE = "task: cartpole\nseed: 1\nstages: [train-teacher: {total_steps: 64}, collect, eval]\n"
METHODS = "own:\n  about: One.\n  stages: [train-teacher: {total_steps: 64}]\n"
_WORDS = (
    *(
        "",
        " ",
        "-",
        "--",
        "---",
        ".",
        "*",
        "0",
        "-1",
        "1e400",
        "nan",
        "inf",
        "-0",
        "1,2",
        "²",
        "٣",
        "½",
        "1_000",
        "0x10",
    ),
    *(
        "none",
        "None",
        "true",
        "[]",
        "{}",
        "state[²]",
        "state[0:",
        "state[0,0]",
        "state + ",
        "full+full",
        "a=b",
        "=",
        "=",
    ),
    *(
        "\n",
        "a\tb",
        "\x00",
        "\x1b[31m",
        "\udc80",
        "é",
        "漢字",
        "\U0001f600",
        "a" * 300,
        "9" * 300,
        "x" * 5000,
        "a/" * 600,
    ),
    *("1" * 25, "9223372036854775808", "$(id)", "'", '"', "\\", "%s", "{0}", "[red]", "[/]", "runs", "1", "2", "3"),
    *(
        "pendulum",
        "module:Env-v0",
        "os:x",
        ":",
        "a:",
        ":a",
        "a/b",
        "x.yaml",
        "settings.yaml",
        "x.py",
        "runs/1",
        "--help",
    ),
    *("--obs", "--seed", "--set", "--config", "--method", "--resume", "--student", "--teacher", "--pairs", "--device"),
)
_SMALL = (
    *("--num-envs", "4", "--rollout-steps", "8", "--total-steps", "32", "--num-minibatches", "2", "--num-epochs", "1"),
    *("--eval-episodes", "2"),
)
_DISTILL = ("--total-steps", "32", "--num-envs", "4", "--eval-episodes", "2")
_COMMANDS: tuple[tuple[str, ...], ...] = (
    ("train-teacher", "cartpole", "--obs", "full", *_SMALL),
    ("train-teacher", "cartpole", "--set", "network.hidden=8", *_SMALL),
    ("collect", "--teacher", "1", "--episodes", "2", "--num-envs", "2"),
    ("distill", "--method", "bc", "--pairs", "2", "--num-epochs", "1", "--obs", "0,2", "--eval-episodes", "2"),
    ("distill", "--teacher", "1", "--student", "rnn", "--student.hidden", "8", *_DISTILL),
    EVAL,
    ("eval", "1", "--config", "settings.yaml"),
    ("export", "1", "--format", "torchscript"),
    ("import", "nothing.zip", "--task", "cartpole"),
    ("runs", "1", "--json"),
    ("tasks", "cartpole", "--json"),
    ("cp", "nothing", "mine.py"),
    ("run", "nothing.py", "--seed", "1"),
    ("pipeline", "nothing.yaml", "--set", "eval.episodes=2"),
    ("compare", "cartpole", "--methods", "nothing", "--seeds", "2", "--sweep", "train-teacher.lr=1,2"),
    ("describe", "2"),
    ("verify", "2"),
    ("merge", "2", "1"),
    ("nothing", "1"),
    ("--version",),
)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1.5, -0.0, 1e308, "", "x", "²", "\u0000", "\ud800", "1"),
    *([], {}, [[]], [0], {"x": 0}, [None], "a" * 300, [1] * 1000, {"kind": "mlp"}, [9000, 9000], "../x", "nan"),
)


@dataclass
class Verdict:
    """What a case came to: "answered", "refused", or what is wrong with it."""

    kind: str
    detail: str = ""


class Harness:
    """A folder with a teacher (run 1), its pairs (run 2) and files of settings; each case damages one and asks.

    Args:
        folder: to work in; the current one.
        original: a folder with `runs` in it, as `stage_tools.make_runs` leaves it.
    """

    def __init__(self, folder: Path, original: Path) -> None:
        self._folder, self._original = folder, folder / "original"
        self._original.mkdir()
        shutil.copytree(original, self._original / "runs")
        texts = {
            "task.yaml": TASK,
            "pipeline.yaml": PIPELINE,
            "methods.yaml": METHODS,
            "settings.yaml": "episodes: 4\n",
        }
        for name, text in texts.items():
            (self._original / name).write_text(text)
        self.restore()
        self.files = [path for path in sorted(self._original.rglob("*")) if path.is_file() and self._questions(path)]
        self.files = [path for path in self.files if path.suffix != ".png" and path.name != ".lock"]
        asked = dict.fromkeys(question for questions in QUESTIONS.values() for question in questions)
        self._answers = {question: _ask(question) for question in asked if question[0] != "runs"}  # which lists sizes
        self.restore()

    def restore(self) -> None:
        """Everything as it was."""
        shutil.rmtree(self._folder / "runs", ignore_errors=True)
        shutil.copytree(self._original, self._folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("original"))

    def _questions(self, path: Path) -> tuple[tuple[str, ...], ...]:
        parts = path.relative_to(self._original).parts
        key = parts[1][:4] if parts[0] == "runs" else parts[0]
        return QUESTIONS.get(key, ())

    def damaged(self, draw: random.Random) -> tuple[str, Verdict]:
        """One file damaged, one question asked."""
        source = draw.choice(self.files)
        target = self._folder / source.relative_to(self._original)
        how, content = damage(draw, source)
        target.write_bytes(content)
        questions = self._questions(source)
        question = draw.choice(questions)
        if question == EVAL and draw.random() < 0.75:  # it takes the longest
            question = questions[0]
        verdict = judge(question, self._answers.get(question))
        if verdict.kind == "silent" and (how == "sealed again" or not source.name.endswith(SEALED)):
            verdict = Verdict("answered")
        self._tidy()
        shutil.copyfile(source, target)
        return f"{target.relative_to(self._folder)} {how}: {' '.join(question)}", verdict

    def careless(self, draw: random.Random) -> tuple[str, Verdict]:
        """A command with words that do not belong there."""
        words = list(draw.choice(_COMMANDS))
        for _ in range(draw.randint(1, 2)):
            at = draw.randrange(len(words) + 1)
            words[at : at + draw.randint(0, 1)] = [draw.choice(_WORDS)]
        verdict = judge(words, None)
        self._tidy()
        return ascii(" ".join(words)[:300]), verdict

    def _tidy(self) -> None:
        for here, there in ((self._folder, self._original), (self._folder / "runs", self._original / "runs")):
            known = {path.name for path in there.iterdir()} | {"original"}
            for path in [path for path in here.iterdir() if path.name not in known]:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _flip(draw: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 1, 8, 64))):
        if changed:
            changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _splice(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    rubbish = draw.choice(
        (b"", b"\x00" * 64, b"[" * 3000, b"{}", b"\xff\xfe", b"null", b"- 1\n", b"!!int x", b"2024-01-01")
    )
    return data[:at] + rubbish + data[at + draw.choice((0, 0, 1, 16, len(rubbish))) :]


def _replace(draw: random.Random, data: bytes) -> bytes:
    return draw.choice(
        (b"", b"{}", b"[]", b"null", b"1", b"\n", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04", b"[" * 9000, b"a: &a [*a]")
    )


_BLIND: dict[str, Callable[[random.Random, bytes], bytes]] = {
    "bits flipped": _flip,
    "cut short": lambda draw, data: data[: draw.randrange(len(data) + 1)],
    "longer": lambda draw, data: data + data[: draw.randrange(1, 512)] + b"x",
    "spliced": _splice,
    "replaced": _replace,
}


def damage(draw: random.Random, path: Path) -> tuple[str, bytes]:
    """How a file was damaged, and what is in it then."""
    data = path.read_bytes()
    if draw.random() < 0.5:
        with contextlib.suppress(ValueError, yaml.YAMLError):
            is_json = path.suffix == ".json"
            content = json.loads(data) if is_json else yaml.safe_load(data) if path.suffix == ".yaml" else None
            if isinstance(content, dict):
                _change(draw, content)
                if is_json and "check" in content and draw.random() < 0.8:
                    del content["check"]
                    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
                    sealed = {**content, "check": hashlib.sha256(text.encode()).hexdigest()}
                    return "sealed again", json.dumps(sealed).encode()
                return "other content", (json.dumps(content) if is_json else yaml.safe_dump(content)).encode()
    how = draw.choice(list(_BLIND))
    return how, _BLIND[how](draw, data)


def _change(draw: random.Random, content: dict[str, Any]) -> None:
    """Change, drop, rename or add one entry, at any depth."""
    places: list[tuple[Any, Any]] = []
    level: list[Any] = [content]
    while level:
        inner = level.pop()
        keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        places += [(inner, key) for key in keys]
        level += [inner[key] for key in keys if isinstance(inner[key], (dict, list))]
    if not places:
        return
    inner, key = draw.choice(places)
    what = draw.randrange(4)
    if what == 0:
        del inner[key]
    elif what == 1 and isinstance(inner, dict):
        inner[f"{key}{draw.choice(('x', ' ', '.', '²'))}"] = inner.pop(key)
    else:
        inner[key] = copy.deepcopy(draw.choice(_VALUES))


class _TooLong(BaseException):
    """No command catches it."""


def _ask(words: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""

    def ring(*args: Any) -> None:
        raise _TooLong

    out, err = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main(list(words))
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
    except _TooLong:
        code = 124
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return code, out.getvalue(), err.getvalue()


# What may differ between two answers to one question.
_VARIES = re.compile(r'"(run|bytes|seconds)": \S+|\d{4}-eval\S+')


def judge(words: Sequence[str], expected: tuple[int, str, str] | None) -> Verdict:
    """Ask, and compare with the answer from before, where there is one."""
    code, out, err = _ask(words)
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    if code == 124:
        return Verdict("hang", f"no end within {SECONDS:g} s")
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MEGABYTES * 1024:
        return Verdict("memory", f"more than {MEGABYTES} MB")
    if code not in (0, 2) or "Traceback" in err or (code == 2 and len(lines) != 1):
        return Verdict("crash", f"exit code {code}: {err[-300:]!a}")
    if code == 2:
        return Verdict("refused", lines[0])
    if expected is not None and _VARIES.sub("", out) != _VARIES.sub("", expected[1]):
        return Verdict("silent", f"another answer: {out[:200]!a}")
    return Verdict("answered")

"""Files of every kind that a command reads, damaged by chance drawn from a seed, and what is answered then."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import random
import shutil
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from careless import Careless
from foreign_policies import cleanrl
from safetensors.torch import save_file
from stage_tools import BC, COLLECT, SMALL, TEACHER, at_call, call, signal_once
from toy_scripts import DESCRIBE
from trials import Answer, Verdict, ask, judge

from tscli.cli.app import main
from tscli.learning.optim import FlatAdam
from tscli.pairs.writer import PairsWriter

EVAL = ("eval", "1", "--episodes", "4", "--num-envs", "4", "--json", "--quiet")
_IMPORT = ("--task", "cartpole", "--activation", "tanh", "--eval-episodes", "0", "--json", "--quiet")
_LEARN = ("--num-epochs", "1", "--obs", "0,2", "--eval-episodes", "2", "--no-diagnose", "--json", "--quiet")
_TO_ROBOMIMIC = ("convert", "2", "--to", "robomimic", "--out", "demos.hdf5")
# What is asked after a file was damaged, by its folder's or its own first letters. The first question costs least.
QUESTIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "0001": (("runs", "1", "--json"), ("collect", "--teacher", "1", "--episodes", "2", "--json", "--quiet"), EVAL),
    "0002": (
        ("describe", "2", "--json"),
        ("verify", "2", "--json"),
        ("runs", "2", "--json"),
        ("merge", "2", "2", "--json", "--quiet"),
        ("distill", "--method", "bc", "--pairs", "2", *_LEARN),
    ),
    "0003": (("runs", "3", "--json"), ("report", "3", "--json"), ("eval", "3", *EVAL[2:])),
    "0004": (("runs", "--json"), ("train-teacher", "--resume", "4", "--json", "--quiet")),
    "0005": (("runs", "--json"), ("collect", "--resume", "5", "--json", "--quiet")),
    "0006": (("runs", "6", "--json"), ("report", "3", "--json")),
    "task.yaml": (("tasks", "task.yaml", "--json"), ("collect", "--teacher", "1", "--task", "task.yaml", "--quiet")),
    "pipeline.yaml": (("pipeline", "pipeline.yaml", "--resume", "--quiet"),),
    "methods.yaml": (("compare", "task.yaml", "--methods", "own", "--methods-file", "methods.yaml"),),
    "settings.yaml": (("eval", "1", "--config", "settings.yaml", "--json", "--quiet"),),
    "mine.py": (("run", "mine.py", "1", "2"),),
    "demos.hdf5": (("convert", "demos.hdf5", "--to", "pairs", "--task", "cartpole", "--json", "--quiet"),),
    "stats.npz": (("import", "model.pt", "--normalizer", "stats.npz", *_IMPORT),),
    **{name: (("import", name, *_IMPORT),) for name in ("model.pt", "model.zip", "model.safetensors")},
    "exported.pt": (("import", "exported.pt", *_IMPORT[:2], *_IMPORT[4:]),),
}
# Files whose every bit counts: what is answered after damage is what was answered before. The others are text that
# people write, where another number is another question, or others' files, which have no checksum.
_SEALED = (".safetensors", "pairs.json", ".h5", "00000.json", "manifest.json", "config.yaml", "checkpoint.pt", ".part")
TEXTS = {
    "task.yaml": """extends: cartpole
about: A test's.
views:
  seen: [{group: state, index: [0, 2], noise: 0.0}]
student: seen
stages:
  eval: {episodes: 4, num_envs: 4}
""",
    "pipeline.yaml": "task: cartpole\nseed: 1\nstages: [train-teacher: {total_steps: 64}, collect, eval]\n",
    "methods.yaml": "own:\n  about: One.\n  stages: [train-teacher: {total_steps: 64}]\n",
    "settings.yaml": "episodes: 4\n",
    "mine.py": DESCRIBE,
}
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 1.5, -0.0, 1e308, "", "x", "²", "\u0000", "\ud800", "1"),
    *([], {}, [[]], [0], {"x": 0}, [None], "a" * 300, [1] * 1000, {"kind": "mlp"}, [9000, 9000], "../x", "nan"),
)


class Harness:
    """A folder with runs (1: a teacher, 2: its pairs) and files; each case damages one of them and asks.

    Args:
        folder: to work in; the current one.
        original: a folder with `runs` in it and perhaps more files, which stays as it is.
    """

    def __init__(self, folder: Path, original: Path) -> None:
        self._folder, self._original = folder, original
        self._marks: dict[Path, tuple[int, int]] = {}
        self.restore()
        self.files = [path for path in self._marks if _questions(path) and path.suffix not in (".png", ".html")]
        self.files = sorted(path for path in self.files if path.name != ".lock")
        self._careless = Careless()
        self._answers: dict[tuple[str, ...], Answer] = {}

    def _usual(self, question: tuple[str, ...]) -> Answer:
        """What is answered while nothing is damaged."""
        if question not in self._answers:
            self._answers[question] = ask(question)
            self.restore()
        return self._answers[question]

    def damaged(self, draw: random.Random, cold: bool = False) -> tuple[str, Verdict]:
        """One file damaged, one question asked."""
        name = draw.choice(self.files)
        how, content = damage(draw, self._original / name)
        questions = _questions(name)
        question = questions[0] if draw.random() < 0.5 else draw.choice(questions)
        # A list of runs passes over a damaged one.
        counts = how != "sealed again" and name.name.endswith(_SEALED) and question != ("runs", "--json")
        usual = self._usual(question) if counts else None
        (self._folder / name).write_bytes(content)
        self._marks[name] = (0, 0)  # whatever its time says: clocks of file systems are coarse
        verdict = judge(ask(question, cold), usual)
        self.restore()
        return f"{name} {how}: {' '.join(question)}", verdict

    def careless(self, draw: random.Random, cold: bool = False) -> tuple[str, Verdict]:
        """A command with words that do not belong there."""
        words = self._careless.draw(draw)
        cold = (
            cold and words[0] not in ("compare", "pipeline") and not any(bad in "".join(words) for bad in "\x00\udc80")
        )
        verdict = judge(ask(words, cold), None)
        self.restore()
        return ascii(" ".join(words)[:400]), verdict

    def restore(self) -> None:
        """All files as they were."""
        found: dict[Path, tuple[int, int]] = {}
        for path in _files(self._folder):
            status = (self._folder / path).stat()
            found[path] = (status.st_mtime_ns, status.st_size)
        for path in found.keys() - self._marks.keys():
            (self._folder / path).unlink()
        for path in _files(self._original) if not self._marks else self._marks.keys():
            if path not in found or found[path] != self._marks.get(path):
                target = self._folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._original / path, target)
                status = target.stat()
                self._marks[path] = (status.st_mtime_ns, status.st_size)
        for root, _, _ in os.walk(self._folder, topdown=False):
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(root)


def _files(folder: Path) -> list[Path]:
    """All files below it."""
    return [(Path(root) / name).relative_to(folder) for root, _, names in os.walk(folder) for name in names]


def _questions(path: Path) -> tuple[tuple[str, ...], ...]:
    return QUESTIONS.get(path.parts[1][:4] if path.parts[0] == "runs" else path.name, ())


def make_originals(folder: Path) -> Path:
    """A file of each kind, beside the runs of a teacher and its pairs; more runs: a student, two stopped, figures.

    `folder` is the current one.
    """
    for name, text in TEXTS.items():
        (folder / name).write_text(text)
    weights = cleanrl("ppo")[0]
    torch.save(weights, folder / "model.pt")
    save_file(weights, folder / "model.safetensors")
    np.savez(folder / "stats.npz", mean=np.zeros(4), var=np.ones(4))
    stable = {name.replace("actor.", "mlp_extractor.policy_net."): value for name, value in weights.items()}
    stable = {name.replace("policy_net.4", "action_net"): value for name, value in stable.items() if name[0] != "c"}
    stable = {name.replace("mlp_extractor.action", "action"): value for name, value in stable.items()}
    torch.save(stable, folder / "policy.pth")
    with zipfile.ZipFile(folder / "model.zip", "w") as file:
        file.writestr("data", json.dumps({"policy_kwargs": {}}))
        file.write(folder / "policy.pth", "policy.pth")
    (folder / "policy.pth").unlink()
    call(*BC, *SMALL, "--student", "rnn", "--obs", "partial", "--no-diagnose")
    _stopped(FlatAdam, "step", 9, *TEACHER, "--seed", "5")
    _stopped(PairsWriter, "append", 20, *COLLECT, "--teacher", "1", "--shard-mb", "0.002")
    call("eval", "3", "--episodes", "4", "--num-envs", "4")
    for words in (("export", "1", "--format", "torchscript", "--output", "exported.pt"), _TO_ROBOMIMIC):
        assert main([*words, "--quiet"]) == 0
    return folder


def _stopped(owner: type, name: str, number: int, *words: str) -> None:
    with mock.patch.object(owner, name, at_call(getattr(owner, name), number, signal_once(signal.SIGTERM))):
        assert main([*words, "--quiet"]) == 130


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

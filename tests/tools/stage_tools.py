"""What the tests of the stages share: tiny settings, calling a command, and what makes two runs equal."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open
from torch import Tensor

from tscli.cli.app import main
from tscli.files import file_hash
from tscli.networks import Policy
from tscli.runs import Run, list_runs

RUNS = Path("runs")

# Said in full, so that no test depends on how a task is tuned.
_LEARN = ("--lr", "0.001", "--lr-schedule", "constant", "--stop-return", "none", "--eval-episodes", "3")
TEACHER = (
    *("train-teacher", "cartpole", "--total-steps", "384", "--num-envs", "4", "--rollout-steps", "16"),
    *("--num-minibatches", "2", "--num-epochs", "2", "--network.hidden", "8", "--eval-every", "2", *_LEARN),
)
COLLECT = ("collect", "--episodes", "6", "--num-envs", "3")
BC = ("distill", "--method", "bc", "--num-epochs", "3", "--batch-size", "8", "--eval-every", "1", *_LEARN)
DAGGER = (
    *("distill", "--total-steps", "320", "--num-envs", "4", "--round-steps", "8", "--updates-per-round", "2"),
    *("--batch-size", "8", "--window", "4", "--eval-every", "4", *_LEARN),
)
ONLINE = (
    *("distill", "--method", "online", "--total-steps", "320", "--num-envs", "4", "--rollout-steps", "10"),
    *("--gradient-length", "4", "--eval-every", "3", *_LEARN),
)
_PPO = (
    *("--total-steps", "384", "--num-envs", "4", "--rollout-steps", "16", "--num-minibatches", "2"),
    *("--num-epochs", "2", "--bptt", "8", "--eval-every", "2", *_LEARN),
)
FINETUNE = ("finetune", *_PPO, "--critic.hidden", "8", "--critic-warmup", "128")
ADVISOR = ("distill", "--method", "advisor", *_PPO)
GPO = ("gpo", "cartpole", *_PPO, "--network.hidden", "8")
SITT = (
    *("sitt", "cartpole", *_PPO, "--network.hidden", "8", "--student", "none", "--paired-fraction", "0.5"),
    *("--paired", "steps", "--align-updates", "2", "--align-batch", "32", "--stop-success", "none"),
)
# The latent stages on a joint with hidden dynamics, as arguments after the command.
_ROLL_OUT = (
    *("--total-steps", "128", "--num-envs", "4", "--rollout-steps", "16", "--num-minibatches", "2", "--bptt", "8"),
    *("--num-epochs", "2", "--eval-every", "0", *_LEARN),
)
_HISTORY = ("--student.hidden", "8", "--student.history", "3")
TINY_LATENT = ("hidden_dynamics", *_ROLL_OUT, *_HISTORY, "--network.hidden", "8", "--encoder.hidden", "8")
LATENT_TEACHER = ("train-teacher", "hidden_dynamics", *_ROLL_OUT, "--network.hidden", "8", "--latent-size", "2")
LATENT = ("distill", "--method", "latent", *_ROLL_OUT, *_HISTORY, "--no-diagnose")
SMALL = ("--student.hidden", "8", "--student.memory", "8")

# What a clock decides.
_TIMES = {"loop_seconds", "steps_per_second", "samples_per_second"}


def make_runs(work: Path, *commands: tuple[str, ...]) -> Path:
    """Run commands one after the other in a folder; gives the folder of the runs that they left."""
    before = Path.cwd()
    os.chdir(work)
    try:
        for command in commands:
            call(*command)
    finally:
        os.chdir(before)
    return work / "runs"


def call(*args: str) -> Run:
    """Run a command that succeeds, and give the newest run."""
    assert main([*args, "--quiet"]) == 0
    return list_runs(RUNS)[-1]


def error_of(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a command that refuses its input, and give the line that says so."""
    capsys.readouterr()
    assert main([*args, "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")
    return err.strip()


def metrics_of(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, without what a clock decides."""
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in _TIMES} for line in lines]


def weights_hash(path: Path) -> str:
    """A hash of the tensors in a policy's file, by name and bit for bit."""
    digest = hashlib.sha256()
    with safe_open(path, framework="np") as file:
        for name in sorted(file.keys()):
            digest.update(name.encode() + file.get_tensor(name).tobytes())
    return digest.hexdigest()


def pairs_hashes(run: Run) -> dict[str, str]:
    """The hash of every file of a run's dataset."""
    folder = run.path / "pairs"
    return {str(path.relative_to(folder)): file_hash(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def fingerprint(run: Run) -> dict[str, Any]:
    """All of a run that must not depend on when it was interrupted."""
    final = {k: v for k, v in run.metrics.items() if k not in _TIMES}
    weights = {path.name: weights_hash(path) for path in sorted(run.path.glob("*.safetensors"))}
    return {"metrics": metrics_of(run), "weights": weights, "pairs": pairs_hashes(run), "final": final}


def at_call(function: Callable[..., Any], number: int, action: Callable[[], None]) -> Callable[..., Any]:
    """The function, with an action that comes before its number-th call, and before every later one."""
    count = 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count >= number:
            action()
        return function(*args, **kwargs)

    return counting


def signal_once(number: int) -> Callable[[], None]:
    """An action that sends this process a signal, the first time that it is asked to."""
    sent = False

    def send() -> None:
        nonlocal sent
        if not sent:
            sent = True
            os.kill(os.getpid(), number)

    return send


def kill() -> None:
    """End this process as the kernel does when memory is short: nothing of ours runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)


class Remember:
    """A wrapper of `setup.open_policy` that keeps the policies and what was in them when they were opened."""

    def __init__(self, open_policy: Any):
        self._open_policy = open_policy
        self.opened: list[tuple[Policy, dict[str, Tensor]]] = []

    def __call__(self, *args: Any) -> Policy:
        """Open a policy."""
        policy = self._open_policy(*args)
        self.opened.append((policy, {k: v.clone() for k, v in policy.state_dict().items()}))
        return policy

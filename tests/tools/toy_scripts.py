"""A family of tiny scripts for the tests of the command line: they make runs in no time, without torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from tscli.cli.app import main
from tscli.launch import scripts
from tscli.runs import list_runs

RUNS = Path("runs")

_HEAD = """
from __future__ import annotations
from typing import Literal
from pydantic import Field
from tscli.config import Network, NetworkConfig, StageConfig, UserError, positional
from tscli.runs import Run
from tscli.runs.session import Session
"""

TEACHER = f'''"""Train a toy teacher.

It learns nothing.
"""{_HEAD}
ORDER = 10


class Config(StageConfig):
    task: str = positional(description="The task.")
    lr: float = Field(1e-3, gt=0, le=1, description="Learning rate.")
    num_envs: int = Field(4, ge=1, description="Envs.")
    anneal_lr: bool = Field(True, description="Whether lr falls.")
    target_kl: float | None = Field(None, description="Stop early.")
    loss: Literal["mse", "huber"] = Field("mse", description="The loss.")
    network: Network = Field(NetworkConfig(hidden=(8,)), description="The body.")
    critic: Network | None = Field(None, description="The critic's body.")


def main(config: Config, session: Session) -> Run:
    with session.start(config, "train-teacher", config.task, role="teacher") as run:
        if config.lr == 0.666:
            raise ValueError("a bug in the script")
        if config.lr == 0.5 and session.resume is None:
            raise KeyboardInterrupt
        if config.lr == 0.25:
            raise UserError("the lamp is off: switch it on")
        return run.finish({{"eval/return": 100 * config.lr}}, holds=("policy",))


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)
'''

COLLECT = f'''"""Collect toy pairs."""{_HEAD}
from tscli.runs import newest_run

ORDER = 20


class Config(StageConfig):
    teacher: str = Field("", description="The teacher's run.")
    episodes: int = Field(5, ge=1, description="Episodes.")


def main(config: Config, session: Session) -> Run:
    teacher = newest_run(session.runs_dir, config.teacher, "policy", "teacher", "teacher")
    with session.start(config, "collect", teacher.task, parents={{"teacher": teacher}}) as run:
        return run.finish({{"episodes": config.episodes}}, holds=("pairs",))
'''

DISTILL = f'''"""Distil by METHOD_NAME."""{_HEAD}
from tscli.runs import find_run, newest_run

COMMAND = "distill"
METHOD = "METHOD_NAME"
DEFAULT_METHOD = IS_DEFAULT
ORDER = 30


class Config(StageConfig):
    pairs: str = Field("", description="The pairs' run.")
    student: Network = Field(NetworkConfig(), description="The student's body.")
    epochs: int = Field(3, ge=0, description="Passes; 0 is a crash on the first try.")
    METHOD_NAME_weight: float = Field(1.0, description="Of this method alone.")


def main(config: Config, session: Session) -> Run:
    pairs = newest_run(session.runs_dir, config.pairs, "pairs", "pairs")
    teacher = pairs.parent("teacher")
    parents = {{"pairs": pairs, "teacher": teacher}}
    with session.start(config, "distill", pairs.task, method="METHOD_NAME", role="student", parents=parents) as run:
        if config.epochs == 0 and session.resume is None:
            raise KeyboardInterrupt
        return run.finish({{"eval/return": 50.0}}, holds=("policy",))
'''

EVALUATE = f'''"""Evaluate a toy policy."""{_HEAD}
from tscli.runs import newest_run

COMMAND = "eval"
ORDER = 40


class Config(StageConfig):
    run: str = positional("", description="The run to evaluate.")
    render: Literal["none", "gif"] = Field("none", description="Film.")
    record: int = Field(0, description="Episodes to keep.")


def main(config: Config, session: Session) -> Run:
    policy = newest_run(session.runs_dir, config.run, "policy", "run")
    print("a table on stdout")
    with session.start(config, "eval", policy.task, parents={{"policy": policy}}) as run:
        (run.path / "episode.gif").write_bytes(b"GIF89a")
        return run.finish({{"eval/return": 49.5}}, holds=("report",))
'''

DESCRIBE = '''"""Describe numbers."""
from pydantic import Field
from tscli.config import Config as Base
from tscli.config import positional


class Config(Base):
    numbers: tuple[int, ...] = positional(description="Numbers.")
    scale: int = Field(1, description="Factor.")


def main(config: Config, session: object) -> None:
    print(sum(config.numbers) * config.scale)
'''


def write_scripts(root: Path) -> list[Path]:
    """Write the scripts into `root/stages` and `root/datasets`; gives the folders."""
    files = {
        "stages/train_teacher.py": TEACHER,
        "stages/collect.py": COLLECT,
        "stages/distill_slow.py": DISTILL.replace("METHOD_NAME", "slow").replace("IS_DEFAULT", "False"),
        "stages/distill_quick.py": DISTILL.replace("METHOD_NAME", "quick").replace("IS_DEFAULT", "True"),
        "stages/evaluate.py": EVALUATE,
        "datasets/describe.py": DESCRIBE,
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return [root / "stages", root / "datasets"]


TASK = """
about: A toy.
env: {kind: cartpole}
views: {full: [state]}
stages:
  train-teacher: {lr: 0.01, num_envs: 8}
  distill: {epochs: 7}
  distill-slow: {epochs: 9}
presets:
  big:
    train-teacher: {num_envs: 64, network: {kind: rnn}}
"""

BARE = "about: A toy without settings.\nenv: {kind: cartpole}\nviews: {full: [state]}\n"


def stand_among(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in an empty folder with two tasks, and have these scripts instead of the shipped ones."""
    folders = write_scripts(root)
    monkeypatch.setattr(scripts, "script_folders", lambda: folders)
    monkeypatch.delenv("TSCLI_RUNS", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    work = root / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    (work / "toy.yaml").write_text(TASK)
    (work / "bare.yaml").write_text(BARE)
    return work


def error_of(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """Run a command that refuses its input, and give its error line."""
    assert main(list(args)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def config_of(*args: str) -> dict:
    """Run a command and give the settings that its run was made with."""
    assert main([*args, "--quiet"]) == 0
    return list_runs(RUNS)[-1].config

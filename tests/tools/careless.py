"""Careless words: for every command and every option that it has, values that do not belong there."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import typer
from stage_tools import (
    ADVISOR,
    BC,
    COLLECT,
    DAGGER,
    FINETUNE,
    GPO,
    LATENT,
    LATENT_TEACHER,
    ONLINE,
    SITT,
    SMALL,
    TEACHER,
    TINY_LATENT,
)

from tscli.cli.commands import app

# No absolute path and no `..`: a command may write where it is told to.
WORDS = (
    *("", " ", "-", "--", "---", ".", "*", "=", "a=b", "none", "None", "true", "[]", "{}", "[red]", "[/]", "nothing"),
    *("0", "1", "2", "3", "-1", "-0", "+1", "1.5", "1e400", "1e-400", "nan", "inf", "-inf", "1,2", "1_000", "0x10"),
    *("²", "٣", "½", "2147483648", "9223372036854775808", "1" * 25, "9" * 300, "100000000", "1e30", ",", "1,", "3-1"),
    *("state[²]", "state[0:", "state[0,0]", "state[-1]", "state[9]", "state + ", "full+full", "full", "partial", "()"),
    *("\n", "a\tb", "\x00", "\x1b[31m", "\udc80", "é", "漢字", "\U0001f600", "a" * 300, "x" * 5000, "a/" * 600),
    *("$(id)", "'", '"', "\\", "%s", "%", "{0}", "runs", "runs/1"),
    *("pendulum", "cartpole", "CartPole-v1", "module:Env-v0", "os:x", ":", "a:", ":a", "a/b", "x.yaml", "x.py", "best"),
    *(
        "settings.yaml",
        "task.yaml",
        "mine.py",
        "model.pt",
        "model.zip",
        "demos.hdf5",
        "stats.npz",
        "rnn",
        "mlp",
        "wandb",
    ),
    *("--help", "--obs", "--seed", "--set", "--config", "--method", "--resume", "--student", "--teacher", "--json"),
    *("a.b=1", "network.hidden=8", "eval.episodes=2", "bc", "cpu", "cuda", "cuda:99", "meta", "gif", "torchscript"),
)
_FEW = ("--episodes", "4", "--num-envs", "4", "--json")
# Each is as it should be, and over in a second; runs 1 to 3 are a teacher, its pairs and a student.
COMMANDS: tuple[tuple[str, ...], ...] = (
    (*TEACHER, "--obs", "full"),
    (*TEACHER, "--network", "rnn", "--network.memory", "8", "--bptt", "8"),
    LATENT_TEACHER,
    (*COLLECT, "--teacher", "1"),
    ("diagnose", "--teacher", "1", "--episodes", "2", "--steps", "100"),
    (*BC, *SMALL, "--student", "rnn", "--pairs", "2"),
    (*DAGGER, *SMALL, "--teacher", "1"),
    (*ONLINE, *SMALL, "--teacher", "1"),
    (*ADVISOR, *SMALL, "--teacher", "1"),
    LATENT,
    FINETUNE,
    GPO,
    SITT,
    ("ts", *TINY_LATENT),
    ("cts", *TINY_LATENT),
    ("eval", "1", *_FEW),
    ("eval", "1", "--config", "settings.yaml"),
    ("report", "1", "--json"),
    ("export", "1", "--format", "torchscript"),
    ("import", "model.pt", "--task", "cartpole", "--activation", "tanh", "--eval-episodes", "2"),
    ("describe", "2", "--json"),
    ("verify", "2", "--json"),
    ("merge", "2", "2"),
    ("convert", "2", "--to", "robomimic", "--out", "new.hdf5"),
    ("convert", "demos.hdf5", "--to", "pairs", "--task", "cartpole"),
    ("pipeline", "pipeline.yaml"),
    ("compare", "cartpole", "--methods", "bc", "--seeds", "2", "--sweep", "train-teacher.lr=1,2", "--jobs", "1"),
    ("compare", "task.yaml", "--methods", "own", "--methods-file", "methods.yaml", "--episodes", "5"),
    ("tasks", "cartpole", "--json"),
    ("runs", "1", "--json"),
    ("runs", "note", "1", "a word"),
    ("runs", "rm", "2", "--yes"),
    ("cp", "train-teacher", "copy.py"),
    ("run", "mine.py", "--seed", "1"),
    ("doctor",),
    ("nothing", "1"),
    ("--version",),
)
# Which write into the settings of the user's shell, and which is there to show tracebacks.
_LEFT_OUT = {"--install-completion", "--show-completion", "--debug"}


def options_of(words: tuple[str, ...]) -> list[str]:
    """The options of the command, flags without a value included."""
    group: Any = typer.main.get_command(app)
    try:
        command = group.resolve_command(SimpleNamespace(resilient_parsing=False), list(words))[1]
    except Exception:
        return ["--help"]
    return sorted({name for param in command.params for name in (*param.opts, *param.secondary_opts)})


class Careless:
    """Draws words; each command's options are looked up once."""

    def __init__(self) -> None:
        self._options = {words: [name for name in options_of(words) if name[:2] == "--"] for words in COMMANDS}

    def draw(self, draw: random.Random) -> list[str]:
        """A command with words that do not belong there."""
        command = draw.choice(COMMANDS)
        words, options = list(command), self._options[command]
        for _ in range(draw.randint(1, 2)):
            at = draw.randrange(len(words) + 1)
            if options and draw.random() < 0.7:
                option, value = draw.choice(options), draw.choice(WORDS)
                words[at:at] = [f"{option}={value}"] if draw.random() < 0.2 else [option, value]
            else:
                words[at : at + draw.randint(0, 1)] = [draw.choice(WORDS)]
        return [word for word in words if word.partition("=")[0] not in _LEFT_OUT]

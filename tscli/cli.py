"""The command line: finds the script, builds its flags, and turns every error into one line.

`tscli --help` reads no more than the scripts' text; only the command that is called gets its flags built, from the
light part of its script; torch is loaded once the settings are valid.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tscli.scripts import Script, find_script, find_scripts, methods_of, read_script

if TYPE_CHECKING:
    import typer

__all__ = ["main", "run_script"]

BAD_INPUT, CRASH, INTERRUPTED = 2, 1, 130


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for bad input, 1 for a crash, 130 for Ctrl-C."""
    args = normalize(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(args)
    except KeyboardInterrupt:
        return _say("stopped", INTERRUPTED)
    except BrokenPipeError:
        # The reader (`| head`) has seen enough. Python would complain again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CRASH
    except Exception as error:
        if "--debug" in args:
            import traceback

            traceback.print_exc()
        return _explain(error)


def run_script(path: str) -> None:
    """What a script calls when it is run as `python stages/train_teacher.py`."""
    sys.exit(main(["run", path, *sys.argv[1:]]))


def normalize(args: list[str]) -> list[str]:
    """Allow `--num_envs` for `--num-envs`, and give a bare `--resume` its empty value.

    A word after `--resume` is its run if it can be one: a number, a run's name (they begin with a digit), or a folder.
    """
    result: list[str] = []
    position = 0
    while position < len(args):
        word = args[position]
        position += 1
        if word == "--":
            return [*result, *args[position - 1 :]]
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            word = name.replace("_", "-") + equals + value
        if word == "--resume":
            follows = args[position] if position < len(args) else ""
            is_run = bool(re.match(r"\d", follows)) or (follows != "" and Path(follows).is_dir())
            word += f"={follows}" if is_run else "="
            position += is_run
        result.append(word)
    return result


def _dispatch(args: list[str]) -> int:
    if args in ([], ["--help"], ["-h"], ["help"]):
        return _first_page(with_runs=not args)
    from tscli.commands import app

    _load_typer_group(app)
    import typer

    result = typer.main.get_command(app).main(args=args, prog_name="tscli", standalone_mode=False)
    return result if isinstance(result, int) else 0

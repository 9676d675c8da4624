"""The command line: finds the script, builds its flags, and turns every error into one line.

`tscli --help` reads no more than the scripts' text; only the command that is called gets its flags built, from the
light part of its script; torch is loaded once the settings are valid.
"""

from __future__ import annotations

import atexit
import errno
import os
import re
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tscli import ranks
from tscli.cli.pages import first_page
from tscli.launch.scripts import find_scripts
from tscli.plain import check_words
from tscli.traces import brief, own_line

# As torch says it for itself and for CUDA, and the system.
_NO_MEMORY = re.compile("can't allocate memory|out of memory|Cannot allocate memory")
BAD_INPUT, CRASH, INTERRUPTED = 2, 1, 130


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for bad input, 1 for a crash, 130 for Ctrl-C."""
    args = list(sys.argv[1:] if argv is None else argv)
    try:
        check_words(args)
        args = normalize(args)
        if "--trust" in args:
            from tscli.trust import TRUST

            os.environ[TRUST] = "1"
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
    leave(main(["run", path, *sys.argv[1:]]))


def entry() -> NoReturn:
    """The `tscli` command."""
    signal.signal(signal.SIGINT, _interrupt)
    leave(main())


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C, until a run takes it. What a module that is being imported makes of an exception is its own affair."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(2, b"stopped\n")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def leave(code: int) -> NoReturn:
    """End the process. Everything is written by now, and taking torch apart piece by piece would take half a second."""
    if "torch" not in sys.modules:
        sys.exit(code)
    atexit._run_exitfuncs()  # of a user's script: a logger's upload, say
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # the reader (`| head`) has seen enough
        code = CRASH
    os._exit(code)


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
        if word == "--resume" and result[:1] != ["pipeline"]:  # of which there is one, so it takes no name
            follows = args[position] if position < len(args) else ""
            is_run = bool(re.match(r"\d", follows)) or (follows != "" and Path(follows).is_dir())
            word += f"={follows}" if is_run else "="
            position += is_run
        result.append(word)
    return result


def _dispatch(args: list[str]) -> int:
    if "--num-processes" in " ".join(args) and ranks.size() == 1:
        from tscli.launch.processes import run_processes, wanted_processes

        number, alone = wanted_processes(args)
        if number > 1:
            return run_processes(number, alone)
    completing = "_TSCLI_COMPLETE" in os.environ  # the shell asks what could follow, in variables of its own
    if args in ([], ["--help"], ["-h"], ["help"]) and not completing:
        return _first_page(with_runs=not args)
    import typer

    from tscli.cli.commands import app

    result = typer.main.get_command(app).main(args=args, prog_name="tscli", standalone_mode=False)
    if result == INTERRUPTED:  # typer has caught it
        return _say("stopped", INTERRUPTED)
    return result if isinstance(result, int) else 0


def _first_page(with_runs: bool) -> int:
    runs_dir = Path(os.environ.get("TSCLI_RUNS", "runs"))
    runs = None
    if with_runs:
        from tscli.runs import list_runs

        runs = list_runs(runs_dir)
    first_page(find_scripts(), runs, runs_dir)
    return 0


def _explain(error: Exception) -> int:
    """Print an error as one line and give its exit code."""
    from pydantic import ValidationError

    from tscli.config import UserError, one_line

    if isinstance(error, UserError):
        return _say(f"error: {error}", BAD_INPUT)
    if isinstance(error, ValidationError):
        return _say(f"error: {one_line(error, prefix='')}", BAD_INPUT)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" ({error.filename})" if error.filename else ""
        return _say(f"error: the disk is full{place}: free some space or choose another place, then go on", BAD_INPUT)
    if isinstance(error, OSError) and error.filename is not None and not isinstance(error, ConnectionError):
        return _say(f"error: {str(error.filename)[:200]}: {error.strerror}: name another file or folder", BAD_INPUT)
    if isinstance(error, MemoryError) or (isinstance(error, (RuntimeError, OSError)) and _NO_MEMORY.search(str(error))):
        few = "ask for fewer envs, shorter roll-outs, a smaller network or dataset"
        return _say(f"error: there is not enough memory ({brief(error)}): {few}", BAD_INPUT)
    if "typer" in sys.modules:
        import typer

        if isinstance(error, typer.Abort):
            return _say("stopped", INTERRUPTED)
        # The public base of all usage errors; the class itself moved between typer's versions.
        if isinstance(error, typer.BadParameter.__mro__[2]):
            return _say(f"error: {_usage(error)}", BAD_INPUT)
    if "tscli.runs" in sys.modules:
        from tscli.runs import Stopped

        if isinstance(error, Stopped):
            return _say(f"stopped {error}: continue with --resume", INTERRUPTED)
    own = own_line(error)
    where = f"{own}: " if own else ""
    return _say(f"error: {where}{brief(error)}\nrun again with --debug for the traceback", CRASH)


def _usage(error: Any) -> str:
    """A usage error of typer's in our words: what is wrong, the closest option, where the help is."""
    from tscli.config import did_you_mean

    context = getattr(error, "ctx", None)
    name = getattr(error, "option_name", None)
    method = getattr(context.command, "method", None) if context is not None else None
    page = f"{context.command_path}{f' --method {method}' if method else ''} --help" if context is not None else ""
    if context is not None and type(error).__name__ == "NoSuchOption":
        params = context.command.params
        options = [option for param in params for option in (*param.opts, *param.secondary_opts) if option[:2] == "--"]
        hint = did_you_mean(str(name), options)
        return f"unknown option {name}: {hint if hint.startswith('did') else f'see {page}'}"
    text = " ".join(error.format_message().split()).rstrip(".")
    text = text[:1].lower() + text[1:]
    if "unexpected extra argument" in text and context is not None:  # which may have been meant as a flag's value
        flags = [param for param in context.command.params if param.secondary_opts]
        said = [flag.opts[0] for flag in flags if _is_given(context, flag)]
        text += f" ({' and '.join(said)}: on or off, without a value)" if said else ""
    return f"{text}: see {page}" if page else text


def _is_given(context: Any, param: Any) -> bool:
    return getattr(context.get_parameter_source(param.name), "name", "") == "COMMANDLINE"


def _say(line: str, code: int) -> int:
    """Of several processes the first speaks, and others of what it cannot know."""
    if ranks.rank() == 0 or code == CRASH:
        print(line if ranks.rank() == 0 else f"process {ranks.rank()}: {line}", file=sys.stderr)
    return code

"""Run a tscli command in this process and kill it at the n-th call of a function.

python run_until_killed.py tscli.learning.optim:FlatAdam.step 14 train-teacher cartpole
"""

from __future__ import annotations

import importlib
import sys

from stage_tools import at_call, kill

from tscli.cli.app import main


def _run() -> int:
    where, number, *command = sys.argv[1:]
    module, _, name = where.partition(":")
    owner, attribute = name.split(".")
    target = getattr(importlib.import_module(module), owner)
    setattr(target, attribute, at_call(getattr(target, attribute), int(number), kill))
    return main(command)


if __name__ == "__main__":
    sys.exit(_run())

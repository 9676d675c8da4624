"""tscli trains a teacher that sees everything and a student that sees what the robot will see.

From Python: `tscli.run("train-teacher", task="cartpole", seed=1)`, `tscli.load_policy(run)`, `tscli.open_pairs(run)`.
Importing the package loads nothing heavy; torch comes with the first call.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if "gymnasium" in sys.modules:  # for `gymnasium.make("tscli:tscli/CartPole-v0")`, which imports us to register ids
    import tscli.interop.gymnasium  # noqa: F401

if TYPE_CHECKING:
    from tscli.launch.start import load_policy, open_pairs, run

__all__ = ["load_policy", "open_pairs", "run"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        import tscli.interop.gymnasium  # noqa: F401 - and where we were there before Gymnasium was
        from tscli.launch import start

        return getattr(start, name)
    if name == "__version__":
        from importlib.metadata import version

        return version("tscli")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

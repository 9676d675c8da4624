"""What is saved of a loop and brought back: named parts, and the state that one iteration hands to the next."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tscli.config import UserError


class State:
    """Named tensors and numbers that one iteration hands to the next, such as `reset` [N] and hidden states [N, S]."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no {name} in this state: it has {', '.join(self.__dict__)}")

    if TYPE_CHECKING:  # any name is one of a state's

        def __setattr__(self, name: str, value: Any) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        """For exact resume."""
        return dict(self.__dict__)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`, on the device where each tensor is now."""
        for name, value in state.items():
            here = getattr(self, name)
            setattr(self, name, value.to(here.device) if isinstance(value, Tensor) else value)

    def restart(self) -> None:
        """Episodes begin anew in every env."""
        if "reset" in self.__dict__:
            self.reset = torch.ones_like(self.reset)


def snapshot(parts: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint: the state of each part (module, optimiser, env, generator, `State`; None is left out)."""
    # Of the generators: those that act draw where the tensors live, others (a shuffle's) always on the CPU.
    devices = {part.device.type for part in parts.values() if isinstance(part, torch.Generator)}
    state: dict[str, Any] = {"threads": torch.get_num_threads(), "device": "cuda" if "cuda" in devices else "cpu"}
    state["parts"] = {
        name: part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
        for name, part in parts.items()
        if part is not None
    }
    return state


def restore(state: Mapping[str, Any], parts: Mapping[str, Any], device: torch.device) -> None:
    """Undo `snapshot`: bring every part back.

    Sums differ with the number of threads, so that is brought back too.

    Raises:
        UserError: it was taken on another kind of device, whose random streams cannot go on here, or of other parts.
    """
    if state["device"] != device.type:
        raise UserError(
            f"--resume: this run was begun on {state['device']} and would go on on {device.type}, where its random "
            f"streams cannot be continued: resume it where there is {state['device']}, or start anew"
        )
    if missing := [name for name, part in parts.items() if part is not None and name not in state["parts"]]:
        raise UserError(
            f"--resume: this run was begun by another version of tscli (its checkpoint has no {missing[0]}): resume it "
            "with that one, or start anew"
        )
    torch.set_num_threads(state["threads"])
    for name, part in parts.items():
        if isinstance(part, torch.Generator):
            part.set_state(state["parts"][name])
        elif part is not None:
            part.load_state_dict(state["parts"][name])


def resume_note(name: str, where: str, exact: bool = True) -> str:
    """What to say when a run goes on; `exact` is False where the loop's env cannot be restored."""
    note = "" if exact else "; this env cannot be restored, so its episodes start anew"
    return f"resuming {name} at {where}{note}"


class Clock:
    """Seconds since it was made, with evaluations left out: what a loop takes.

    Args:
        before: seconds that the loop took before it was interrupted and resumed.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._start, self._paused = time.perf_counter() - before, 0.0

    def __enter__(self) -> None:
        self._pause = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._paused += time.perf_counter() - self._pause

    @property
    def paused(self) -> float:
        """Time spent in `with clock:` blocks since it was made."""
        return self._paused

    @property
    def seconds(self) -> float:
        """Time spent outside `with clock:` blocks."""
        return time.perf_counter() - self._start - self._paused

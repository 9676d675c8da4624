"""The frame around a training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tscli.config import UserError
from tscli.envs import VecEnv

__all__ = ["Clock", "check_divergence", "restore", "resume_note", "snapshot"]


def snapshot(parts: Mapping[str, Any], **values: Any) -> dict[str, Any]:
    """A checkpoint: the state of each part (module, optimiser, env, generator; None is left out) and plain values."""
    # Of the generators: those that act draw where the tensors live, others (a shuffle's) always on the CPU.
    devices = {part.device.type for part in parts.values() if isinstance(part, torch.Generator)}
    device = "cuda" if "cuda" in devices else "cpu"
    state: dict[str, Any] = {"threads": torch.get_num_threads(), "device": device, "values": values, "parts": {}}
    for name, part in parts.items():
        if part is not None:
            state["parts"][name] = part.get_state() if isinstance(part, torch.Generator) else part.state_dict()
    return state


def restore(state: dict[str, Any], parts: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """Undo `snapshot`: bring every part back and return the plain values, tensors among them on `device`.

    Sums differ with the number of threads, so that is brought back too.

    Raises:
        UserError: it was taken on another kind of device, whose random streams cannot go on here.
    """
    if state["device"] != device.type:
        raise UserError(
            f"--resume: this run was begun on {state['device']} and would go on on {device.type}, where its random "
            f"streams cannot be continued: resume it where there is {state['device']}, or start anew"
        )
    torch.set_num_threads(state["threads"])
    for name, part in parts.items():
        if isinstance(part, torch.Generator):
            part.set_state(state["parts"][name])
        elif part is not None:
            part.load_state_dict(state["parts"][name])
    return {k: v.to(device) if isinstance(v, Tensor) else v for k, v in state["values"].items()}


def resume_note(name: str, where: str, env: VecEnv | None = None) -> str:
    """What to say when a run goes on. `env` is the one that the stage's loop steps, None where it steps none."""
    exact = "" if env is None or env.exact_resume else "; this env cannot be restored, so its episodes start anew"
    return f"resuming {name} at {where}{exact}"


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
    def seconds(self) -> float:
        """Time spent outside `with clock:` blocks."""
        return time.perf_counter() - self._start - self._paused


def check_divergence(metrics: Mapping[str, Any], where: str, flag: str = "--lr") -> None:
    """End a run whose losses are no longer numbers: nothing can come of it but a policy of NaN.

    Args:
        metrics: what is about to be logged; those named "loss/..." are looked at, None among them stands for no loss.
        where: how far the run is, such as "step 4096".
        flag: the setting to lower.

    Raises:
        UserError: names the loss.
    """
    for name, value in metrics.items():
        if name.startswith("loss/") and value is not None and not math.isfinite(value):
            raise UserError(f"training has diverged ({name} is {value} at {where}): lower {flag}")

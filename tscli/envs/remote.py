"""An object in a process of its own, for what allows one instance per process."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import signal
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tscli.config import UserError
from tscli.traces import brief, own_line


class _Sent(NamedTuple):
    """A tensor on its way: arrays are sent as they are, without shared memory that could run out."""

    array: np.ndarray


class Remote:
    """The methods of an object that lives in another process, which is started here.

    What goes wrong there is raised here: a UserError as it is, anything else as a RuntimeError with its traceback.

    Args:
        make: a function that can be imported by its name; it is called there with `args` and gives the object.
        args: plain values.
        device: of the tensors on either side.
        owner: whose process it is, for the error line.
    """

    def __init__(self, make: Callable[..., Any], args: tuple[Any, ...], device: torch.device, owner: str) -> None:
        self._device, self._owner = device, owner
        # Not forked: neither CUDA nor a simulator that is already running here would survive that.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, args, str(device)), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        return functools.partial(self._ask, name)

    def close(self) -> None:
        """Call the object's `close`, and end its process."""
        if self._process.is_alive():
            try:
                self._ask("close")
            finally:
                self._pipe.close()
                self._process.join(timeout=10)
                self._process.kill()

    def _ask(self, name: str, *args: Any) -> Any:
        self._pipe.send((name, _over_numpy(args)))
        return self._answer()

    def _answer(self) -> Any:
        try:
            kind, value = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(timeout=10)  # the pipe may break before there is an exit code
            raise UserError(
                f"the process of {self._owner} has ended by itself (exit code {self._process.exitcode}): its output is "
                "above"
            ) from None
        if kind == "bad input":
            raise UserError(value)
        if kind == "in its own code":
            raise UserError(f"{self._owner} failed: {value}")
        if kind == "error":
            raise RuntimeError(f"in the process of {self._owner}:\n{value}")
        return _over_torch(value, self._device)


def _serve(pipe: Any, make: Callable[..., Any], args: tuple[Any, ...], device: str) -> None:
    """What the other process does until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the stage, which then closes this
    made = None
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            try:
                if made is None:
                    made, answer = make(*args), None
                else:
                    name, given = pipe.recv()
                    answer = getattr(made, name)(*_over_torch(given, torch.device(device)))
                pipe.send(("answer", _over_numpy(answer)))
            except UserError as error:
                pipe.send(("bad input", str(error)))
            except EOFError:
                raise
            except (Exception, SystemExit) as error:
                own = own_line(error)
                kind = "in its own code" if own else "error"
                pipe.send((kind, f"{own}: {brief(error)}" if own else traceback.format_exc()))
            if made is None:
                return


def _over_numpy(value: Any) -> Any:
    """The same with arrays for tensors."""
    return _each(value, lambda tensor: _Sent(tensor.cpu().numpy()), Tensor)


def _over_torch(value: Any, device: torch.device) -> Any:
    """Undo `_over_numpy`."""
    return _each(value, lambda sent: torch.from_numpy(sent.array).to(device), _Sent)


def _each(value: Any, change: Callable[[Any], Any], kind: type) -> Any:
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, dict):
        return {key: _each(part, change, kind) for key, part in value.items()}
    if isinstance(value, tuple):
        parts = [_each(part, change, kind) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value

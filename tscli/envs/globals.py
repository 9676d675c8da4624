"""The process's global random streams, kept apart for a simulator that draws from them."""

from __future__ import annotations

import copy
import ctypes
import random
from typing import Any

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator

_MT19937_BYTES = 625 * 4  # its 624 words and its place among them


class GlobalStreams:
    """Python's, NumPy's and torch's global streams as one owner left them: inside `with` they go on from there.

    NumPy's bit generators take each other's place, since to copy the state of one takes 100 us.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device if device.type == "cuda" else None
        self._outer = self._now()
        self._own = copy.deepcopy(self._outer)
        self._put(self._outer)

    def __enter__(self) -> None:
        self._outer = self._now()
        self._put(self._own)

    def __exit__(self, *error: object) -> None:
        self._own = self._now()
        self._put(self._outer)

    def _now(self) -> tuple[Any, ...]:
        """How the streams stand; NumPy's is to be put in its place by `_put` before anyone goes on with it."""
        generator = get_bit_generator()
        of_cuda = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)
        return random.getstate(), generator, _waiting_normal(generator), torch.get_rng_state(), of_cuda

    def _put(self, state: tuple[Any, ...]) -> None:
        of_python, generator, waiting, of_torch, of_cuda = state
        random.setstate(of_python)
        set_bit_generator(generator)  # with which no normal number waits
        if waiting is not None:
            np.random.set_state({**np.random.get_state(legacy=False), "has_gauss": 1, "gauss": waiting})
        torch.set_rng_state(of_torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state(of_cuda, self._cuda)


def _waiting_normal(generator: Any) -> float | None:
    """The second normal number of a pair, where NumPy holds it back. It is taken out; the generator stays as it is."""
    if not isinstance(generator, np.random.MT19937):
        state = np.random.get_state(legacy=False)
        return state["gauss"] if state["has_gauss"] else None
    address = generator.ctypes.state_address
    before = ctypes.string_at(address, _MT19937_BYTES)
    number = np.random.standard_normal()
    if ctypes.string_at(address, _MT19937_BYTES) == before:
        return number
    ctypes.memmove(address, before, _MT19937_BYTES)
    return None

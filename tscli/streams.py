"""Random numbers as a pure function of (seed, stream, env, counter).

A stateful generator shared by all envs makes every stream depend on every other: one more env, or one more method
that draws, and nothing repeats. Hashing a counter instead (splitmix64, Steele et al. 2014) gives each env its own
stream that needs no stored state beyond the counter, on any device.
"""

from __future__ import annotations

import contextlib
import math
import zlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from tscli import ranks

_MASK_33, _MASK_34, _MASK_37 = (1 << 33) - 1, (1 << 34) - 1, (1 << 37) - 1


def _signed(value: int) -> int:
    """A uint64 as the int64 of the same bits: torch has no uint64 arithmetic, and int64 wraps the same way."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _mix(x: Any) -> Any:
    # `>>` is arithmetic on int64, so the sign bits that it drags in are masked off. Of a number the low 64 bits count.
    x = (x ^ ((x >> 30) & _MASK_34)) * _MIX_1
    x = (x ^ ((x >> 27) & _MASK_37)) * _MIX_2
    return x ^ ((x >> 31) & _MASK_33)


def stream_id(name: str) -> int:
    """A stable number for a stream's name (`hash()` differs from process to process)."""
    return zlib.crc32(name.encode())


def uniform(seed: int, stream: int, env: Tensor, counter: Tensor, num: int) -> Tensor:
    """Uniform numbers in [0, 1): float64 [len(env), num].

    Args:
        seed, stream: integers that name the stream.
        env, counter: [K] int64; row k depends on (seed, stream, env[k], counter[k]) alone.
    """
    key = _signed(_mix((seed * 0x1_0000_0001 + stream) * _GAMMA) % (1 << 64))
    key = _mix(env * _GAMMA + key)
    key = _mix(key + counter * _GAMMA)
    lanes = torch.arange(1, num + 1, dtype=torch.int64, device=env.device)
    bits = _mix(key[:, None] + lanes * _GAMMA)
    return ((bits >> 11) & ((1 << 53) - 1)).to(torch.float64) * 2.0**-53


def normal(seed: int, stream: int, env: Tensor, counter: Tensor, num: int) -> Tensor:
    """Standard normal numbers, float64 [len(env), num], by the Box-Muller transform of `uniform`."""
    u = uniform(seed, stream, env, counter, 2 * num)
    radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :num]))
    return radius * torch.cos(2.0 * math.pi * u[:, num:])


def derive(seed: int, name: str) -> int:
    """Another seed, for one purpose of a run ("select", "report", ...): 31 bits, so that every library takes it."""
    return (seed * 0x9E3779B1 + stream_id(name)) % (1 << 31)


@contextlib.contextmanager
def seeded_init(seed: int, name: str) -> Iterator[None]:
    """Initial weights drawn inside depend on (seed, name) alone; torch's global stream is left as it was."""
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would seed the accelerators' streams too.
        torch.default_generator.manual_seed(derive(seed, f"init/{name}"))
        yield


def generator(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one purpose of one run ("act", "shuffle", ...), independent of the run's others.

    Of several processes each has its own; rank 0's is that of one that is alone.
    """
    g = torch.Generator(device=device)
    name = f"{name}/rank{ranks.rank()}" if ranks.rank() else name
    g.manual_seed((seed * 0x1_0000_0001 + stream_id(name)) % (1 << 63))
    return g

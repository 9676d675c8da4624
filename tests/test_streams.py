"""Random numbers that depend on their names alone."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tscli import streams

ROOT = Path(__file__).resolve().parent.parent
# Every purpose that the code names, as `derive(seed, "...")` or `generator(seed, "...")`.
NAMES = sorted(
    {
        name
        for folder in ("tscli", "stages")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r'(?:derive|generator|stream)\([\w.]+, "([\w/]+)"', path.read_text(encoding="utf-8"))
    }
)


def rows(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def test_a_row_depends_on_its_own_env_and_counter_alone() -> None:
    every = streams.uniform(3, 7, torch.arange(10), torch.arange(10) * 2, 4)
    some = streams.uniform(3, 7, rows(8, 2), rows(16, 4), 4)
    assert torch.equal(every[[8, 2]], some)
    assert torch.equal(streams.uniform(3, 7, rows(5), rows(10), 2), every[5:6, :2])


def mix(x: int) -> int:
    """The finaliser of splitmix64 as published, in Python's own integers."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def test_numbers_are_those_of_splitmix64() -> None:
    golden = 0x9E3779B97F4A7C15
    assert mix(golden) == 0xE220A8397B1DCDAF  # the published first number of seed 0
    key = mix((5 * (2**32 + 1) + 9) * golden % 2**64)
    for name in (11, 3):  # env, counter
        key = mix((key + name * golden) % 2**64)
    expected = [(mix((key + lane * golden) % 2**64) >> 11) * 2.0**-53 for lane in range(1, 65)]
    assert streams.uniform(5, 9, rows(11), rows(3), 64)[0].tolist() == expected


@pytest.mark.parametrize("which", ["seed", "stream", "env", "counter"])
def test_every_part_of_a_name_matters(which: str) -> None:
    name = {"seed": 1, "stream": 2, "env": rows(3), "counter": rows(4)}
    first = streams.uniform(**name, num=8)  # type: ignore[arg-type]
    other = streams.uniform(**{**name, which: name[which] + 1}, num=8)  # type: ignore[arg-type]
    assert not torch.isclose(first, other).any()


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
@pytest.mark.parametrize("stream", [0, 2**32])
def test_the_largest_seed_and_stream_fit(seed: int, stream: int) -> None:
    found = streams.uniform(seed, stream, torch.arange(1000), torch.zeros(1000, dtype=torch.int64), 2)
    assert (found >= 0).all() and (found < 1).all() and len(found.unique()) == 2000


def test_uniform_numbers_are_uniform_and_normal_ones_normal() -> None:
    env, counter = torch.arange(200).repeat_interleave(100), torch.arange(100).repeat(200)
    u = streams.uniform(0, 1, env, counter, 2)
    counts = torch.histc(u[:, 0], 10, 0, 1) / len(u)
    assert counts.tolist() == pytest.approx([0.1] * 10, abs=0.01)
    # neither lanes nor neighbours in env or counter go together
    grid = u[:, 0].reshape(200, 100)
    pairs = [(u[:, 0], u[:, 1]), (grid[1:], grid[:-1]), (grid[:, 1:], grid[:, :-1])]
    for a, b in pairs:
        assert abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) < 0.03
    z = streams.normal(0, 1, env, counter, 1)
    moments = [z.mean(), z.std(), (z**3).mean(), (z**4).mean()]
    assert [m.item() for m in moments] == pytest.approx([0, 1, 0, 3], abs=0.15)
    assert torch.isfinite(z).all()


def test_no_two_purposes_of_the_code_share_a_seed() -> None:
    assert len(NAMES) > 8, NAMES
    seeds = range(1000)
    derived = {streams.derive(seed, name) for seed in seeds for name in NAMES}
    assert len(derived) == len(seeds) * len(NAMES)
    assert all(0 <= seed < 2**31 for seed in derived)
    # torch's CPU generator takes the low 32 bits of a seed alone.
    started = {streams.generator(seed, name).initial_seed() & 0xFFFFFFFF for seed in seeds for name in NAMES}
    assert len(started) == len(seeds) * len(NAMES)


def test_one_seed_never_stands_for_another() -> None:
    # Multiplying by an odd number is one to one, so a name maps different seeds to different ones.
    seeds = [0, 1, 2, 2**16, 2**30, 2**31 - 1]
    assert len({streams.derive(seed, "select") for seed in seeds}) == len(seeds)
    assert streams.derive(1, "select") != streams.derive(1, "report")


def test_generators_repeat_and_leave_torchs_own_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b = (torch.rand(3, generator=streams.generator(1, "act")) for _ in range(2))
    assert torch.equal(a, b)
    assert not torch.equal(a, torch.rand(3, generator=streams.generator(2, "act")))
    assert not torch.equal(a, torch.rand(3, generator=streams.generator(1, "shuffle")))
    with streams.seeded_init(1, "teacher"):
        first = torch.nn.Linear(2, 2).weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(7)
    with streams.seeded_init(1, "teacher"):
        assert torch.equal(torch.nn.Linear(2, 2).weight, first)


def test_a_streams_name_gives_the_same_number_in_every_process() -> None:
    assert streams.stream_id("123456789") == 0xCBF43926  # the published check value of CRC-32

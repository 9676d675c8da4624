"""Global random streams: each owner draws as if it were alone, to the last bit of what NumPy holds back."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator

from tscli.envs.globals import GlobalStreams

CPU = torch.device("cpu")


@pytest.fixture(params=[np.random.MT19937, np.random.PCG64])
def bits(request: pytest.FixtureRequest) -> Iterator[type]:
    """NumPy's global stream is of that kind, and as it was afterwards."""
    before = get_bit_generator()
    set_bit_generator(request.param(0))
    yield request.param
    set_bit_generator(before)


def seed(number: int, bits: type) -> None:
    random.seed(number)
    torch.manual_seed(number)
    np.random.set_state(bits(number).state)


def draw(t: int) -> tuple[Any, ...]:
    """Numbers of all kinds; after every other step but the third NumPy holds a normal number back."""
    normals = np.random.standard_normal((1, 1, 2)[t % 3]).tolist()
    uniforms = np.random.random_sample(t % 4).tolist()
    return normals, uniforms, random.gauss(0, 1), random.random(), torch.randn(2).tolist()


def test_every_owner_draws_as_if_it_were_alone(bits: type) -> None:
    alone = []
    for number in range(3):
        seed(number, bits)
        alone.append([draw(t) for t in range(40)])
    owners: list[Any] = [nullcontext(), GlobalStreams(CPU), GlobalStreams(CPU)]
    for number, owner in enumerate(owners):
        with owner:
            seed(number, bits)
    together: list[list[Any]] = [[], [], []]
    for t in range(60):
        for number in (0, *((1, 2) if t % 3 else (2, 1))):
            if len(together[number]) < 40 and (t + number) % 4:
                with owners[number]:
                    together[number].append(draw(len(together[number])))
    assert together == alone


@pytest.mark.parametrize("normals", [0, 1, 2])
def test_what_is_outside_stands_afterwards_as_before_whatever_happened(bits: type, normals: int) -> None:
    streams = GlobalStreams(CPU)
    seed(3, bits)
    np.random.standard_normal(normals)
    before = np.random.get_state(legacy=False), random.getstate(), torch.get_rng_state()
    for inside in (lambda: None, lambda: draw(0), lambda: seed(5, bits), lambda: 1 / 0):
        try:
            with streams:
                inside()
        except ZeroDivisionError:
            pass
        after = np.random.get_state(legacy=False)
        np.testing.assert_equal(after, before[0])
        assert random.getstate() == before[1] and torch.equal(torch.get_rng_state(), before[2])


def test_an_owner_goes_on_from_where_the_streams_stood_when_it_was_built(bits: type) -> None:
    seed(4, bits)
    draw(0)  # one normal number is held back
    streams = GlobalStreams(CPU)
    with streams:
        first = [draw(t) for t in range(5)]
    assert first == [draw(t) for t in range(5)]

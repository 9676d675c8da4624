"""Disturbances that are put into a view, and how the level that is borne is found."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pytest
import torch
from diagnose_data import readings, sample_of, teacher_of, view

from tscli.sensors.bearing import LEVELS, deviations, disturbed, last_borne
from tscli.sensors.students import seen_through


@pytest.mark.parametrize("borne", [0, 1, 7, 15])
def test_the_last_level_that_is_borne_is_found_by_halves(borne: int) -> None:
    levels, asked = LEVELS["noise"], []

    def holds(level: float) -> bool:
        asked.append(level)
        return levels.index(level) < borne

    assert last_borne(levels, holds) == borne and len(asked) <= 4


def test_noise_is_in_deviations_of_each_entry_and_a_reading_is_late_or_lost_as_a_whole() -> None:
    (part,) = view("state[2,0]").parts
    late, lost, noisy = (disturbed(part, kind, level, [2.0, 3.0]) for kind, level in zip(
        ("delay", "dropout", "noise"), (4.0, 0.2, 0.5), strict=True
    ))  # fmt: skip
    assert [(one.delay, one.dropout, one.index) for one in (*late, *lost)] == [(4, 0, (2, 0)), (0, 0.2, (2, 0))]
    assert [(one.index, one.size, one.noise) for one in noisy] == [((2,), 1, 1.0), ((0,), 1, 1.5)]


def test_deviations_are_those_of_the_steps_without_padding() -> None:
    sample = sample_of()
    state = readings()["state"][sample.valid]
    assert deviations(sample, view("state[2,0]").parts[0]) == pytest.approx(state.std(0)[[2, 0]].tolist())
    assert deviations(sample, view("camera").parts[0]) == []


def test_a_policy_seen_through_a_disturbance_has_the_same_weights_and_another_view() -> None:
    policy = teacher_of("state + lone")
    parts = disturbed(policy.spec.view.parts[0], "noise", 1.0, [1.0, 2.0, 3.0])
    other = seen_through(policy, {0: parts})
    assert other.spec.view.vector_size == policy.spec.view.vector_size == 4
    assert [part.noise for part in other.spec.view.parts] == [1, 2, 3, 0]
    assert policy.spec.view.parts[0].noise == 0 and other.head.linear.weight is policy.head.linear.weight
    obs = {"vector": torch.randn(5, 4)}
    ones = torch.ones(5, dtype=torch.bool)
    a, b = (one.step(obs, one.initial_hidden(5), ones)[0].mode() for one in (policy, other))
    assert torch.equal(a, b)

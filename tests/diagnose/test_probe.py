"""What can be guessed of the teacher's action: on cases whose answer is known."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diagnose_data import ARM, EFFORT, finding_of, linear, sample_of, teacher_of, view

from tscli.diagnose import checks
from tscli.diagnose.probe import features, imitation_gap, with_history
from tscli.diagnose.sample import steps_within


def test_the_history_of_a_step_stays_within_its_episode() -> None:
    x = torch.tensor([1.0, 3.0, 6.0, 10.0, 15.0])[:, None, None]
    previous = torch.tensor([0.0, 0.1, 0.2, 0.0, 0.4])[:, None, None]
    reset = torch.tensor([True, False, False, True, False])[:, None]
    expected = [
        # now, action before, last change, action before that, ...
        [1, 0, 0, 0, 0, 0],
        [3, 0.1, 2, 0, 0, 0],
        [6, 0.2, 3, 0.1, 2, 0],
        [10, 0, 0, 0, 0, 0],
        [15, 0.4, 5, 0, 0, 0],
    ]
    torch.testing.assert_close(with_history(x, previous, reset, 3)[:, 0], torch.tensor(expected, dtype=torch.float32))
    assert with_history(x, previous, reset, 8).shape == (5, 1, 10)  # five steps have no longer past


def test_pictures_become_small_and_grey() -> None:
    obs = {"vector": torch.zeros(4, 5, 2), "camera": torch.full((4, 5, 16, 20, 3), 51, dtype=torch.uint8)}
    found = features(obs)
    assert found.shape == (4, 5, 2 + 12 * 12)
    torch.testing.assert_close(found[..., 2:], torch.full((4, 5, 144), 0.2))
    assert steps_within(20_000, (view("state"), view("lone")), 8.0) == 20_000
    assert steps_within(20_000, (view("state"), view("camera")), 1.92) == 2000


def test_without_velocities_a_cartpole_needs_memory_and_with_memory_all_is_well() -> None:
    policy, sample = linear("cartpole", "full", {1: [0.5, 1.0, 10.0, 3.0]})
    note = finding_of(policy, sample, memory=False)
    assert note.level == "note" and "--student rnn" in note.advice
    assert note.figures["own"] > 0.93 and note.figures["student"] < 0.85 and note.figures["history"] > 0.9
    assert finding_of(policy, sample, memory=True).level == "fine"


def test_what_the_student_sees_too_hides_nothing() -> None:
    policy, sample = linear("cartpole", "state[position, angle]", {1: [0.5, 10.0]})
    other = replace(sample, student=sample.teacher, views=(sample.views[0], sample.views[0]))
    assert finding_of(policy, sample, memory=False).level == "fine"
    assert finding_of(policy, other, memory=False).what == "The student sees what the teacher sees."


def test_a_door_that_nobody_tells_the_student_of_is_a_problem_even_with_memory() -> None:
    # The tiger is behind the left or the right door: the teacher takes the other.
    policy, sample = linear("tiger_door", "full", {0: [0, 0, -50.0, 50.0], 1: [0, 0, 50.0, -50.0], 2: [0, 0, -90, -90]})
    found = finding_of(policy, sample, memory=True)
    assert found.level == "problem" and "tscli gpo" in found.advice
    assert found.figures["own"] == 1 and found.figures["history"] < 0.65
    assert checks.constant_inputs(sample).level == "problem"


def test_poisoned_doors_hide_the_good_one() -> None:
    # Three doors, each chosen where it is the good one.
    rows = {4 + i: [0.0] * 4 + [50.0 * (i == j) for j in range(3)] + [0.0] * 3 for i in range(3)}
    found = finding_of(*linear("poisoned_doors", "full", rows), memory=True)
    assert found.level == "problem" and found.figures["own"] == 1 and found.figures["history"] < 0.55


def test_continuous_actions_are_measured_by_the_variance_that_is_explained() -> None:
    teacher = teacher_of("state", action=ARM, hidden=(), normalize=False)
    with torch.no_grad():
        teacher.head.linear.weight.copy_(torch.tensor([[0.3, 0.0, 0.0], [0.0, 0.3, 0.0]]))
    sample = sample_of(teacher, "state[0]")
    gap = imitation_gap(sample, False, EFFORT._replace(hurry=False), seed=1)
    assert gap is not None and gap.base == pytest.approx(0, abs=0.1)
    assert gap.own > 0.95 and gap.student == pytest.approx(0.5, abs=0.15)
    assert checks.from_student_view(gap, sample, True).level == "problem"


def test_a_teacher_that_always_does_the_same_is_noted() -> None:
    teacher = teacher_of()
    with torch.no_grad():
        teacher.head.linear.bias.copy_(torch.tensor([1e4, 0.0]))
    sample = sample_of(teacher, "lone")
    found = checks.from_student_view(imitation_gap(sample, False, EFFORT, 1), sample, False)
    assert found.level == "note" and "does the same in 100 %" in found.what


def test_one_episode_is_too_little_to_hold_one_out() -> None:
    sample = sample_of()
    single = replace(sample, valid=sample.valid & (torch.arange(30) == 1) & (torch.arange(20) < 12)[:, None])
    assert imitation_gap(single, False, EFFORT, 1) is None
    assert checks.from_student_view(None, single, False).level == "note"

"""What each check finds: on a case that is made for it, and nothing on a healthy one."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from diagnose_data import ARM, PUSH, readings, sample_of, teacher_of

from tscli.diagnose import checks
from tscli.diagnose.probe import Gap
from tscli.learning.statistics import Estimate

# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["mlp", "rnn", "gru", "history"])
def test_labels_come_out_again_from_the_start_of_each_episode(kind: str) -> None:
    teacher = teacher_of(kind=kind)
    sample = sample_of(teacher)
    assert checks.labels_come_out_again(teacher, sample).level == "fine"
    if kind != "mlp":  # what an episode begins with counts
        other = replace(sample, reset=sample.reset & (torch.arange(20) == 0)[:, None])
        assert checks.labels_come_out_again(teacher, other).level == "problem"


def test_poisoned_labels_are_found_and_counted() -> None:
    teacher = teacher_of()
    sample = sample_of(teacher)
    label = sample.label.clone()
    label[3, :6] = 1 - label[3, :6]
    found = checks.labels_come_out_again(teacher, replace(sample, label=label))
    assert found.level == "problem" and found.figures["wrong"] == pytest.approx(6 / sample.num_steps)
    other = sample_of(teacher_of("colors + state"))
    found = checks.labels_come_out_again(teacher, replace(sample, dist=other.dist, label=other.label))
    assert found.level == "problem" and found.figures["wrong"] > 0.5


def test_what_is_padding_is_not_looked_at() -> None:
    teacher = teacher_of()
    sample = sample_of(teacher)
    label = torch.where(sample.valid, sample.label, 1 - sample.label)
    assert checks.labels_come_out_again(teacher, replace(sample, label=label)).level == "fine"


@pytest.mark.parametrize("network", [{}, {"squash": True}, {"distribution": "beta"}, {"std": "network"}])
def test_continuous_labels_are_compared_too(network: dict[str, Any]) -> None:
    teacher = teacher_of(action=ARM, **network)
    sample = sample_of(teacher)
    assert checks.labels_come_out_again(teacher, sample).level == "fine"
    with torch.no_grad():
        teacher.head.linear.bias.add_(0.3)
    assert checks.labels_come_out_again(teacher, sample).level == "problem"


def test_a_teacher_of_nan_does_not_pass_for_one_whose_labels_come_out_again() -> None:
    teacher = teacher_of()
    sample = sample_of(teacher)
    with torch.no_grad():
        teacher.head.linear.bias.fill_(torch.nan)
    found = checks.labels_come_out_again(teacher, sample)
    assert found.level == "problem"
    assert found.to_json()["figures"]["largest_difference"] is None  # JSON has no NaN


def test_labels_of_a_noisy_view_cannot_be_checked() -> None:
    teacher = teacher_of()
    parts = tuple(replace(part, noise=0.1) for part in teacher.spec.view.parts)
    teacher.spec = replace(teacher.spec, view=replace(teacher.spec.view, parts=parts))
    assert checks.labels_come_out_again(teacher, sample_of()).level == "note"


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_a_constant_entry_and_a_constant_group_are_named() -> None:
    assert checks.constant_inputs(sample_of()).level == "fine"
    state = readings()["state"]
    state[..., 2] = 0.7
    found = checks.constant_inputs(sample_of(change={"state": state}))
    assert found.level == "note" and "state[aim] is the same" in found.what and "place" not in found.what
    still = {"lone": torch.full((20, 30), 3.0), "camera": torch.zeros(20, 30, 16, 20, 3, dtype=torch.uint8)}
    found = checks.constant_inputs(sample_of(student="state + lone + camera", change=still))
    assert found.level == "note" and "camera, lone are the same" in found.what


def test_an_entry_that_no_view_reads_may_be_constant() -> None:
    state = readings()["state"]
    state[..., 2] = 0.7
    teacher = teacher_of("state[0,1]")
    assert checks.constant_inputs(sample_of(teacher, "state[0]", {"state": state})).level == "fine"


def test_a_colour_that_is_never_met_is_no_finding_but_a_group_without_any_is() -> None:
    colors = readings()["colors"]
    colors[..., 0] = 0
    assert checks.constant_inputs(sample_of(change={"colors": colors})).level == "fine"
    found = checks.constant_inputs(sample_of(change={"colors": torch.zeros(20, 30, 2)}))
    assert found.level == "note" and "colors is the same" in found.what


def test_a_student_whose_whole_view_never_changes_has_a_problem() -> None:
    found = checks.constant_inputs(sample_of(student="lone", change={"lone": torch.ones(20, 30)}))
    assert found.level == "problem" and "Nothing that the student sees" in found.what


def test_large_inputs_are_a_problem_without_a_normaliser() -> None:
    assert checks.large_inputs(sample_of(student="state + lone"), normalised=False).level == "fine"
    sample = sample_of(student="state + lone", change={"lone": 4e4 * readings()["lone"]})
    assert checks.large_inputs(sample, normalised=True).level == "note"
    found = checks.large_inputs(sample, normalised=False)
    assert found.level == "problem" and found.what.startswith("lone reach") and "--student.normalize" in found.advice


def test_readings_out_of_their_stated_bounds_are_noted() -> None:
    found = checks.large_inputs(sample_of(change={"state": 40 * readings()["state"]}), normalised=True)
    assert found.level == "note" and "state (-" in found.what and "bounds" in found.what


# --- the teacher ------------------------------------------------------------------------------------------------------


def test_a_normaliser_that_was_never_updated_is_a_problem() -> None:
    teacher = teacher_of()
    sample = sample_of(teacher)
    assert checks.normaliser_fits(teacher, sample).level == "fine"
    assert checks.normaliser_fits(teacher, None).level == "fine"
    assert teacher.encoder.norm is not None
    teacher.encoder.norm.count.zero_()
    for looked_at in (sample, None):
        found = checks.normaliser_fits(teacher, looked_at)
        assert found.level == "problem" and "never updated" in found.what
    assert checks.normaliser_fits(teacher_of(normalize=False), sample).level == "fine"


def test_observations_in_other_units_than_those_of_the_training_are_a_problem() -> None:
    teacher, state = teacher_of(), readings()["state"]
    state[..., 1] = 60 + state[..., 1]
    found = checks.normaliser_fits(teacher, sample_of(teacher, change={"state": state}))
    assert found.level == "problem" and "state[speed]" in found.what and "place" not in found.what


def test_greedy_actions_out_of_bounds_are_counted() -> None:
    label = torch.zeros(100, 2)
    assert checks.action_bounds(label, ARM).level == "fine"
    assert checks.action_bounds(torch.zeros(100, dtype=torch.int64), PUSH).level == "fine"
    label[:10, 0] = -1.5  # half a half range
    found = checks.action_bounds(label, ARM)
    assert found.level == "fine" and found.figures == pytest.approx({"outside": 0.1, "beyond": 0.5})
    label[:30, 1] = 5  # a whole half range
    found = checks.action_bounds(label, ARM)
    assert found.level == "note" and found.figures == pytest.approx({"outside": 0.3, "beyond": 1.0})
    label[:] = 9
    assert checks.action_bounds(label, ARM).level == "problem"
    unbounded = replace(ARM, low=(-float("inf"),) * 2, high=(float("inf"),) * 2)
    assert checks.action_bounds(label, unbounded).level == "fine"


@pytest.mark.parametrize(
    ("mean", "goal", "success", "level"),
    [
        (20.0, None, None, "problem"),  # as random actions do
        (200.0, None, None, "fine"),
        (200.0, 500.0, None, "problem"),
        (400.0, 500.0, None, "note"),
        (495.0, 500.0, None, "fine"),
        (200.0, None, 0.2, "problem"),
        (200.0, None, 0.8, "note"),
        (200.0, None, 1.0, "fine"),
        (400.0, 500.0, 1.0, "note"),
    ],
)
def test_a_teacher_is_measured_by_random_actions_by_its_goal_and_by_success(
    mean: float, goal: float | None, success: float | None, level: str
) -> None:
    found, random = Estimate(mean, 10, mean, mean, 100), Estimate(19.0, 10, 18, 20, 100)
    assert checks.teacher_is_good(found, random, goal, success).level == level


def test_without_random_actions_the_goal_and_success_still_count() -> None:
    found = Estimate(200.0, 0, 200, 200, 0)
    assert checks.teacher_is_good(found, None, 500.0, None).level == "problem"
    assert checks.teacher_is_good(found, None, None, None).level == "fine"


# --- what the student can know ----------------------------------------------------------------------------------------


def test_a_part_that_is_hidden_is_a_note_and_pictures_are_never_a_problem() -> None:
    sample = sample_of(student="state[0]")
    part = Gap(own=1.0, student=0.6, history=0.9, base=0.5, rows=300)
    assert checks.from_student_view(part, sample, memory=True).level == "note"
    blind = Gap(own=1.0, student=0.5, history=0.5, base=0.5, rows=300)
    assert checks.from_student_view(blind, sample, memory=True).level == "problem"
    assert checks.from_student_view(blind, sample_of(student="camera"), memory=True).level == "note"


@pytest.mark.parametrize(
    ("history", "kind", "window", "advice"),
    [
        (0.5, "rnn", 2, "--window 8,"),  # hidden for longer than the probe looks back: as long as an episode
        (0.5, "gru", 11, "--window 12,"),
        (0.5, "rnn", 12, ""),
        (1.0, "rnn", 7, "--window 8,"),  # the last 8 observations tell it
        (1.0, "rnn", 8, ""),
        (0.5, "history", 4, ""),
    ],
)
def test_memory_that_has_to_reach_beyond_its_window_is_a_note(
    history: float, kind: str, window: int, advice: str
) -> None:
    gap = Gap(own=1.0, student=0.6, history=history, base=0.5, rows=300)
    found = checks.memory_within_window(gap, sample_of(), kind, ("window", window))
    assert found.level == ("note" if advice else "fine") and advice in found.advice
    rough = replace(gap, own=0.7)
    for other in (None, replace(gap, student=1.0), rough):
        assert checks.memory_within_window(other, sample_of(), kind, ("window", window)).level == "fine"


def test_a_guess_that_fails_for_the_teachers_own_view_says_nothing_of_the_students() -> None:
    rough = Gap(own=0.6, student=0.5, history=0.5, base=0.5, rows=300)
    assert "too rough" in checks.from_student_view(rough, sample_of(student="lone"), True).what

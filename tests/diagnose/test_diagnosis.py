"""What `tscli diagnose` finds: each finding on a case that is made for it, and none of them on a healthy one."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_tools import ADVISOR, BC, COLLECT, DAGGER, ONLINE, SMALL, TEACHER, call, error_of, fingerprint
from torch import Tensor

import tscli
from tscli.cli.app import main
from tscli.config import NetworkConfig, parse_view
from tscli.diagnose import checks, diagnosis
from tscli.diagnose.checks import Finding
from tscli.diagnose.probe import Effort, Gap, features, imitation_gap, with_history
from tscli.diagnose.sample import Sample, read_sample, roll_out, steps_within
from tscli.envs import make_env
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import ViewSpec, resolve_view
from tscli.learning.statistics import Estimate
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import Beta, Categorical, Gaussian
from tscli.runs import list_runs
from tscli.streams import generator, seeded_init

GROUPS = {
    "state": Group((3,), fields=("place", "speed", "aim"), low=-50, high=50),
    "colors": Group((2,)),
    "lone": Group(()),
    "camera": Group((16, 20, 3), dtype="uint8", low=0, high=255),
}
PUSH = ActionSpec("discrete", nvec=(2,))
ARM = ActionSpec("continuous", low=(-1.0, -1.0), high=(1.0, 3.0))
EFFORT = Effort(fit_rows=1000, test_rows=300, units=64, updates=100, hurry=True)


def view(text: str, action: ActionSpec = PUSH) -> ViewSpec:
    return resolve_view(text, parse_view(text), GROUPS, action)


def teacher_of(text: str = "state + colors", action: ActionSpec = PUSH, **network: Any) -> Policy:
    """A teacher whose answers differ from observation to observation, with a normaliser that has seen them."""
    config = NetworkConfig.model_validate({"hidden": (8,), "memory": 4, **network})
    with seeded_init(0, "test"):
        policy = Policy(PolicySpec(view(text, action), action, config))
    with torch.no_grad():
        policy.head.linear.weight.mul_(100)
    policy.encoder.update_normalizer({"vector": readings()["vector"][..., : policy.spec.view.vector_size]})
    return policy


def readings(steps: int = 20, columns: int = 30) -> dict[str, Tensor]:
    """[T, B, ...] of each group, and the vector of "state + colors"."""
    random = generator(0, "test")
    state = torch.randn(steps, columns, 3, generator=random)
    colors = (torch.rand(steps, columns, 2, generator=random) < 0.5).float()
    lone = torch.randn(steps, columns, generator=random)
    camera = torch.randint(0, 256, (steps, columns, 16, 20, 3), generator=random, dtype=torch.uint8)
    vector = torch.cat([state, colors], dim=-1)
    return {"state": state, "colors": colors, "lone": lone, "camera": camera, "vector": vector}


def sample_of(
    teacher: Policy | None = None, student: str = "state + colors", change: dict[str, Tensor] | None = None
) -> Sample:
    """Two episodes in every column, of which the last steps of some are padding, labelled by the teacher."""
    teacher = teacher or teacher_of()
    groups = readings() | (change or {})
    groups.pop("vector")
    reset = torch.zeros(groups["lone"].shape, dtype=torch.bool)
    reset[0], reset[12] = True, True
    valid = torch.ones_like(reset)
    valid[17:, ::3] = False
    views = (teacher.spec.view, view(student, teacher.spec.action))
    obs = [see(spec, groups) for spec in views]
    with torch.no_grad():
        dist, _ = teacher(obs[0], teacher.initial_hidden(reset.shape[1]), reset)
    previous = torch.zeros(*reset.shape, 1)
    used = {name: groups[name] for spec in views for name in spec.groups}
    action = teacher.spec.action
    return Sample(GROUPS, action, used, obs[0], obs[1], views, previous, dist, dist.mode(), reset, valid)


def see(spec: ViewSpec, groups: dict[str, Tensor]) -> dict[str, Tensor]:
    obs = {part.group: groups[part.group] for part in spec.parts if part.is_image}
    vectors = []
    for part in spec.parts:
        if not part.is_image:
            value = groups[part.group].reshape(*groups["lone"].shape, -1)
            vectors.append(value if part.index is None else value[..., list(part.index)])
    return obs | ({"vector": torch.cat(vectors, -1)} if vectors else {})


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


def test_random_actions_are_uniform_choices_or_of_half_the_range() -> None:
    obs = {"vector": torch.randn(1, 20_000, 3)}
    for action, deviations in ((PUSH, [0.5]), (ARM, [1.0, 2.0])):
        policy = diagnosis.random_policy(view("state", action), action)
        dist, _ = policy(obs, policy.initial_hidden(20_000))
        drawn = dist.sample(generator(0, "test")).float().reshape(20_000, -1)
        torch.testing.assert_close(drawn.std(0), torch.tensor(deviations), atol=0.02, rtol=0)
        middle = torch.tensor([0.5] if action is PUSH else [0.0, 1.0])
        torch.testing.assert_close(drawn.mean(0), middle, atol=0.05, rtol=0)


# --- what the student can know ----------------------------------------------------------------------------------------


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


def linear(task: str, teacher: str, rows: dict[int, list[float]]) -> tuple[Policy, Sample]:
    """A rolled-out teacher whose logits are linear in its view, and its sample for the task's student."""
    described = tscli.tasks.load_task(task)
    env = make_env(described.env, 16)
    views = [resolve_view(v, described.view(v), env.groups, env.action) for v in (teacher, described.student)]
    policy = Policy(PolicySpec(views[0], env.action, NetworkConfig(hidden=(), normalize=False)))
    with torch.no_grad():
        policy.head.linear.weight.zero_()
        policy.head.linear.bias.zero_()
        for choice, weights in rows.items():
            policy.head.linear.weight[choice] = torch.tensor(weights)
    return policy, roll_out(policy, env, views[1], 3000, seed=1)


def finding_of(policy: Policy, sample: Sample, memory: bool) -> Finding:
    return checks.from_student_view(imitation_gap(sample, False, EFFORT, seed=1), sample, memory)


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


def test_a_part_that_is_hidden_is_a_note_and_pictures_are_never_a_problem() -> None:
    sample = sample_of(student="state[0]")
    part = Gap(own=1.0, student=0.6, history=0.9, base=0.5, rows=300)
    assert checks.from_student_view(part, sample, memory=True).level == "note"
    blind = Gap(own=1.0, student=0.5, history=0.5, base=0.5, rows=300)
    assert checks.from_student_view(blind, sample, memory=True).level == "problem"
    assert checks.from_student_view(blind, sample_of(student="camera"), memory=True).level == "note"


def test_a_guess_that_fails_for_the_teachers_own_view_says_nothing_of_the_students() -> None:
    rough = Gap(own=0.6, student=0.5, history=0.5, base=0.5, rows=300)
    assert "too rough" in checks.from_student_view(rough, sample_of(student="lone"), True).what


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


# --- samples ----------------------------------------------------------------------------------------------------------


def test_recorded_steps_are_whole_episodes_from_their_start(runs: Path) -> None:
    pairs, teacher = tscli.open_pairs("2"), tscli.load_policy("1")
    sample = read_sample(pairs, teacher.spec.view, teacher.spec.view, 10_000, seed=3)
    assert sample.num_steps == pairs.num_steps
    assert sample.reset.sum() == pairs.num_episodes and bool(sample.reset[0].all())
    assert len(sample.rows(sample.episode).unique()) == pairs.num_episodes
    part = read_sample(pairs, teacher.spec.view, teacher.spec.view, 30, seed=3)
    assert 30 <= part.num_steps < pairs.num_steps
    assert checks.labels_come_out_again(teacher, sample).level == "fine"


def test_a_roll_out_carries_the_distribution_the_views_and_the_action_before() -> None:
    policy, sample = linear("cartpole", "full", {1: [0.0, 0.0, 10.0, 3.0]})
    assert isinstance(sample.dist, Categorical) and sample.valid.all()
    assert checks.labels_come_out_again(policy, sample).level == "fine"
    assert torch.equal(sample.student["vector"][..., 2:], sample.previous)
    assert not sample.previous[sample.reset].any() and sample.previous[~sample.reset].abs().eq(1).all()


@pytest.mark.parametrize(("network", "kind"), [({"distribution": "beta"}, Beta), ({"squash": True}, Gaussian)])
def test_distributions_of_every_kind_are_rolled_out(network: dict[str, object], kind: type) -> None:
    env = make_env({"kind": "pendulum"}, 4)
    spec = resolve_view("all", parse_view("+".join(env.groups)), env.groups, env.action)
    teacher = Policy(PolicySpec(spec, env.action, NetworkConfig.model_validate({"hidden": (4,), **network})))
    sample = roll_out(teacher, env, spec, 40, seed=1)
    assert isinstance(sample.dist, kind) and sample.label.shape == (10, 4, 1)
    assert checks.labels_come_out_again(teacher, sample).level == "fine"


# --- the command ------------------------------------------------------------------------------------------------------

DIAGNOSE = ("diagnose", "--episodes", "10", "--steps", "300")


def as_json(capsys: pytest.CaptureFixture[str], *args: str) -> dict:
    capsys.readouterr()
    assert main([*DIAGNOSE, *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_says_what_it_found_and_writes_no_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = as_json(capsys)
    assert data["teacher"] == list_runs(runs)[0].name and data["pairs"] == list_runs(runs)[1].name
    assert data["view"] == "partial" and len(list_runs(runs)) == 2
    levels = {finding["about"]: finding["level"] for finding in data["findings"]}
    assert list(levels) == ["teacher", "labels", "normaliser", "actions", "inputs", "range", "view"]
    assert levels["teacher"] == "problem" and levels["labels"] == "fine"  # 384 steps make no teacher
    assert main([*DIAGNOSE]) == 0
    text = capsys.readouterr().out
    assert "The greedy teacher's return is" in text and "problem" in text and "Train it longer" in text


def test_without_pairs_the_teacher_is_rolled_out(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = as_json(capsys, "--pairs", "none", "--obs", "full", "--seed", "4")
    assert data["pairs"] is None and data["view"] == "full" and data["steps"] >= 300
    assert "labels" not in {finding["about"] for finding in data["findings"]}
    assert data == as_json(capsys, "--pairs", "none", "--obs", "full", "--seed", "4")


def test_pictures_and_gymnasiums_envs_are_diagnosed_as_well(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("train-teacher", "toy_envs:toy/Dict-v0", *TEACHER[2:], "--obs", "body")
    data = as_json(capsys, "--obs", "camera")
    assert data["view"] == "camera"
    assert all(finding["level"] != "problem" for finding in data["findings"] if finding["about"] == "view")


def test_pairs_without_a_group_are_passed_over_unless_they_are_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("train-teacher", "toy_envs:toy/Dict-v0", *TEACHER[2:], "--obs", "body")
    call(*COLLECT, "--groups", "body")
    assert as_json(capsys, "--obs", "goal")["pairs"] is None
    assert as_json(capsys, "--obs", "body[0]")["pairs"] is not None
    assert "did not record" in error_of(capsys, *DIAGNOSE, "--obs", "goal", "--pairs", "2")


def test_what_is_not_there_is_refused_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no finished run" in error_of(capsys, *DIAGNOSE)
    call(*TEACHER)
    call(*COLLECT)
    call(*TEACHER, "--seed", "5")
    assert "another teacher" in error_of(capsys, *DIAGNOSE, "--teacher", "3", "--pairs", "2")
    assert 'did you mean "partial"' in error_of(capsys, *DIAGNOSE, "--obs", "partail")
    assert "no run" in error_of(capsys, *DIAGNOSE, "--teacher", "77")
    assert "--resume" in error_of(capsys, *DIAGNOSE, "--resume")


# --- before a distillation --------------------------------------------------------------------------------------------

METHODS = {
    "bc": BC,
    "dagger": DAGGER,
    "dagger without pairs": (*DAGGER, "--pairs", "none"),
    "online": ONLINE,
    "advisor": ADVISOR,
}


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize("method", METHODS)
def test_a_student_is_the_same_bit_for_bit_with_and_without_the_checks(
    runs: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    assert main([*METHODS[method], *SMALL]) == 0
    said = capsys.readouterr().err
    assert main([*METHODS[method], *SMALL, "--no-diagnose"]) == 0
    assert "The greedy teacher's return is" in said and "did not work" not in said
    assert "The greedy teacher's return is" not in capsys.readouterr().err
    checked, unchecked = list_runs(runs)[-2:]
    assert fingerprint(checked) == fingerprint(unchecked)


@pytest.mark.usefixtures("no_plots")
def test_a_check_that_fails_does_not_keep_the_student_from_learning(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(diagnosis, "imitation_gap", fail)
    assert main([*BC, *SMALL]) == 0
    assert "checks before distillation did not work" in capsys.readouterr().err


@pytest.mark.usefixtures("no_plots")
def test_who_wants_quiet_and_who_resumes_is_told_nothing(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(diagnosis, "_quick_findings", lambda *args: calls.append(args) or [])
    call(*BC, *SMALL)
    assert calls == []
    assert main([*BC, *SMALL]) == 0
    assert len(calls) == 1


@pytest.mark.usefixtures("no_plots")
@pytest.mark.parametrize(("method", "told"), [(ONLINE, True), (ADVISOR, False)], ids=["online", "advisor"])
def test_who_learns_from_rewards_too_is_not_told_that_the_view_hides_something(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, method: tuple[str, ...], told: bool
) -> None:
    hidden = diagnosis.Finding("problem", "view", "The view hides the door.")
    still = diagnosis.Finding("note", "inputs", "An input stands still.")
    monkeypatch.setattr(diagnosis, "_quick_findings", lambda *args: [hidden, still])
    assert main([*method, *SMALL]) == 0
    said = capsys.readouterr().err
    assert ("The view hides the door." in said) is told and "An input stands still." in said


def test_nothing_is_found_where_all_is_fine() -> None:
    teacher = teacher_of("state", hidden=())
    sample = sample_of(teacher, "state + lone")
    found = diagnosis.sample_findings(teacher, sample, True, NetworkConfig(), EFFORT, 1)
    assert [finding for finding in found if finding.level != "fine"] == []

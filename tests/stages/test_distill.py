"""Behaviour cloning and DAgger: what they learn from, when they stop, and that the teacher is left alone."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stage_tools import (
    BC,
    COLLECT,
    DAGGER,
    SMALL,
    TEACHER,
    Remember,
    call,
    error_of,
    fingerprint,
    metrics_of,
    weights_hash,
)
from torch import Tensor

import tscli
from tscli.cli.app import main
from tscli.networks import Policy
from tscli.pairs import Pairs
from tscli.pairs.windows import Windows
from tscli.runs import list_runs
from tscli.training import setup

pytestmark = pytest.mark.usefixtures("no_plots")

METHODS = {"bc": BC, "dagger": DAGGER}


@pytest.mark.parametrize(
    ("method", "loss"), [("bc", "kl"), ("bc", "huber"), ("dagger", "cross_entropy"), ("dagger", "mse")]
)
def test_the_loss_falls_whichever_it_is(runs: Path, method: str, loss: str) -> None:
    much = {
        "bc": ("--num-epochs", "12", "--lr", "0.01"),
        "dagger": ("--updates-per-round", "12", "--lr", "0.01", "--pairs", "2"),
    }[method]
    lines = metrics_of(call(*METHODS[method], *SMALL, *much, "--loss", loss, "--obs", "full"))
    assert np.mean([line["loss/imitation"] for line in lines[-2:]]) < 0.8 * lines[0]["loss/imitation"]


@pytest.mark.parametrize("method", METHODS)
def test_the_teacher_and_its_normaliser_are_left_as_they_were(
    runs: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    (folder,) = runs.glob("0001-*")
    before = weights_hash(folder / "policy.safetensors")
    monkeypatch.setattr(setup, "open_policy", remember := Remember(setup.open_policy))
    call(*METHODS[method], *SMALL, "--student", "rnn")
    assert len(remember.opened) == (method == "dagger")
    for policy, kept in remember.opened:
        assert all(torch.equal(value, kept[name]) for name, value in policy.state_dict().items())
    assert weights_hash(folder / "policy.safetensors") == before


@pytest.mark.parametrize("method", METHODS)
def test_a_student_that_diverges_ends_its_run_in_one_line_that_says_so(
    runs: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    error = error_of(
        capsys, *METHODS[method], *SMALL, "--lr", "1e30", "--student", "mlp", "--student.activation", "relu"
    )
    assert "training has diverged" in error and "lower --lr" in error
    assert list_runs(runs)[-1].status == "failed"


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_student_and_another_seed_another(runs: Path, method: str) -> None:
    first, second, other = (
        fingerprint(call(*METHODS[method], *SMALL, "--student", "rnn", "--seed", seed)) for seed in ("1", "1", "2")
    )
    assert first == second
    assert first["weights"] != other["weights"] and first["metrics"] != other["metrics"]


def test_cloning_stops_once_the_loss_on_held_out_episodes_no_longer_falls(runs: Path) -> None:
    # With steps this small no weight moves, so that the first epoch's loss stays the best.
    run = call(*BC, *SMALL, "--num-epochs", "40", "--patience", "3", "--lr", "1e-30")
    lines = metrics_of(run)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert run.metrics["best_validation_loss"] == lines[0]["loss/validation"]


def test_cloning_stops_at_the_return_that_was_asked_for_or_out_of_updates(runs: Path) -> None:
    lines = metrics_of(call(*BC, *SMALL, "--num-epochs", "40", "--stop-return", "1", "--stop-patience", "2"))
    assert len(lines) == 2
    run = call(*BC, *SMALL, "--num-epochs", "40", "--max-updates", "7")
    assert run.metrics["updates"] == metrics_of(run)[-1]["updates"] == 7


@pytest.mark.parametrize("seed", [1, 3, 4])
def test_a_single_episode_is_learnt_from_rather_than_held_out(runs: Path, seed: int) -> None:
    call(*COLLECT, "--episodes", "1")
    call(*BC, *SMALL, "--validation-fraction", "0.5", "--seed", str(seed), "--num-epochs", "1")


def test_dagger_aggregates_onto_disk_in_the_format_of_collected_pairs(runs: Path) -> None:
    run = call(*DAGGER, *SMALL, "--student", "rnn")
    pairs = tscli.open_pairs(run)
    collected = tscli.open_pairs("2")
    assert set(run.holds) == {"pairs", "policy"}
    assert pairs.num_steps == 320
    both = Pairs(["runs/0002-collect-cartpole-seed1", run.path])
    assert both.num_steps == collected.num_steps + 320


def test_without_pairs_dagger_begins_with_episodes_of_the_teacher(runs: Path) -> None:
    run = call(*DAGGER, *SMALL, "--pairs", "none", "--teacher-episodes", "5", "--total-steps", "1280")
    lines = metrics_of(run)
    betas = [line["beta"] for line in lines]
    begun = [line["episodes"] for line in lines]
    assert betas == [1.0 if i == 0 or begun[i - 1] < 5 else 0.0 for i in range(len(lines))]
    assert 0.0 in betas
    assert run.parents == ["0001-train-teacher-cartpole-seed1"]


SCHEDULES = {
    "constant": [0.8, 0.8, 0.8, 0.8],
    "linear": [0.8, 0.6, 0.4, 0.2, 0.0, 0.0],
    "exponential": [0.8, 0.4, 0.2, 0.1],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_beta_is_the_teachers_share_of_the_actions_and_follows_its_schedule(runs: Path, schedule: str) -> None:
    settings = ("--beta", "0.8", "--beta-schedule", schedule, "--beta-rounds", "4", "--beta-decay", "0.5")
    run = call(*DAGGER, *SMALL, *settings, "--round-steps", "64", "--total-steps", "1536")
    expected = SCHEDULES[schedule]
    assert [line["beta"] for line in metrics_of(run)][: len(expected)] == pytest.approx(expected)
    pairs = tscli.open_pairs(run)
    windows = pairs.windows(1, start="tile")[:]
    actor = pairs.gather(windows, ["actor"])["actor"][0]
    time = pairs.segments()
    at = np.concatenate([np.arange(row["time"], row["time"] + row["length"]) for row in time])
    for index, beta in enumerate(expected):
        assert actor[at // 64 == index].mean() == pytest.approx(beta, abs=0.12)


def test_beta_begins_to_fall_once_the_teacher_no_longer_acts_alone(runs: Path) -> None:
    begins = ("--pairs", "none", "--teacher-episodes", "5", "--total-steps", "1280")
    schedule = ("--beta", "0.8", "--beta-schedule", "exponential", "--beta-decay", "0.5")
    lines = metrics_of(call(*DAGGER, *SMALL, *begins, *schedule))
    betas = [line["beta"] for line in lines]
    alone = 1 + sum(line["episodes"] < 5 for line in lines)
    assert 1 < alone < len(lines) - 3
    assert betas[:alone] == [1.0] * alone
    assert betas[alone : alone + 3] == pytest.approx([0.8, 0.4, 0.2])


def test_the_students_memory_goes_on_while_the_teacher_acts(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor]] = []
    step = Policy.step

    def watched(self: Policy, obs: Any, hidden: Tensor, reset: Tensor) -> Any:
        dist, after = step(self, obs, hidden, reset)
        if self.is_recurrent and len(reset) == 4:  # the student in training, not in an evaluation
            calls.append((hidden, after, reset))
        return dist, after

    monkeypatch.setattr(Policy, "step", watched)
    run = call(*DAGGER, *SMALL, "--student", "rnn", "--beta", "1", "--beta-schedule", "constant")
    assert (tscli.open_pairs(run).episodes()["length"] > 1).any()
    assert len(calls) == 80
    for (_, before, _), (hidden, after, _) in itertools.pairwise(calls):
        assert hidden is before
        assert (after != hidden).any(dim=1).all()


def times(pairs: Pairs, windows: Windows) -> np.ndarray:
    """When the last step of every window was recorded."""
    segments = pairs.segments()
    starts = segments["row"]
    found = np.empty(len(windows), np.int64)
    for i in range(len(windows)):
        row = windows.row[i] + windows.valid_length[i] - 1
        here = (segments["shard"] == windows.shard[i]) & (starts <= row) & (row < starts + segments["length"])
        (segment,) = segments[here]
        found[i] = segment["time"] + row - segment["row"]
    return found


def drawn_times(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, np.ndarray]]:
    """Watch what DAgger draws: for each batch the newest time at hand and the times of its windows' ends."""
    drawn: list[tuple[int, np.ndarray]] = []
    gather = Pairs.gather

    def watched(self: Pairs, windows: Windows, fields: Any, delay: Any = None) -> dict[str, np.ndarray]:
        if "teacher_action" in fields and len(windows) == 64:  # a batch to learn from, not a validation
            segments = self.segments()
            drawn.append((int((segments["time"] + segments["length"]).max()), times(self, windows)))
        return gather(self, windows, fields, delay)

    monkeypatch.setattr(Pairs, "gather", watched)
    return drawn


def test_memory_is_the_number_of_newest_transitions_that_are_learnt_from(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = drawn_times(monkeypatch)
    call(*DAGGER, *SMALL, "--student", "rnn", "--memory", "40", "--batch-size", "64")
    assert len(drawn) == 20
    # From the second round on all of it comes from four envs that step together.
    assert max((newest - found).max() for newest, found in drawn[2:]) == 40 // 4


def test_without_memory_all_that_was_ever_labelled_is_learnt_from(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = drawn_times(monkeypatch)
    call(*DAGGER, *SMALL, "--student", "rnn", "--batch-size", "64")
    first = tscli.open_pairs("2").segments()
    border = int((first["time"] + first["length"]).max())
    newest, found = drawn[-1]
    assert found.min() < border < found.max() <= newest


def test_all_transitions_are_forgotten_every_so_many_episodes(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = drawn_times(monkeypatch)
    run = call(*DAGGER, *SMALL, "--clear-every", "6", "--batch-size", "64", "--total-steps", "960")
    first = tscli.open_pairs("2").segments()
    border = int((first["time"] + first["length"]).max())
    cleared = border - 10**9
    last = 0
    for index, line in enumerate(metrics_of(run)):
        if line["episodes"] // 6 > last // 6:
            last, cleared = line["episodes"], border + index * 8
        for _, found in drawn[2 * index : 2 * index + 2]:
            assert found.min() >= cleared
    assert last >= 12  # it happened more than once


@pytest.mark.parametrize("seed", [1, 2])
def test_a_round_whose_memory_holds_nothing_but_held_out_episodes_learns_nothing(runs: Path, seed: int) -> None:
    settings = ("--num-envs", "1", "--memory", "4", "--validation-fraction", "0.5", "--total-steps", "160")
    run = call(*DAGGER, *SMALL, *settings, "--seed", str(seed))
    assert run.metrics["updates"] <= 2 * len(metrics_of(run))


def test_dagger_stops_after_the_episodes_or_at_the_return_that_was_asked_for(runs: Path) -> None:
    run = call(*DAGGER, *SMALL, "--total-episodes", "3", "--total-steps", "6400")
    before, last = metrics_of(run)[-2:]
    assert before["episodes"] < 3 <= last["episodes"] == run.metrics["episodes"]
    run = call(*DAGGER, *SMALL, "--stop-return", "1", "--stop-patience", "2", "--eval-every", "1")
    assert len(metrics_of(run)) == 2


def test_dagger_starts_from_pairs_of_a_part_of_the_groups_where_the_student_needs_no_more(folder: Path) -> None:
    call("train-teacher", "toy_envs:toy/Dict-v0", *TEACHER[2:], "--obs", "body")
    call(*COLLECT, "--groups", "body,goal")
    run = call(*DAGGER, *SMALL, "--obs", "body[0] + goal")
    assert set(tscli.open_pairs(run).schema.groups) == {"body", "goal"}


def test_dagger_without_pairs_records_all_groups_or_the_named_ones_and_the_students(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call("train-teacher", "toy_envs:toy/Dict-v0", *TEACHER[2:], "--obs", "body")
    fresh = (*DAGGER, *SMALL, "--obs", "body[0]", "--pairs", "none", "--total-steps", "64")
    assert set(tscli.open_pairs(call(*fresh)).schema.groups) == {"body", "goal", "camera"}
    assert set(tscli.open_pairs(call(*fresh, "--groups", "goal")).schema.groups) == {"body", "goal"}
    assert 'has no group "gaol": did you mean "goal"' in error_of(capsys, *fresh, "--groups", "gaol")


def test_the_success_that_a_gymnasium_env_tells_late_is_noted(folder: Path) -> None:
    call("train-teacher", "toy_envs:toy/Success-v0", *TEACHER[2:])
    collected, aggregated = call(*COLLECT), call(*DAGGER, *SMALL)
    for run in (collected, aggregated):
        pairs = tscli.open_pairs(run)
        assert pairs.schema.has_success
        table = pairs.episodes()
        last = [episode.rows["obs/state"][-1, 0] for episode in pairs.iter_episodes(["obs/state"])]
        likely = np.abs(last) > 0.2  # the last step moves it no further than that
        assert (table["success"] == (np.array(last) > 0))[likely & table["finished"]].all()
    assert collected.metrics["success_rate"] == tscli.open_pairs(collected).episodes()["success"].mean()


def test_pairs_of_another_teacher_are_not_taken(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = call(*TEACHER, "--seed", "2")
    run = call(*DAGGER, *SMALL)
    assert run.parents == [teacher.name]
    error = error_of(capsys, *DAGGER, "--teacher", teacher.name, "--pairs", "2")
    assert "labelled by another teacher" in error
    error = error_of(capsys, *BC, "--teacher", teacher.name)
    assert "no finished run in runs holds pairs" in error


def test_teachers_of_one_name_in_two_folders_are_told_apart(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place, lr in (("a", "0.001"), ("b", "0.02")):
        for words in ((*TEACHER, "--lr", lr), COLLECT):
            assert main([*words, "--runs-dir", place, "--quiet"]) == 0
    (taught,), (other,) = Path("a").glob("0002*"), Path("b").glob("0001*")
    error = error_of(capsys, "merge", str(taught), *map(str, Path("b").glob("0002*")))
    assert "labelled by another policy of the name" in error
    for method in (BC, DAGGER):
        error = error_of(capsys, *method, *SMALL, "--teacher", str(other), "--pairs", str(taught))
        assert "labelled by another teacher" in error


def test_cloning_takes_the_teacher_that_labelled_the_newest_pairs(runs: Path) -> None:
    call(*TEACHER, "--seed", "2")
    run = call(*BC, *SMALL)
    assert "0001-train-teacher-cartpole-seed1" in run.parents


def test_dagger_takes_the_teacher_of_the_pairs_that_are_named(runs: Path) -> None:
    call(*TEACHER, "--seed", "2")
    run = call(*DAGGER, *SMALL, "--pairs", "2")
    assert set(run.parents) == {"0001-train-teacher-cartpole-seed1", "0002-collect-cartpole-seed1"}


def test_merged_pairs_are_learnt_from_by_what_merge_says_is_next(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*COLLECT, "--seed", "2")
    call(*TEACHER, "--seed", "2")
    capsys.readouterr()
    assert main(["merge", "2", "3"]) == 0
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said == "next: tscli distill --pairs 5"
    run = call(*said.removeprefix("next: tscli ").split(), *DAGGER[1:], *SMALL)
    assert set(run.parents) == {"0001-train-teacher-cartpole-seed1", "0005-merge-cartpole-seed1"}


def test_pairs_that_end_in_the_middle_of_episodes_are_learnt_from(runs: Path) -> None:
    collected = call(*COLLECT, "--steps", "6")
    assert collected.metrics["episodes"] == 0
    for method in METHODS.values():
        run = call(*method, *SMALL, "--student", "rnn")
        assert collected.name in run.parents

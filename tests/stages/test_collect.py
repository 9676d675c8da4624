"""Collecting pairs: how many, who acts, what is recorded, and that the teacher is left as it was."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from stage_tools import BC, COLLECT, DAGGER, SMALL, TEACHER, Remember, call, error_of, pairs_hashes, weights_hash

import tscli
from tscli.files import file_hash
from tscli.pairs import Pairs
from tscli.runs import Run, list_runs
from tscli.training import setup

pytestmark = pytest.mark.usefixtures("no_plots")


def column(pairs: Pairs, name: str) -> np.ndarray:
    """A field of every recorded step, in the order of episodes."""
    windows = pairs.windows(1, start="tile")
    return pairs.gather(windows[:], [name])[name][0]


def collect(*args: str) -> tuple[Run, Pairs]:
    run = call(*COLLECT, *args)
    return run, tscli.open_pairs(run)


@pytest.mark.parametrize(("episodes", "per_slot"), [(6, [2, 2, 2]), (7, [3, 2, 2]), (2, [1, 1])])
def test_every_slot_records_its_share_of_the_episodes_and_no_more(
    runs: Path, episodes: int, per_slot: list[int]
) -> None:
    run, pairs = collect("--episodes", str(episodes))
    table = pairs.episodes()
    assert table["finished"].all()
    assert np.bincount(table["env"]).tolist() == per_slot
    assert run.metrics["episodes"] == episodes
    assert run.metrics["steps"] == pairs.num_steps == table["length"].sum()
    longest = max(np.bincount(table["env"], table["length"]))  # for which the other slots wait
    assert run.metrics["env_steps"] == len(per_slot) * longest


def test_steps_are_counted_over_all_envs_and_the_last_episodes_stay_unfinished(runs: Path) -> None:
    run, pairs = collect("--steps", "50")
    assert pairs.num_steps == 51  # the first multiple of three envs
    table = pairs.episodes()
    assert 0 < (~table["finished"]).sum() <= 3
    assert run.metrics["episodes"] == table["finished"].sum()


def test_without_noise_a_greedy_teacher_does_what_it_says(runs: Path) -> None:
    _, pairs = collect("--act", "greedy")
    assert (column(pairs, "action") == column(pairs, "teacher_action")).all()
    assert (column(pairs, "actor") == 1).all()


def test_a_sampling_teacher_takes_other_actions_than_its_label_at_times(runs: Path) -> None:
    _, pairs = collect()
    same = column(pairs, "action") == column(pairs, "teacher_action")
    assert 0.3 < same.mean() < 1


@pytest.mark.parametrize(("noise", "share"), [(0.0, 0.0), (0.4, 0.2), (1.0, 0.5)])
def test_noise_is_the_share_of_random_actions(runs: Path, noise: float, share: float) -> None:
    _, pairs = collect("--act", "greedy", "--noise", str(noise), "--steps", "1200")
    other = (column(pairs, "action") != column(pairs, "teacher_action")).mean()
    assert other == pytest.approx(share, abs=0.05)  # of two actions the random one is the teacher's half the time


def test_noise_on_continuous_actions_stays_within_their_bounds(folder: Path) -> None:
    call("train-teacher", "Pendulum-v1", *TEACHER[2:])
    _, pairs = collect("--act", "greedy", "--noise", "0.5", "--steps", "600")
    action, label = column(pairs, "action")[:, 0], column(pairs, "teacher_action")[:, 0]
    assert np.abs(action).max() == 2.0
    inside = np.abs(action) < 2
    assert np.std((action - label)[inside]) == pytest.approx(0.5 * 2, abs=0.2)
    assert {"teacher_mean", "teacher_std"} <= set(pairs.fields)


@pytest.mark.parametrize("network", ["mlp", "gru"])
def test_labels_are_what_the_teacher_says_to_what_was_recorded(folder: Path, network: str) -> None:
    teacher = call(*TEACHER, "--network", network, "--obs", "state + previous_action", "--normalize-reward")
    _, pairs = collect("--noise", "0.3")
    policy = tscli.load_policy(teacher)
    windows = pairs.windows(600, start="episode")[:]
    rows = pairs.gather(windows, ["obs/state", "previous_action", "teacher_logits", "teacher_action"])
    previous = torch.from_numpy(rows["previous_action"] * 2 - 1) * ~torch.from_numpy(rows["first"])
    vector = torch.cat([torch.from_numpy(rows["obs/state"]), previous.unsqueeze(-1)], dim=-1)
    with torch.no_grad():
        dist, _ = policy({"vector": vector.float()}, policy.initial_hidden(len(windows)))
    valid = rows["valid"]
    difference = dist.params()["logits"].numpy() - rows["teacher_logits"]
    assert np.abs(difference[valid]).max() < 1e-5
    assert (dist.mode().numpy() == rows["teacher_action"])[valid].all()


def test_the_teacher_and_its_normaliser_are_left_as_they_were(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder,) = runs.glob("0001-*")
    before = weights_hash(folder / "policy.safetensors")
    monkeypatch.setattr(setup, "open_policy", remember := Remember(setup.open_policy))
    collect("--noise", "0.2")
    ((policy, kept),) = remember.opened
    assert all(torch.equal(value, kept[name]) for name, value in policy.state_dict().items())
    assert not any(parameter.requires_grad for parameter in policy.parameters())
    assert weights_hash(folder / "policy.safetensors") == before


def test_a_student_shares_the_acting_and_the_teacher_labels_all_of_it(runs: Path) -> None:
    student = call(*DAGGER, *SMALL, "--student", "rnn")
    _, alone = collect("--student", student.name, "--beta", "0", "--act", "greedy")
    assert (column(alone, "actor") == 0).all()
    run, mixed = collect("--student", student.name, "--beta", "0.7", "--act", "greedy", "--steps", "1500")
    actor = column(mixed, "actor")
    assert actor.mean() == pytest.approx(0.7, abs=0.05)
    assert (column(mixed, "action") == column(mixed, "teacher_action"))[actor == 1].all()
    assert run.parents == ["0001-train-teacher-cartpole-seed1", student.name]


def test_a_run_that_trained_a_teacher_with_its_student_is_taken_as_a_teacher(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone, joint = list_runs(runs)[0], call(*DAGGER, *SMALL, "--obs", "partial")
    # As `sitt` leaves it: the student's policy, and its teacher's beside it.
    path = shutil.copy(alone.policy_path(), joint.path / "teacher.safetensors")
    joint.manifest["artifacts"]["teacher.safetensors"] = file_hash(Path(path))
    (joint.path / "manifest.json").write_text(json.dumps(joint.manifest))

    expected, found = (collect("--teacher", name) for name in ("1", joint.name))
    assert found[0].parents == [joint.name]
    for field in ("obs/state", "teacher_logits", "action"):
        assert np.array_equal(column(expected[1], field), column(found[1], field))
    for method in (DAGGER, BC):
        student = call(*method, *SMALL, "--teacher", joint.name, "--obs", "partial")
        assert joint.name in student.parents
        report = json.loads((call("eval", "--episodes", "3").path / "report.json").read_text())
        assert report["policies"]["teacher"]["run"] == joint.name
        assert report["policies"]["teacher"]["view"] == "full"
    # The newest student learnt from it, and the chain that it is in goes on.
    assert collect()[0].parents == [joint.name]
    Path(path).write_bytes(b"")
    assert "teacher.safetensors has changed" in error_of(capsys, *COLLECT, "--teacher", joint.name)


def test_episodes_begin_alike_whoever_acts(runs: Path) -> None:
    student = call(*DAGGER, *SMALL, "--student", "mlp")
    starts = []
    for args in (("--act", "greedy"), ("--noise", "0.5"), ("--student", student.name, "--beta", "0.5")):
        _, pairs = collect(*args)
        index = pairs.episodes()
        windows = pairs.windows(1, start="episode")[:]
        first = pairs.gather(windows, ["obs/state"])["obs/state"][0]
        order = np.lexsort((index["index"][windows.episode], index["env"][windows.episode]))
        starts.append(first[order])
    assert np.array_equal(starts[0], starts[1])
    assert np.array_equal(starts[0], starts[2])


def test_the_same_seed_gives_the_same_dataset_and_another_seed_another(runs: Path) -> None:
    first, second, other = (collect("--noise", "0.1", "--seed", seed)[0] for seed in ("4", "4", "5"))
    assert pairs_hashes(first) == pairs_hashes(second)
    assert pairs_hashes(first) != pairs_hashes(other)


def test_the_chosen_groups_alone_are_recorded(folder: Path) -> None:
    call("train-teacher", "toy_envs:toy/Dict-v0", *TEACHER[2:], "--obs", "body")
    _, pairs = collect("--groups", "body,goal")
    assert set(pairs.schema.groups) == {"body", "goal"}
    _, pairs = collect()
    assert set(pairs.schema.groups) == {"body", "goal", "camera"}
    camera = column(pairs, "obs/camera")
    assert camera.dtype == np.uint8 and camera.shape[1:] == (12, 10, 3) and camera.std() > 0


def test_episodes_that_are_not_wanted_are_dropped_whole_and_counted(runs: Path) -> None:
    _, every = collect("--episodes", "30", "--noise", "0.5")
    least = float(np.median(every.episodes()["return"])) + 0.5
    run, pairs = collect("--episodes", "7", "--noise", "0.5", "--min-return", str(least))
    table = pairs.episodes()
    assert table["finished"].all() and (table["return"] >= least).all()
    assert np.bincount(table["env"]).tolist() == [3, 2, 2]
    assert run.metrics["episodes"] == run.metrics["kept"] == 7
    # The slots' first episodes are the same ones: of those, exactly the good ones are here.
    of_all = {(row["env"], row["index"]): row["return"] for row in every.episodes()}
    of_kept = {(row["env"], row["index"]): row["return"] for row in table}
    last = {env: max(index for slot, index in of_kept if slot == env) for env in range(3)}
    assert of_kept == {key: value for key, value in of_all.items() if value >= least and key[1] <= last[key[0]]}
    assert run.metrics["dropped"] == sum(last.values()) + 3 - 7 > 0

    run, pairs = collect("--steps", "100", "--noise", "0.5", "--min-return", str(least))
    assert pairs.episodes()["finished"].all() and 100 <= pairs.num_steps == run.metrics["steps"]
    assert pairs.num_steps - pairs.episodes()["length"].max() < 100


def test_success_is_asked_for_where_there_is_some(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("train-teacher", "tiger_door", *TEACHER[2:])
    run, pairs = collect("--only-successful")
    assert pairs.episodes()["success"].all() and run.metrics["success_rate"] == 1.0 and run.metrics["dropped"] > 0
    call("train-teacher", "Pendulum-v1", *TEACHER[2:])
    error = error_of(capsys, *COLLECT, "--only-successful")
    assert "the env of Pendulum-v1 tells no success" in error and len(list_runs(Path("runs"))) == 3

"""From windows of a dataset to a student's loss."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import DISCRETE
from imitation_data import ARM, make_student, record

from tscli.config import UserError, ViewPart
from tscli.envs.spaces import ActionSpec
from tscli.learning import imitation
from tscli.learning.imitation import (
    Batch,
    batch_loss,
    check_labels,
    check_loss,
    fit_normalizer,
    match_std,
    mean_loss,
    read_batch,
    read_batches,
)


def test_labels_and_teacher_are_those_of_the_step(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    batch = read_batch(pairs, pairs.windows(4, start="tile")[:], make_student(pairs, "flag").spec.view)
    step = batch.obs["vector"][..., 0]
    assert torch.equal(batch.label, step.long() % 2)
    assert torch.equal(batch.teacher.params()["logits"], torch.stack([step, 3.0 - step], dim=-1))


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("read_bytes", [1, 200, 2**20])
def test_batches_are_the_same_however_many_are_read_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, read_bytes: int
) -> None:
    monkeypatch.setattr(imitation, "_READ_BYTES", read_bytes)
    pairs = record(tmp_path, ARM)
    view = make_student(pairs, "state + previous_action").spec.view
    windows = pairs.windows(length)[np.arange(31)[::-1]]
    begins = range(0, 31, 4)
    for begin, found in zip(begins, read_batches(pairs, windows, 4, view), strict=True):
        expected = read_batch(pairs, windows.part(slice(begin, begin + 4)), view)
        assert torch.equal(found.obs["vector"], expected.obs["vector"])
        assert torch.equal(found.label, expected.label) and torch.equal(found.weight, expected.weight)
        assert all(torch.equal(v, expected.teacher.params()[k]) for k, v in found.teacher.params().items())
    assert not list(read_batches(pairs, windows.part(slice(0, 0)), 4, view))


@pytest.mark.parametrize("kind", ["kl", "cross_entropy", "mse"])
def test_without_memory_the_loss_is_the_same_without_the_time_axis(tmp_path: Path, kind: str) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state + previous_action")
    windows = pairs.windows(1)[np.arange(20)]
    whole = read_batch(pairs, windows, student.spec.view)
    (flat,) = read_batches(pairs, windows, 20, student.spec.view, flat=True)
    assert flat.obs["vector"].shape == whole.obs["vector"].shape[1:]
    losses = [batch_loss(student, batch, kind) for batch in (whole, flat)]
    torch.testing.assert_close(*losses)


def test_padding_and_burn_in_carry_no_loss(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state", kind="rnn")
    windows = pairs.windows(4, start="tile")[:]
    burn_in = np.where(windows.step == 0, 0, 2)
    batch = read_batch(pairs, windows, student.spec.view, burn_in)
    for b in range(len(windows)):
        expected = [float(burn_in[b] <= t < windows.valid_length[b]) for t in range(4)]
        assert batch.weight[:, b].tolist() == expected
    assert (burn_in > 0).any() and (windows.valid_length < 4).any()
    student.requires_grad_(False)
    base = batch_loss(student, batch, "cross_entropy")
    wrong = torch.where(batch.weight > 0, batch.label, 1 - batch.label)
    assert batch_loss(student, batch._replace(label=wrong), "cross_entropy") == base
    worse = torch.where(batch.weight > 0, 1 - batch.label, batch.label)
    assert batch_loss(student, batch._replace(label=worse), "cross_entropy") != base


def test_the_loss_is_the_mean_over_the_steps_that_count(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state")
    torch.nn.init.zeros_(student.head.linear.weight)  # all but fair coins
    batch = read_batch(pairs, pairs.windows(4, start="tile")[:], student.spec.view)
    assert batch_loss(student, batch, "cross_entropy").item() == pytest.approx(math.log(2))
    nothing = Batch(batch.obs, batch.teacher, batch.label, torch.zeros_like(batch.weight))
    assert batch_loss(student, nothing, "cross_entropy").item() == 0.0


def test_burn_in_builds_up_memory(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state", kind="gru")
    windows = pairs.windows(6, start="full")[:]
    batch = read_batch(pairs, windows, student.spec.view, np.full(len(windows), 3))
    later = batch.obs["vector"].clone()
    later[0] += 1  # a step without loss still changes what is remembered
    assert (batch.weight[0] == 0).any()
    assert batch_loss(student, batch._replace(obs={"vector": later}), "kl") != batch_loss(student, batch, "kl")


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_mean_loss_is_always_the_same(tmp_path: Path, noise: float) -> None:
    pairs = record(tmp_path)
    part = ViewPart.model_validate({"group": "state", "noise": noise, "dropout": noise / 2})
    student = make_student(pairs, part, kind="rnn", normalize=False)
    episodes = np.arange(pairs.num_episodes)
    first = mean_loss(student, pairs, episodes, "kl")
    torch.rand(3)
    assert mean_loss(student, pairs, episodes, "kl") == first
    clean = make_student(pairs, "state", kind="rnn", normalize=False)
    assert (mean_loss(clean, pairs, episodes, "kl") == first) == (noise == 0)


def test_the_mean_loss_is_of_the_given_episodes_and_a_bounded_number_of_windows(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state")
    one = pairs.windows(1, start="tile", episodes=np.array([1]))[:]
    with torch.no_grad():
        expected = float(batch_loss(student, read_batch(pairs, one, student.spec.view), "kl"))
    assert mean_loss(student, pairs, np.array([1]), "kl") == pytest.approx(expected)
    episodes = np.arange(pairs.num_episodes)
    ends = pairs.windows(1, start="tile")[[0, 59]]
    with torch.no_grad():
        expected = float(batch_loss(student, read_batch(pairs, ends, student.spec.view), "kl"))
    assert mean_loss(student, pairs, episodes, "kl", most=2) == pytest.approx(expected)


@pytest.mark.parametrize("chunk", [1, 7])
def test_the_mean_loss_does_not_depend_on_how_many_windows_are_read_at_once(tmp_path: Path, chunk: int) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state", kind="gru")
    episodes = np.arange(pairs.num_episodes)
    whole = mean_loss(student, pairs, episodes, "kl")
    assert mean_loss(student, pairs, episodes, "kl", chunk=chunk) == pytest.approx(whole, rel=1e-5)


def test_a_student_with_memory_is_measured_on_whole_episodes(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state", kind="gru")
    total = steps = 0.0
    for number, length in enumerate(pairs.episodes()["length"].tolist()):
        index = pairs.windows(length, start="episode", episodes=np.array([number]))
        with torch.no_grad():
            batch = read_batch(pairs, index[:], student.spec.view)
            total, steps = total + length * float(batch_loss(student, batch, "kl")), steps + length
    found = mean_loss(student, pairs, np.arange(pairs.num_episodes), "kl", chunk=7)
    assert found == pytest.approx(total / steps, rel=1e-5)


@pytest.mark.parametrize("start", ["anywhere", "full", "tile", "episode"])
def test_a_window_knows_its_place_in_its_episode_also_where_a_shard_begins(tmp_path: Path, start: Any) -> None:
    pairs = record(tmp_path, shard_bytes=2000)
    windows = pairs.windows(3, start=start)[:]
    step = pairs.gather(windows, ["obs/flag"])["obs/flag"][0]
    assert len(pairs.shards) > 2 and (windows.cut & (windows.step > 0)).any() == (start != "episode")
    np.testing.assert_array_equal(windows.step, step)
    np.testing.assert_array_equal(windows.first[0], step == 0)
    assert not windows.first[1:].any()


def test_a_history_is_measured_where_it_is_whole(tmp_path: Path) -> None:
    whole = record(tmp_path / "whole", steps=40)
    student = make_student(whole, "state", kind="history", history=4, normalize=False)
    each = {}
    for number, length in enumerate(whole.episodes()["length"].tolist()):
        windows = whole.windows(length, start="episode", episodes=np.array([number]))[:]
        batch = read_batch(whole, windows, student.spec.view)
        with torch.no_grad():
            dist, _ = student(batch.obs, student.initial_hidden(1), None)
        each[number] = imitation.imitation_loss(dist, batch.teacher, batch.label, "kl")[:, 0]
    # In several shards an episode's later part begins without what came before: three steps only fill the history.
    parts = record(tmp_path / "parts", steps=40, shard_bytes=6000)
    segments = parts.segments()
    counted = [
        each[int(one["episode"])][int(first) + (3 if first else 0) : int(first + one["length"])]
        for one, first in zip(segments, segments["first_step"], strict=True)
    ]
    expected = float(torch.cat(counted).mean())
    assert (segments["first_step"] > 0).sum() > 2 and sum(map(len, counted)) > 20
    assert mean_loss(student, parts, np.arange(parts.num_episodes), "kl") == pytest.approx(expected, rel=1e-5)


def test_a_carried_memory_is_begun_with_and_given_back(tmp_path: Path) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state", kind="gru")
    batch = read_batch(pairs, pairs.windows(4, start="full")[:], student.spec.view)
    hidden = torch.randn_like(student.initial_hidden(batch.weight.shape[1]))
    loss, after = imitation.carried_loss(student, batch, hidden, "kl")
    dist, expected = student(batch.obs, hidden, None)
    each = imitation.imitation_loss(dist, batch.teacher, batch.label, "kl") * batch.weight
    torch.testing.assert_close(loss, each.sum() / batch.weight.sum())
    torch.testing.assert_close(after, expected)
    assert not torch.isclose(loss, batch_loss(student, batch, "kl")), "which begins with none"


@pytest.mark.parametrize("chunk", [7, 4096])
def test_the_normaliser_takes_in_every_step_once(tmp_path: Path, chunk: int) -> None:
    pairs = record(tmp_path)
    student = make_student(pairs, "state + previous_action")
    fit_normalizer(student, pairs, chunk)
    norm = student.encoder.norm
    assert norm is not None and norm.count == 60
    rows = np.concatenate([episode.rows["obs/state"] for episode in pairs.iter_episodes()]).astype(np.float64)
    np.testing.assert_allclose(norm.mean[:3].numpy(), rows.mean(0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(norm.var[:3].numpy(), rows.var(0), rtol=1e-6, atol=1e-9)


def test_the_normaliser_reads_no_pictures_and_repeats_its_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = record(tmp_path)
    asked: list[str] = []
    gather = pairs.gather
    monkeypatch.setattr(pairs, "gather", lambda w, fields, *a: asked.extend(fields) or gather(w, fields, *a))
    means = []
    for _ in range(2):
        student = make_student(pairs, "camera", ViewPart(group="state", noise=0.5))
        fit_normalizer(student, pairs)
        assert student.encoder.norm is not None
        means.append(student.encoder.norm.mean)
    assert torch.equal(*means)
    assert "obs/state" in asked and "obs/camera" not in asked
    fit_normalizer(make_student(pairs, "camera"), pairs)  # has nothing to normalise


def test_a_gaussian_student_begins_with_its_teachers_deviation(tmp_path: Path) -> None:
    pairs = record(tmp_path, ARM)  # whose teacher's is .5, as half the range is 1
    student = make_student(pairs, "state")
    match_std(student, pairs)
    torch.testing.assert_close(student.head.log_std.exp(), torch.tensor([0.5]))


def test_a_squashed_teacher_is_read_as_one(tmp_path: Path) -> None:
    pairs = record(tmp_path, ARM, squash=True)
    student = make_student(pairs, "state", squash=True)
    batch = read_batch(pairs, pairs.windows(1, start="tile")[:], student.spec.view)
    torch.testing.assert_close(batch.teacher.mode(), torch.tanh(batch.label))
    assert torch.isfinite(batch_loss(student, batch, "kl"))


@pytest.mark.parametrize("squash", [True, False])
def test_kl_between_a_squashed_and_a_plain_policy_is_refused(tmp_path: Path, squash: bool) -> None:
    pairs = record(tmp_path, ARM, squash=squash)
    student = make_student(pairs, "state", squash=not squash)
    batch = read_batch(pairs, pairs.windows(1, start="tile")[:], student.spec.view)
    with pytest.raises(UserError, match="use --student.squash" if squash else "use --no-student.squash"):
        check_loss("kl", student.spec, pairs.schema.head_kind)
    for loss in ("mse", "huber", "cross_entropy"):
        check_loss(loss, student.spec, pairs.schema.head_kind)
    check_loss("kl", student.spec, ("gaussian", not squash))
    assert torch.isfinite(batch_loss(student, batch, "mse"))
    with pytest.raises(UserError, match=r"a teacher's beta and a student's gaussian.*use --student.distribution beta"):
        check_loss("kl", student.spec, ("beta", False))


@pytest.mark.parametrize("action", [DISCRETE, ARM], ids=["discrete", "continuous"])
def test_labels_that_are_actions_alone_serve_every_loss_but_the_kl(tmp_path: Path, action: ActionSpec) -> None:
    pairs = record(tmp_path, action, distribution="none")
    assert pairs.schema.teacher_fields == () and not [
        name for name in pairs.fields if name in ("teacher_logits", "mean")
    ]
    student = make_student(pairs, "state")
    match_std(student, pairs)  # has nothing to begin with
    batch = read_batch(pairs, pairs.windows(4, start="tile")[:], student.spec.view)
    counts = batch.weight > 0
    with torch.no_grad():
        dist, _ = student(batch.obs, student.initial_hidden(batch.weight.shape[1]), None)
        if action.is_continuous:
            distance = (dist.mode() - batch.label).square().mean(-1)
        else:
            hot = torch.nn.functional.one_hot(batch.label, 2)
            distance = (dist.params()["logits"].softmax(-1) - hot).square().mean(-1)
        torch.testing.assert_close(batch_loss(student, batch, "mse"), distance[counts].mean())
        expected = -dist.log_prob(batch.label)[counts].mean()
        torch.testing.assert_close(batch_loss(student, batch, "cross_entropy"), expected)
    assert torch.isfinite(batch_loss(student, batch, "huber"))
    with pytest.raises(UserError, match="0003-convert has its actions alone: use --loss cross_entropy"):
        check_labels("kl", pairs.schema, "0003-convert")
    check_labels("mse", pairs.schema, "0003-convert")


def test_pairs_with_a_distribution_serve_the_kl(tmp_path: Path) -> None:
    check_labels("kl", record(tmp_path).schema, "0002-collect")

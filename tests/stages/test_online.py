"""Online distillation: what a rollout is learnt from, and who may change."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stage_tools import ONLINE, SMALL, TEACHER, call, error_of, metrics_of, weights_hash

from tscli.learning import imitation
from tscli.learning.optim import FlatAdam
from tscli.networks import Policy

pytestmark = pytest.mark.usefixtures("no_plots")

RNN_TEACHER = (*TEACHER, "--network", "rnn", "--network.memory", "8", "--bptt", "8")


def watch_losses(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Each call of the loss: its shape, the teacher's probabilities, the labels, and the kind."""
    calls: list[dict[str, Any]] = []
    loss = imitation.imitation_loss

    def watched(student: Any, teacher: Any, label: torch.Tensor, kind: str) -> torch.Tensor:
        calls.append({"teacher": teacher.log_p.exp(), "label": label, "kind": kind})
        return loss(student, teacher, label, kind)

    monkeypatch.setattr(imitation, "imitation_loss", watched)
    return calls


def test_every_step_of_a_rollout_trains_the_short_last_window_too(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = watch_losses(monkeypatch)
    call(*ONLINE, *SMALL, "--num-epochs", "2", "--loss", "mse")
    assert [len(each["label"]) for each in calls[:6]] == [4, 4, 2] * 2
    assert len(calls) == 8 * 6  # 320 env steps in rollouts of 4 x 10
    assert torch.equal(calls[0]["label"], calls[3]["label"]), "the second epoch goes over the same steps"
    assert {each["kind"] for each in calls} == {"mse"}


def test_a_student_with_memory_acts_on_pictures_as_they_are(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    camera = tuple("toy_envs:toy/Dict-v0" if word == "cartpole" else word for word in TEACHER)
    call(*camera, "--total-steps", "64", "--obs", "body")
    first: list[torch.Tensor] = []
    step = Policy.step

    def watched(self: Policy, obs: Any, hidden: torch.Tensor, reset: torch.Tensor) -> Any:
        if "camera" in obs and self.training:
            first.append(hidden)
        return step(self, obs, hidden, reset)

    monkeypatch.setattr(Policy, "step", watched)
    found = []
    for brightness in ("0", "0.8"):
        first.clear()
        bright = ("--augment.brightness", brightness, "--obs", "camera", "--no-diagnose", "--lr", "1e-30")
        call(*ONLINE, "--student", "gru", *SMALL, *bright)
        found.append(torch.stack(first[:30]))  # those of training, before it is measured
    assert found[0].any() and torch.allclose(*found)


@pytest.mark.parametrize("teacher", [TEACHER, RNN_TEACHER], ids=["mlp", "rnn"])
def test_labels_made_at_once_are_those_that_the_teacher_gives_step_by_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch, teacher: tuple[str, ...]
) -> None:
    call(*teacher)
    forward = Policy.forward
    told: list[torch.Tensor] = []

    def step_by_step(self: Policy, obs: Any, hidden: torch.Tensor, reset: Any = None) -> Any:
        dist, last = forward(self, obs, hidden, reset)
        if not self.training and len(obs["vector"]) == 10:
            for t in range(10):
                one, hidden = self.step({k: v[t] for k, v in obs.items()}, hidden, reset[t])
                told.append((one.params()["logits"] - dist.params()["logits"][t]).abs().max())
            assert torch.allclose(hidden, last, atol=1e-5)
        return dist, last

    monkeypatch.setattr(Policy, "forward", step_by_step)
    call(*ONLINE, *SMALL, "--student", "gru")
    assert len(told) == 80 and max(told) < 1e-5


def test_the_teacher_stays_as_it_was_with_its_normaliser(runs: Path) -> None:
    before = weights_hash(next(runs.glob("0001-*")) / "policy.safetensors")
    run = call(*ONLINE, *SMALL)
    assert weights_hash(run.parent("teacher").path / "policy.safetensors") == before
    assert weights_hash(run.path / "last.safetensors") != before


def test_episodes_are_cut_short_at_first_and_whole_afterwards(runs: Path) -> None:
    run = call(*ONLINE, *SMALL, "--short-steps", "80", "--short-length", "5")
    lengths = [line["rollout/length"] for line in metrics_of(run)]
    assert lengths[:2] == [5.0, 5.0], "80 steps are two rollouts of 4 envs x 10"
    assert min(lengths[3:]) > 5


def test_short_steps_need_whole_episodes_after_them_and_an_env_that_can_cut_them(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = error_of(capsys, *ONLINE, *SMALL, "--short-steps", "400")
    assert "--short-steps 400 leaves none of --total-steps 320" in text
    text = error_of(capsys, *ONLINE, *SMALL, "--short-steps", "40", "--short-length", "500")
    assert "--short-length 500: whole episodes of cartpole have 500 steps" in text
    call("train-teacher", "cartpole_mixed", *TEACHER[2:])
    text = error_of(capsys, *ONLINE, "--short-steps", "40")
    assert "episodes of cartpole_mixed cannot be cut to 40 steps" in text


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd", "rmsprop"])
def test_the_loss_falls_with_every_optimiser(runs: Path, kind: str) -> None:
    lr = {"sgd": "0.5", "rmsprop": "0.01"}.get(kind, "0.03")
    more = (
        "--total-steps",
        "3200",
        "--num-envs",
        "16",
        "--noise",
        "0.5",
        "--lr",
        lr,
        "--optimizer",
        kind,
        "--loss",
        "mse",
        "--eval-every",
        "0",
    )
    losses = [line["loss/imitation"] for line in metrics_of(call(*ONLINE, *SMALL, *more))]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_gradients_are_clipped_with_the_recurrent_weights_among_them(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[float] = []
    move = FlatAdam._move

    def watched(self: FlatAdam, gradient: torch.Tensor) -> None:
        assert len(gradient) == sum(p.numel() for p in self._parameters)
        moved.append(float(gradient.norm()))
        move(self, gradient)

    monkeypatch.setattr(FlatAdam, "_move", watched)
    call(*ONLINE, *SMALL, "--student", "rnn", "--max-grad-norm", "0.001")
    assert moved and max(moved) <= 0.001 * (1 + 1e-4)
    moved.clear()
    call(*ONLINE, *SMALL, "--student", "rnn", "--max-grad-norm", "none")
    assert max(moved) > 0.01


def test_continuous_actions_are_learnt_by_their_distance(folder: Path) -> None:
    short = ("--total-steps", "64", "--eval-episodes", "1")
    call("train-teacher", "Pendulum-v1", *TEACHER[2:], *short)
    run = call(*ONLINE, *SMALL, *short, "--loss", "huber", "--student", "history")
    assert run.status == "finished" and run.role == "student"


def test_a_teacher_is_needed_and_the_message_says_how_to_make_one(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "train-teacher" in error_of(capsys, *ONLINE)

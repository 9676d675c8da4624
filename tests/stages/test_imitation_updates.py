"""What students that imitate learn from, step by step: labels, windows, memory, and who acts."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stage_tools import COLLECT, Remember, call, metrics_of
from torch import Tensor
from updates import MEMORY, TINY, Watch, short_task

import tscli
from tscli.learning import imitation, replay
from tscli.learning.optim import FlatOptimizer
from tscli.networks import Policy
from tscli.networks.distributions import Categorical
from tscli.pairs import Pairs
from tscli.pairs.windows import Windows
from tscli.training import setup

pytestmark = pytest.mark.usefixtures("no_plots")

STUDENT = ("--student", "gru", "--student.hidden", "8", "--student.memory", "8", "--no-diagnose")
LEARN = ("--debug", "--lr", "0.02", "--eval-every", "0", "--eval-episodes", "2", "--lr-schedule", "linear")
DAGGER = (
    *("distill", *STUDENT, *LEARN, "--total-steps", "128", "--num-envs", "4", "--round-steps", "8"),
    *("--updates-per-round", "3", "--batch-size", "8", "--window", "3"),
)
ONLINE = (
    *("distill", "--method", "online", *STUDENT, *LEARN, "--total-steps", "120", "--num-envs", "4"),
    *("--rollout-steps", "10", "--gradient-length", "4", "--loss", "mse"),
)
BC = ("distill", "--method", "bc", *STUDENT, *LEARN, "--num-epochs", "4", "--batch-size", "8", "--window", "3")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher with memory, of short episodes, and their pairs, as runs 1 and 2. To be copied, not changed."""
    folder = tmp_path_factory.mktemp("taught")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        call("train-teacher", short_task(), *TINY, *MEMORY)
        call(*COLLECT)
    return folder


@pytest.fixture
def teacher(folder: Path, taught: Path) -> None:
    """The folder to stand in, with a copy of `taught` in it."""
    shutil.copytree(taught, folder, dirs_exist_ok=True)


def rates(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of each step."""
    found: list[float] = []
    step = FlatOptimizer.step

    def watched(self: FlatOptimizer) -> None:
        found.append(float(self.lr))
        step(self)

    monkeypatch.setattr(FlatOptimizer, "step", watched)
    return found


# --- online -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epochs", "loss"), [(1, "mse"), (2, "cross_entropy")])
def test_an_online_students_steps_go_window_by_window_with_its_memory_carried_and_cut(
    teacher: None, monkeypatch: pytest.MonkeyPatch, epochs: int, loss: str
) -> None:
    monkeypatch.setattr(setup, "open_policy", remember := Remember(setup.open_policy))
    given = rates(monkeypatch)
    first, carried, told = [torch.zeros(4, 8)], torch.zeros(4, 8), torch.zeros(4, 8)
    labels: Any = None

    def check(watch: Watch, name: str) -> None:
        nonlocal carried, told, labels
        student, rollout, number = watch.parts["student"], watch.rollout, watch.updates.get(name, 0)
        window = slice(4 * (number % 3), min(4 * (number % 3) + 4, 11))
        if number % (3 * epochs) == 0:
            ((advice, _),) = remember.opened
            with torch.no_grad():
                labels, told = advice(rollout.teacher_obs, told, rollout.reset)
            torch.testing.assert_close(watch.parts["at"].teacher_hidden, told)
            if epochs > 1 or number == 0:  # else it is of the weights as they are after the last window
                first.append(watch.parts["at"].hidden)
        if number % 3 == 0:
            carried = first[-2] if epochs > 1 or number == 0 else carried
        obs = {"vector": rollout.obs["vector"][window]}
        dist, carried = student(obs, carried.detach(), rollout.reset[window])
        wanted = Categorical(labels.params()["logits"][window])
        watch.assert_gradient(name, imitation.imitation_loss(dist, wanted, wanted.mode(), loss).mean())

    watch = Watch(monkeypatch, check)
    # Roll-outs that begin in the middle of episodes, which are of five steps.
    steps = ("--rollout-steps", "11", "--total-steps", "132")
    call(*ONLINE, *steps, "--num-epochs", str(epochs), "--loss", loss, "--noise", "0")
    assert watch.updates == {"optimizer": 9 * epochs} and watch.counts() == {"student": 132}
    per_rollout = 3 * epochs
    assert given == pytest.approx([*[0.02] * per_rollout, *[0.04 / 3] * per_rollout, *[0.02 / 3] * per_rollout])


def test_an_online_student_acts_greedily_with_noise_and_forgets_short_episodes(
    teacher: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[Tensor] = []
    resets: list[Tensor] = []
    step = Policy.step

    def watched(self: Policy, obs: Any, hidden: Tensor, reset: Tensor) -> Any:
        dist, after = step(self, obs, hidden, reset)
        if self.training and len(reset) == 4:
            wanted.append(dist.mode())
            resets.append(reset)
        return dist, after

    monkeypatch.setattr(Policy, "step", watched)
    watch = Watch(monkeypatch, lambda watch, name: None)
    call(*ONLINE, "--noise", "0", "--short-steps", "40", "--short-length", "3")
    ends = torch.stack(resets)
    assert ends[10].all(), "whole episodes begin anew"
    assert [t for t in range(20) if ends[t, 0]] == [0, 3, 6, 9, 10, 15]
    assert all(map(torch.equal, watch.actions[:20], wanted[10:30]))
    call(*ONLINE, "--noise", "0.9")
    noisy = torch.stack(watch.actions[20:50])
    assert 0.25 < (noisy != torch.stack(wanted[-30:])).float().mean() < 0.65


# --- DAgger -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["greedy", "sample"])
def test_dagger_labels_where_the_student_goes_and_tells_who_acted(
    teacher: None, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    given = rates(monkeypatch)
    run = call(*DAGGER, "--beta", "0.5", "--beta-schedule", "constant", "--act", act, "--pairs", "none")
    alone = sum(line["beta"] == 1 for line in metrics_of(run))
    assert alone > 0
    pairs, advice, others = tscli.open_pairs(run), tscli.load_policy("1"), 0
    for episode in pairs.iter_episodes(["obs/state", "action", "teacher_action", "teacher_logits", "actor"]):
        rows = {name: torch.from_numpy(np.array(value)) for name, value in episode.rows.items()}
        obs = {"vector": rows["obs/state"][:, None]}
        dist, _ = advice(obs, advice.initial_hidden(1))
        logits = dist.params()["logits"][:, 0]
        torch.testing.assert_close(rows["teacher_logits"], logits, rtol=1e-3, atol=1e-3)
        assert torch.equal(rows["teacher_action"], logits.argmax(-1))
        differ = rows["action"] != rows["teacher_action"]
        others += int(differ.sum())
        assert act == "sample" or not differ[rows["actor"] == 1].any()
    assert act == "greedy" or others > 10, "the labels are what is best, not what was done"
    assert len(given) == 12 and given == pytest.approx(
        [0.02 * share for share in (1, 0.75, 0.5, 0.25) for _ in range(3)]
    )


@pytest.mark.parametrize("act", ["greedy", "sample"])
def test_a_dagger_student_acts_as_it_is_told(teacher: None, monkeypatch: pytest.MonkeyPatch, act: str) -> None:
    modes: list[Tensor] = []
    step = Policy.step

    def watched(self: Policy, obs: Any, hidden: Tensor, reset: Tensor) -> Any:
        dist, after = step(self, obs, hidden, reset)
        if self.training and len(reset) == 4:
            modes.append(dist.mode())
        return dist, after

    monkeypatch.setattr(Policy, "step", watched)
    watch = Watch(monkeypatch, lambda watch, name: None)
    call(*DAGGER, "--act", act, "--beta", "0")
    assert len(modes) == len(watch.actions) == 32
    assert torch.equal(torch.stack(modes), torch.stack(watch.actions)) == (act == "greedy")


class Replayed:
    """What a stage that replays pairs learns from, and that each gradient is that of its loss on it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Windows] = []  # learnt from
        self.validated: set[int] = set()  # episodes
        self._last: Any = None
        read, carried, mean_loss = replay.read_batch, replay.carried_loss, imitation.mean_loss

        def reading(pairs: Pairs, windows: Windows, *args: Any) -> imitation.Batch:
            self.seen.append(windows)
            return read(pairs, windows, *args)

        def learning(student: Policy, batch: imitation.Batch, hidden: Tensor, kind: str) -> Any:
            self._last = batch, hidden
            return carried(student, batch, hidden, kind)

        def measuring(student: Policy, pairs: Pairs, episodes: np.ndarray, *args: Any) -> float:
            self.validated.update(episodes.tolist())
            return mean_loss(student, pairs, episodes, *args)

        monkeypatch.setattr(replay, "read_batch", reading)
        monkeypatch.setattr(replay, "carried_loss", learning)
        monkeypatch.setattr(imitation, "mean_loss", measuring)
        self.watch = Watch(monkeypatch, self._check)

    def _check(self, watch: Watch, name: str) -> None:
        batch, hidden = self._last
        dist, _ = watch.parts["student"](batch.obs, hidden)
        each = imitation.imitation_loss(dist, batch.teacher, batch.label, "kl") * batch.weight
        watch.assert_gradient(name, each.sum() / batch.weight.sum())

    @property
    def episodes(self) -> set[int]:
        """That were learnt from."""
        return set(np.concatenate([windows.episode for windows in self.seen]).tolist())


def test_daggers_steps_are_of_all_but_the_held_out_episodes(teacher: None, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed = Replayed(monkeypatch)
    call(*DAGGER, "--validation-fraction", "0.4")
    assert replayed.watch.updates == {"optimizer": 12}
    collected = Pairs("runs/0002-collect-short-seed1").num_steps
    assert replayed.watch.counts() == {"student": collected + 128}
    assert replayed.validated and not replayed.validated & replayed.episodes


# --- behaviour cloning ------------------------------------------------------------------------------------------------


def test_clonings_epochs_are_of_all_but_the_held_out_episodes(teacher: None, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed, given = Replayed(monkeypatch), rates(monkeypatch)
    call(*BC, "--validation-fraction", "0.3")
    pairs = Pairs("runs/0002-collect-short-seed1")
    assert replayed.watch.counts() == {"student": pairs.num_steps}
    assert replayed.episodes | replayed.validated == set(range(pairs.num_episodes))
    assert replayed.validated and not replayed.validated & replayed.episodes
    per_epoch = len(given) // 4
    learnt = pairs.episodes()["length"][sorted(replayed.episodes)].sum()
    assert per_epoch == max(1, round(-(-learnt // 3) / 8)), "batches of 8 windows of 3 steps show each step once"
    assert given == pytest.approx([0.02 * share for share in (1, 0.75, 0.5, 0.25) for _ in range(per_epoch)])


def test_each_epoch_without_memory_has_an_order_of_its_own(teacher: None, monkeypatch: pytest.MonkeyPatch) -> None:
    orders: list[tuple[Any, ...]] = []
    read = imitation.read_batches

    def reading(pairs: Pairs, windows: Windows, *args: Any) -> Any:
        orders.append((*zip(windows.episode.tolist(), windows.step.tolist(), strict=True),))
        return read(pairs, windows, *args)

    monkeypatch.setattr(imitation, "read_batches", reading)
    monkeypatch.setattr(imitation, "mean_loss", lambda *args: 1.0)
    call(*BC, "--student", "mlp", "--batch-size", "4", "--validation-fraction", "0.3")
    train, held_out = Pairs("runs/0002-collect-short-seed1").split_episodes(0.3, 1)
    assert len(held_out) and {episode for order in orders for episode, _ in order} == set(train.tolist())
    assert len(orders) == len(set(orders)) == 4
    assert all(len(set(order)) == len(order) for order in orders), "no step twice"


def test_cloning_waits_as_many_epochs_as_it_has_patience_from_the_best_one_on(
    teacher: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([3.0, 2.0, 2.5, 1.0, 1.0, 4.0, 2.0])
    monkeypatch.setattr(imitation, "mean_loss", lambda *args: next(losses))
    run = call(*BC, "--num-epochs", "20", "--patience", "2")
    assert len(metrics_of(run)) == 6 and run.metrics["best_validation_loss"] == 1.0


@pytest.mark.parametrize("command", [BC, DAGGER], ids=["bc", "dagger"])
def test_a_gaussian_student_begins_with_its_teachers_deviation(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    Path("short.yaml").write_text("extends: pendulum\nenv: {max_episode_steps: 5}\n")
    call("train-teacher", "short.yaml", *TINY, "--network.hidden", "8", "--network.init-std", "0.2", "--lr", "1e-9")
    call(*COLLECT)
    found: list[Tensor] = []

    def check(watch: Watch, name: str) -> None:
        found.append(watch.parts["student"].head.log_std.detach().exp().clone())

    Watch(monkeypatch, check)
    call(*command, "--obs", "full")
    torch.testing.assert_close(found[0], torch.full_like(found[0], 0.2), rtol=1e-3, atol=1e-3)

"""PPO as the script runs it: what it learns from, what it keeps, and that it learns."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stage_tools import RUNS, TEACHER, Remember, call, error_of, fingerprint, metrics_of, weights_hash
from torch import Tensor

import tscli
from tscli.learning import ppo
from tscli.runs import list_runs
from tscli.training import setup

pytestmark = pytest.mark.usefixtures("no_plots")

NETWORKS = {
    "mlp": ("--network", "mlp"),
    "rnn": ("--network", "rnn", "--bptt", "8"),
    "gru": ("--network", "gru", "--bptt", "16"),
    "history": ("--network", "history", "--network.history", "3"),
    "asymmetric": ("--obs", "partial", "--critic-obs", "full", "--network", "rnn", "--critic", "mlp"),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_the_first_minibatch_of_every_update_has_a_ratio_of_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, network: str
) -> None:
    moves: list[float] = []
    policy_loss = ppo.policy_loss

    def watched(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_coef: float) -> ppo.PolicyLoss:
        moves.append(float((log_prob - old_log_prob).detach().abs().max()))
        return policy_loss(log_prob, old_log_prob, advantage, clip_coef)

    monkeypatch.setattr(ppo, "policy_loss", watched)
    call(*TEACHER, *NETWORKS[network])
    first, later = moves[::4], [move for i, move in enumerate(moves) if i % 4]
    assert len(moves) == 6 * 4
    # Not quite 0: a product of matrices is summed in another order for another number of rows.
    assert max(first) < 2e-6
    assert min(later) > 1e-5


@pytest.mark.parametrize(("terminates", "expected"), [("true", 1.0), ("false", 2.0)])
def test_a_truncated_episode_bootstraps_and_a_terminated_one_does_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch, terminates: str, expected: float
) -> None:
    env = f"{{kind: gym, id: toy_envs:toy/Endless-v0, kwargs: {{terminates: {terminates}}}}}"
    Path("endless.yaml").write_text(f"env: {env}\nviews: {{full: [state]}}\n")
    values: list[Tensor] = []
    compute_gae = ppo.compute_gae

    def watched(reward: Tensor, value: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        values.append(value)
        return compute_gae(reward, value, *args)

    monkeypatch.setattr(ppo, "compute_gae", watched)
    settings = ("--total-steps", "1600", "--num-envs", "4", "--rollout-steps", "8", "--lr", "0.02", "--gamma", "0.5")
    call(
        "train-teacher", "endless.yaml", *settings, "--eval-episodes", "2", "--critic.hidden", "8", "--eval-every", "0"
    )
    assert values[0].mean().item() != pytest.approx(expected, abs=0.2)
    assert values[-1].mean().item() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("task", ["cartpole", "Pendulum-v1"])
def test_a_training_that_diverges_ends_in_one_line_that_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str], task: str
) -> None:
    error = error_of(capsys, "train-teacher", task, *TEACHER[2:], "--lr", "1e30")
    assert "training has diverged (loss/policy is nan at step 64): lower --lr" in error
    (run,) = list_runs(RUNS)
    assert run.status == "failed" and "policy" not in run.holds


def test_the_same_seed_gives_the_same_run_and_another_seed_another(folder: Path) -> None:
    first, second, other = call(*TEACHER), call(*TEACHER), call(*TEACHER, "--seed", "2")
    assert [run.number for run in (first, second, other)] == [1, 2, 3]
    assert fingerprint(first) == fingerprint(second)
    for key, value in fingerprint(other).items():
        assert value != fingerprint(first)[key] or key == "pairs"


def test_no_stream_depends_on_who_used_torchs_global_one_before(folder: Path) -> None:
    first = call(*TEACHER)
    torch.rand(7)
    assert fingerprint(call(*TEACHER)) == fingerprint(first)


@pytest.mark.parametrize(("where", "longest"), [((), 3), (("--train-in", "env"), 500)])
def test_a_teacher_may_train_in_an_env_of_its_own_or_where_students_do(
    folder: Path, where: tuple[str, ...], longest: int
) -> None:
    Path("short.yaml").write_text("extends: cartpole\nteacher_env: {max_episode_steps: 3}\n")
    lines = metrics_of(call(TEACHER[0], "short.yaml", *TEACHER[2:], *where))
    assert all((line["rollout/length"] <= 3) == (longest == 3) for line in lines)
    assert min(line["eval/length"] for line in lines if "eval/length" in line) > 3, "measured in env all the same"


def test_the_metrics_are_those_that_tell_how_ppo_goes(folder: Path) -> None:
    run = call(*TEACHER, "--normalize-reward", "--clip-value", "--entropy-coef", "0.01", "--target-kl", "0.5")
    lines = metrics_of(run)
    assert [line["step"] for line in lines] == [64, 128, 192, 256, 320, 384]
    expected = {"loss/policy", "loss/value", "entropy", "approx_kl", "clip_fraction", "explained_variance", "lr"}
    for line in lines:
        assert expected | {"rollout/return", "rollout/length"} <= line.keys()
    assert [i for i, line in enumerate(lines) if "eval/return" in line] == [1, 3, 5]
    assert {"eval/return", "eval/success_rate", "best_selection_return", "step"} <= run.metrics.keys()


def test_the_update_ends_early_once_the_policy_has_moved_too_far(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    policy_loss = ppo.policy_loss

    def watched(*args: Any) -> ppo.PolicyLoss:
        calls.append(1)
        return policy_loss(*args)

    monkeypatch.setattr(ppo, "policy_loss", watched)
    call(*TEACHER, "--num-epochs", "5", "--target-kl", "1e-9")
    assert len(calls) == 6 * 2  # one epoch of two minibatches per iteration


def test_the_learning_rate_falls_linearly_where_it_is_asked_to(folder: Path) -> None:
    lines = metrics_of(call(*TEACHER, "--lr", "0.006", "--lr-schedule", "linear"))
    assert [line["lr"] for line in lines] == pytest.approx([0.006, 0.005, 0.004, 0.003, 0.002, 0.001])


def test_the_policy_that_is_kept_is_the_best_one_with_the_normaliser_that_it_had(folder: Path) -> None:
    run = call(*TEACHER, "--eval-every", "1")
    evaluations = [line["eval/return"] for line in metrics_of(run)]
    assert run.metrics["best_selection_return"] == max(evaluations)
    iteration = max(i for i, value in enumerate(evaluations, start=1) if value == max(evaluations))
    norm = tscli.load_policy(run).encoder.norm
    assert norm is not None and norm.count == 64 * iteration
    assert run.policy_path("last").exists()


def test_training_leaves_what_it_evaluates_alone(folder: Path) -> None:
    every, never = call(*TEACHER, "--eval-every", "1"), call(*TEACHER, "--eval-every", "0")
    last = [Path(run.path / "last.safetensors") for run in (every, never)]
    assert last[0].read_bytes() == last[1].read_bytes()


def test_ppo_solves_cartpole_and_dagger_hands_it_to_an_lstm_that_sees_no_velocities(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = call("train-teacher", "cartpole", "--seed", "2", "--stop-patience", "1")
    assert teacher.metrics["eval/return"] >= 475
    monkeypatch.setattr(setup, "open_policy", remember := Remember(setup.open_policy))
    student = call("distill", "--student", "rnn", "--obs", "partial", "--seed", "2", "--stop-patience", "1")
    assert student.metrics["eval/return"] >= 475
    assert student.parents == [teacher.name]
    ((policy, before),) = remember.opened
    assert all(torch.equal(value, before[name]) for name, value in policy.state_dict().items())


def test_films_on_the_way_change_no_bit_of_what_is_learnt(folder: Path) -> None:
    runs = [call(*TEACHER, "--film-every", every) for every in ("0", "1")]
    hashes = [weights_hash(run.path / "last.safetensors") for run in runs]
    assert hashes[0] == hashes[1]
    assert len(list((runs[1].path / "films").glob("*.gif"))) > 1

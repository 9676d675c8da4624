"""Students that learn by reinforcement as well: fine-tuning, ADVISOR, guided policy optimisation."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_tools import (
    ADVISOR,
    DAGGER,
    FINETUNE,
    GPO,
    SMALL,
    TEACHER,
    at_call,
    call,
    error_of,
    metrics_of,
    signal_once,
    weights_hash,
)
from torch import Tensor

from tscli.cli.app import main
from tscli.envs.spaces import ActionSpec
from tscli.launch.scripts import find_script, load_script
from tscli.learning import imitation, ppo
from tscli.learning.rollout import states_before
from tscli.networks import Policy
from tscli.networks.distributions import Gaussian, from_params
from tscli.runs import Run, find_run, list_runs
from tscli.training import evaluation, setup

pytestmark = pytest.mark.usefixtures("no_plots")


def script(name: str) -> Any:
    return load_script(find_script(name))


def test_gpos_divergence_is_the_mean_over_the_actions_dimensions() -> None:
    action = ActionSpec("continuous", low=(-1.0, -1.0), high=(1.0, 1.0))
    p, q = (Gaussian(torch.tensor(mean), torch.ones(2)) for mean in ([0.0, 0.0], [1.0, 2.0]))
    assert float(script("gpo").divergence(p, q, action)) == pytest.approx((1**2 / 2 + 2**2 / 2) / 2)


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def test_the_student_stands_still_while_the_critic_warms_up(student: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    acting: list[float] = []  # a weight of the student, in each step of a roll-out
    step = Policy.step

    def watched(self: Policy, obs: Any, hidden: Tensor, reset: Any) -> Any:
        if len(reset) == 4:  # evaluations have three slots
            acting.append(float(self.head.linear.weight[0, 0]))
        return step(self, obs, hidden, reset)

    monkeypatch.setattr(Policy, "step", watched)
    run = call(*FINETUNE, "--critic-warmup", "320")
    assert len(acting) == 6 * 16 and len(set(acting)) == 1, "the first update of the student comes after the last one"
    assert ["loss/policy" in line for line in metrics_of(run)] == [False] * 5 + [True]
    assert all(line["loss/value"] > 0 for line in metrics_of(run))
    before = weights_hash(student.path / "policy.safetensors")
    assert weights_hash(run.path / "last.safetensors") != before
    acting.clear()
    call(*FINETUNE, "3", "--critic-warmup", "128")
    assert len(set(acting[: 3 * 16])) == 1 and len(set(acting)) == 4


def test_a_warm_up_that_takes_all_steps_is_refused(student: Run, capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of(capsys, *FINETUNE, "--critic-warmup", "384")
    assert "critic_warmup (384) takes all of total_steps (384), and the student would never learn" in line


def test_a_resumed_run_goes_on_with_its_student_whatever_came_after(
    student: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ppo, "compute_gae", at_call(ppo.compute_gae, 4, signal_once(15)))
        assert main([*FINETUNE, "--quiet"]) == 130
    stopped = list_runs(Path("runs"))[-1]
    assert stopped.config["run"] == student.name
    call(*DAGGER, *SMALL)  # a newer student
    call("finetune", "--resume")
    assert find_run(Path("runs"), stopped.name).status == "finished"


def test_what_was_distilled_is_kept_unless_something_is_better(student: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "summary", lambda found: {"eval/return": 7.0, "eval/length": 1.0})
    run = call(*FINETUNE, "--lr", "0.1")
    before = weights_hash(student.path / "policy.safetensors")
    assert weights_hash(run.path / "policy.safetensors") == before != weights_hash(run.path / "last.safetensors")
    assert run.metrics["first_selection_return"] == run.metrics["best_selection_return"] == 7.0


def test_a_strong_pull_brings_the_student_nearer_to_its_teacher(student: Run) -> None:
    more = ("--critic-warmup", "0", "--total-steps", "2560", "--lr", "0.01", "--eval-every", "0")
    free, held = (metrics_of(call(*FINETUNE, "3", *more, "--teacher-kl-coef", coef)) for coef in ("0.000001", "30"))
    assert held[-1]["kl_teacher"] < 0.5 * free[-1]["kl_teacher"]


def test_the_normaliser_moves_only_when_asked(student: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def counts(*more: str) -> float:
        policy = setup.load_policy_file(call(*FINETUNE, "3", *more).path / "last.safetensors")
        assert policy.encoder.norm is not None
        return float(policy.encoder.norm.count)

    assert counts("--update-normalizer") > counts()


def test_a_deviation_is_set_for_continuous_actions_alone(
    student: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--init-std 0.2: 0003-" in error_of(capsys, *FINETUNE, "--init-std", "0.2")
    short = ("--total-steps", "64", "--eval-episodes", "1")
    call("train-teacher", "Pendulum-v1", *TEACHER[2:], *short)
    beta = call("distill", "--method", "advisor", "--student.distribution", "beta", *ADVISOR[3:], *short)
    assert f"--init-std 0.2: {beta.name} has no deviation to set" in error_of(capsys, *FINETUNE, "--init-std", "0.2")
    call(*DAGGER, *SMALL, *short, "--pairs", "none", "--teacher-episodes", "1", "--loss", "mse")
    seen: list[Tensor] = []
    step = Policy.step

    def watched(self: Policy, *args: Any) -> Any:
        dist, hidden = step(self, *args)
        seen.append(dist.params()["std"])
        return dist, hidden

    monkeypatch.setattr(Policy, "step", watched)
    call(*FINETUNE, *short, "--init-std", "0.2", "--critic-warmup", "0")
    assert torch.allclose(seen[0], torch.full_like(seen[0], 0.2 * 2.0)), "in the env's units: half its range is 2"


def test_without_its_kl_the_teachers_run_may_be_gone(student: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(student.parent("teacher").path)
    assert "0001-" in error_of(capsys, *FINETUNE, "--teacher-kl-coef", "0.1")
    assert call(*FINETUNE).status == "finished"


def test_fine_tuning_needs_a_student(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run `tscli distill` first" in error_of(capsys, *FINETUNE)


# --- ADVISOR ----------------------------------------------------------------------------------------------------------


def watch(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Per minibatch: both heads' imitation losses, and the weight of PPO's loss."""
    calls: list[dict[str, Tensor]] = []
    imitation_loss, policy_loss = imitation.imitation_loss, ppo.policy_loss
    heads: list[Tensor] = []

    def watched_imitation(*args: Any) -> Tensor:
        heads.append(imitation_loss(*args))
        return heads[-1]

    def watched_policy(*args: Any) -> ppo.PolicyLoss:
        student, auxiliary = heads[-2:]
        calls.append({"student": student.detach(), "auxiliary": auxiliary.detach(), "rl": args[4]})
        return policy_loss(*args)

    monkeypatch.setattr(imitation, "imitation_loss", watched_imitation)
    monkeypatch.setattr(ppo, "policy_loss", watched_policy)
    return calls


def test_of_continuous_actions_imitation_is_measured_by_a_distance(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--total-steps", "64", "--eval-episodes", "1")
    call("train-teacher", "Pendulum-v1", *TEACHER[2:], *short)
    assert "--loss cross_entropy is no distance where actions are continuous: use --loss mse" in error_of(
        capsys, *ADVISOR, *short, "--loss", "cross_entropy"
    )
    calls = watch(monkeypatch)
    call(*ADVISOR, *short)
    assert all((each["auxiliary"] >= 0).all() and (each["rl"] >= 0).all() for each in calls)
    narrow = Gaussian(torch.zeros(1, 1), torch.full((1, 1), 0.1))
    assert imitation.imitation_loss(narrow, narrow, torch.zeros(1, 1), "cross_entropy") < 0, (
        "why cross-entropy will not do"
    )


def test_reinforcement_weighs_what_imitation_cannot_reach(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = watch(monkeypatch)
    lines = metrics_of(call(*ADVISOR, *SMALL, "--alpha", "3"))
    for each in calls:
        torch.testing.assert_close(each["rl"], 1 - (-3.0 * each["auxiliary"]).exp())
    assert 0 < lines[0]["weight"] < 1


def test_with_alpha_0_and_in_the_warm_up_it_imitates_everywhere(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = watch(monkeypatch)
    assert {line["weight"] for line in metrics_of(call(*ADVISOR, *SMALL, "--alpha", "0"))} == {1.0}
    assert all(float(each["rl"].abs().max()) == 0 for each in calls)
    weights = [line["weight"] for line in metrics_of(call(*ADVISOR, *SMALL, "--teacher", "1", "--warmup", "128"))]
    assert weights[:2] == [1.0, 1.0] and max(weights[2:]) < 1


def test_where_it_imitates_everywhere_no_entropy_is_asked_for(runs: Path) -> None:
    def student(coef: str) -> str:
        run = call(*ADVISOR, *SMALL, "--teacher", "1", "--alpha", "0", "--entropy-coef", coef)
        return weights_hash(run.path / "last.safetensors")

    assert student("0") == student("10")


# --- guided policy optimisation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "logits", "expected"),
    [
        # KL of unit normals a distance d apart: d^2 / 2; here 2 and 0, so 1 per dimension.
        (ActionSpec("continuous", low=(-1.0, -1.0), high=(1.0, 1.0)), None, 1.0),
        # A certain choice of two from an even one: log 2; the second choice is even in both.
        (ActionSpec("multi_discrete", nvec=(2, 2)), [100.0, 0.0, 0.0, 0.0], math.log(2) / 2),
        (ActionSpec("discrete", nvec=(2,)), [100.0, 0.0], math.log(2)),
    ],
)
def test_the_divergence_is_the_mean_over_the_actions_dimensions(
    action: ActionSpec, logits: list[float] | None, expected: float
) -> None:
    if logits is None:
        p, q = (Gaussian(torch.tensor([[mean, 0.5]]), torch.ones(1, 2)) for mean in (2.0, 0.0))
    else:
        p, q = (from_params({"logits": scale * torch.tensor([logits])}, action) for scale in (1.0, 0.0))
    assert script("gpo").divergence(p, q, action).tolist() == [pytest.approx(expected)]


def test_a_learner_far_from_the_guiders_actions_still_has_a_gradient() -> None:
    gpo = script("gpo")
    config = gpo.Config(task="cartpole")
    log_prob = torch.tensor([-200.0, 200.0, 200.0], requires_grad=True)
    advantage = torch.tensor([1.0, 1.0, -1.0])
    for loss in (
        ppo.policy_loss(log_prob, torch.zeros(3), advantage, config.clip_coef).loss,
        gpo.double_clip(log_prob, torch.zeros(3), torch.tensor([-200.0, 200.0, 200.0]), advantage, config)[0].loss,
    ):
        (gradient,) = torch.autograd.grad(loss, log_prob)
        assert torch.isfinite(loss) and torch.isfinite(gradient).all()


def test_beta_rises_above_its_target_and_falls_below() -> None:
    gpo = script("gpo")
    config = gpo.Config(task="cartpole", target_kl=0.01, max_beta=1.0)
    assert gpo.steered(0.0, 0.005, config) == 0, "the guider is free until it has left"
    assert gpo.steered(0.0, 0.02, config) == pytest.approx(0.12)
    assert gpo.steered(0.5, 0.02, config) == pytest.approx(0.6)
    assert gpo.steered(0.5, 0.01, config) == 0.5
    assert gpo.steered(0.5, 0.001, config) == pytest.approx(0.5 / 1.2)
    assert gpo.steered(0.95, 0.02, config) == 1.0


def test_a_guider_gains_nothing_beyond_its_learners_neighbourhood() -> None:
    gpo = script("gpo")
    config = gpo.Config(task="cartpole", delta=0.3, clip_coef=0.2)
    old, learner = torch.zeros(4), torch.tensor([0.0, 0.0, -1.0, 1.0])
    log_prob = torch.tensor([0.1, 0.5, 0.1, 0.1], requires_grad=True)
    loss, left = gpo.double_clip(log_prob, old, learner, torch.ones(4), config)
    (gradient,) = torch.autograd.grad(loss.loss, log_prob)
    # Within both; beyond the old policy's clip; further than the learner; still short of the learner.
    assert left.tolist() == [False, True, True, True]
    expected = [-math.exp(0.1) / 4, 0.0, 0.0, -math.exp(0.1) / 4]
    torch.testing.assert_close(gradient, torch.tensor(expected))


@pytest.mark.parametrize("pull", ["penalty", "clip"])
def test_guider_and_learner_are_a_pair_for_every_later_stage(folder: Path, pull: str) -> None:
    run = call(*GPO, *SMALL, "--student", "rnn", "--pull", pull)
    assert run.role == "student" and run.teacher_policy == "teacher"
    assert {line["beta"] >= 0 for line in metrics_of(run)} == {True}
    evaluated = call("eval", "--episodes", "3")
    assert "gap" in evaluated.metrics
    call("collect", "--teacher", run.name, "--episodes", "2", "--num-envs", "2")


def test_the_learners_memory_is_carried_through_what_the_guider_did(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(*GPO, *SMALL, "--student", "gru")
    policy = setup.load_policy_file(find_run(Path("runs"), "1").path / "policy.safetensors")
    obs = {"vector": torch.randn(16, 3, policy.spec.view.vector_size)}
    resets = torch.zeros(17, 3, dtype=torch.bool)
    resets[5, 1] = resets[8, 2] = True
    hidden = torch.randn(3, policy.encoder.hidden_size)
    starts, last = states_before(policy.encoder, obs, hidden, resets[:-1], 8)
    assert torch.equal(starts[0], hidden)
    for t in range(16):
        if t == 8:
            torch.testing.assert_close(starts[1], hidden)
        _, hidden = policy.step({k: v[t] for k, v in obs.items()}, hidden, resets[t])
    torch.testing.assert_close(last, hidden)

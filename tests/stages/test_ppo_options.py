"""PPO's options: a learning rate by KL, noise on actions, episodes that start part-way, and Beta actions."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_tools import (
    COLLECT,
    ONLINE,
    TEACHER,
    at_call,
    call,
    error_of,
    fingerprint,
    metrics_of,
    signal_once,
)
from torch import Tensor

import tscli
from tscli.cli.app import main
from tscli.config import NetworkConfig, UserError
from tscli.envs import env_kinds, make_env
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import resolve_view
from tscli.learning import imitation, ppo, rollout
from tscli.learning.optim import FlatAdam
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import Beta, Categorical, Distribution, kl
from tscli.pairs import Pairs
from tscli.runs import list_runs

pytestmark = pytest.mark.usefixtures("no_plots")

ADAPTIVE = (*TEACHER, "--lr-schedule", "adaptive")
ARM = ActionSpec("continuous", low=(-1.0, 2.0), high=(3.0, 4.0))
BETA = (
    *("train-teacher", "Pendulum-v1", "--network.distribution", "beta", "--total-steps", "256", "--num-envs", "4"),
    *("--rollout-steps", "16", "--num-minibatches", "2", "--num-epochs", "2", "--network.hidden", "8"),
    *("--eval-every", "0", "--eval-episodes", "2", "--stop-return", "none"),
)


# --- the learning rate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [("--network", "mlp"), ("--network", "gru", "--bptt", "8")])
def test_adaptive_goes_by_the_kl_between_the_policy_that_acted_and_the_one_that_is_updated(
    folder: Path, monkeypatch: pytest.MonkeyPatch, network: tuple[str, ...]
) -> None:
    seen: list[tuple[float, float, float]] = []
    approximate: list[float] = []
    adaptive_lr, policy_loss = ppo.adaptive_lr, ppo.policy_loss

    def watched(lr: float, divergence: Tensor, desired_kl: float) -> float:
        assert desired_kl == 0.0003
        seen.append((lr, float(divergence), float(adaptive_lr(lr, divergence, desired_kl))))
        return seen[-1][2]

    def watched_loss(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, clip_coef: float) -> ppo.PolicyLoss:
        found = policy_loss(log_prob, old_log_prob, advantage, clip_coef)
        approximate.append(float(found.approx_kl))
        return found

    monkeypatch.setattr(ppo, "adaptive_lr", watched)
    monkeypatch.setattr(ppo, "policy_loss", watched_loss)
    run = call(*ADAPTIVE, *network, "--lr", "0.005", "--desired-kl", "0.0003", "--num-epochs", "4")
    assert len(seen) == 6 * 8
    assert seen[0][0] == 0.005
    assert all(before[2] == after[0] for before, after in itertools.pairwise(seen))
    assert all(abs(divergence) < 1e-6 for _, divergence, _ in seen[::8])
    # The estimate from samples is of the same divergence, so that they agree but for its noise.
    exact = [divergence for _, divergence, _ in seen]
    assert sum(exact) == pytest.approx(sum(approximate), rel=0.25)
    assert len({after for _, _, after in seen}) > 2
    lines = metrics_of(run)
    assert [line["lr"] for line in lines] == [after for _, _, after in seen[7::8]]
    assert lines[0]["kl"] == pytest.approx(sum(exact[:8]) / 8)


def test_the_other_schedules_neither_compute_nor_log_a_kl(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo, "adaptive_lr", None)
    assert all("kl" not in line for line in metrics_of(call(*TEACHER)))


@pytest.mark.parametrize(
    "options",
    [("--lr-schedule", "adaptive", "--desired-kl", "0.0003"), ("--random-start",), ("--action-noise", "0.3")],
)
def test_a_run_with_these_options_resumes_exactly(
    folder: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    command = (*TEACHER, *options, "--checkpoint-every", "0")
    whole = call(*command)
    with monkeypatch.context() as patch:
        patch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 14, signal_once(2)))
        assert main([*command, "--quiet"]) == 130
    resumed = call("train-teacher", "--resume")
    assert resumed.number != whole.number
    assert fingerprint(resumed) == fingerprint(whole)


# --- noise on actions -------------------------------------------------------------------------------------------------


def watch_actions(monkeypatch: pytest.MonkeyPatch) -> tuple[list[Tensor], list[Tensor]]:
    """What four envs were given step by step, and what the policy drew for them."""
    given: list[Tensor] = []
    drawn: list[Tensor] = []
    step, sample = ViewedEnv.step, Categorical.sample

    def watched_step(self: ViewedEnv, action: Tensor) -> Any:
        if len(action) == 4:  # in training, not in an evaluation
            given.append(action.clone())
        return step(self, action)

    def watched_sample(self: Categorical, generator: torch.Generator | None = None) -> Tensor:
        drawn.append(sample(self, generator))
        return drawn[-1]

    monkeypatch.setattr(ViewedEnv, "step", watched_step)
    monkeypatch.setattr(Categorical, "sample", watched_sample)
    return given, drawn


def test_the_env_gets_noisy_actions_and_ppo_learns_from_those_that_were_meant(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, drawn = watch_actions(monkeypatch)
    learnt: list[Tensor] = []
    log_prob = Categorical.log_prob

    def watched(self: Categorical, action: Tensor) -> Tensor:
        learnt.append(action.flatten())
        return log_prob(self, action)

    monkeypatch.setattr(Categorical, "log_prob", watched)
    call(*TEACHER, "--action-noise", "0.5", "--total-steps", "64", "--num-epochs", "1")
    assert len(given) == len(drawn) == 16
    changed = (torch.stack(given) != torch.stack(drawn)).float()
    assert changed.mean().item() == pytest.approx(0.25, abs=0.12)  # half are random, of which half are as meant
    rollout, minibatches = torch.stack(learnt[:16]), torch.cat(learnt[16:])
    assert torch.equal(rollout, torch.stack(drawn))
    assert torch.equal(minibatches.sort().values, rollout.flatten().sort().values)


def test_without_noise_all_is_as_it_was_and_noise_takes_nothing_from_other_streams(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = call(*TEACHER)
    given, drawn = watch_actions(monkeypatch)
    none = call(*TEACHER, "--action-noise", "0")
    assert fingerprint(none) == fingerprint(usual)
    assert all(map(torch.equal, given, drawn))
    first = drawn[:3]
    drawn.clear()
    noisy = call(*TEACHER, "--action-noise", "0.5")
    assert all(map(torch.equal, drawn[:3], first)), "a new policy is all but uniform, whatever it sees"
    assert fingerprint(noisy) != fingerprint(usual)


def test_evaluations_of_a_noisy_teacher_have_no_noise(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    perturb = rollout.perturb

    def watched(action: Tensor, *args: Any) -> Tensor:
        sizes.append(len(action))
        return perturb(action, *args)

    monkeypatch.setattr(rollout, "perturb", watched)
    call(*TEACHER, "--action-noise", "0.5")  # four envs, and three to evaluate in
    assert sizes == [4] * 96


@pytest.mark.parametrize("noise", ["-0.1", "1.1"])
def test_a_share_of_random_actions_out_of_bounds_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], noise: str
) -> None:
    assert f"--action-noise '{noise}'" in error_of(capsys, *TEACHER, "--action-noise", noise)


# --- episodes that start part-way -------------------------------------------------------------------------------------

NATIVE = [kind for kind in env_kinds() if kind not in ("gym", "rsl", "mixed", "quadruped", "drawer")]


@pytest.mark.parametrize("kind", NATIVE)
def test_episodes_that_start_part_way_are_cut_off_one_after_the_other(kind: str) -> None:
    env = make_env({"kind": kind, "max_episode_steps": 8}, 400)
    env.reset(1)
    try:
        env.start_part_way(torch.Generator().manual_seed(0))
    except UserError as error:
        pytest.skip(str(error))
    still = torch.zeros(400, *env.action.shape, dtype=getattr(torch, env.action.dtype))
    steps = [env.step(still) for _ in range(8)]
    ended = torch.stack([step.terminated | step.truncated for step in steps])
    cut_off = torch.stack([step.truncated for step in steps])
    if ended[0].all():
        pytest.skip("the first action ends every episode, whatever its limit")
    assert (ended.sum(0) >= 1).all()
    assert cut_off.any(1).all(), "some reach the limit at every step"


def test_random_starts_spread_the_first_truncations(folder: Path) -> None:
    Path("short.yaml").write_text("env: {kind: cartpole, max_episode_steps: 8}\nviews: {full: [state]}\n")
    flags = ("--rollout-steps", "4", "--num-minibatches", "2", "--num-envs", "16")
    together, apart = (call("train-teacher", "short.yaml", *TEACHER[2:], *flags, *f) for f in ((), ("--random-start",)))
    first, second = (metrics_of(run)[0]["rollout/length"] for run in (together, apart))
    assert first is None and second is not None and second <= 4


def test_an_online_student_starts_part_way_as_well(runs: Path) -> None:
    Path("short.yaml").write_text("extends: cartpole\nenv: {max_episode_steps: 8}\n")
    flags = (*ONLINE, "--task", "short.yaml", "--num-envs", "16", "--rollout-steps", "4")
    together, apart = (metrics_of(call(*flags, *f))[0]["rollout/length"] for f in ((), ("--random-start",)))
    assert together is None and apart is not None and apart <= 4


def test_an_env_that_cannot_start_part_way_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    error = error_of(capsys, "train-teacher", "Pendulum-v1-of-gym.yaml", *TEACHER[2:], "--random-start")
    assert "Pendulum-v1-of-gym.yaml" in error  # no such file yet
    Path("Pendulum-v1-of-gym.yaml").write_text("env: {kind: gym, id: Pendulum-v1}\nviews: {full: [state]}\n")
    error = error_of(capsys, "train-teacher", "Pendulum-v1-of-gym.yaml", *TEACHER[2:], "--random-start")
    assert "this env (gym) cannot start its episodes part-way: use --no-random-start" in error


# --- Beta actions -----------------------------------------------------------------------------------------------------


def make_policy(action: ActionSpec, **settings: object) -> Policy:
    view = resolve_view("state", (tscli.config.ViewPart(group="state"),), {"state": Group((3,))}, action, owner="test")
    return Policy(PolicySpec(view, action, NetworkConfig.model_validate({"distribution": "beta", **settings})))


def test_a_beta_policy_starts_wide_in_the_middle_and_never_leaves_the_bounds() -> None:
    policy = make_policy(ARM)
    obs = {"vector": 3 * torch.randn(500, 3)}
    dist, _ = policy.step(obs, policy.initial_hidden(500), torch.ones(500, dtype=torch.bool))
    assert isinstance(dist, Beta)
    torch.testing.assert_close(dist.mode(), torch.tensor([1.0, 3.0]).expand(500, 2), atol=0.15, rtol=0)
    with torch.no_grad():
        policy.head.linear.weight.mul_(1e6)  # as far as a head can go
    dist, _ = policy.step(obs, policy.initial_hidden(500), torch.ones(500, dtype=torch.bool))
    for action in (dist.sample(), dist.mode()):
        assert ((action >= torch.tensor(ARM.low)) & (action <= torch.tensor(ARM.high))).all()
        assert torch.isfinite(dist.log_prob(action)).all()
    assert torch.isfinite(dist.entropy()).all() and torch.isfinite(kl(dist, dist)).all()


def test_a_frozen_beta_head_lets_the_gradient_reach_the_latent_alone() -> None:
    head = make_policy(ARM).head
    latent = torch.randn(5, head.linear.in_features, requires_grad=True)
    head(latent, frozen=True).entropy().sum().backward()
    assert latent.grad is not None and (latent.grad != 0).any()
    assert head.linear.weight.grad is None


def test_a_beta_needs_continuous_actions_with_bounds() -> None:
    with pytest.raises(UserError, match="these are discrete: use gaussian"):
        make_policy(ActionSpec("discrete", nvec=(2,)))
    with pytest.raises(UserError, match="these are some without bounds: use gaussian"):
        make_policy(ActionSpec("continuous", low=(-1.0, -float("inf")), high=(1.0, 1.0)))
    with pytest.raises(ValueError, match="squash is for gaussian actions"):
        make_policy(ARM, squash=True)


def test_a_beta_teachers_pairs_hold_its_numbers_and_a_beta_student_learns_from_them(folder: Path) -> None:
    teacher = call(*BETA, "--lr-schedule", "adaptive")
    assert tscli.load_policy(teacher).spec.network.distribution == "beta"
    pairs = Pairs(call(*COLLECT[:1], "--episodes", "2", "--num-envs", "2").path / "pairs")
    assert pairs.schema.teacher_fields == ("alpha", "beta")
    index = pairs.windows(1, start="tile")
    found = pairs.gather(index[slice(0, 50)], ["teacher_alpha", "teacher_beta", "teacher_action"])
    alpha, beta = (found[f"teacher_{name}"] for name in ("alpha", "beta"))
    assert (alpha > 1).all() and (beta > 1).all()
    mode = 2 * (2 * (alpha - 1) / (alpha + beta - 2) - 1)  # Pendulum's torque is within +-2
    assert found["teacher_action"] == pytest.approx(mode, abs=1e-4)
    student = ("--student.hidden", "8", "--num-epochs", "4", "--eval-every", "1", "--eval-episodes", "2")
    run = call("distill", "--method", "bc", "--loss", "kl", "--student.distribution", "beta", *student)
    losses = [line["loss/imitation"] for line in metrics_of(run) if "loss/imitation" in line]
    assert losses[-1] < losses[0]
    report = call("eval", "--episodes", "2")
    assert "kl_teacher_student" in report.metrics


def test_a_gaussian_student_of_a_beta_teacher_needs_a_loss_that_compares_actions(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*BETA)
    call(*COLLECT[:1], "--episodes", "2", "--num-envs", "2")
    student = ("--student.hidden", "8", "--num-epochs", "1", "--eval-every", "1", "--eval-episodes", "2")
    error = error_of(capsys, "distill", "--method", "bc", "--loss", "kl", *student)
    assert "no KL between a teacher's beta and a student's gaussian" in error
    assert "--student.distribution beta" in error
    assert [run.command for run in list_runs(folder / "runs")] == ["train-teacher", "collect"]
    call("distill", "--method", "bc", "--loss", "mse", *student)
    assert "kl_teacher_student" not in call("eval", "--episodes", "2").metrics


def test_a_beta_policys_samples_depend_on_its_own_stream_alone(folder: Path) -> None:
    first = call(*BETA)
    torch.rand(7)
    assert fingerprint(call(*BETA)) == fingerprint(first)


def test_imitation_compares_a_betas_greedy_actions() -> None:
    center, half = torch.zeros(1), torch.ones(1)

    def peaked(at: float) -> Distribution:
        above = torch.tensor([[10 * (1 + at)]]), torch.tensor([[10 * (1 - at)]])
        return Beta(above[0] + 1, above[1] + 1, center, half)

    loss = imitation.imitation_loss(peaked(0.5), peaked(-0.1), torch.zeros(1, 1), "mse")
    assert loss.item() == pytest.approx(0.36, abs=1e-6)

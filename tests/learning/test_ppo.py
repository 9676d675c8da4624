"""Advantages and losses against numbers worked out by hand."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tscli.learning.imitation import imitation_loss
from tscli.learning.ppo import adaptive_lr, compute_gae, explained_variance, policy_loss, standardize, value_loss
from tscli.networks.distributions import Categorical, Gaussian, MultiCategorical, TanhGaussian


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_gae_over_three_steps_bootstraps_the_last() -> None:
    # delta: 1 + .5*2 - 1 = 1, 2 + .5*3 - 2 = 1.5, 3 + .5*4 - 3 = 2; carry .5 * .5 = .25
    advantage, returns = compute_gae(
        column(1, 2, 3), column(1, 2, 3), column(2, 3, 4), column(0, 0, 0).bool(), column(0, 0, 0).bool(), 0.5, 0.5
    )
    assert advantage.flatten().tolist() == pytest.approx([1 + 0.25 * (1.5 + 0.25 * 2), 1.5 + 0.25 * 2, 2])
    torch.testing.assert_close(returns, advantage + column(1, 2, 3))


def test_gae_at_a_termination_neither_bootstraps_nor_looks_on() -> None:
    advantage, _ = compute_gae(
        column(1, 2, 3), column(1, 2, 3), column(2, 99, 4), column(0, 1, 0).bool(), column(0, 1, 0).bool(), 0.5, 0.5
    )
    # Step 1 is worth 2 - 2 = 0, whatever the value of the next episode's start.
    assert advantage.flatten().tolist() == pytest.approx([1, 0, 2])


def test_gae_at_a_truncation_bootstraps_but_does_not_look_on() -> None:
    advantage, _ = compute_gae(
        column(1, 2, 3), column(1, 2, 3), column(2, 6, 4), column(0, 0, 0).bool(), column(0, 1, 0).bool(), 0.5, 0.5
    )
    assert advantage.flatten().tolist() == pytest.approx([1 + 0.25 * 3, 2 + 0.5 * 6 - 2, 2])


def test_gae_of_each_env_is_its_own() -> None:
    reward, value, next_value = torch.randn(3, 5, 2)
    ends = torch.tensor([[0, 1], [0, 0], [1, 0], [0, 0], [0, 1]]).bool()
    both, _ = compute_gae(reward, value, next_value, ends, ends, 0.9, 0.8)
    for n in range(2):
        one = slice(n, n + 1)
        alone, _ = compute_gae(reward[:, one], value[:, one], next_value[:, one], ends[:, one], ends[:, one], 0.9, 0.8)
        torch.testing.assert_close(both[:, one], alone)


def test_policy_loss_takes_the_worse_of_clipped_and_unclipped() -> None:
    ratio = torch.tensor([1.5, 1.5, 0.5, 0.5])
    advantage = torch.tensor([1.0, -1.0, 1.0, -1.0])
    log_prob = ratio.log().requires_grad_()
    loss, approx_kl, clip_fraction = policy_loss(log_prob, torch.zeros(4), advantage, 0.2)
    assert loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8) / 4)
    assert approx_kl.item() == pytest.approx((2 * (0.5 - math.log(1.5)) + 2 * (-0.5 - math.log(0.5))) / 4)
    assert clip_fraction.item() == 1.0
    loss.backward()
    # Where moving on would pay but the ratio is already beyond the clip there is no gradient.
    assert log_prob.grad is not None
    assert log_prob.grad.tolist() == pytest.approx([0.0, 1.5 / 4, -0.5 / 4, 0.0])
    assert not approx_kl.requires_grad and not clip_fraction.requires_grad


def test_advantages_get_zero_mean_and_the_deviation_of_a_sample_of_one() -> None:
    assert standardize(torch.tensor([[1.0, 2.0], [3.0, 6.0]])).flatten().tolist() == pytest.approx(
        [x / math.sqrt(14 / 3) for x in (-2, -1, 0, 3)]
    )


def test_each_sample_of_the_surrogate_has_its_weight_and_may_have_another_ratio_to_be_clipped() -> None:
    log_prob, advantage = torch.tensor([1.1, 0.9]).log(), torch.tensor([1.0, 2.0])
    weighted = policy_loss(log_prob, torch.zeros(2), advantage, 0.2, torch.tensor([0.5, 0.25])).loss
    assert weighted.item() == pytest.approx(-(0.5 * 1.1 + 0.25 * 1.8) / 2)
    near = torch.tensor([1.05, 0.95]).log()  # the clip is of this; the worse of the two counts
    assert policy_loss(log_prob, torch.zeros(2), advantage, 0.2, near=near).loss.item() == pytest.approx(
        -(1.05 + 1.8) / 2
    )


@pytest.mark.parametrize("number", [float, torch.tensor], ids=["number", "on a device"])
def test_the_learning_rate_falls_far_from_the_old_policy_rises_near_it_and_keeps_its_bounds(number: Any) -> None:
    for lr, divergence, expected in (
        *((3e-3, 0.021, 2e-3), (3e-3, 0.020, 3e-3), (3e-3, 0.005, 3e-3), (3e-3, 0.0049, 4.5e-3)),
        *((3e-3, 0.0, 3e-3), (1.2e-5, 1.0, 1e-5), (9e-3, 1e-4, 1e-2)),
    ):
        found = adaptive_lr(number(lr), number(divergence), 0.01)
        assert float(found) == pytest.approx(expected)
        assert isinstance(found, torch.Tensor) == (number is not float)


def test_value_loss_with_clipping_takes_the_worse_error() -> None:
    value, old = torch.tensor([2.0, 2.0, 0.1]), torch.zeros(3)
    returns = torch.tensor([3.0, 1.0, 1.0])
    assert value_loss(value, returns, old, None).item() == pytest.approx(0.5 * (1 + 1 + 0.81) / 3)
    # Clipped to 0.5, 0.5, 0.1: errors 6.25 against 1, 0.25 against 1, 0.81 against 0.81.
    assert value_loss(value, returns, old, 0.5).item() == pytest.approx(0.5 * (6.25 + 1 + 0.81) / 3)
    # From 1 on: clipped to 1.5, 1.5, 0.5, of which the first and the last are worse.
    assert value_loss(value, returns, old + 1, 0.5).item() == pytest.approx(0.5 * (2.25 + 1 + 0.81) / 3)


def test_explained_variance_of_perfect_constant_and_inverted_values() -> None:
    returns = torch.tensor([1.0, 2.0, 3.0])
    assert explained_variance(returns + 5, returns).item() == pytest.approx(1)
    assert explained_variance(torch.full((3,), 7.0), returns).item() == pytest.approx(0)
    assert explained_variance(-returns, returns).item() == pytest.approx(-3)
    assert math.isnan(explained_variance(returns, torch.ones(3)).item())


def test_imitation_of_a_discrete_teacher() -> None:
    student, teacher = Categorical(torch.tensor([[0.2, 0.8]]).log()), Categorical(torch.tensor([[0.5, 0.5]]).log())
    label = torch.tensor([1])
    found = {k: imitation_loss(student, teacher, label, k).item() for k in ("cross_entropy", "kl", "mse", "huber")}
    assert found["cross_entropy"] == pytest.approx(-math.log(0.8))
    # KL(teacher || student), not the other way round
    assert found["kl"] == pytest.approx(0.5 * math.log(0.5 / 0.2) + 0.5 * math.log(0.5 / 0.8))
    assert found["mse"] == pytest.approx(0.09)
    assert found["huber"] == pytest.approx(0.045)


def test_imitation_of_a_continuous_teacher() -> None:
    one = torch.ones(1, 2)
    student, teacher = Gaussian(torch.tensor([[0.0, 3.0]]), one), Gaussian(torch.tensor([[0.5, 0.0]]), 2 * one)
    label = torch.tensor([[0.5, 0.0]])
    assert imitation_loss(student, teacher, label, "mse").item() == pytest.approx((0.25 + 9) / 2)
    assert imitation_loss(student, teacher, label, "huber").item() == pytest.approx((0.125 + 2.5) / 2)
    nats = math.log(2 * math.pi) + 0.5 * (0.25 + 9)
    assert imitation_loss(student, teacher, label, "cross_entropy").item() == pytest.approx(nats)
    kl = 0.5 * (4 + 0.25 - 1 - math.log(4)) + 0.5 * (4 + 9 - 1 - math.log(4))
    assert imitation_loss(student, teacher, label, "kl").item() == pytest.approx(kl)


def test_imitation_of_squashed_actions_compares_what_is_executed() -> None:
    bounds = torch.zeros(1), torch.full((1,), 2.0)
    student = TanhGaussian(torch.tensor([[0.0]]), torch.ones(1, 1), *bounds)
    teacher = TanhGaussian(torch.tensor([[1.0]]), torch.ones(1, 1), *bounds)
    found = imitation_loss(student, teacher, teacher.mode(), "mse").item()
    assert found == pytest.approx((2 * math.tanh(1.0)) ** 2)


def test_imitation_of_several_choices_adds_their_nats_and_averages_their_probabilities() -> None:
    logits = torch.tensor([[0.2, 0.8, 0.1, 0.2, 0.7]]).log()
    other = torch.tensor([[0.5, 0.5, 0.1, 0.2, 0.7]]).log()
    student, teacher = MultiCategorical(logits, (2, 3)), MultiCategorical(other, (2, 3))
    label = torch.tensor([[1, 2]])
    found = imitation_loss(student, teacher, label, "cross_entropy").item()
    assert found == pytest.approx(-math.log(0.8) - math.log(0.7))
    assert imitation_loss(student, teacher, label, "mse").item() == pytest.approx(2 * 0.09 / 5)

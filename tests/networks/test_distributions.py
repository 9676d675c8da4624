"""Distributions against torch.distributions, and by sampling where that has no answer."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as td

from tscli.config import UserError
from tscli.envs.spaces import ActionSpec, action_scale
from tscli.networks.distributions import (
    Beta,
    Categorical,
    Distribution,
    Gaussian,
    MultiCategorical,
    TanhGaussian,
    certain,
    from_params,
    kl,
)

ARM = ActionSpec("continuous", low=(-1.0, 2.0), high=(3.0, 4.0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def squashed(mean: torch.Tensor, std: torch.Tensor) -> tuple[TanhGaussian, td.Distribution]:
    center, half = action_scale(ARM)
    transforms = [td.TanhTransform(cache_size=1), td.AffineTransform(center, half)]
    return TanhGaussian(mean, std, center, half), td.TransformedDistribution(td.Normal(mean, std), transforms)


def test_a_categorical_is_torchs() -> None:
    p, q = torch.randn(2, 5, 4, 3, generator=seeded())
    action = torch.randint(3, (5, 4), generator=seeded())
    ours, theirs = Categorical(p), td.Categorical(logits=p)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    torch.testing.assert_close(kl(ours, Categorical(q)), td.kl_divergence(theirs, td.Categorical(logits=q)))
    assert torch.equal(ours.mode(), p.argmax(-1))


def test_a_gaussian_is_torchs() -> None:
    mean, other = torch.randn(2, 6, 2, generator=seeded())
    std, wide = torch.tensor([0.3, 2.0]), torch.tensor([1.0, 0.5])
    action = torch.randn(6, 2, generator=seeded(1))
    ours, theirs = Gaussian(mean, std), td.Independent(td.Normal(mean, std), 1)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    expected = td.kl_divergence(theirs, td.Independent(td.Normal(other, wide), 1))
    torch.testing.assert_close(kl(ours, Gaussian(other, wide)), expected)


def test_a_certain_action_has_all_of_the_probability() -> None:
    one = certain(torch.tensor([2, 0]), ActionSpec("discrete", nvec=(3,)))
    assert torch.equal(one.params()["logits"].softmax(-1), torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    several = certain(torch.tensor([[1, 2]]), ActionSpec("multi_discrete", nvec=(2, 3)))
    assert isinstance(several, MultiCategorical) and torch.equal(several.mode(), torch.tensor([[1, 2]]))
    assert several.log_prob(torch.tensor([[1, 2]])).item() == 0.0
    arm = certain(torch.tensor([[0.5, 3.0]]), ARM)
    assert torch.equal(arm.mode(), torch.tensor([[0.5, 3.0]])) and torch.equal(arm.sample(seeded()), arm.mode())


def test_several_choices_are_independent_categoricals() -> None:
    p, q = torch.randn(2, 7, 5, generator=seeded())
    action = torch.stack([torch.randint(n, (7,), generator=seeded()) for n in (2, 3)], -1)
    ours = MultiCategorical(p, (2, 3))
    theirs = [td.Categorical(logits=part) for part in p.split((2, 3), -1)]
    others = [td.Categorical(logits=part) for part in q.split((2, 3), -1)]
    torch.testing.assert_close(ours.log_prob(action), sum(d.log_prob(action[:, i]) for i, d in enumerate(theirs)))
    torch.testing.assert_close(ours.entropy(), sum(d.entropy() for d in theirs))
    expected = sum(td.kl_divergence(a, b) for a, b in zip(theirs, others, strict=True))
    torch.testing.assert_close(kl(ours, MultiCategorical(q, (2, 3))), expected)
    assert torch.equal(ours.mode(), torch.stack([p[:, :2].argmax(-1), p[:, 2:].argmax(-1)], -1))


def test_a_squashed_gaussian_has_the_density_of_the_change_of_variables() -> None:
    mean, std = torch.tensor([[0.3, -2.0]]), torch.tensor([[0.8, 0.2]])
    ours, theirs = squashed(mean, std)
    action = ours.sample(seeded()).clamp(-0.999, 3.999)
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action.float()).sum(-1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours.mode(), torch.tensor([[1.0, 3.0]]) + torch.tensor([2.0, 1.0]) * mean.tanh())
    # and it integrates to one
    grid = torch.linspace(-0.9999, 2.9999, 20001)
    one = TanhGaussian(mean[:, :1], std[:, :1], torch.tensor([1.0]), torch.tensor([2.0]))
    density = one.log_prob(grid[:, None]).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-3)


def test_an_action_on_its_bound_has_a_finite_density() -> None:
    ours, _ = squashed(torch.zeros(1, 2), torch.ones(1, 2))
    assert torch.isfinite(ours.log_prob(torch.tensor([[3.0, 2.0]]))).all()


def test_a_saturated_action_keeps_its_density_and_its_score() -> None:
    for u in (-12.0, -7.0, 0.5, 7.0, 8.0, 9.5, 12.0):
        # mean .3 below u, deviation .5: z = .6; the score is .3 / .5^2.
        mean = torch.full((1, 2), u - 0.3, requires_grad=True)
        ours, _ = squashed(mean, torch.full((1, 2), 0.5))
        action = ours.center + ours.half * torch.tensor([[u, u]], dtype=torch.float64).tanh()
        log_slope = 2 * (math.log(2) - abs(u) - math.log1p(math.exp(-2 * abs(u))))
        normal = -0.5 * (0.6**2 + math.log(2 * math.pi)) - math.log(0.5)
        log_prob = ours.log_prob(action)
        assert log_prob.item() == pytest.approx(2 * (normal - log_slope) - math.log(2.0 * 1.0), abs=1e-3)
        (score,) = torch.autograd.grad(log_prob.sum(), mean)
        torch.testing.assert_close(score, torch.full((1, 2), 0.3 / 0.25), atol=1e-3, rtol=0)


def test_the_score_of_samples_from_a_saturated_policy_averages_to_nothing() -> None:
    mean = torch.full((4000, 2), 9.0, requires_grad=True)
    ours, _ = squashed(mean, torch.ones(4000, 2))
    (score,) = torch.autograd.grad(ours.log_prob(ours.sample(seeded()).detach()).sum(), mean)
    assert abs(score.mean().item()) < 0.05  # 8000 of deviation 1


@pytest.mark.parametrize("std", [0.1, 0.5, 1.0, 2.0])
def test_a_squashed_gaussians_entropy_is_that_of_its_samples(std: float) -> None:
    mean, deviation = torch.tensor([[0.7, -0.2]]), torch.full((1, 2), std)
    ours, _ = squashed(mean, deviation)
    many, _ = squashed(mean.double().expand(200_000, 2), deviation.double().expand(200_000, 2))
    expected = -many.log_prob(many.sample(seeded())).mean().item()
    assert ours.entropy().item() == pytest.approx(expected, abs=0.02)


def test_a_wider_squashed_gaussian_is_not_more_random_for_ever() -> None:
    ours, _ = squashed(torch.zeros(1, 2), torch.full((1, 2), 4.0))
    narrower, _ = squashed(torch.zeros(1, 2), torch.full((1, 2), 1.0))
    assert ours.entropy() < narrower.entropy()  # nearly all of it lies on the bounds


def test_the_kl_of_squashed_gaussians_is_that_of_their_normals() -> None:
    p, _ = squashed(torch.zeros(3, 2), torch.ones(3, 2))
    q, _ = squashed(torch.ones(3, 2), torch.ones(3, 2))
    torch.testing.assert_close(kl(p, q), torch.ones(3))


@pytest.mark.parametrize("swap", [False, True])
def test_there_is_no_kl_between_a_squashed_and_a_plain_gaussian(swap: bool) -> None:
    p, _ = squashed(torch.zeros(3, 2), torch.ones(3, 2))
    q = Gaussian(torch.zeros(3, 2), torch.ones(3, 2))
    with pytest.raises(TypeError, match="no KL between"):
        kl(q, p) if swap else kl(p, q)


def test_samples_come_as_often_as_they_are_likely() -> None:
    p = torch.tensor([0.1, 0.2, 0.7])
    drawn = Categorical(p.log().expand(20_000, 3)).sample(seeded())
    assert (torch.bincount(drawn) / 20_000).tolist() == pytest.approx(p.tolist(), abs=0.02)
    both = MultiCategorical(torch.cat([p, p]).log().expand(20_000, 6), (3, 3)).sample(seeded())
    together = torch.bincount(both[:, 0] * 3 + both[:, 1], minlength=9) / 20_000
    assert together.tolist() == pytest.approx(torch.outer(p, p).flatten().tolist(), abs=0.02)
    found = Gaussian(torch.full((20_000, 1), 3.0), torch.tensor([0.5])).sample(seeded())
    assert (found.mean().item(), found.std().item()) == pytest.approx((3.0, 0.5), abs=0.02)


def test_unnormalised_and_extreme_logits_are_drawn_alike() -> None:
    logits = torch.tensor([[1000.0, 1000.0, -1000.0]]).expand(2000, 3)
    drawn = Categorical(logits).sample(seeded())
    assert set(drawn.tolist()) == {0, 1}
    assert Categorical(logits[:1]).entropy().item() == pytest.approx(0.6931, abs=1e-3)


@pytest.mark.parametrize(
    ("dist", "spec", "squash"),
    [
        (Categorical(torch.randn(4, 3)), ActionSpec("discrete", nvec=(3,)), False),
        (MultiCategorical(torch.randn(4, 5), (2, 3)), ActionSpec("multi_discrete", nvec=(2, 3)), False),
        (Gaussian(torch.randn(4, 2), torch.rand(2) + 0.1), ARM, False),
        (squashed(torch.randn(4, 2), torch.rand(4, 2) + 0.1)[0], ARM, True),
    ],
    ids=["categorical", "multi", "gaussian", "tanh"],
)
def test_a_distribution_is_rebuilt_from_its_parameters(dist: Distribution, spec: ActionSpec, squash: bool) -> None:
    params = dist.params()
    assert all(len(value) == 4 for value in params.values())  # one row per action, also of a shared deviation
    again = from_params(params, spec, squash)
    assert type(again) is type(dist)
    action = dist.sample(seeded())
    assert action.shape == (4, *spec.shape)
    torch.testing.assert_close(again.log_prob(action), dist.log_prob(action))
    torch.testing.assert_close(again.mode(), dist.mode())
    torch.testing.assert_close(kl(dist, again), torch.zeros(4), atol=1e-6, rtol=0)


def test_an_unbounded_side_leaves_the_scale_at_one() -> None:
    center, half = action_scale(ActionSpec("continuous", low=(-1.0, -float("inf"), 0.0), high=(3.0, 1.0, float("inf"))))
    assert center.tolist() == [1, 0, 0] and half.tolist() == [2, 1, 1]


def beta_of(alpha: torch.Tensor, beta: torch.Tensor) -> tuple[Beta, td.Distribution]:
    """Ours and torch's, on the bounds of ARM."""
    center, half = action_scale(ARM)
    unit = td.Beta(alpha.double(), beta.double())
    return Beta(alpha, beta, center, half), td.TransformedDistribution(
        unit, td.AffineTransform((center - half).double(), 2 * half.double())
    )


# From near uniform to as narrow as a head can make it, and skewed both ways.
SHAPES = torch.tensor([[1.001, 1.002], [1.7, 1.7], [2.0, 30.0], [400.0, 3.0], [9000.0, 8000.0]])


def test_a_beta_has_torchs_density_on_the_actions_bounds() -> None:
    ours, theirs = beta_of(SHAPES, SHAPES.flip(-1))
    action = ours.sample(seeded())
    low, high = torch.tensor(ARM.low), torch.tensor(ARM.high)
    assert ((action > low) & (action < high)).all()
    torch.testing.assert_close(ours.log_prob(action), theirs.log_prob(action.double()).sum(-1).float())
    torch.testing.assert_close(
        ours.entropy(),
        (td.Beta(SHAPES.double(), SHAPES.flip(-1).double()).entropy() + (high - low).log()).sum(-1).float(),
    )
    assert torch.isfinite(ours.log_prob(low.expand(5, 2))).all() and torch.isfinite(ours.log_prob(high)).all()


def test_a_betas_kl_is_torchs_and_that_of_samples() -> None:
    p, unit = beta_of(SHAPES, SHAPES.flip(-1))
    q, other = beta_of(SHAPES * 1.2, SHAPES.flip(-1) * 0.9 + 0.2)
    expected = td.kl_divergence(unit.base_dist, other.base_dist).sum(-1)  # type: ignore[attr-defined]
    torch.testing.assert_close(kl(p, q), expected.float())
    torch.testing.assert_close(kl(p, p), torch.zeros(5))
    assert not torch.allclose(kl(p, q), kl(q, p), rtol=0.01)
    many = Beta(p.alpha.expand(100_000, 5, 2), p.beta.expand(100_000, 5, 2), p.center, p.half)
    action = many.sample(seeded())
    estimate = (many.log_prob(action) - q.log_prob(action)).mean(0)
    torch.testing.assert_close(estimate[:4], kl(p, q)[:4], rtol=0.03, atol=3e-3)


def test_a_betas_samples_repeat_with_their_generator_and_have_its_moments() -> None:
    alpha, beta = torch.tensor([2.0, 5.0]).expand(200_000, 2), torch.tensor([6.0, 1.5]).expand(200_000, 2)
    ours, _ = beta_of(alpha, beta)
    action = ours.sample(seeded(3))
    assert torch.equal(action, ours.sample(seeded(3)))
    torch.rand(7)  # torch's own stream has no part in it
    assert torch.equal(action, ours.sample(seeded(3)))
    assert not torch.equal(action, ours.sample(seeded(4)))
    unit = td.Beta(alpha[0], beta[0])
    center, half = action_scale(ARM)
    torch.testing.assert_close(action.mean(0), center + half * (2 * unit.mean - 1), rtol=0.01, atol=0.01)
    torch.testing.assert_close(action.std(0), 2 * half * unit.stddev, rtol=0.01, atol=0.01)


def test_a_betas_mode_is_where_its_density_is_highest() -> None:
    ours, _ = beta_of(SHAPES[1:4], SHAPES[1:4].flip(-1))
    mode = ours.mode()
    for nudge in (-0.01, 0.01):
        assert (ours.log_prob(mode) > ours.log_prob(mode + nudge)).all()


def test_a_beta_is_rebuilt_from_its_numbers_and_compared_with_no_other_kind() -> None:
    ours, _ = beta_of(SHAPES, SHAPES.flip(-1))
    again = from_params(ours.params(), ARM)
    assert isinstance(again, Beta) and torch.equal(kl(ours, again), kl(ours, ours))
    with pytest.raises(UserError, match=r"no KL between Beta and Gaussian.*--student\.distribution beta"):
        kl(ours, Gaussian(torch.zeros(5, 2), torch.ones(2)))


def test_gradients_flow_through_a_betas_density_entropy_and_kl() -> None:
    raw = torch.tensor([[2.0, 3.0], [4.0, 1.5]], requires_grad=True)
    ours, _ = beta_of(raw, raw.flip(-1))
    goal, _ = beta_of(torch.full((2, 2), 2.5), torch.full((2, 2), 2.0))
    for loss in (ours.log_prob(goal.mode()), ours.entropy(), kl(goal, ours)):
        (gradient,) = torch.autograd.grad(loss.sum(), raw, retain_graph=True)
        assert torch.isfinite(gradient).all() and (gradient != 0).any()

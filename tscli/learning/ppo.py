"""The mathematics that has one right answer: advantages, PPO's losses, schedules."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tscli import ranks

# Log ratios are held within: where one overflows, its gradient is not a number, even if the clip takes the other side.
_LOG_RATIO = 20.0


def compute_gae(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    done: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16).

    Args:
        reward, value: [T, N]; `value[t]` is V(obs[t]).
        next_value: [T, N]; V of the observation after step t, before any reset.
        terminated, done: [T, N] bool. A truncated step bootstraps; a terminated one does not.
        gamma, gae_lambda: discount, and the weight of longer returns (0: one step, 1: Monte Carlo).

    Returns:
        advantage and returns (= advantage + value), [T, N] each.
    """
    delta = reward + gamma * next_value * (~terminated) - value
    carry = (gamma * gae_lambda) * (~done)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[0])
    for t in range(len(delta) - 1, -1, -1):
        running = torch.addcmul(delta[t], carry[t], running)
        advantage[t] = running
    return advantage, advantage + value


def standardize(x: Tensor) -> Tensor:
    """Zero mean and unit deviation over all entries, as PPO gives a minibatch's advantages; over all processes."""
    if ranks.size() == 1:
        return (x - x.mean()) / (x.std() + 1e-8)
    count, exact = x.numel() * ranks.size(), x.double()
    mean, square = ranks.mean(torch.stack([exact.mean(), exact.square().mean()])).unbind()  # one wait for the others
    std = ((square - mean.square()).clamp(min=0) * (count / (count - 1))).sqrt()
    return ((exact - mean) / (std + 1e-8)).to(x.dtype)


class PolicyLoss(NamedTuple):
    """PPO's surrogate and what to watch while it falls; scalars, only `loss` carries a gradient."""

    loss: Tensor
    approx_kl: Tensor
    clip_fraction: Tensor


def policy_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    clip_coef: float,
    weight: Tensor | float = 1.0,
    near: Tensor | None = None,
) -> PolicyLoss:
    """The clipped surrogate (Schulman et al. 2017, eq. 7), to be minimised; each sample's times its `weight`.

    What is clipped is the ratio, or exp(`near`), a log ratio that has been held to something else before.

    `approx_kl` is the estimator E[(r - 1) - log r] of KL(old || new) (Schulman 2020), never negative.
    """
    log_ratio = (log_prob - old_log_prob).clamp(-_LOG_RATIO, _LOG_RATIO)
    ratio = log_ratio.exp()
    held = ratio if near is None else near.clamp(-_LOG_RATIO, _LOG_RATIO).exp()
    clipped = held.clamp(1 - clip_coef, 1 + clip_coef)
    loss = -(torch.minimum(advantage * ratio, advantage * clipped) * weight).mean()
    with torch.no_grad():
        approx_kl = (ratio - 1 - log_ratio).mean()
        clip_fraction = ((ratio - 1).abs() > clip_coef).float().mean()
    return PolicyLoss(loss, approx_kl, clip_fraction)


def value_loss(value: Tensor, returns: Tensor, old_value: Tensor, clip_coef: float | None) -> Tensor:
    """Half the mean squared error; with `clip_coef` the worse of it and the one of the clipped value (PPO2)."""
    error = (value - returns).square()
    if clip_coef is not None:
        clipped = old_value + (value - old_value).clamp(-clip_coef, clip_coef)
        error = torch.maximum(error, (clipped - returns).square())
    return 0.5 * error.mean()


def adaptive_lr(lr: float | Tensor, divergence: float | Tensor, desired_kl: float) -> float | Tensor:
    """The next learning rate by how far the policy has moved, as rsl_rl has it (Rudin et al. 2022, 1.5 and 2 theirs).

    Args:
        lr: the rate so far; a tensor stays one, and nothing is waited for.
        divergence: mean KL(old || new) of a minibatch, before its step. 0, as before an update's first, changes
            nothing (but for rounding, which may make it a little more).
        desired_kl: above twice this the rate falls by a third, to 1e-5 at the least; below half of it the rate rises by
            a half, to 1e-2 at the most.
    """
    if isinstance(lr, Tensor):
        divergence = torch.as_tensor(divergence)
        slower, faster = (lr / 1.5).clamp(min=1e-5), (lr * 1.5).clamp(max=1e-2)
        rises = (divergence > 0.0) & (divergence < desired_kl / 2.0)
        return torch.where(divergence > 2.0 * desired_kl, slower, torch.where(rises, faster, lr))
    moved = float(divergence)
    if moved > 2.0 * desired_kl:
        return max(1e-5, lr / 1.5)
    if 0.0 < moved < desired_kl / 2.0:
        return min(1e-2, lr * 1.5)
    return lr


def explained_variance(value: Tensor, returns: Tensor) -> Tensor:
    """1 - Var[returns - value] / Var[returns]: 1 is perfect, 0 no better than a constant. NaN for constant returns."""
    var = returns.var()
    return torch.where(var > 0, 1 - (returns - value).var() / var, torch.full_like(var, torch.nan))

"""What keeps a teacher and its student together while both learn: what is charged for a difference, and old pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tscli import ranks
from tscli.config import NetworkConfig, PenaltyConfig, UserError
from tscli.envs.spaces import ActionSpec, action_scale
from tscli.envs.views import Obs
from tscli.learning.record import Fields, Recorder
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy
from tscli.networks.distributions import Distribution, kl, with_std


def directed_kl(teacher: Distribution, proxy: Distribution, direction: str, std: Tensor | None = None) -> Tensor:
    """KL(teacher || proxy), or KL(proxy || teacher), [...]; of Gaussians as if both had the deviation `std`, [D]."""
    if std is not None:
        teacher, proxy = with_std(teacher, std), with_std(proxy, std)
    return kl(teacher, proxy) if direction == "teacher_proxy" else kl(proxy, teacher)


def grown(steps: int, warmup: int, start: int = 0) -> float:
    """Share of its full weight that a term has after so many env steps: it grows for `warmup` of them after `start`."""
    return min(1.0, max(0, steps - start) / warmup) if warmup else float(steps >= start)


def charge(
    config: PenaltyConfig, teacher: Distribution, proxy: Distribution, failed: Tensor, std: Tensor | None
) -> Tensor:
    """What SITT's eq. 2 takes off the reward of each step, before its weight lambda1: [T, N].

    Args:
        config: how.
        teacher, proxy: over [T, N].
        failed: [T, N] bool, steps that ended an episode in failure.
        std: `reference_std`, if there is one.
    """
    divergence = directed_kl(teacher, proxy, config.kl_direction, std)
    return charged(divergence, failed, config.penalty_cap, config.gamma if config.penalty_failure else None)


def reference_std(std: float | None, action: ActionSpec, network: NetworkConfig, device: torch.device) -> Tensor | None:
    """`std` half ranges as a deviation of a policy's Gaussian, [D]; None stays None.

    Raises:
        UserError: the policy is no Gaussian.
    """
    if std is None:
        return None
    if not action.is_continuous or network.distribution != "gaussian":
        kind = network.distribution if action.is_continuous else action.kind
        raise UserError(f"--penalty-std {std} is for Gaussian actions, and these are {kind}: give none")
    _, half = action_scale(action, device)
    return std * (torch.ones_like(half) if network.squash else half)


def charged(divergence: Tensor, failed: Tensor, cap: float | None, gamma: float | None) -> Tensor:
    """What each step is charged for its divergence, [T, N].

    Args:
        divergence: [T, N], not negative.
        failed: [T, N] bool, steps at which an episode ended in failure.
        cap: what a step is charged at the most; None: no bound.
        gamma: the discount; a failure is then charged the mean for all the time that it cut off, discounted, so that
            an episode's end saves nothing. None: nothing is made up for.
    """
    out = divergence if cap is None else divergence.clamp(max=cap)
    return out if gamma is None else out + failed * (ranks.mean(out.mean()) * gamma / (1 - gamma))


def join(a: Obs, b: Obs) -> Obs:
    """Two observations of the same kind side by side: [T, N, ...] and [T, M, ...] -> [T, N + M, ...]."""
    return {name: torch.cat([value, b[name]], 1) for name, value in a.items()}


@torch.no_grad()
def practise(viewed: ViewedEnv, student: Policy, steps: int) -> Fields:
    """A rollout of the greedy student, which has no memory: what it and its teacher see, [T, M, ...]."""
    record = Recorder()
    none = torch.zeros(viewed.env.num_envs, 0, device=viewed.env.device), torch.zeros((), dtype=torch.bool)
    for _ in range(steps):
        seen = student.encoder.features_of(viewed.observe("student"))
        record.add(student_obs=seen, paired_obs=viewed.observe("teacher"))
        record.add(paired_reset=viewed.step(student.step(seen, *none)[0].mode()).done)
    return record.stack()


def with_own(rollout: Fields, own: Fields) -> Fields:
    """A rollout whose pairs are joined, along the envs, by those of the student's own."""
    joined = {name: join(getattr(rollout, name), getattr(own, name)) for name in ("student_obs", "paired_obs")}
    return Fields({**vars(rollout), **joined, "paired_reset": torch.cat([rollout.paired_reset, own.paired_reset], 1)})


class PairMemory:
    """Pairs of earlier rollouts, the newest `capacity` of them: observations by the name of who sees them."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.capacity, self.count, self._next, self._device = capacity, 0, 0, device
        self._stored: dict[str, Obs] = {}

    def add(self, **pairs: Obs) -> None:
        """Keep rows, [K, ...] each; the oldest make room for them."""
        rows = len(next(iter(next(iter(pairs.values())).values())))
        for who, obs in pairs.items():
            kept = self._stored.setdefault(who, {})
            for name, value in obs.items():
                value = value[-self.capacity :]
                if name not in kept:
                    kept[name] = value.new_zeros(self.capacity, *value.shape[1:])
                at = (self._next + torch.arange(len(value), device=value.device)) % self.capacity
                kept[name][at] = value
        rows = min(rows, self.capacity)
        self._next, self.count = (self._next + rows) % self.capacity, min(self.count + rows, self.capacity)

    def draw(self, number: int, generator: torch.Generator) -> dict[str, Obs]:
        """That many of them, [number, ...] each, any as likely as any other."""
        index = torch.randint(self.count, (number,), generator=generator, device=generator.device)
        return {who: {name: value[index] for name, value in obs.items()} for who, obs in self._stored.items()}

    def state_dict(self) -> dict[str, Any]:
        """For exact resume."""
        return {"count": self.count, "next": self._next, "stored": self._stored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.count, self._next = state["count"], state["next"]
        self._stored = {who: {k: v.to(self._device) for k, v in obs.items()} for who, obs in state["stored"].items()}

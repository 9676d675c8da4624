"""What a perfect memory would make of a noisy CartPole teacher: an extended Kalman filter in front of its policy.

    tscli train-teacher popgym_noisy_cartpole_medium
    python benchmarks/noisy_cartpole_filter.py runs/0001-* --noise 0.1 0.2 0.3

The filter knows CartPole's equations, the deviation of the noise, the starts (uniform, hence of deviation .1/sqrt(12))
and every action; the teacher acts on its estimate. A student of that teacher which does worse has not learnt to
estimate; a teacher whose figure is low asks for more than can be known. Prints mean returns over the episodes, whose
deviation is about .3.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from tscli.envs.classic import cartpole as spec
from tscli.networks import Policy
from tscli.networks.files import load_policy_file

STEPS = 200  # of an episode, in all three Noisy tasks
BOUNDS = torch.tensor([2 * spec.MAX_POSITION, 2 * spec.MAX_ANGLE], dtype=torch.float64)
SEEN = torch.tensor([[1, 0, 0, 0], [0, 0, 1, 0]], dtype=torch.float64)  # position and angle


def advance(state: Tensor, action: Tensor) -> Tensor:
    """One Euler step of one CartPole: [4] and a 0 or 1 -> [4]."""
    position, velocity, angle, spin = state.unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    push = ((2 * action - 1) * spec.FORCE + spec.POLE_MOMENT * spin * spin * sin) / spec.TOTAL_MASS
    leverage = spec.HALF_LENGTH * (4.0 / 3.0 - spec.POLE_MASS * cos * cos / spec.TOTAL_MASS)
    spin_rate = (spec.GRAVITY * sin - cos * push) / leverage
    acceleration = push - spec.POLE_MOMENT * spin_rate * cos / spec.TOTAL_MASS
    moved = [position + spec.DT * velocity, velocity + spec.DT * acceleration]
    return torch.stack([*moved, angle + spec.DT * spin, spin + spec.DT * spin_rate], -1)


slopes = vmap(jacrev(advance))


def mean_return(act: Callable[[Tensor], Tensor], noise: float, episodes: int) -> float:
    """Episodes side by side; `act` takes estimates [N, 4] to actions [N]."""
    state = (torch.rand(episodes, 4, dtype=torch.float64) - 0.5) * 0.1
    estimate = torch.zeros_like(state)
    unit = torch.eye(4, dtype=torch.float64)
    covariance = unit.expand(episodes, 4, 4) * (0.1**2 / 12)
    sensor = torch.eye(2, dtype=torch.float64) * noise**2
    alive, lived = torch.ones(episodes, dtype=torch.bool), torch.zeros(episodes)
    for _ in range(STEPS):
        reading = (state @ SEEN.T + noise * torch.randn(episodes, 2, dtype=torch.float64)).clamp(-BOUNDS, BOUNDS)
        spread = SEEN @ covariance @ SEEN.T + sensor
        gain = covariance @ SEEN.T @ torch.linalg.inv(spread)
        estimate = estimate + (gain @ (reading - estimate @ SEEN.T).unsqueeze(-1)).squeeze(-1)
        covariance = (unit - gain @ SEEN) @ covariance
        action = act(estimate.float()).double()
        slope = slopes(estimate, action)
        state, estimate = advance(state, action), advance(estimate, action)
        covariance = slope @ covariance @ slope.mT + 1e-9 * unit  # keeps it invertible
        lived += alive
        alive &= (state[:, 0].abs() <= spec.MAX_POSITION) & (state[:, 2].abs() <= spec.MAX_ANGLE)
        state, estimate = state * alive[:, None], estimate * alive[:, None]  # what has fallen stays finite
    return float((lived / STEPS).mean())


def acting(policy: Policy) -> Callable[[Tensor], Tensor]:
    """The policy's greedy actions [N] in estimated states [N, 4]."""

    def act(estimate: Tensor) -> Tensor:
        never = torch.zeros(len(estimate), dtype=torch.bool)
        with torch.no_grad():
            return policy.step({"vector": estimate}, policy.initial_hidden(len(estimate)), never)[0].mode()

    return act


def main() -> None:
    """Print one line per teacher and deviation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="folders of teachers that see the whole state")
    parser.add_argument("--noise", nargs="+", type=float, default=[0.1, 0.2, 0.3], help="deviations of the readings")
    parser.add_argument("--episodes", type=int, default=1000)
    given = parser.parse_args()
    for run in given.runs:
        act = acting(load_policy_file(run / "policy.safetensors"))
        for noise in given.noise:
            torch.manual_seed(0)
            print(f"{run.name}  noise {noise:g}: {mean_return(act, noise, given.episodes):.3f}", flush=True)


if __name__ == "__main__":
    main()

"""Small policies over made-up observations."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tscli.config import NetworkConfig, parse_view
from tscli.config.network import BODIES
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import Obs, ViewSpec, resolve_view
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import Categorical

KINDS = tuple(BODIES)
GROUPS = {
    "state": Group((4,)),
    "secret": Group((2,), privileged=True),
    "camera": Group((9, 12, 3), dtype="uint8"),
    "tiny": Group((8, 8, 1), dtype="uint8"),
}
DISCRETE = ActionSpec("discrete", nvec=(3,))
ARM = ActionSpec("continuous", low=(-1.0, 2.0), high=(3.0, 4.0))


def view(text: str, action: ActionSpec = DISCRETE) -> ViewSpec:
    """A view of these groups, written out."""
    return resolve_view("mine", parse_view(text), GROUPS, action)


def make(kind: str, text: str = "state", action: ActionSpec = DISCRETE, **settings: Any) -> Policy:
    """A small policy whose head is not near zero."""
    torch.manual_seed(0)
    config = NetworkConfig.model_validate({"kind": kind, "hidden": (8,), "memory": 6, "history": 3, **settings})
    policy = Policy(PolicySpec(view(text, action), action, config))
    # A new head is all but uniform, which would hide what comes before it.
    torch.nn.init.normal_(policy.head.linear.weight)
    return policy


def sequence(steps: int, num_envs: int, text: str = "state") -> Obs:
    """What a view shows over some steps, always the same."""
    spec, generator = view(text), torch.Generator().manual_seed(1)
    obs = {
        name: torch.randint(256, (steps, num_envs, *shape), generator=generator, dtype=torch.uint8)
        for name, shape in spec.images.items()
    }
    if spec.vector_size:
        obs["vector"] = torch.randn(steps, num_envs, spec.vector_size, generator=generator)
    return obs


RESETS = torch.tensor(  # none, at the start alone, in the middle, twice, every step
    [[0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0], [1, 0, 1, 0, 0, 1, 0], [1] * 7],
    dtype=torch.bool,
).T


def step_by_step(policy: Policy, obs: Obs, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [T, N, K] and the last hidden state of a policy that takes one step after the other."""
    logits = []
    for t in range(len(reset)):
        dist, hidden = policy.step({k: v[t] for k, v in obs.items()}, hidden, reset[t])
        assert isinstance(dist, Categorical)
        logits.append(dist.logits)
    return torch.stack(logits), hidden

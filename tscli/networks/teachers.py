"""Several teachers behind the face of one: each row is acted on and labelled by the teacher of its own task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from tscli.config import UserError
from tscli.envs.views import Obs, ViewSpec
from tscli.networks.distributions import Distribution, from_params
from tscli.networks.policy import Policy, PolicySpec


class Actor(Protocol):
    """What it takes to act in an env: one policy, or several behind one face."""

    spec: PolicySpec

    def initial_hidden(self, num_envs: int) -> Tensor:
        """Zeros [N, hidden_size]: an episode's start."""
        ...

    def step(self, obs: Obs, hidden: Tensor, reset: Tensor) -> tuple[Distribution, Tensor]:
        """One step: obs of [N, ...] and reset [N] -> distribution over [N, ...] and the next hidden state."""
        ...

    def __call__(self, obs: Obs, hidden: Tensor, reset: Tensor | None = None) -> tuple[Distribution, Tensor]:
        """The same for [T, N, ...]."""
        ...


class Teachers:
    """Frozen policies, and what says which of them a row listens to.

    Its view is all of theirs one after the other, and last what tells them apart. Every teacher watches every row, so
    that its memory is of the whole episode also where a row changes hands within one.

    Args:
        policies: K of them, which act in the same action space with distributions of the same kind.
        names: of the policies, for an error line.
        by: view of K numbers, whose largest gives the teacher, or of one number, which is the teacher's index.

    Raises:
        UserError: the policies' distributions differ, `by` does not fit their number, or views show one picture in two
            ways.
    """

    def __init__(self, policies: Sequence[Policy], names: Sequence[str], by: ViewSpec):
        _check_kinds(policies, names)
        if by.vector_size not in (1, len(policies)) or by.images:
            what = "shows a picture" if by.images else f"has {by.vector_size} entries"
            raise UserError(
                f"--teacher-by {by.name}: it {what} and there are {len(policies)} teachers: "
                "it takes one entry for each, or a single one that holds the teacher's index from 0 on"
            )
        self.policies = list(policies)
        self._by = by
        views = [policy.spec.view for policy in policies]
        self._sizes = [*(view.vector_size for view in views), by.vector_size]
        self._hidden_sizes = [policy.encoder.hidden_size for policy in policies]
        self.spec = PolicySpec(_joint_view(views, by), policies[0].spec.action, policies[0].spec.network)

    def initial_hidden(self, num_envs: int) -> Tensor:
        """Zeros [N, the teachers' hidden sizes together]: an episode's start."""
        return torch.cat([policy.initial_hidden(num_envs) for policy in self.policies], dim=1)

    def step(self, obs: Obs, hidden: Tensor, reset: Tensor) -> tuple[Distribution, Tensor]:
        """As a policy: obs of [N, ...] and reset [N] -> each row's own teacher's distribution over [N]."""
        seen, by = self._shares(obs)
        hiddens = hidden.split(self._hidden_sizes, dim=1)
        said = [policy.step(o, h, reset) for policy, o, h in zip(self.policies, seen, hiddens, strict=True)]
        return self._chosen(said, by)

    def __call__(self, obs: Obs, hidden: Tensor, reset: Tensor | None = None) -> tuple[Distribution, Tensor]:
        """The same for [T, N, ...]."""
        seen, by = self._shares(obs)
        hiddens = hidden.split(self._hidden_sizes, dim=1)
        said = [policy(o, h, reset) for policy, o, h in zip(self.policies, seen, hiddens, strict=True)]
        return self._chosen(said, by)

    def _shares(self, obs: Obs) -> tuple[list[Obs], Tensor]:
        """Each teacher's observation, and what tells them apart [..., K] or [..., 1]."""
        *vectors, by = obs["vector"].split(self._sizes, dim=-1)
        seen = []
        for policy, vector in zip(self.policies, vectors, strict=True):
            own = {name: obs[name] for name in policy.spec.view.images}
            seen.append(own | ({"vector": vector} if policy.spec.view.vector_size else {}))
        return seen, by

    def _chosen(self, said: Sequence[tuple[Distribution, Tensor]], by: Tensor) -> tuple[Distribution, Tensor]:
        which = self.teacher_of(by)
        params = [dist.params() for dist, _ in said]
        chosen = {}
        for name in params[0]:
            every = torch.stack([one[name] for one in params])
            chosen[name] = every.take_along_dim(which[None, ..., None], dim=0)[0]
        network = self.spec.network
        return from_params(chosen, self.spec.action, network.squash), torch.cat([hidden for _, hidden in said], dim=1)

    def teacher_of(self, by: Tensor) -> Tensor:
        """Index of each row's teacher, int64 [...], of what tells them apart [..., K] or [..., 1].

        Raises:
            UserError: a single entry that is no index of a teacher.
        """
        if by.shape[-1] > 1:
            return by.argmax(-1)
        value = by[..., 0]
        index = value.long()
        if bool(((index != value) | (index < 0) | (index >= len(self.policies))).any()):
            wrong = value[(index != value) | (index < 0) | (index >= len(self.policies))][0].item()
            raise UserError(
                f"--teacher-by {self._by.name}: a row says {wrong:g}, and the {len(self.policies)} teachers are "
                f"numbered 0 to {len(self.policies) - 1}: name a group that holds such a number"
            )
        return index


def _check_kinds(policies: Sequence[Policy], names: Sequence[str]) -> None:
    """Refuse teachers whose labels could not stand in one array."""
    kinds = []
    for policy in policies:
        network = policy.spec.network
        kind = f"squashed {network.distribution}" if network.squash else network.distribution
        kinds.append(kind if policy.spec.action.is_continuous else "categorical")
    for name, kind in zip(names, kinds, strict=True):
        if kind != kinds[0]:
            raise UserError(
                f"{names[0]} acts by a {kinds[0]} distribution and {name} by a {kind} one: "
                "teachers of one student need the same kind"
            )


def _joint_view(views: Sequence[ViewSpec], by: ViewSpec) -> ViewSpec:
    """All views one after the other, a picture that several see once."""
    vectors, images = [], {}
    for part in (part for view in (*views, by) for part in view.parts):
        if not part.is_image:
            vectors.append(part)
        elif images.setdefault(part.group, part) != part:
            raise UserError(f'the teachers see the picture "{part.group}" in different ways: give them one dropout')
    return ViewSpec(", ".join(dict.fromkeys(view.name for view in views)), (*images.values(), *vectors))

"""A policy in a loop of someone else's: one observation in, one action out, its memory kept in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tscli.config import UserError, did_you_mean
from tscli.envs.views import PREVIOUS_ACTION, Part, ViewSpec, view_of_pairs

if TYPE_CHECKING:
    from tscli.networks.policy import Policy


class Acting:
    """One episode of a policy in one env. The view picks its entries; noise and delay are the env's own here."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        parts = tuple(replace(part, noise=0.0, delay=0, dropout=0.0) for part in policy.spec.view.parts)
        self._view = ViewSpec(policy.spec.view.name, parts)
        self._device = policy.initial_hidden(1).device
        self._hidden = policy.initial_hidden(1)
        self._first = True
        spec = policy.spec.action
        shape = () if spec.kind == "discrete" else (len(spec.low) if spec.is_continuous else len(spec.nvec),)
        dtype = torch.float32 if spec.is_continuous else torch.int64
        self._action = torch.zeros(1, 1, *shape, dtype=dtype, device=self._device)

    @torch.no_grad()
    def act(self, obs: Any, greedy: bool) -> Any:
        """See `Policy.act`."""
        policy, spec = self._policy, self._policy.spec.action
        fields: dict[str, Tensor] = {"first": torch.tensor([[self._first]], device=self._device)}
        for part in self._view.parts:
            is_action = part.group == PREVIOUS_ACTION
            fields[part.field] = self._action if is_action else torch.from_numpy(_reading(obs, part))[None, None]
        fields = {name: value.to(self._device) for name, value in fields.items()}
        seen = {name: value[0] for name, value in view_of_pairs(self._view, spec, fields).items()}
        dist, self._hidden = policy.step(seen, self._hidden, fields["first"][0])
        action = dist.mode() if greedy else dist.sample()
        if spec.is_continuous:
            low, high = (torch.tensor(side, device=self._device) for side in (spec.low, spec.high))
            action = torch.minimum(torch.maximum(action, low), high)
        self._action, self._first = action[None], False
        found = action[0].cpu().numpy()
        return int(found) if spec.kind == "discrete" else found


def _reading(obs: Any, part: Part) -> np.ndarray:
    """What a Gymnasium env gives for a group, as training had it: flat numbers, a picture with its channels last.

    Raises:
        UserError: no such entry, or one of another size.
    """
    value = obs
    if isinstance(obs, Mapping):
        name, left = part.group, part.group
        while left:  # nested names are joined by dots, and may have some of their own
            key = next((key for key in value if left == key or left.startswith(f"{key}.")), None)
            if key is None:
                raise UserError(f'the observation has no "{name}": {did_you_mean(name, map(str, value))}')
            value, left = value[key], left[len(key) + 1 :]
    value = np.asarray(value)
    if part.is_image:
        if value.ndim == 3 and value.shape != part.shape:
            value = np.moveaxis(value, 0, -1)
        return _checked(np.ascontiguousarray(value.reshape(-1), np.uint8), part, int(np.prod(part.shape))).reshape(
            part.shape
        )
    if value.ndim == 0 and np.issubdtype(value.dtype, np.integer) and part.index is None and part.size > 1:
        value = np.eye(part.size)[int(value)]  # Discrete, one-hot
    needed = part.size if part.index is None else max(part.index) + 1
    return _checked(value.reshape(-1).astype(np.float32), part, needed)


def _checked(value: np.ndarray, part: Part, needed: int) -> np.ndarray:
    if len(value) < needed or (part.index is None and len(value) != needed):
        raise UserError(
            f'the policy sees "{part.group}" as {needed} numbers, and the observation has {len(value)} there: use the '
            "env that it was trained on"
        )
    shown = value if part.index is None else value[list(part.index)]
    if not np.isfinite(shown).all():
        raise UserError(f'the observation has {shown[~np.isfinite(shown)][0]} in "{part.group}", and no action follows')
    return value

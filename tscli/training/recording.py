"""Episodes kept step by step, to be looked at: pictures, what each role saw, what it did, how far the two part.

The first policy acts, greedily; a second one says what it would have done in the states that the first one reaches. The
format of `episodes.h5` is in docs/report.md.
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tscli.envs import VecEnv
from tscli.envs.entries import entries_named, told_apart
from tscli.envs.views import Obs
from tscli.files import atomic_write
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Actor, Policy
from tscli.networks.distributions import NoClosedFormError, kl
from tscli.pictures.film import narrowed

FILE, SCHEMA = "episodes.h5", 1
_WIDTH, _FPS = 360, 25  # of the pictures


@dataclass
class Recorded:
    """One episode.

    Attributes:
        task: which of a mixture's it is of; "" elsewhere.
        steps: by name, a value for each step.
        pictures, shown_at: encoded pictures, and the steps that they show.
        ended: "terminated" or "truncated".
        success: whether it succeeded, where the env tells.
    """

    task: str
    steps: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    pictures: list[bytes] = field(default_factory=list)
    shown_at: list[int] = field(default_factory=list)
    ended: str = ""
    success: bool | None = None


@torch.no_grad()
def record_episodes(policies: Mapping[str, Actor], env: VecEnv, seed: int, episodes: int) -> list[Recorded]:
    """Episodes of an env's only row, or of each task of a mixture, which has a row for each.

    Args:
        policies: by role; the first one acts.
        env: which can be drawn.
        seed: of its episodes; the same one as a measurement's gives the first ones of its first slot.
        episodes: of each row.
    """
    n, env.per_slot = env.num_envs, episodes
    viewed = ViewedEnv(env, {role: policy.spec.view for role, policy in policies.items()}, seed)
    hidden = {role: policy.initial_hidden(n) for role, policy in policies.items()}
    reset = torch.ones(n, dtype=torch.bool, device=env.device)
    every = max(1, round(1 / (env.control_dt or 1 / _FPS) / _FPS))
    tasks = env.members or ("",)
    now, done = [Recorded(task) for task in tasks], [[] for _ in tasks]
    while any(len(row) < episodes for row in done):
        dists, kept = {}, {}
        for role, policy in policies.items():
            obs = viewed.observe(role)
            latent = _latent(policy, obs, hidden[role], reset)
            dists[role], hidden[role] = policy.step(obs, hidden[role], reset)
            said = {**obs, **latent, **dists[role].params(), "action": dists[role].mode()}
            kept |= {f"{role}/{name}": value for name, value in said.items()}
        kept |= _divergence(list(dists.values()))
        for row, one in enumerate(now):
            if len(done[row]) < episodes and len(one.steps["reward"]) % every == 0:
                one.shown_at.append(len(one.steps["reward"]))
                one.pictures.append(_encoded(env.render(row)))
        step = viewed.step(next(iter(dists.values())).mode())
        for row, one in enumerate(now):
            for name, value in {**kept, "reward": step.reward}.items():
                one.steps[name].append(value[row].cpu().numpy())
            if bool(step.done[row]):
                one.ended = "terminated" if bool(step.terminated[row]) else "truncated"
                one.success = bool(step.success[row]) if env.has_success else None
                done[row] = [*done[row], one][:episodes]
                now[row] = Recorded(one.task)
        reset = step.done
    return [one for row in done for one in row]


def _latent(policy: Actor, obs: Obs, hidden: Tensor, reset: Tensor) -> dict[str, Tensor]:
    if not isinstance(policy, Policy) or policy.spec.latent is None:
        return {}
    alone = {name: value.unsqueeze(0) for name, value in obs.items()}
    return {"latent": policy.encoder.latent(alone, hidden, reset.unsqueeze(0))[0][0]}


def _divergence(dists: list[Any]) -> dict[str, Tensor]:
    """KL(teacher || student), where there are both and it has a formula."""
    if len(dists) != 2:
        return {}
    try:
        return {"kl": kl(dists[1], dists[0])}
    except NoClosedFormError:
        return {}


def _encoded(frame: np.ndarray) -> bytes:
    """As WebP, which takes a third of JPEG's bytes for a drawing."""
    buffer = io.BytesIO()
    Image.fromarray(narrowed(frame, _WIDTH)).save(buffer, format="WEBP", quality=60, method=2)
    return buffer.getvalue()


def write_episodes(
    folder: Path, episodes: list[Recorded], policies: Mapping[str, Actor], names: Mapping[str, str], env: VecEnv
) -> Path:
    """Write `episodes.h5`; `names` are those of the policies' runs."""
    roles = {}
    for role, policy in policies.items():
        entries = entries_named(policy.spec.view, env.groups)
        listed = [[name, entry.unit] for name, entry in zip(told_apart(entries), entries, strict=True)]
        roles[role] = {"run": names[role], "view": policy.spec.view.name, "entries": listed}
        roles[role]["images"] = list(policy.spec.view.images)
    header = {"roles": roles, "action": next(iter(policies.values())).spec.action.to_json()}
    header["control_dt"] = env.control_dt
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["schema"], file.attrs["header"] = SCHEMA, json.dumps(header)
        for number, one in enumerate(episodes):
            group = file.create_group(f"episode_{number}")
            for name, values in one.steps.items():
                group.create_dataset(name, data=np.stack(values), compression="gzip", shuffle=True)
            group["frames"] = np.frombuffer(b"".join(one.pictures), np.uint8)
            group["frame_ends"] = np.cumsum([len(picture) for picture in one.pictures])
            group["frame_steps"] = np.array(one.shown_at)
            group.attrs["task"], group.attrs["ended"] = one.task, one.ended
            group.attrs["return"] = float(np.sum(one.steps["reward"], dtype=np.float64))
            if one.success is not None:
                group.attrs["success"] = one.success
    atomic_write(folder / FILE, buffer.getvalue())
    return folder / FILE

"""Steps of whole episodes in which a teacher was asked, read from recorded pairs or rolled out for the occasion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tscli import streams
from tscli.envs import VecEnv
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import Obs, ViewSpec, encode_action
from tscli.learning.imitation import read_batch
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy
from tscli.networks.distributions import Distribution, from_params
from tscli.pairs import Pairs
from tscli.pairs.reader import as_tensors


@dataclass(frozen=True)
class Sample:
    """T steps side by side in B columns; every tensor is on the CPU."""

    env_groups: dict[str, Group]
    action: ActionSpec
    groups: dict[str, Tensor]  # what the env gave of the groups that either view reads, [T, B, *shape]
    teacher: Obs  # what it sees there, dict of [T, B, ...]
    student: Obs
    views: tuple[ViewSpec, ViewSpec]  # of the teacher and of the student
    previous: Tensor  # [T, B, A], the action executed before, as a network sees it; zeros at an episode's first step
    dist: Distribution  # of the teacher, over [T, B]
    label: Tensor  # [T, B, ...], its greedy action
    reset: Tensor  # [T, B] bool, True at an episode's first step. Every column begins with one.
    valid: Tensor  # [T, B] bool, False for padding

    @property
    def episode(self) -> Tensor:
        """[T, B] int64: a number for every episode."""
        within = self.reset.long().cumsum(0) - 1
        return within + torch.arange(within.shape[1]) * len(within)

    @property
    def num_steps(self) -> int:
        """Steps without padding."""
        return int(self.valid.sum())

    def rows(self, x: Tensor) -> Tensor:
        """[T, B, ...] -> [num_steps, ...]: what is no padding."""
        return x[self.valid]


def steps_within(wanted: int, views: tuple[ViewSpec, ViewSpec], megabytes: float) -> int:
    """The number of steps to look at: fewer where the views' pictures would take more memory than that."""
    size = sum(math.prod(shape) for view in views for shape in view.images.values())
    return min(wanted, max(100, int(megabytes * 1e6) // size)) if size else wanted


def read_sample(pairs: Pairs, teacher: ViewSpec, student: ViewSpec, steps: int, seed: int) -> Sample:
    """About that many steps of recorded episodes, each from its start, drawn at random.

    The pairs hold the groups of both views; `seed` is that of the draw, and of the views' noise.
    """
    lengths = pairs.episodes()["length"]
    order = np.random.default_rng(seed).permutation(len(lengths))
    # Few long episodes beside many short ones would be mostly padding: then the long ones are cut.
    count = int(np.searchsorted(lengths[order].cumsum(), steps)) + 1
    chosen = order[:count]
    longest = int(min(lengths[chosen].max(), max(1, 4 * steps // len(chosen))))
    index = pairs.windows(longest, start="episode", episodes=np.sort(chosen))
    windows = index[:]
    noise = streams.generator(seed, "diagnose/noise")
    seen = [read_batch(pairs, windows, view, generator=noise) for view in (teacher, student)]
    names = sorted({*teacher.groups, *student.groups})
    raw = as_tensors(pairs.gather(windows, ["previous_action", *(f"obs/{name}" for name in names)]))
    previous = encode_action(raw["previous_action"], pairs.schema.action) * (~raw["first"]).unsqueeze(-1)
    return Sample(
        {name: pairs.schema.groups[name] for name in names},
        pairs.schema.action,
        {name: raw[f"obs/{name}"] for name in names},
        seen[0].obs,
        seen[1].obs,
        (teacher, student),
        previous,
        seen[0].teacher,
        seen[0].label,
        raw["first"],
        raw["valid"],
    )


@torch.no_grad()
def roll_out(teacher: Policy, env: VecEnv, student: ViewSpec, steps: int, seed: int) -> Sample:
    """Let the teacher act, drawing its actions as `tscli collect` does, for about that many steps over all envs."""
    n, device = env.num_envs, env.device
    viewed = ViewedEnv(env, {"teacher": teacher.spec.view, "student": student}, seed)
    generator = streams.generator(seed, "diagnose/act", device)
    names = sorted({*teacher.spec.view.groups, *student.groups})
    hidden, reset = teacher.initial_hidden(n), torch.ones(n, dtype=torch.bool, device=device)
    previous: Tensor | None = None
    kept: list[dict[str, Tensor]] = []
    for _ in range(-(-steps // n)):
        seen = {role: viewed.observe(role) for role in ("teacher", "student")}
        now = {f"obs/{name}": value for name, value in viewed.record(names).items()}
        dist, hidden = teacher.step(seen["teacher"], hidden, reset)
        action = dist.sample(generator)
        if previous is None:
            previous = torch.zeros_like(encode_action(action, env.action))
        now |= {"previous": previous, "reset": reset, "label": dist.mode()}
        now |= {f"{role}/{name}": value for role, obs in seen.items() for name, value in obs.items()}
        now |= {f"dist/{name}": value for name, value in dist.params().items()}
        kept.append({name: value.cpu() for name, value in now.items()})
        step = viewed.step(action)
        reset = step.done
        previous = encode_action(step.action, env.action) * (~step.done).unsqueeze(-1)
    stacked = {name: torch.stack([now[name] for now in kept]) for name in kept[0]}

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): value for name, value in stacked.items() if name.startswith(prefix)}

    return Sample(
        {name: env.groups[name] for name in names},
        env.action,
        part("obs/"),
        part("teacher/"),
        part("student/"),
        (teacher.spec.view, student),
        stacked["previous"],
        from_params(part("dist/"), env.action, teacher.spec.network.squash),
        stacked["label"],
        stacked["reset"],
        torch.ones_like(stacked["reset"]),
    )

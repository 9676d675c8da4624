"""Several tasks with the same actions side by side in one vectorised environment, for one student of all of them.

    env: {kind: mixed, tasks: [cartpole, cartpole_swapped]}
    env: {kind: mixed, tasks: {normal: {kind: cartpole}, swapped: {kind: cartpole, swapped: true}}}

Row i is of task i % K, where K is their number, so that more rows change nothing of those that there are, and every
episode of a row is of its task. Of a task named in `tasks` the `env` section is taken; what its evaluation changes
(`eval_env`, `report_env`) is for the mixed task's own sections to say.

Groups: those that all tasks have with the same shape, type and names of entries (where they have any), with the widest
bounds; and

Group `task`, float32 [K]: 1 at the place of the row's task, 0 elsewhere; its entries have the tasks' names.

Actions: the tasks', which have to be of one kind and size, with the same bounds.
Reward, starts, terminations and truncations: those of the row's task, whose episodes come from a seed of its own.
Success: told where all tasks tell it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from pydantic import Field, ValidationError, field_validator
from torch import Tensor

from tscli import streams
from tscli.config import Config, UserError, is_yaml, one_line
from tscli.envs import EnvStep, VecEnv, make_env
from tscli.envs.spaces import ActionSpec, Group

TASK = "task"


class EnvConfig(Config):
    """Which tasks stand side by side."""

    tasks: dict[str, str | dict[str, Any]] = Field(
        description="Names of tasks; or a mapping from a name to a task's name or to the settings of an env."
    )
    render: bool = Field(default=False, description="Build Gymnasium's environments so that they can be drawn.")

    @field_validator("tasks", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            if not all(isinstance(name, str) for name in value) or len(set(value)) < len(value):
                raise ValueError("each needs a name of its own, as in {left: cartpole, right: {kind: ...}}")
            value = {name: name for name in value}
        if isinstance(value, dict) and len(value) < 2:
            raise ValueError("a mixture takes two tasks or more")
        return value


def member_settings(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings of each task's env, with `kind`, by the task's name in the mixture.

    Args:
        settings: the mixture's; `kind` may be among them.

    Raises:
        UserError: they are wrong; no such task; or a file, which a copy of the mixed task would not find again.
    """
    from tscli.tasks import load_task

    try:
        config = EnvConfig.model_validate({key: value for key, value in settings.items() if key != "kind"})
    except ValidationError as error:
        raise UserError(f"env mixed: {one_line(error, EnvConfig, prefix='')}") from None
    found = {}
    for name, task in config.tasks.items():
        if isinstance(task, str) and is_yaml(task):
            raise UserError(f"env mixed: {name}: {task} is a file: write its env section in its place")
        member = dict(load_task(task).env) if isinstance(task, str) else dict(task)
        if member.get("kind") == "mixed":
            raise UserError(f"env mixed: {name} is a mixture itself: name its tasks instead")
        if config.render and member.get("kind") == "gym":
            member["render"] = True
        found[name] = member
    return found


class Env(VecEnv):
    """N rows of K tasks in turn; the module's docstring is the specification."""

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        self.num_envs, self.device = num_envs, torch.device(device)
        self.members = tuple(config.tasks)
        k = len(self.members)
        self._shares = [slice(j, num_envs, k) for j in range(k)]
        sizes = [len(range(num_envs)[share]) for share in self._shares]
        # One that has no row still tells what it shows and takes.
        self._envs = [
            make_env(member, max(size, 1), self.device)
            for member, size in zip(member_settings(config.model_dump()).values(), sizes, strict=True)
        ]
        self._playing = [(env, share) for env, share, n in zip(self._envs, self._shares, sizes, strict=True) if n]
        self.action = _common_action(self._envs, self.members)
        self.groups = _common_groups(self._envs, self.members)
        self.camera_vectors = tuple({name for env in self._envs for name in env.camera_vectors})
        self._one_hot = torch.eye(k, device=self.device)[torch.arange(num_envs, device=self.device) % k]
        limits = [env.max_episode_steps for env in self._envs]
        self.max_episode_steps = None if None in limits else max(limit for limit in limits if limit is not None)
        periods = {env.control_dt for env in self._envs}
        self.control_dt = periods.pop() if len(periods) == 1 else None
        self.has_success = all(env.has_success for env in self._envs)
        self.exact_resume = all(env.exact_resume for env in self._envs)
        self.is_native = all(env.is_native for env in self._envs)
        self.reset(0)

    def reset(self, seed: int) -> None:
        if self.first % len(self._envs):  # a row of one process would be another's again
            raise UserError(
                f"env mixed: {self.num_envs} envs in each process are no multiple of its {len(self._envs)} tasks: "
                "choose another --num-envs"
            )
        self._seed, self._resumes = seed, 0
        for name, env in zip(self.members, self._envs, strict=True):
            env.first, env.per_slot = self.first // len(self._envs), self.per_slot
            env.reset(streams.derive(seed, f"mixed/{name}"))

    def step(self, action: Tensor) -> EnvStep:
        reward = torch.empty(self.num_envs, device=self.device)
        flags = [torch.empty(self.num_envs, dtype=torch.bool, device=self.device) for _ in range(3)]
        for env, share in self._playing:
            found = env.step(action[share])
            for whole, part in zip((reward, *flags), found, strict=True):
                whole[share] = part
        self.has_success = all(env.has_success for env, _ in self._playing)  # Gymnasium's tell once they are stepped
        return EnvStep(reward, *flags)

    def observe(self, group: str, rows: Tensor | None = None) -> Tensor:
        self.check_group(group)
        if group == TASK:
            return self._one_hot.clone() if rows is None else self._one_hot[rows]
        if rows is not None:
            return self._of_rows(group, rows, final=False)
        whole = self._empty(group, self.num_envs)
        for env, share in self._playing:
            whole[share] = env.observe(group)
        return whole

    def final_observation(self, group: str, rows: Tensor) -> Tensor:
        self.check_group(group)
        return self._one_hot[rows] if group == TASK else self._of_rows(group, rows, final=True)

    def state_dict(self) -> dict[str, Any]:
        members = {name: env.state_dict() for name, env in zip(self.members, self._envs, strict=True)}
        return {"num_envs": self.num_envs, "members": members, "seed": self._seed, "resumes": self._resumes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.check_saved(int(state["num_envs"]))
        for name, env in zip(self.members, self._envs, strict=True):
            env.load_state_dict(state["members"][name])
        self._seed, self._resumes = int(state["seed"]), int(state["resumes"]) + 1
        if not self.exact_resume:  # all rows start anew where some must, since whoever steps them can but say it of all
            for name, env in zip(self.members, self._envs, strict=True):
                if env.exact_resume:
                    env.reset(streams.derive(self._seed, f"mixed/{name}/resume{self._resumes}"))

    def metrics(self) -> dict[str, float]:
        """Of each task, by its name."""
        told = {name: env.metrics() for name, env in zip(self.members, self._envs, strict=True)}
        return {f"env/{name}/{what.removeprefix('env/')}": one for name, of in told.items() for what, one in of.items()}

    def measures(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        found: dict[str, tuple[Tensor, Tensor | None]] = {}
        for env, share in self._playing:
            for name, parts in env.measures().items():
                whole = found.setdefault(
                    name, (self._zeros(parts[0]), None if parts[1] is None else self._zeros(parts[1]))
                )
                for into, part in zip(whole, parts, strict=True):
                    if into is not None and part is not None:
                        into[share] = part
        return found

    def _zeros(self, like: Tensor) -> Tensor:
        return torch.zeros(self.num_envs, dtype=like.dtype, device=self.device)

    def render(self, row: int = 0) -> np.ndarray:
        return self._envs[row % len(self._envs)].render(row // len(self._envs))

    def start_part_way(self, generator: torch.Generator) -> None:
        for env in self._envs:
            env.start_part_way(generator)

    def close(self) -> None:
        for env in self._envs:
            env.close()

    def _of_rows(self, group: str, rows: Tensor, final: bool) -> Tensor:
        """A group of some rows, [len(rows), *shape]: each task is asked for its own, by their numbers there."""
        whole, k = self._empty(group, len(rows)), len(self._envs)
        for j, (env, _) in enumerate(self._playing):
            ask, mine = env.final_observation if final else env.observe, rows % k == j
            if self.is_native:  # no value may be looked at: each is asked for as many rows, of which its own are taken
                shown = ask(group, (rows // k).clamp(max=env.num_envs - 1))
                whole = torch.where(mine.view(-1, *[1] * (shown.dim() - 1)), shown, whole)
            elif mine.any():
                whole[mine] = ask(group, rows[mine] // k)
        return whole

    def _empty(self, group: str, size: int) -> Tensor:
        about = self.groups[group]
        return torch.empty(size, *about.shape, dtype=getattr(torch, about.dtype), device=self.device)


def _common_action(envs: Sequence[VecEnv], names: Sequence[str]) -> ActionSpec:
    """The tasks' action space, without the choices' names where they differ.

    Raises:
        UserError: it is not the same in all of them.
    """
    first = envs[0].action
    for env, name in zip(envs, names, strict=True):
        ours, theirs = ((a.kind, a.nvec, a.low, a.high) for a in (first, env.action))
        if ours != theirs:
            raise UserError(
                f"env mixed: {names[0]} takes {_brief(first)} and {name} {_brief(env.action)}: "
                "mix tasks of the same action space"
            )
    same = all(env.action.names == first.names for env in envs)
    return first if same else ActionSpec(first.kind, first.nvec, first.low, first.high)


def _brief(action: ActionSpec) -> str:
    bounds = f"{list(action.low)} to {list(action.high)}" if action.is_continuous else str(list(action.nvec))
    return f"{action.kind} actions {bounds}"


def _common_groups(envs: Sequence[VecEnv], names: Sequence[str]) -> dict[str, Group]:
    """The groups that mean the same in all tasks, and `task`.

    Raises:
        UserError: there is none, or a task has a group called `task` itself.
    """
    common = {}
    for name in envs[0].groups:
        found = [env.groups[name] for env in envs if name in env.groups]
        named = {group.fields for group in found if group.fields}
        if len(found) == len(envs) and len({(group.shape, group.dtype) for group in found}) == 1 and len(named) < 2:
            common[name] = _widest(found)
    for env, name in zip(envs, names, strict=True):
        if TASK in env.groups:
            raise UserError(f'env mixed: {name} has a group "{TASK}" of its own, which is the mixture\'s to say')
    if not common:
        shown = "; ".join(f"{name}: {', '.join(env.groups)}" for env, name in zip(envs, names, strict=True))
        raise UserError(f"env mixed: no group has the same shape, type and entries in all tasks ({shown})")
    about = "Which task the row is of."
    return {**common, TASK: Group((len(envs),), fields=tuple(names), low=0.0, high=1.0, about=about)}


def _widest(groups: Sequence[Group]) -> Group:
    """One group that stands for all, whose entries have the same names wherever they have any."""
    return replace(
        groups[0],
        fields=next((group.fields for group in groups if group.fields), ()),
        units=groups[0].units if len({group.units for group in groups}) == 1 else (),
        low=min(group.low for group in groups),
        high=max(group.high for group in groups),
        privileged=any(group.privileged for group in groups),
    )

"""An environment whose every observation says where it comes from: env, episode and step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tscli.envs import EnvStep, VecEnv
from tscli.envs.spaces import ActionSpec, Group

DISCRETE = ActionSpec("discrete", nvec=(2,), names=("left", "right"))
GROUPS = {
    "state": Group((3,), fields=("env", "episode", "step")),
    "goal": Group((2,), privileged=True),
    "flag": Group(()),
    "camera": Group((8, 8, 3), dtype="uint8", low=0, high=255),
}


class FakeEnv(VecEnv):
    """Env i's episodes last `lengths[i]` steps in turn, over and over; a negative length ends by truncation.

    Group "state" is (env, episode, step); "flag" is a lone number, the step; "goal" and "camera" repeat the step.
    `calls` keeps the order in which the methods were called.
    """

    has_success = True

    def __init__(self, lengths: Sequence[Sequence[int]], action: ActionSpec = DISCRETE):
        self.num_envs, self.device, self.action, self.groups = len(lengths), torch.device("cpu"), action, GROUPS
        self.lengths = lengths
        self.calls: list[str] = []
        self.actions: list[Tensor] = []
        self.bad_step: tuple[int, int] | None = None  # (step, env) whose reward is NaN
        self.reset(0)

    def reset(self, seed: int) -> None:
        self.calls.append("reset")
        self.episode = torch.zeros(self.num_envs, dtype=torch.int64)
        self.age = torch.zeros(self.num_envs, dtype=torch.int64)
        self.total = 0
        self.final = self._where()

    def _where(self) -> Tensor:
        return torch.stack([torch.arange(self.num_envs), self.episode, self.age], dim=1)

    def step(self, action: Tensor) -> EnvStep:
        self.calls.append("step")
        self.actions.append(action)
        self.age = self.age + 1
        self.final = self._where()
        planned = torch.tensor([own[int(k) % len(own)] for own, k in zip(self.lengths, self.episode, strict=True)])
        done = self.age == planned.abs()
        self.episode, self.age = self.episode + done, torch.where(done, 0, self.age)
        reward = torch.ones(self.num_envs)
        if self.bad_step is not None and self.bad_step[0] == self.total:
            reward[self.bad_step[1]] = torch.nan
        self.total += 1
        return EnvStep(reward, done & (planned > 0), done & (planned < 0), done & (planned > 0))

    def _reading(self, group: str, where: Tensor) -> Tensor:
        step = where[:, 2]
        if group == "state":
            return where.to(torch.float32)
        if group == "camera":
            return (step + 50 * where[:, 0]).to(torch.uint8)[:, None, None, None].expand(-1, 8, 8, 3)
        return step.to(torch.float32) if group == "flag" else torch.stack([step, -step], dim=1).to(torch.float32)

    def observe(self, group: str, rows: Tensor | None = None) -> Tensor:
        self.calls.append(f"observe {group}")
        return self._reading(group, self._where() if rows is None else self._where()[rows])

    def final_observation(self, group: str, rows: Tensor) -> Tensor:
        self.calls.append(f"final {group}")
        return self._reading(group, self.final[rows])

    def state_dict(self) -> dict[str, Any]:
        return {"episode": self.episode, "age": self.age, "total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.episode, self.age, self.total = state["episode"].clone(), state["age"].clone(), state["total"]

    def render(self, row: int = 0) -> np.ndarray:
        return self.observe("camera")[row].numpy()

"""What an environment is: vectorised, on torch tensors, with observation groups that are pulled.

One file per kind, found by its name, in this folder or in `classic`: it has an `EnvConfig` (a `tscli.config.Config`)
and an `Env(VecEnv)` built as `Env(config, num_envs, device)`. The module's docstring is the specification: groups,
units, reward, ends, source.
"""

from __future__ import annotations

import functools
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from tscli.config import UserError, did_you_mean, one_line
from tscli.envs.spaces import ActionSpec, Group
from tscli.light import defining


class EnvStep(NamedTuple):
    """What one step gives; every tensor is [N].

    `terminated` and `truncated` are never both True (terminated wins). `success` is True at most at an episode's last
    step, and means nothing where `VecEnv.has_success` is False once all is done: who tells of it may do so late.
    """

    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    success: Tensor


class VecEnv(ABC):
    """N copies of an environment with same-step autoreset.

    After `step`, rows that ended already stand at the first observation of their next episode; what they saw last is
    `final_observation`. Observations are computed when asked for (`observe`), so nobody pays for a camera that no one
    looks at. Asking twice within one step gives the same values.
    """

    num_envs: int
    device: torch.device
    groups: dict[str, Group]
    action: ActionSpec
    max_episode_steps: int | None = None
    camera_vectors: tuple[str, ...] = ()  # groups that a camera takes though they are vectors, such as depths
    control_dt: float | None = None  # seconds between actions, where the env has a physical time
    has_success: bool = False
    exact_resume: bool = True  # False: load_state_dict starts new episodes
    first: int = 0  # number of its first env, where others stand in other processes; set before `reset`
    per_slot: int = 1  # episodes of each env that will be counted, where somebody measures; set before `reset`
    # Batched torch that neither reads nor refuses values on the host: its users may check them later, once per rollout.
    is_native: bool = False
    members: tuple[str, ...] = ()  # names of the tasks in a mixture: row i is of members[i % len(members)]
    map_shape: tuple[int, int] | None = None  # rows and columns of a map of the places, where the env has one
    map_marks: Mapping[str, int] = MappingProxyType({})  # cells of the map that mean something, by name

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Start every env anew. Env i's k-th episode depends on (seed, first + i, k) alone.

        But an env with few worlds may depend on N to give each of the N * per_slot counted episodes another one.
        """

    @abstractmethod
    def step(self, action: Tensor) -> EnvStep:
        """Act in every env. Discrete actions are [N] int64, others [N, D]. Continuous actions are within bounds."""

    @abstractmethod
    def observe(self, group: str, rows: Tensor | None = None) -> Tensor:
        """Current observation of a group, [N, *shape], or [len(rows), *shape] for the rows asked for."""

    @abstractmethod
    def final_observation(self, group: str, rows: Tensor) -> Tensor:
        """Last observation of the episodes that ended in the latest step, for those rows: [len(rows), *shape]."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Everything that the next steps depend on: tensors, numbers and strings."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`: bit for bit where `exact_resume`, otherwise with new episodes."""

    @abstractmethod
    def render(self, row: int = 0) -> np.ndarray:
        """A picture of one env as it stands: uint8 [H, W, 3]."""

    def start_part_way(self, generator: torch.Generator) -> None:
        """Let every running episode count as begun a random number of steps ago, below the time limit.

        Envs that were all reset together would otherwise reach their time limits together.

        Raises:
            UserError: the env cannot be told, or has no time limit.
        """
        raise UserError(
            f"this env ({type(self).__module__.removeprefix('tscli.envs.')}) cannot start its episodes part-way: "
            "use --no-random-start"
        )

    def metrics(self) -> dict[str, float]:
        """What the env tells of the steps since this was asked last, by name: a simulator's rewards by term."""
        return {}

    def measures(self) -> dict[str, tuple[Tensor, Tensor | None]]:
        """What an evaluation tells beside returns, by name and unit ("yaw error [rad/s]"); of the latest step.

        Two tensors [N], of the rows as they were before those that ended began anew: an evaluation divides the sums of
        the two, over all steps that it counts. Without the second it takes the largest.
        """
        return {}

    def map_cells(self) -> Tensor:
        """The map's cell in which each env's agent stands, row * columns + column: int64 [N]."""
        raise NotImplementedError(f"{type(self).__name__} has no map")

    def check_group(self, group: str) -> None:
        """Refuse a group that there is not.

        Raises:
            UserError: of that name, with the nearest one.
        """
        if group not in self.groups:
            raise UserError(f'unknown observation group "{group}": {did_you_mean(group, self.groups)}')

    def check_saved(self, num_envs: int) -> None:
        """Refuse a saved state that is of another number of envs.

        Raises:
            UserError: it is.
        """
        if num_envs != self.num_envs:
            raise UserError(
                f"the saved state is of {num_envs} envs and this run has {self.num_envs}: use {num_envs} envs"
            )

    def close(self) -> None:  # noqa: B027 - most envs hold nothing to close
        """Free what the env holds."""


class RestartedEnv(VecEnv):
    """An env of another library, which cannot be saved: it is resumed with new episodes, from seeds not used before.

    A subclass's `_start` resets all envs, to episodes that follow from `_seed` and `_resumes` alone.
    """

    exact_resume = False

    @abstractmethod
    def _start(self) -> None:
        """Start every env anew."""

    def reset(self, seed: int) -> None:
        self._seed, self._resumes = seed, 0
        self._start()

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self._seed, "resumes": self._resumes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seed, self._resumes = int(state["seed"]), int(state["resumes"]) + 1
        self._start()


def env_kinds() -> list[str]:
    """Names of the kinds of environment, which are the names of the files that have an `EnvConfig`."""
    return sorted(_modules())


def env_module(kind: str) -> ModuleType:
    """The module of a kind: its `EnvConfig` and `Env`."""
    return importlib.import_module(_modules()[kind])


@functools.cache
def _modules() -> dict[str, str]:
    here = Path(__file__).parent
    files = [*defining(here, "EnvConfig"), *defining(here / "classic", "EnvConfig")]
    return {path.stem: ".".join(["tscli.envs", *path.relative_to(here).with_suffix("").parts]) for path in files}


def make_env(config: dict[str, Any], num_envs: int, device: torch.device | str = "cpu") -> VecEnv:
    """Build the env that a task's `env:` section describes; `kind` names the module, the rest is its `EnvConfig`.

    Raises:
        UserError: unknown kind or setting, or a value out of its bounds.
    """
    kind = config.get("kind", "")
    if kind not in env_kinds():
        raise UserError(f'unknown env kind "{kind}": {did_you_mean(str(kind), env_kinds())}')
    module = env_module(kind)
    try:
        env_config = module.EnvConfig.model_validate({k: v for k, v in config.items() if k != "kind"})
    except ValidationError as error:
        raise UserError(f"env {kind}: {one_line(error, module.EnvConfig, prefix='')}") from None
    return module.Env(env_config, num_envs, torch.device(device))


def first_line(error: BaseException) -> str:
    """What an exception of somebody else's code says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

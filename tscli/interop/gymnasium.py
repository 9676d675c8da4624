"""The native environments through Gymnasium's plain API, for use outside tscli.

    import gymnasium, tscli.interop.gymnasium
    env = gymnasium.make("tscli/CartPole-v0")

Every kind of environment that is not made of others (a bridge to another library, a mixture) is registered, its file
name in camel case: `color_maze.py` is `tscli/ColorMaze-v0`. Observations are a Dict of the env's groups.
Settings go into `config`, as in a task's `env:` section: `gymnasium.make("tscli/Acrobot-v0",
config={"max_episode_steps": 200})`.

Importing this module registers the ids and loads no torch; that comes with the first environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium import spaces

from tscli.config import UserError
from tscli.light import defining

if TYPE_CHECKING:
    from tscli.envs import ActionSpec, Group

_NOT_NATIVE = {"gym", "rsl", "mixed"}
_SPELLING = {"cartpole": "CartPole"}  # as Gymnasium writes it


def env_ids() -> dict[str, str]:
    """Gymnasium id of every native kind of environment."""
    folder = Path(__file__).parents[1] / "envs"
    files = [*defining(folder, "EnvConfig"), *defining(folder / "classic", "EnvConfig")]
    native = sorted(path.stem for path in files if path.stem not in _NOT_NATIVE)
    return {f"tscli/{_SPELLING.get(kind) or kind.title().replace('_', '')}-v0": kind for kind in native}


def register_envs() -> None:
    """Make the native environments known to `gymnasium.make`; safe to call again."""
    for env_id, kind in env_ids().items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point="tscli.interop.gymnasium:SingleEnv", kwargs={"kind": kind})


class SingleEnv(gymnasium.Env):
    """One copy of a native environment.

    `reset(seed=s)` starts at the first episode of seed s. `reset()` after an episode's end goes on to the next one of
    that seed; in the middle of an episode it starts the first one of a new seed, drawn from `np_random`. `info` holds
    `is_success` at an episode's end where the environment knows success.

    Args:
        kind: name of the module in `tscli/envs`.
        config: its settings, as in a task's `env:` section.
        render_mode: "rgb_array" or None. The native env already stands in its next episode when one has ended, so
            `render` then repeats the picture drawn last.

    Raises:
        UserError: a setting is unknown or out of bounds.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, kind: str, config: dict[str, Any] | None = None, render_mode: str | None = None) -> None:
        from tscli.envs import make_env

        if render_mode not in (None, "rgb_array"):
            raise UserError(f'render_mode "{render_mode}" is not supported: use "rgb_array" or None')
        self._env = make_env({**(config or {}), "kind": kind}, 1)
        self.render_mode = render_mode
        if self._env.control_dt:
            self.metadata = {**self.metadata, "render_fps": max(1, round(1 / self._env.control_dt))}
        self.observation_space = spaces.Dict({name: group_box(group) for name, group in self._env.groups.items()})
        self.action_space = action_space(self._env.action)
        self._begun = False
        self._ended = False
        self._frame: np.ndarray | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode; `options` are not used."""
        super().reset(seed=seed)
        if seed is not None:
            self._env.reset(seed)
        elif not (self._begun and self._ended):
            self._env.reset(int(self.np_random.integers(2**31)))
        self._begun, self._ended, self._frame = True, False, None
        return {name: self._env.observe(name)[0].cpu().numpy().copy() for name in self._env.groups}, {}

    def step(self, action: Any) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Act; raises `ResetNeeded` where no episode is under way."""
        import torch

        if not self._begun or self._ended:
            raise gymnasium.error.ResetNeeded("call reset() before step(): no episode has begun, or it has ended")
        dtype = torch.float32 if self._env.action.is_continuous else torch.int64
        result = self._env.step(torch.as_tensor(np.asarray(action), dtype=dtype)[None])
        terminated, truncated = bool(result.terminated), bool(result.truncated)
        self._ended = terminated or truncated
        row = torch.zeros(1, dtype=torch.int64)
        look = self._env.final_observation if self._ended else self._env.observe
        obs = {name: look(name, row)[0].cpu().numpy().copy() for name in self._env.groups}
        info = {"is_success": bool(result.success)} if self._ended and self._env.has_success else {}
        return obs, float(result.reward), terminated, truncated, info

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """A picture, uint8 [H, W, 3], or None where no `render_mode` was given."""
        if self.render_mode is None:
            return None
        if not self._ended or self._frame is None:
            self._frame = self._env.render(0)
        return self._frame.copy()

    def close(self) -> None:
        """Free what the env holds."""
        self._env.close()


def group_box(group: Group) -> spaces.Box:
    """A group as a Gymnasium space."""
    dtype = np.uint8 if group.dtype == "uint8" else np.float32
    low, high = (group.low, group.high) if dtype is np.float32 else (0, 255)
    return spaces.Box(low, high, group.shape, dtype)


def action_space(action: ActionSpec) -> spaces.Space:
    """Actions as a Gymnasium space; discrete ones count from 0."""
    if action.kind == "discrete":
        return spaces.Discrete(action.nvec[0])
    if action.kind == "multi_discrete":
        return spaces.MultiDiscrete(list(action.nvec))
    return spaces.Box(np.array(action.low, np.float32), np.array(action.high, np.float32), dtype=np.float32)


register_envs()

"""Any Gymnasium environment by its id, vectorised by Gymnasium itself.

Groups: a Dict observation gives one group per entry, nested names joined by "." (`sensors.camera`); any other gives one
group, `state` for numbers or `image` for a picture. By space:

    Box                         float32 vector, flattened, with the space's bounds
    Box of uint8, [H, W, C]     uint8 picture; [H, W] gets a channel axis and [C, H, W] is put channels last
    Discrete, MultiDiscrete     float32, one-hot
    MultiBinary                 float32 vector of 0 and 1

Actions: Discrete, MultiDiscrete, or Box of floats (flattened, with the space's bounds).
Reward, ends and time limit: the environment's own. If it reports terminated and truncated together, terminated wins.
Success: `success_key` in the `info` of an episode's last step; without that setting `is_success` or `success`, and
`has_success` turns True once one of them is seen in any step's `info`.
Seeds: env i's k-th episode is reset with a seed that depends on (seed, i, k) alone. A vector entry point takes one seed
for all its envs, so there the number of envs matters.
Resume: a Gymnasium env cannot be saved, so `load_state_dict` starts new episodes, from seeds not used before.

An id of another package is written with its module in front: `ale_py:ALE/Pong-v5`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any, Literal

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from pydantic import Field, field_validator
from torch import Tensor

from tscli.config import Config, UserError
from tscli.envs import EnvStep
from tscli.envs.contract import RestartedEnv, first_line
from tscli.envs.episodes import Episodes, derive
from tscli.envs.making import build, check_drawing, find_spec, wrapped
from tscli.envs.mujoco import warn_as_python
from tscli.envs.sources import action_spec, group_sources
from tscli.traces import at_most


class EnvConfig(Config):
    """Settings of a Gymnasium environment."""

    id: str = Field(description="Gymnasium id, such as Pendulum-v1; module:id imports the module first.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="Arguments of the environment's constructor.")
    vectorization: Literal["sync", "async", "vector_entry_point"] = Field(
        default="sync",
        description="One process, one process per env, or the vectorised version that an id may come with.",
    )
    max_episode_steps: int | None = Field(
        default=None,
        ge=1,
        le=100_000_000,
        description="Steps after which an episode is truncated; none keeps the id's own.",
    )
    render: bool = Field(default=False, description="Build the environments so that pictures of them can be drawn.")
    step_seconds: float = Field(
        default=300.0, gt=0, description="Longest that one step or reset of all envs may take; more is an error."
    )
    success_key: str | None = Field(
        default=None,
        description="Entry of info that tells success at an episode's end; none looks for is_success or success.",
    )

    wrappers: list[str | dict[str, dict[str, Any]]] = Field(
        default_factory=list,
        description="Wrappers, the first one innermost: module.Class, or {module.Class: {argument: value}}; without a "
        "module one of gymnasium.wrappers.",
    )
    drop: list[str] = Field(default_factory=list, description="Entries of a Dict observation to leave out.")

    @field_validator("wrappers")
    @classmethod
    def _one_each(cls, wrappers: list[Any]) -> list[Any]:
        for one in wrappers:
            if isinstance(one, dict) and len(one) != 1:
                raise ValueError("write one wrapper per line, as in - module.Class: {argument: value}")
        return wrappers

    @field_validator("kwargs")
    @classmethod
    def _leaves_ours_alone(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        ours = {"render_mode": "render", "max_episode_steps": "max_episode_steps", "id": "id"}
        for name in kwargs.keys() & ours.keys():
            raise ValueError(f"{name} cannot be given here, set {ours[name]} beside kwargs")
        return kwargs


class Env(RestartedEnv):
    """N copies of a Gymnasium environment; the module's docstring is the specification.

    Raises:
        UserError: unknown id, missing package, unfit arguments, or spaces that are not supported.
    """

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.has_success = config.success_key is not None
        self._success_keys = (config.success_key,) if config.success_key is not None else ("is_success", "success")
        self._config = config
        spec = find_spec(config.id)
        if config.vectorization == "vector_entry_point":
            self._venv, self._resets_by_mask = _from_entry_point(config, spec, num_envs)
            self.control_dt = _control_dt(self._venv)
        else:
            self._venv, self.control_dt = _from_single_envs(config, spec, num_envs)
            self._resets_by_mask = False
        self.max_episode_steps = config.max_episode_steps or spec.max_episode_steps
        self._sources = group_sources(self._venv.single_observation_space, config.id)
        self.groups = {name: source.group for name, source in self._sources.items()}
        self._action_space = self._venv.single_action_space
        self.action = action_spec(self._action_space, config.id)
        self.reset(0)

    def _start(self) -> None:
        seeds: Any = [derive(self._seed, self._resumes, self.first + i) for i in range(self.num_envs)]
        if self._config.vectorization == "vector_entry_point":
            seeds = seeds[0]
        with self._watched("in reset"):
            self._obs, _ = self._venv.reset(seed=seeds)
        self._seen: dict[str, Tensor] = {}
        self._final_obs: Any = None
        self._done = np.zeros(self.num_envs, dtype=bool)

    def step(self, action: Tensor) -> EnvStep:
        """Act in every env; what was seen before an autoreset is kept for `final_observation`."""
        with self._watched("in a step"):
            obs, reward, terminated, truncated, info = self._venv.step(self._to_env(action))
        terminated = np.array(terminated, dtype=bool)
        truncated = np.array(truncated, dtype=bool) & ~terminated
        self._done = done = terminated | truncated
        success = self._success(info, done)
        self._final_obs = info.get("final_obs")
        if self._resets_by_mask and done.any():
            self._final_obs = copy.deepcopy(obs)
            obs, _ = self._venv.reset(options={"reset_mask": done})
        self._obs, self._seen = obs, {}
        parts = (np.array(reward, dtype=np.float32), terminated, truncated, success)
        return EnvStep(*(torch.from_numpy(part).to(self.device) for part in parts))

    @contextlib.contextmanager
    def _watched(self, doing: str) -> Iterator[None]:
        name = self._config.id
        try:
            with at_most(self._config.step_seconds, name, doing=f"{doing}"):
                yield
        except (EOFError, ConnectionError) as error:
            self._venv.close(terminate=True)
            raise UserError(f"a process of {name} has ended by itself {doing}: its output is above") from error
        except UserError:
            if isinstance(self._venv, AsyncVectorEnv):  # which would wait for the others
                self._venv.close(terminate=True)
            raise

    def observe(self, group: str, rows: Tensor | None = None) -> Tensor:
        """Current observation of a group, made a tensor when first asked for in a step."""
        self.check_group(group)
        if group not in self._seen:
            source = self._sources[group]
            self._seen[group] = torch.from_numpy(source.encode(np.asarray(source.pick(self._obs)))).to(self.device)
        seen = self._seen[group]
        return seen if rows is None else seen[rows]

    def final_observation(self, group: str, rows: Tensor) -> Tensor:
        """Last observation of ended episodes; a row that did not end in the latest step is a ValueError."""
        self.check_group(group)
        source, index = self._sources[group], rows.cpu().numpy()
        if len(index) == 0:
            return self.observe(group, rows)
        if not self._done[index].all():
            raise ValueError(f"row {index[~self._done[index]][0]} did not end in the latest step")
        final = self._final_obs
        if isinstance(final, np.ndarray) and final.dtype == object:  # one entry per env, None where it goes on
            last = np.stack([source.pick(final[row]) for row in index])
        else:
            last = np.asarray(source.pick(final))[index]
        return torch.from_numpy(source.encode(last)).to(self.device)

    def render(self, row: int = 0) -> np.ndarray:
        """The env's own picture, uint8 [H, W, 3].

        Only `sync` draws one env alone; the others draw all of them each time.

        Raises:
            UserError: built without `render: true`, or a package for drawing is missing.
        """
        name = self._config.id
        if not self._config.render:
            raise UserError(f"{name} was built without pictures: set render: true in its env settings")
        try:
            venv = self._venv
            frame: Any = venv.envs[row].render() if isinstance(venv, SyncVectorEnv) else venv.render()[row]  # type: ignore
        except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
            raise UserError(f"drawing {name} needs a package that is not installed: {first_line(error)}") from error
        return np.asarray(frame, dtype=np.uint8)

    def close(self) -> None:
        """End the envs, and their processes."""
        self._venv.close()

    def _to_env(self, action: Tensor) -> np.ndarray:
        """Actions as the env's own space has them: with its start, shape and dtype."""
        space, values = self._action_space, action.detach().cpu().numpy()
        if isinstance(space, spaces.Discrete):
            return values + space.start
        values = values.reshape(self.num_envs, *space.shape)  # type: ignore[misc] - both kinds have a shape
        return values + space.start if isinstance(space, spaces.MultiDiscrete) else values.astype(space.dtype)

    def _success(self, info: dict[str, Any], done: np.ndarray) -> np.ndarray:
        # With same-step autoreset `info` is the next episode's where one ended, and the ended one's is `final_info`.
        last = info if self._resets_by_mask else info.get("final_info", {})
        for key in self._success_keys:
            self.has_success |= key in info or key in last
            if key in last:
                said = last.get(f"_{key}", np.ones(self.num_envs, dtype=bool))
                return done & said & np.asarray(last[key]).astype(bool)
        return np.zeros(self.num_envs, dtype=bool)


def _build(config: EnvConfig, spec: EnvSpec, make: Any) -> Any:
    given = f" with kwargs {config.kwargs}" if config.kwargs else ""

    def within_time() -> Any:
        with at_most(config.step_seconds, config.id, doing="while it is built"):
            return make()

    return build(config.id, given, spec, within_time)


def _wrapped(config: EnvConfig, env: gymnasium.Env) -> gymnasium.Env:
    wrappers = [(one, {}) if isinstance(one, str) else next(iter(one.items())) for one in config.wrappers]
    return wrapped(env, wrappers, config.drop, config.id)


def _arguments(config: EnvConfig, render_mode: str | None) -> dict[str, Any]:
    """What `gymnasium.make` is given beside the id."""
    ours = {"max_episode_steps": config.max_episode_steps, "render_mode": render_mode}
    return {**config.kwargs, **{name: value for name, value in ours.items() if value is not None}}


def _control_dt(env: Any) -> float | None:
    """Seconds between actions: the physics' own `dt` where there is one, else from the frame rate of films."""
    dt = getattr(env.unwrapped, "dt", None)
    if isinstance(dt, (int, float)) and dt > 0:
        return float(dt)
    fps = env.metadata.get("render_fps")
    return 1.0 / float(fps) if fps else None


def _from_single_envs(config: EnvConfig, spec: EnvSpec, num_envs: int) -> tuple[VectorEnv, float | None]:
    """Gymnasium's sync or async vectorisation in same-step autoreset, and the control period."""
    if spec.entry_point is None:
        raise UserError(f"{config.id} has a vector entry point alone: set vectorization: vector_entry_point")

    def make(index: int, render_mode: str | None = None) -> gymnasium.Env:
        # Gymnasium's checks of an env's first steps are the same for every copy, so one has them.
        arguments = _arguments(config, render_mode)
        env = gymnasium.make(spec, disable_env_checker=index > 0, **arguments)
        warn_as_python()
        return Episodes(_wrapped(config, env), config.id)

    # One env ahead of the rest: what does not work is said before N of them, or N processes, are started.
    probe = _build(config, spec, lambda: make(1))
    control_dt = _control_dt(probe)
    if config.render:
        check_drawing(config.id, probe)
    group_sources(probe.observation_space, config.id)
    action_spec(probe.action_space, config.id)
    probe.close()

    mode = "rgb_array" if config.render else None
    makers = [lambda index=index: make(index, mode) for index in range(num_envs)]
    vectorize = SyncVectorEnv if config.vectorization == "sync" else AsyncVectorEnv

    def vectorized() -> VectorEnv:
        # copy=False: observations are copied when somebody asks for them.
        return vectorize(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)

    return _build(config, spec, vectorized), control_dt


def _from_entry_point(config: EnvConfig, spec: EnvSpec, num_envs: int) -> tuple[VectorEnv, bool]:
    """The id's own vectorised env, and whether we have to reset its ended rows ourselves.

    Gymnasium's are next-step autoreset: the step after an end ignores the action and returns a reset. Resetting the
    ended rows at once, through `options={"reset_mask": ...}`, makes that same-step; an env that cannot is refused.
    """
    if spec.vector_entry_point is None:
        raise UserError(f"{config.id} has no vector entry point: set vectorization to sync or async")
    if config.wrappers or config.drop:
        raise UserError(f"{config.id}: wrappers and drop are for single envs: set vectorization to sync or async")
    arguments = _arguments(config, "rgb_array" if config.render else None)

    def make(num_envs: int) -> VectorEnv:
        return gymnasium.make_vec(spec, num_envs, vectorization_mode="vector_entry_point", **arguments)

    venv = _build(config, spec, lambda: make(num_envs))
    if config.render:
        check_drawing(config.id, venv)
    if venv.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP:
        return venv, False
    probe = _build(config, spec, lambda: make(2))
    resets_by_mask = _resets_by_mask(probe, config)
    probe.close()
    if not resets_by_mask:
        venv.close()
        raise UserError(
            f"{config.id}'s vector entry point resets its envs one step late and knows no reset_mask, which would mix "
            "up episodes: set vectorization to sync or async"
        )
    return venv, True


def _resets_by_mask(venv: VectorEnv, config: EnvConfig) -> bool:
    """Whether a masked reset leaves the other envs alone, found out by trying: many ignore the option and reset all."""
    sources = group_sources(venv.single_observation_space, config.id).values()
    venv.reset(seed=0)
    venv.action_space.seed(0)
    before = copy.deepcopy(venv.step(venv.action_space.sample())[0])
    try:
        after, _ = venv.reset(options={"reset_mask": np.array([True, False])})
    except Exception:
        return False
    return all(np.array_equal(np.asarray(s.pick(before))[1], np.asarray(s.pick(after))[1]) for s in sources)

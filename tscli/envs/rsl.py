"""Any rsl_rl `VecEnv`: the interface of Isaac Lab, mjlab and Genesis (rsl-rl-lib 3 and later).

A task names a function that builds it, `entry_point: "my_module:make_env"`. It is called as
`make_env(num_envs=..., device=..., **kwargs)` and gives a `VecEnv` with exactly so many envs. Beside rsl_rl's own
interface it needs `reset()`, its own or that of the `env` inside; `seed(number)` and `render()` are used where it has
them. What it prints goes to stderr. `extras["log"]` becomes metrics, `env/...`, means over an iteration.

Groups: one per entry of the TensorDict, nested names joined by "." (`sensors.camera`):

    uint8 [N, H, W, C]          uint8 picture; [N, C, H, W] is put channels last, [N, H, W] gets a channel axis
    anything else               float32 vector, flattened, without bounds

Entries of a group are named after the terms of the env's observation manager where it has one, as Isaac Lab and mjlab
do (`joint_pos_0`), and those of an action after the action manager's.

Actions: continuous, [N, num_actions], within +-`clip_actions`, or without bounds where that is none.
Reward: the simulator's.
Ends: `dones` that are also in `extras["time_outs"]` are truncated, the others terminated. Where the two come together,
only the simulator knows, and its `time_outs` decides; one that gives no `time_outs` has terminations alone.
Success: `extras[success_key]`, [N], at an episode's last step; without that setting none is told.

Final observations: a VecEnv resets ended envs within the step, and most never give what was seen last. Where `extras`
has "final_observation" or "final_obs" (a mapping of the same groups, [N, ...]), that is taken. An env with
`cfg.auto_reset = False` (mjlab) shows it by itself, and is reset here, `reset(env_ids=...)`. Where there is neither,
`final_observation` gives the observation *before* the last step, so that PPO bootstraps a truncated episode with V of
that one, as rsl_rl itself does: an approximation, off by one control step. (A critic with memory is shown that
observation twice.) Nothing else uses it. Recorded pairs and rollouts hold only what stood when the action was chosen,
so none of them is false.

Seeds: a reset seeds `random`, NumPy and torch, and calls `seed` where there is one. Every instance goes on from its own
state of these global streams, so that an evaluation does not make training repeat itself. Episodes then repeat as far
as the simulator draws from them, for the same number of envs; a simulator with random numbers of its own (Warp's,
PhysX's) repeats what its `seed` makes it repeat.
Resume: a simulator cannot be saved, so `load_state_dict` starts new episodes, from seeds not used before. Its
`common_step_counter`, by which curricula go, continues.

A stage builds two or three instances: one to train in, one to evaluate in, one to film. A simulator that allows one
instance per process needs `own_process: true`; then each runs in a process of its own, and what it gives is copied
through the CPU. Each of them takes the simulator's memory.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor

from tscli import streams
from tscli.config import Config, UserError, did_you_mean
from tscli.envs import EnvStep, managers
from tscli.envs.contract import RestartedEnv, first_line
from tscli.envs.globals import GlobalStreams
from tscli.envs.making import import_named
from tscli.envs.remote import Remote
from tscli.envs.spaces import ActionSpec, Group

# An entry point is called with arguments that a task chooses: what can be made to do anything is none.
_NO_SIMULATORS = sys.stdlib_module_names | {"torch", "numpy", "gymnasium", "pip", "setuptools"}
_FINAL_KEYS = ("final_observation", "final_obs")
_ENDLESS = 1_000_000  # steps of an episode that no evaluation would wait for

Observations = dict[str, Tensor]  # by group, [N, *group.shape]


class EnvConfig(Config):
    """Settings of an rsl_rl environment."""

    entry_point: str = Field(description="module:function that is called with num_envs, device and kwargs.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="More arguments of that function.")
    clip_actions: float | None = Field(
        default=None, gt=0, description="Actions are kept within plus and minus this; none leaves them unbounded."
    )
    success_key: str | None = Field(
        default=None, description="Entry of extras, one per env, that tells success at an episode's end; none: untold."
    )
    own_process: bool = Field(
        default=False, description="Run each instance in its own process, for simulators that allow one per process."
    )

    @field_validator("entry_point")
    @classmethod
    def _names_a_function(cls, value: str) -> str:
        module, _, function = value.partition(":")
        if not (module and function.isidentifier()):
            raise ValueError("write it as module:function")
        if (package := module.partition(".")[0]) in _NO_SIMULATORS:
            raise ValueError(f"{package} has no environments: name a function that builds a VecEnv")
        return value

    @field_validator("kwargs")
    @classmethod
    def _leaves_ours_alone(cls, kwargs: dict[str, Any]) -> dict[str, Any]:
        for name in kwargs.keys() & {"num_envs", "device"}:
            raise ValueError(f"{name} cannot be given here, the stage's --{name.replace('_', '-')} decides")
        return kwargs


class _Result(NamedTuple):
    """What one step of a simulator gives; tensors are [N] or, by group, [N, ...], and nobody writes to them later."""

    obs: Observations
    reward: Tensor
    done: Tensor
    time_out: Tensor
    success: Tensor | None
    final: Observations | None


class Env(RestartedEnv):
    """N copies in an rsl_rl VecEnv; the module's docstring is the specification.

    Raises:
        UserError: the entry point cannot be called, or what it gives is not such a VecEnv.
    """

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device | str = "cpu") -> None:
        self.num_envs = num_envs
        self.device = torch.device(device)
        self.has_success = config.success_key is not None
        if config.own_process:
            arguments = config.model_dump(), num_envs, str(self.device)
            self._simulator: Any = Remote(_simulate, arguments, self.device, config.entry_point)
        else:
            self._simulator = _Simulator(config, num_envs, self.device)
        size, self._limit, self.control_dt = self._simulator.constants()
        names, of_action = self._simulator.names()
        # Some end an episode when its length passes the limit, others when it reaches it.
        self.max_episode_steps = self._limit + 1
        bound = float("inf") if config.clip_actions is None else config.clip_actions
        self.action = ActionSpec("continuous", low=(-bound,) * size, high=(bound,) * size, names=of_action)
        self._false = torch.zeros(num_envs, dtype=torch.bool, device=self.device)
        self.reset(0)
        self.groups = {
            name: Group(
                tuple(value.shape[1:]),
                "uint8" if value.dtype == torch.uint8 else "float32",
                fields=names.get(name, ()) if value.shape[1:] == (len(names.get(name, ())),) else (),
            )
            for name, value in self._obs.items()
        }

    def _start(self) -> None:
        self._obs = self._last = self._simulator.reset(streams.derive(self._seed, f"rsl/{self._resumes}"))
        self._done = self._false

    def step(self, action: Tensor) -> EnvStep:
        """Act in every env; what was seen last is kept for `final_observation`."""
        found = self._simulator.step(action.detach())
        self._last = self._obs if found.final is None else found.final
        self._obs, self._done = found.obs, found.done
        truncated = found.done & found.time_out
        success = self._false.clone() if found.success is None else found.success & found.done
        return EnvStep(found.reward, found.done & ~found.time_out, truncated, success)

    def observe(self, group: str, rows: Tensor | None = None) -> Tensor:
        """Current observation of a group, as the simulator gave it."""
        self.check_group(group)
        seen = self._obs[group]
        return seen if rows is None else seen[rows]

    def final_observation(self, group: str, rows: Tensor) -> Tensor:
        """Last observation of ended episodes, or the one before it where the simulator does not give it."""
        if not bool(self._done[rows].all()):
            raise ValueError(f"row {int(rows[~self._done[rows]][0])} did not end in the latest step")
        self.check_group(group)
        return self._last[group][rows]

    def start_part_way(self, generator: torch.Generator) -> None:
        """As rsl_rl's `init_at_random_ep_len`: `episode_length_buf` is set to random numbers below the limit."""
        lengths = torch.randint(self._limit, (self.num_envs,), generator=generator, device=generator.device)
        self._simulator.set_lengths(lengths)

    def metrics(self) -> dict[str, float]:
        """Means of `extras["log"]`."""
        return self._simulator.take_log()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self._simulator.steps()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("steps") is not None:
            self._simulator.set_steps(int(state["steps"]))  # before the reset, which asks the curricula
        super().load_state_dict(state)

    def render(self, row: int = 0) -> np.ndarray:
        """The simulator's own picture, uint8 [H, W, 3]: of all its envs where it does not draw one alone.

        Raises:
            UserError: it has no `render`, or that gives no picture.
        """
        return self._simulator.render(row)

    def close(self) -> None:
        """End the simulator."""
        self._simulator.close()


class _Simulator:
    """A VecEnv and all that is asked of it, in plain terms, so that it may as well be in another process."""

    def __init__(self, config: EnvConfig, num_envs: int, device: torch.device) -> None:
        self._config, self._num_envs, self._device = config, num_envs, device
        self._streams, self._log = GlobalStreams(device), managers.Log()
        with self._theirs():
            self._venv: Any = _build(config, num_envs, device)
        _check(self._venv, config, num_envs)
        self._inner: Any = getattr(self._venv, "unwrapped", self._venv)
        self._resets_itself = bool(getattr(getattr(self._inner, "cfg", None), "auto_reset", True))

    @contextlib.contextmanager
    def _theirs(self) -> Iterator[None]:
        """While the simulator's code runs: its own random streams, and what it prints goes to stderr."""
        with self._streams, contextlib.redirect_stdout(sys.stderr):
            yield

    def constants(self) -> tuple[int, int, float | None]:
        """Numbers of an action, steps to the time limit, and seconds between actions."""
        dt = getattr(self._inner, "step_dt", getattr(self._inner, "dt", None))
        limit = int(torch.as_tensor(self._venv.max_episode_length).max())
        return int(self._venv.num_actions), limit, float(dt) if isinstance(dt, (int, float)) and dt > 0 else None

    def names(self) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
        """Names of the entries of each group, and of the actions, where it has them."""
        found = managers.action_names(self._inner)
        return managers.observation_names(self._inner), found if len(found) == self._venv.num_actions else ()

    def take_log(self) -> dict[str, float]:
        """Means of what it reported since they were taken last."""
        return self._log.take()

    def steps(self) -> int | None:
        """Its count of steps, by which curricula go; None where it keeps none."""
        counter = getattr(self._inner, "common_step_counter", None)
        return None if counter is None else int(counter)

    def set_steps(self, steps: int) -> None:
        """Count from there."""
        self._inner.common_step_counter = steps

    def reset(self, seed: int) -> Observations:
        """Start every env anew."""
        with self._theirs():
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            if callable(getattr(self._venv, "seed", None)):
                self._venv.seed(seed)
            _reset_of(self._venv)()
            return self._read(self._venv.get_observations())

    def step(self, action: Tensor) -> _Result:
        """Act in every env: [N, num_actions]."""
        with self._theirs():
            obs, reward, done, extras = self._venv.step(action.to(self._venv.device))
        done, found = self._flags(done), self._read(obs)
        success = None
        key = self._config.success_key
        if key is not None:
            if key not in extras:
                raise UserError(f'success_key: extras have no "{key}": {did_you_mean(key, map(str, extras))}')
            success = self._flags(extras[key])
        time_out = self._flags(extras["time_outs"]) if "time_outs" in extras else torch.zeros_like(done)
        given = next((extras[name] for name in _FINAL_KEYS if extras.get(name) is not None), None)
        final = None if given is None else self._read(given)
        if final is not None and final.keys() != found.keys():
            raise UserError(
                f"{self._config.entry_point}: extras give {', '.join(final)} as the final observation and the groups "
                f"are {', '.join(found)}: give all of them there, or none"
            )
        reward = reward.detach().to(self._device, torch.float32, copy=True).reshape(self._num_envs)
        if not self._resets_itself and bool(done.any()):
            final = found
            with self._theirs():
                extras = self._inner.reset(env_ids=done.nonzero().squeeze(-1).to(self._venv.device))[1]
                found = self._read(self._venv.get_observations())
        self._log.add(extras)
        return _Result(found, reward, done, time_out, success, final)

    def set_lengths(self, lengths: Tensor) -> None:
        """Let the running episodes count as so many steps old, [N]."""
        buffer = self._venv.episode_length_buf
        # Assigned, not written into: Isaac Lab hands out its buffer through a property.
        self._venv.episode_length_buf = lengths.to(buffer.device, buffer.dtype)

    def render(self, row: int) -> np.ndarray:
        """A picture, uint8 [H, W, 3]."""
        draw = getattr(self._venv, "render", None) or getattr(getattr(self._venv, "unwrapped", None), "render", None)
        if not callable(draw):
            raise UserError(f"{self._config.entry_point} gives a VecEnv without render(): it cannot be drawn")
        with self._theirs():
            frame: Any = draw()
        frame = np.asarray(frame.cpu() if isinstance(frame, Tensor) else frame)
        frame = frame[row] if frame.ndim == 4 else frame
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise UserError(
                f"{self._config.entry_point}: render() gave {frame.dtype} {list(frame.shape)}, "
                "and a picture is uint8 [H, W, 3]: build the simulator so that it draws"
            )
        return frame

    def close(self) -> None:
        """End it, where it can be told to."""
        if self._venv is not None and callable(getattr(self._venv, "close", None)):
            with self._theirs():
                self._venv.close()
        self._venv = None

    def _flags(self, flags: Tensor) -> Tensor:
        return flags.detach().to(self._device, copy=True).reshape(self._num_envs).bool()

    def _read(self, obs: Any, prefix: str = "") -> Observations:
        """Observations by group, always copies: many simulators write over their buffers at the next step."""
        if not hasattr(obs, "items"):
            raise UserError(
                f"{self._config.entry_point}: observations are a {type(obs).__name__}, and rsl_rl 3 and later have a "
                "TensorDict of groups: wrap the env for a newer rsl_rl"
            )
        found: Observations = {}
        for name, value in obs.items():
            if isinstance(value, Tensor):
                found[f"{prefix}{name}"] = _encode(value.detach(), self._num_envs).to(self._device)
            else:
                found |= self._read(value, f"{prefix}{name}.")
        return found


def _encode(value: Tensor, num_envs: int) -> Tensor:
    """A group's entry as we have them: a picture uint8 [N, H, W, C], anything else float32 [N, D]."""
    if value.dtype == torch.uint8 and value.dim() in (3, 4):
        value = value.unsqueeze(-1) if value.dim() == 3 else value
        if value.shape[1] < min(value.shape[2:]):
            value = value.movedim(1, -1)
        return value.clone(memory_format=torch.contiguous_format)
    return value.to(torch.float32, copy=True).reshape(num_envs, -1)


def _build(config: EnvConfig, num_envs: int, device: torch.device) -> Any:
    """Call the entry point; what goes wrong in it becomes one line."""
    name, _, function = config.entry_point.partition(":")
    module = import_named(name, f"entry_point {config.entry_point}")
    make = getattr(module, function, None)
    if not callable(make):
        functions = [key for key, value in vars(module).items() if callable(value)]
        raise UserError(
            f"entry_point {config.entry_point}: {name} has no such function: {did_you_mean(function, functions)}"
        )
    try:
        return make(num_envs=num_envs, device=str(device), **config.kwargs)
    except Exception as error:
        given = f" with kwargs {config.kwargs}" if config.kwargs else ""
        hint = "" if config.own_process else ": if it allows one instance per process, set own_process: true"
        raise UserError(f"{config.entry_point} cannot be built{given} ({first_line(error)}){hint}") from error


def _check(venv: Any, config: EnvConfig, num_envs: int) -> None:
    """Refuse what is no VecEnv that can be used here."""
    needed = ("num_envs", "num_actions", "max_episode_length", "episode_length_buf", "device")
    missing = [name for name in needed if not hasattr(venv, name)]
    missing += [f"{name}()" for name in ("step", "get_observations") if not callable(getattr(venv, name, None))]
    missing += [] if _reset_of(venv) else ["reset()"]
    if missing:
        raise UserError(
            f"{config.entry_point} gave a {type(venv).__name__} without {', '.join(missing)}: return an rsl_rl VecEnv "
            "that has them"
        )
    if venv.num_envs != num_envs:
        raise UserError(
            f"{config.entry_point} gave {venv.num_envs} envs where {num_envs} were asked for: let it take num_envs"
        )
    limit = float(torch.as_tensor(venv.max_episode_length).max())
    if not 0 < limit <= _ENDLESS:
        raise UserError(
            f"{config.entry_point}: its episodes last {limit:.3g} steps, as those of a play configuration do, and "
            "cannot be measured: build the one for training (play=False), or set episode_length_s"
        )


def _reset_of(venv: Any) -> Any:
    """Its `reset`; Isaac Lab's newer wrapper has none but that of the env inside."""
    return getattr(venv, "reset", None) or getattr(getattr(venv, "env", None), "reset", None)


def _simulate(settings: dict[str, Any], num_envs: int, device: str) -> _Simulator:
    """The simulator, as another process builds it; there even what compiled code prints goes to stderr."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return _Simulator(EnvConfig.model_validate(settings), num_envs, torch.device(device))

"""What robots on MuJoCo share: N simulations of one model on threads, drawn physics, same-step autoreset, exact resume.

`mujoco.batch.Batch` steps all simulations at once; `Loop` is the same by a plain loop over `MjData`, for one who wants
to read it, and for the tests, which compare both bit for bit. Everything stands as NumPy arrays [N, ...]; what goes in
and out are tensors. Groups are computed when asked for.

The extra `mujoco` brings the library: pip install 'tscli[mujoco]'. It is imported when an env is built, and not before.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tscli import ranks
from tscli.config import UserError, did_you_mean
from tscli.envs.contract import EnvStep, VecEnv, first_line
from tscli.streams import stream_id, uniform

Arrays = dict[str, np.ndarray]
# Fields of MjData that the next step depends on; of those that a model has, each is [N, ...] (mjSTATE_INTEGRATION).
STATE = (
    *("time", "qpos", "qvel", "act", "history", "qacc_warmstart", "ctrl", "qfrc_applied", "xfrc_applied"),
    *("eq_active", "mocap_pos", "mocap_quat", "userdata", "plugin_state"),
)
STAGE_NONE, STAGE_VEL, STAGE_ACC = 0, 2, 3  # mjtStage
HUGE = 1e8  # no velocity of a robot, in m/s or rad/s: the solver has lost it
MANY = 1 << 20  # draws of one name in an episode, at the most one per step


def load_mujoco() -> Any:
    """The module `mujoco`.

    Raises:
        UserError: it is not installed, or too old.
    """
    try:
        mujoco = importlib.import_module("mujoco")
    except ImportError:
        raise UserError("this env needs MuJoCo, which is not installed: pip install 'tscli[mujoco]'") from None
    if not mujoco.__version__.startswith("4."):
        raise UserError(f"this env needs MuJoCo 4, and {mujoco.__version__} is installed: pip install 'mujoco>=4,<5'")
    warn_as_python()
    return mujoco


def warn_as_python() -> None:
    """Let MuJoCo, where it is loaded, warn as Python does: else it writes MUJOCO_LOG.TXT into the current folder."""
    mujoco: Any = sys.modules.get("mujoco")
    if mujoco is not None and mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(lambda text: warnings.warn(f"MuJoCo: {text}", RuntimeWarning, stacklevel=2))


def load_spec(path: Path) -> Any:
    """The `MjSpec` of an MJCF file, which may be changed before it is compiled.

    Raises:
        UserError: it cannot be read.
    """
    mujoco = load_mujoco()
    try:
        return mujoco.MjSpec.from_file(str(path))
    except (ValueError, OSError) as error:
        raise UserError(f"{path} is no MJCF file that MuJoCo can read: {first_line(error)}") from None


def compiled(spec: Any, path: Path) -> Any:
    """The `MjModel` of a spec that came from a file.

    Raises:
        UserError: MuJoCo refuses it.
    """
    try:
        return spec.compile()
    except ValueError as error:
        raise UserError(f"{path} cannot be compiled: {first_line(error)}") from None


def ids_of(model: Any, kind: str, names: Sequence[str], path: Path) -> np.ndarray:
    """Numbers of a model's objects of a kind ("joint", "actuator", "geom", "body", "sensor"), by their names.

    Raises:
        UserError: the model lacks one; names the nearest that it has.
    """
    mujoco = load_mujoco()
    code, count = getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), {"joint": "njnt", "actuator": "nu"}
    there = [mujoco.mj_id2name(model, code, i) for i in range(getattr(model, count.get(kind, f"n{kind}")))]
    for name in names:
        if name not in there:
            raise UserError(f'{path} has no {kind} "{name}": {did_you_mean(name, [n for n in there if n])}')
    return np.array([there.index(name) for name in names])


class Loop:
    """The part of `mujoco.batch.Batch` that is used here, one simulation after the other."""

    def __init__(self, model: Any, nsim: int) -> None:
        self._mujoco = load_mujoco()
        self._models = [copy.copy(model) for _ in range(nsim)]
        self._data = [self._mujoco.MjData(each) for each in self._models]
        self._bound: Arrays = {}
        self._expanded: Arrays = {}

    def bind(self, name: str) -> np.ndarray:
        """A field of MjData, [N, ...]; what is written into one of `STATE` counts in the next call."""
        if name not in self._bound:
            self._bound[name] = np.stack([np.array(getattr(data, name), dtype=np.float64) for data in self._data])
        return self._bound[name]

    def expand(self, name: str) -> np.ndarray:
        """A field of MjModel, [N, ...], to be written into."""
        if name not in self._expanded:
            self._expanded[name] = np.stack([np.array(getattr(model, name)) for model in self._models])
        return self._expanded[name]

    def step(self, nstep: int = 1, stage: int = STAGE_NONE) -> None:
        """`mj_step` that many times, then the stages that make positions and velocities current."""
        for i, (model, data) in enumerate(zip(self._models, self._data, strict=True)):
            self._write(i)
            for _ in range(nstep):
                self._mujoco.mj_step(model, data)
            if stage:
                self._mujoco.mj_step1(model, data)
            self._read(i)

    def forward(self, ids: Sequence[int] | None = None, stage: int = STAGE_ACC) -> None:
        """Compute what follows from the states."""
        for i in range(len(self._data)) if ids is None else ids:
            self._write(i)
            compute = self._mujoco.mj_forward if stage == STAGE_ACC else self._mujoco.mj_step1
            compute(self._models[i], self._data[i])
            self._read(i)

    def reset(self, ids: Sequence[int], keyframe: int, stage: int) -> None:
        """To a keyframe; `stage` is NONE."""
        for i in ids:
            self._mujoco.mj_resetDataKeyframe(self._models[i], self._data[i], keyframe)
            self._read(i)

    def set_const(self, ids: Sequence[int]) -> None:
        """Derive the constants that follow from masses and the like."""
        for i in ids:
            self._write(i)
            self._mujoco.mj_setConst(self._models[i], self._mujoco.MjData(self._models[i]))

    def get_model(self, i: int) -> Any:
        """The i-th simulation's model."""
        self._write(i)
        return self._models[i]

    def get_data(self, i: int) -> Any:
        """The i-th simulation's data; what is derived is to be computed."""
        self._write(i)
        return self._data[i]

    def _write(self, i: int) -> None:
        for name, values in self._expanded.items():
            getattr(self._models[i], name)[:] = values[i]
        for name, values in self._bound.items():
            if name == "time":
                self._data[i].time = values[i]
            elif name in STATE:
                getattr(self._data[i], name)[:] = values[i]

    def _read(self, i: int) -> None:
        for name, values in self._bound.items():
            values[i] = getattr(self._data[i], name)


class MujocoEnv(VecEnv):
    """N simulations of a model.

    A subclass draws the physics of an episode (`_randomize`) and its start (`_place`), acts (`_act`), judges a step
    (`_outcome`), lets things happen (`_happen`) and shows groups (`_fields`). What it remembers from step to step are
    arrays [N, ...] in `_now`, beside MuJoCo's own by their names in MjData, all float64; those are saved and restored.

    Args:
        model: an `MjModel`.
        num_envs: N.
        device: where the tensors that go in and out live.
        decimation: physics steps in a control step.
        max_episode_steps: control steps after which an episode is truncated.
        keyframe: of the model, in which every episode begins before it is placed.
        threads: of the physics; 0 takes a plain loop, None as many as torch has.
        fields: of MjModel, to be drawn for each env; written by `_randomize` in `_drawn`.
        derived: of MjData, beside the state, to be read in `_now`.
    """

    def __init__(
        self,
        model: Any,
        num_envs: int,
        device: torch.device | str,
        *,
        decimation: int,
        max_episode_steps: int,
        keyframe: int,
        threads: int | None,
        fields: Sequence[str] = (),
        derived: Sequence[str] = (),
    ) -> None:
        mujoco = load_mujoco()
        self.num_envs, self.device = num_envs, torch.device(device)
        self.max_episode_steps: int = max_episode_steps
        # A lost simulation is an error with its name, not a quiet start from the model's default.
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self.model, self._decimation, self._keyframe = model, decimation, keyframe
        self.control_dt = float(model.opt.timestep) * decimation
        if threads == 0:
            self._physics: Any = Loop(model, num_envs)
        else:
            batch: Any = importlib.import_module("mujoco.batch")
            share = max(1, (os.cpu_count() or 1) // ranks.size())  # those on one machine have its cores between them
            threads = threads or torch.get_num_threads()
            self._physics = batch.Batch(model, num_envs, threads if ranks.size() == 1 else min(threads, share))
        self._drawn: Arrays = {name: self._physics.expand(name) for name in fields}
        self._usual = {name: np.array(getattr(model, name)) for name in fields}
        state = [name for name in STATE if np.size(getattr(mujoco.MjData(model), name, ()))]
        self._now: Arrays = {name: self._physics.bind(name) for name in [*state, *derived]}
        self._derived = tuple(derived)
        self._held = self._held_history(mujoco)
        self._rows = np.arange(num_envs)
        self._steps, self._episode = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)

    @abstractmethod
    def _randomize(self, rows: np.ndarray) -> None:
        """Write `_drawn` for the episodes that these rows are in, by `_draw` alone."""

    @abstractmethod
    def _place(self, rows: np.ndarray) -> None:
        """Write the states in which their episodes start, and what is remembered; they stand in the keyframe."""

    @abstractmethod
    def _started(self, rows: np.ndarray) -> None:
        """All that is derived from their states has been computed."""

    @abstractmethod
    def _act(self, action: np.ndarray) -> None:
        """Write `ctrl` for a control step, of actions [N, A]."""

    @abstractmethod
    def _outcome(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Reward of a step, whether it ends the episode, and whether it cuts it short: each [N]."""

    def _succeeds(self) -> np.ndarray:
        """Whether each env has done what it is there for, [N]; it counts at an episode's end."""
        return np.zeros(self.num_envs, bool)

    @abstractmethod
    def _happen(self) -> None:
        """What befalls the envs between two steps: pushes, new commands."""

    @abstractmethod
    def _fields(self, group: str, at: Arrays) -> np.ndarray:
        """What a group shows of K rows of `_now`: [K, *shape]."""

    def reset(self, seed: int) -> None:
        self._seed = seed
        self._steps[:], self._episode[:] = 0, 0
        self._begin(self._rows)
        self._ended, self._last, self._seen = self._rows[:0], {}, {}

    def start_part_way(self, generator: torch.Generator) -> None:
        steps = torch.randint(self.max_episode_steps, (self.num_envs,), generator=generator, device=generator.device)
        self._steps[:] = steps.cpu().numpy()

    def step(self, action: Tensor) -> EnvStep:
        self._act(action.detach().cpu().numpy().astype(np.float64))
        self._physics.step(nstep=self._decimation, stage=STAGE_VEL)
        self._check_finite()
        self._steps += 1
        reward, terminated, cut = self._outcome()
        truncated = (cut | (self._steps >= self.max_episode_steps)) & ~terminated
        done_well = self._succeeds() & (terminated | truncated)
        self._happen()
        self._fell = terminated
        self._ended, self._seen = np.flatnonzero(terminated | truncated), {}
        self._last = {name: array[self._ended] for name, array in self._now.items()}
        if len(self._ended):
            self._steps[self._ended] = 0
            self._episode[self._ended] += 1
            self._begin(self._ended)
        parts = (reward.astype(np.float32), terminated, truncated, done_well)
        return EnvStep(*(torch.from_numpy(part).to(self.device) for part in parts))

    def observe(self, group: str, rows: Tensor | None = None) -> Tensor:
        self.check_group(group)
        if group not in self._seen:
            if rows is not None:
                which = rows.cpu().numpy()
                return self._tensor(group, {name: array[which] for name, array in self._now.items()})
            self._seen[group] = self._tensor(group, self._now)
        return self._seen[group] if rows is None else self._seen[group][rows]

    def final_observation(self, group: str, rows: Tensor) -> Tensor:
        self.check_group(group)
        # Rows that did not end are masked by those who ask for them.
        ended = np.searchsorted(self._ended, rows.cpu().numpy()).clip(max=max(len(self._ended) - 1, 0))
        if not len(self._ended):
            kind = self.groups[group]
            return torch.zeros((len(rows), *kind.shape), dtype=getattr(torch, kind.dtype), device=self.device)
        return self._tensor(group, {name: array[ended] for name, array in self._last.items()})

    def _before_reset(self, *names: str) -> Arrays:
        """Of `_now`, as the latest step left it; rows that ended do not stand at their next episode yet."""
        found = {name: self._now[name].copy() for name in names}
        for name, array in found.items():
            array[self._ended] = self._last[name]
        return found

    def state_dict(self) -> dict[str, Any]:
        kept = {name: array for name, array in self._now.items() if name not in self._derived}
        parts = {"steps": self._steps, "episode": self._episode, **kept}
        return {"seed": self._seed, **{name: torch.from_numpy(part.copy()) for name, part in parts.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.check_saved(len(state["steps"]))
        self._seed = int(state["seed"])
        for name, array in {"steps": self._steps, "episode": self._episode, **self._now}.items():
            if name not in self._derived:
                array[:] = state[name].numpy()
        self._derive(self._rows)
        self._physics.forward(stage=STAGE_VEL)
        self._ended, self._last, self._seen = self._rows[:0], {}, {}

    def _begin(self, rows: np.ndarray) -> None:
        self._derive(rows)
        self._physics.reset(ids=rows, keyframe=self._keyframe, stage=STAGE_NONE)
        if self._held is not None:
            self._now["history"][rows] = self._held
        self._place(rows)
        self._physics.forward(ids=rows, stage=STAGE_ACC)
        self._started(rows)

    def _derive(self, rows: np.ndarray) -> None:
        self._randomize(rows)
        if self._drawn:
            self._physics.set_const(ids=rows)

    def _draw(self, name: str, rows: np.ndarray, num: int) -> np.ndarray:
        """Uniform numbers in [0, 1), [K, num], of the rows' episodes and steps alone."""
        counter = torch.from_numpy(self._episode[rows] * MANY + self._steps[rows])
        return uniform(self._seed, stream_id(name), torch.from_numpy(rows) + self.first, counter, num).numpy()

    def _draw_once(self, name: str, rows: np.ndarray, num: int) -> np.ndarray:
        """The same for all steps of an episode."""
        counter = torch.from_numpy(self._episode[rows] * MANY)
        return uniform(self._seed, stream_id(name), torch.from_numpy(rows) + self.first, counter, num).numpy()

    def _held_history(self, mujoco: Any) -> np.ndarray | None:
        """What actuators with a delay have heard before an episode: the keyframe's controls; None without delays."""
        if "history" not in self._now:
            return None
        data = mujoco.MjData(self.model)
        mujoco.mj_resetDataKeyframe(self.model, data, self._keyframe)
        for i in range(self.model.nu):
            samples = int(self.model.actuator_history[i, 0])
            if samples:
                times = self.model.opt.timestep * np.arange(-samples, 0.0)
                mujoco.mj_initCtrlHistory(self.model, data, i, times, np.full(samples, data.ctrl[i]))
        return np.array(data.history)

    def _check_finite(self) -> None:
        speed = self._now["qvel"]
        if not (np.abs(speed) < HUGE).all():  # NaN is not
            row = int(np.flatnonzero(~(np.abs(speed) < HUGE).all(1))[0])
            raise UserError(
                f"the simulation of env {row + self.first} is not finite in step {int(self._steps[row]) + 1} of its "
                f"episode {int(self._episode[row])}: lower the model's timestep or gains, or mend its contacts"
            )

    def _tensor(self, group: str, at: Arrays) -> Tensor:
        dtype = np.dtype(self.groups[group].dtype)
        fields = np.ascontiguousarray(self._fields(group, at).astype(dtype))  # astype copies
        return torch.from_numpy(fields).to(self.device)


def threads_field() -> Any:
    """The setting `threads`."""
    return Field(None, ge=0, le=1024, description="Threads of the physics; none takes torch's, 0 a plain loop.")

"""What datasets of others have in common: episodes that become rows of pairs.

Of a dataset that tscli wrote, the schema of the pairs stands beside it, and the labels in every episode. Of any other,
each entry of its observations is a group, and the recorded actions are the labels: of a teacher's distribution nothing
is known.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from tscli.config import UserError, did_you_mean
from tscli.envs import VecEnv
from tscli.envs.sources import Source, action_spec, group_sources
from tscli.envs.spaces import ActionSpec
from tscli.interop.gymnasium import env_ids
from tscli.pairs import PairsSchema
from tscli.pairs.schema import TEACHER
from tscli.pairs.writer import PairsWriter
from tscli.tasks import load_task

LAST_OBSERVATION = "not recorded: a copy of the one before"
_MOST_BYTES = 4 << 30  # of one group of an episode


@dataclass(frozen=True)
class Recording:
    """One episode of T steps: arrays [T, ...], of observations and `infos` perhaps one more."""

    observations: Any  # by group, nested ones too, or plain
    actions: Any
    rewards: Any
    terminations: Any
    truncations: Any
    infos: dict[str, Any] = field(default_factory=dict)
    finished: bool = True


@dataclass(frozen=True)
class Dataset:
    """A dataset of others.

    Attributes:
        kind: whose format it is.
        name: as the user wrote it.
        observation_space: Gymnasium's.
        action_space: likewise; None where the file does not say, which has to be the env's then.
        num_episodes, num_steps: how many there are.
        episodes: gives them, one at a time in memory.
        env_id: the Gymnasium id of its env; raises `UserError` where it has none that can be made again.
        own: the schema of what tscli wrote, and whether its observations are plain; None of any other.
    """

    kind: str
    name: str
    observation_space: spaces.Space
    action_space: spaces.Space | None
    num_episodes: int
    num_steps: int
    episodes: Callable[[], Iterator[Recording]]
    env_id: Callable[[], str]
    own: tuple[PairsSchema, bool] | None = None


@contextlib.contextmanager
def reading(owner: Path | str, kind: str = "an episode") -> Iterator[None]:
    """Errors that come up in it are the file's: other people's readers raise all kinds for a damaged one."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{owner} cannot be read as {kind} ({what})") from None


def label_fields(schema: PairsSchema) -> list[str]:
    """What the teacher says of a step, and who acted."""
    return ["teacher_action", *(f"teacher_{name}" for name in schema.teacher_fields), "actor"]


def with_groups(schema: PairsSchema, groups: Sequence[str]) -> PairsSchema:
    """The schema with these groups alone; none takes all.

    Raises:
        UserError: there is no such group.
    """
    for name in groups:
        if name not in schema.groups:
            raise UserError(f'--groups: there is no group "{name}": {did_you_mean(name, schema.groups)}')
    return replace(schema, groups={name: schema.groups[name] for name in groups or schema.groups})


def array_space(shape: tuple[int, ...], dtype: np.dtype) -> spaces.Box:
    """The space of what a file describes by shape and type alone: uint8 pictures, or numbers without bounds."""
    if dtype == np.uint8 and len(shape) in (2, 3):
        return spaces.Box(0, 255, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def repeat_last(rows: np.ndarray) -> np.ndarray:
    """[T, ...] -> [T + 1, ...]."""
    return np.concatenate([rows, rows[-1:]])


def env_spec_of(task_name: str) -> Any:
    """Gymnasium's description of a task's env, from which others make it again; None for a simulator.

    Raises:
        UserError: no such task.
    """
    env = dict(load_task(task_name).env)
    kind = env.pop("kind")
    ids = {native: env_id for env_id, native in env_ids().items()}
    if kind == "gym":
        made = gymnasium.make(env["id"], **env.get("kwargs", {}))
    elif kind in ids:
        made = gymnasium.make(ids[kind], config=env)
    else:
        return None
    made.close()
    return None if made.spec is None else _by_name(made.spec)


def _by_name(spec: EnvSpec) -> EnvSpec:
    """The same with entry points that were given as classes or functions written out, since a file holds text alone.

    Raises:
        UserError: one cannot be found by a name.
    """
    found = {}
    for side in ("entry_point", "vector_entry_point"):
        given = getattr(spec, side)
        if callable(given):
            module, name = given.__module__, getattr(given, "__qualname__", "")
            if module == "__main__" or getattr(sys.modules.get(module), name, None) is not given:
                raise UserError(f"{spec.id} was registered with {given!r}, which no module has under its name")
            found[side] = f"{module}:{name}"
    return replace(spec, **found)


def id_of_spec(spec: EnvSpec) -> str:
    """What to call the env by: an id that only some module registers has it in front."""
    if spec.id in gymnasium.registry or not isinstance(spec.entry_point, str):
        return spec.id
    return f"{spec.entry_point.partition(':')[0]}:{spec.id}"


def own_reader(dataset: Dataset, schema: PairsSchema, plain: bool, groups: Sequence[str]) -> Reader:
    """The reader of a dataset that tscli wrote.

    Raises:
        UserError: one of the groups asked for is not there.
    """
    schema = with_groups(schema, groups)
    sources = {name: Source(() if plain else (name,), group, np.asarray) for name, group in schema.groups.items()}
    return Reader(schema, sources, dataset.action_space, labelled=True)


def foreign_reader(dataset: Dataset, env: VecEnv, task_name: str, groups: Sequence[str]) -> Reader:
    """The reader of any other dataset, whose groups and actions are described as the task's env describes them.

    The task is the one that a student is to learn. `groups`: entries to take, empty takes all; of plain observations
    the name.

    Raises:
        UserError: an entry is missing or of a kind that is not supported, or does not fit the env.
    """
    space, name = dataset.observation_space, dataset.name
    if isinstance(space, spaces.Dict):
        sources = group_sources(space, name, wanted=groups)
        if missing := [group for group in groups if group not in sources]:
            hint = did_you_mean(missing[0], _entries(space))
            raise UserError(f'--groups: {name} has no group "{missing[0]}": {hint}')
    else:
        sources = group_sources(space, name)
        if len(groups) > 1:
            raise UserError(f"--groups {','.join(groups)}: {name} has plain observations, so name one group")
        sources = dict(zip(groups or sources, sources.values(), strict=True))
    action = env.action if dataset.action_space is None else action_spec(dataset.action_space, name)
    check_fits(sources, action, env, name, task_name)
    schema = PairsSchema(
        {group: env.groups.get(group, source.group) for group, source in sources.items()},
        env.action,
        task=task_name,
        extra={"distribution": "none", "control_dt": env.control_dt},
    )
    return Reader(schema, sources, dataset.action_space, labelled=False)


def _entries(space: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Names of all entries of an observation space, also of those that can be no group."""
    if not isinstance(space, spaces.Dict):
        yield ".".join(path)
        return
    for key, inner in space.spaces.items():
        yield from _entries(inner, (*path, str(key)))


def check_fits(sources: dict[str, Source], action: ActionSpec, env: VecEnv, name: str, task_name: str) -> None:
    """Refuse data from which nothing can be learned that could act in the env.

    Raises:
        UserError: no group in common, one of another shape or type, or other actions.
    """
    if not sources.keys() & env.groups.keys():
        raise UserError(
            f"{name} has {', '.join(sources)} and task {task_name} {', '.join(env.groups)}, none of them the same: "
            "name its own task with --task, or plain observations with --groups"
        )
    for group, source in sources.items():
        wanted, found = env.groups.get(group, source.group), source.group
        if (wanted.shape, wanted.dtype) != (found.shape, found.dtype):
            raise UserError(
                f'{name} has the group "{group}" as {found.dtype} {found.shape}, task {task_name} as {wanted.dtype} '
                f"{wanted.shape}: name its own task with --task"
            )
    same = (action.kind, action.shape, action.nvec) == (env.action.kind, env.action.shape, env.action.nvec)
    sides = zip(action.low + action.high, env.action.low + env.action.high, strict=False)
    if not same or not all(math.isclose(a, b, rel_tol=1e-5) for a, b in sides):
        raise UserError(
            f"{name} has the actions {_brief(action)}, task {task_name} {_brief(env.action)}: name its own task with "
            "--task"
        )


def _brief(action: ActionSpec) -> str:
    return f"{action.kind} {action.nvec}" if action.nvec else f"{action.kind} from {action.low} to {action.high}"


@dataclass(frozen=True)
class Reader:
    """How the episodes of a dataset become rows."""

    schema: PairsSchema  # of the rows
    sources: dict[str, Source]  # where each group comes from
    action_space: spaces.Space | None  # the dataset's
    labelled: bool  # tscli wrote it: `infos` hold labels

    def write(self, writer: PairsWriter, dataset: Dataset) -> Iterator[int]:
        """Append all episodes, one at a time in memory; gives the number of those that are done.

        Raises:
            UserError: an episode goes on after its end, does not fit the actions, or holds values that are not finite.
        """
        for number, episode in enumerate(dataset.episodes()):
            if len(episode.rewards):
                where = f"{dataset.name}, episode {number}"
                with reading(where):
                    rows, success = self.rows(episode, where), self._success(episode.infos)
                self._append(writer, rows, success, where)
            yield number + 1

    def rows(self, episode: Recording, where: str) -> dict[str, np.ndarray]:
        """Every stored field of an episode, [T, ...].

        The observation after the last action is left out: pairs hold what stood when an action was chosen.
        """
        steps, infos = len(episode.rewards), episode.infos
        rows = {}
        for group, source in self.sources.items():
            values = source.pick(episode.observations)
            if getattr(values, "nbytes", 0) > _MOST_BYTES:
                raise UserError(f"{where} has {values.nbytes} bytes of {group}, more than {_MOST_BYTES}: take --groups")
            rows[f"obs/{group}"] = source.encode(np.asarray(values)[:steps])
        rows["action"] = self._decode(np.asarray(episode.actions), where)
        rows["reward"] = np.asarray(episode.rewards, np.float32)
        rows["terminated"] = np.asarray(episode.terminations, bool)
        # Terminated wins where both are said; a truncation that only stands for the end of recording is none.
        rows["truncated"] = np.asarray(episode.truncations, bool) & ~rows["terminated"] & episode.finished
        if (rows["terminated"] | rows["truncated"])[:-1].any():
            raise UserError(f"{where} goes on after its end: the dataset is not in order")
        if self.labelled:
            if missing := [label for label in label_fields(self.schema) if label not in infos]:
                raise UserError(f"{where} has no {missing[0]}, which tscli wrote: convert the pairs again")
            rows |= {label: np.asarray(infos[label])[:steps] for label in label_fields(self.schema)}
        else:
            rows |= {"teacher_action": rows["action"], "actor": np.full(steps, TEACHER, np.uint8)}
        for name, values in rows.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise UserError(f"{where} has values that are not finite in {name}: make a dataset without it")
        return rows

    def _decode(self, values: np.ndarray, where: str) -> np.ndarray:
        """Actions of others as ours: discrete ones count from 0, vectors are flat."""
        action, space = self.schema.action, self.action_space
        if values.size != len(values) * math.prod(action.shape):
            raise UserError(
                f"{where} has actions {values.shape[1:]}, the env {action.shape}: name its task with --task"
            )
        values = values.reshape(len(values), *action.shape)
        if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
            values = values - np.asarray(space.start).reshape(action.shape)
        if action.is_continuous:
            return values.astype(np.float32)
        choices = values.astype(np.int64)
        if (choices != values).any() or (choices < 0).any() or (choices >= np.array(action.nvec)).any():
            raise UserError(f"{where} has actions that are no choices of {_brief(action)}: name its task with --task")
        return choices

    def _success(self, infos: dict[str, Any]) -> bool | None:
        """What the last `info` says of success; None where it says nothing, or success means nothing."""
        if self.labelled and not self.schema.has_success:
            return None
        found = [np.atleast_1d(infos[key]) for key in ("is_success", "success") if key in infos]
        return bool(found[0][-1]) if found and len(found[0]) else None

    def _append(self, writer: PairsWriter, rows: dict[str, np.ndarray], success: bool | None, where: str) -> None:
        steps = len(rows["reward"])
        for t in range(steps):
            step = {field: values[t : t + 1] for field, values in rows.items()}
            obs = {group: step.pop(f"obs/{group}") for group in self.schema.groups}
            dist = {field: step.pop(f"teacher_{field}") for field in self.schema.teacher_fields}
            told = None if success is None else np.array([success and t == steps - 1])
            try:
                writer.append(obs, teacher_dist=dist, success=told, **step)
            except ValueError as error:
                raise UserError(f"{where}: {error}: the dataset is not in order") from None
        if not (rows["terminated"] | rows["truncated"])[-1]:
            writer.restart()

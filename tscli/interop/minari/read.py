"""Episodes of a Minari dataset as rows of pairs.

Of a dataset that `write_dataset` wrote, its metadata hold the schema, and `infos` the labels. Of any other, each entry
of its observations is a group, and the recorded actions are the labels: of a teacher's distribution nothing is known.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from tscli.config import UserError, did_you_mean
from tscli.envs import VecEnv
from tscli.envs.sources import Source, action_spec, group_sources
from tscli.envs.spaces import ActionSpec
from tscli.pairs import PairsSchema
from tscli.pairs.schema import TEACHER
from tscli.pairs.writer import PairsWriter


def dataset_path(name: str) -> Path:
    """Where Minari keeps the dataset of an id.

    Raises:
        UserError: it is no id.
    """
    try:
        importlib.import_module("minari.dataset.minari_dataset").parse_dataset_id(name)
    except (ValueError, TypeError):  # the second for one without a version
        raise UserError(f'"{name}" is no id of a Minari dataset: write it like cartpole/teacher-v0') from None
    return datasets_root() / name


def datasets_root() -> Path:
    """The folder of Minari's datasets."""
    return Path(importlib.import_module("minari.storage.datasets_root_dir").get_dataset_path())


def open_dataset(name: str) -> Any:
    """The Minari dataset of that id.

    Raises:
        UserError: there is none, it is empty, or it cannot be read.
    """
    minari = importlib.import_module("minari")
    path = dataset_path(name)
    if not (path / "data").exists():
        known = minari.list_local_datasets()
        hint = did_you_mean(name, known) if known else "there is none"
        raise UserError(
            f'no Minari dataset "{name}" in {datasets_root()}: {hint}; `minari download` fetches public ones'
        )
    try:
        dataset = minari.load_dataset(name)
        episodes = int(dataset.total_episodes)
    except Exception as error:  # of another library's storage, whose files may hold anything
        raise UserError(f"{path} cannot be read as a Minari dataset ({type(error).__name__}: {error})") from None
    if not episodes:
        raise UserError(f"{name} holds no episodes")
    return dataset


def env_id(dataset: Any, name: str) -> str:
    """The Gymnasium id of a dataset's env.

    Raises:
        UserError: it has none, or one that its bare id does not make again.
    """
    spec = dataset.env_spec
    if spec is None:
        raise UserError(f"{name} does not say which env it is of: name its task with --task")
    if spec.kwargs:
        raise UserError(
            f"{name} is of {spec.id} with {spec.kwargs}: write a task file that makes this env, and name it with --task"
        )
    return spec.id


def own_schema(dataset: Any) -> tuple[PairsSchema, bool] | None:
    """The schema of a dataset that tscli wrote, and whether its observations are plain; None for any other."""
    data = dataset.storage.metadata.get("tscli")
    return None if data is None else (PairsSchema.from_json(data), bool(data["plain"]))


def own_reader(dataset: Any, schema: PairsSchema, plain: bool, groups: Sequence[str]) -> Reader:
    """The reader of a dataset that tscli wrote.

    Raises:
        UserError: one of the groups asked for is not there.
    """
    for name in groups:
        if name not in schema.groups:
            raise UserError(f'--groups: there is no group "{name}": {did_you_mean(name, schema.groups)}')
    schema = replace(schema, groups={name: schema.groups[name] for name in groups or schema.groups})
    sources = {name: Source(() if plain else (name,), group, np.asarray) for name, group in schema.groups.items()}
    return Reader(schema, sources, dataset.action_space, labelled=True)


def foreign_reader(dataset: Any, name: str, env: VecEnv, task_name: str, groups: Sequence[str]) -> Reader:
    """The reader of any other dataset, whose groups and actions are described as the task's env describes them.

    The task is the one that a student is to learn. `groups`: entries to take, empty takes all; of plain observations
    the name.

    Raises:
        UserError: an entry is missing or of a kind that is not supported, or does not fit the env.
    """
    space = dataset.observation_space
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
    action = action_spec(dataset.action_space, name)
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
    action_space: Any  # Minari's
    labelled: bool  # tscli wrote it: `infos` hold labels, and the episodes' metadata whether they are finished

    def write(self, writer: PairsWriter, dataset: Any, name: str) -> Iterator[int]:
        """Append all episodes, one at a time in memory; gives the number of those that are done.

        Raises:
            UserError: an episode goes on after its end, or holds values that are not finite.
        """
        known = dataset.storage.get_episode_metadata(dataset.episode_indices)
        for number, (episode, about) in enumerate(zip(dataset.iterate_episodes(), known, strict=True)):
            if len(episode.rewards):
                finished = bool(about["finished"]) if self.labelled else True
                rows = self.rows(episode, finished, f"{name}, episode {number}")
                self._append(writer, rows, self._success(episode.infos or {}))
            yield number + 1

    def rows(self, episode: Any, finished: bool, where: str) -> dict[str, np.ndarray]:
        """Every stored field of an episode, [T, ...].

        The observation after the last action is left out: pairs hold what stood when an action was chosen.
        """
        steps, infos = len(episode.rewards), episode.infos
        rows = {
            f"obs/{group}": source.encode(np.asarray(source.pick(episode.observations))[:steps])
            for group, source in self.sources.items()
        }
        rows["action"] = self._decode(np.asarray(episode.actions))
        rows["reward"] = np.asarray(episode.rewards, np.float32)
        rows["terminated"] = np.asarray(episode.terminations, bool)
        # Terminated wins where both are said; a truncation that only stands for the end of recording is none.
        rows["truncated"] = np.asarray(episode.truncations, bool) & ~rows["terminated"] & finished
        if (rows["terminated"] | rows["truncated"])[:-1].any():
            raise UserError(f"{where} goes on after its end: the dataset is not in order")
        if self.labelled:
            labels = ["teacher_action", *(f"teacher_{field}" for field in self.schema.teacher_fields), "actor"]
            rows |= {label: np.asarray(infos[label])[:steps] for label in labels}
        else:
            rows |= {"teacher_action": rows["action"], "actor": np.full(steps, TEACHER, np.uint8)}
        for field, values in rows.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise UserError(f"{where} has values that are not finite in {field}: make a dataset without it")
        return rows

    def _decode(self, values: np.ndarray) -> np.ndarray:
        """Actions of a Gymnasium space as ours: discrete ones count from 0, vectors are flat."""
        action, space = self.schema.action, self.action_space
        values = values.reshape(len(values), *action.shape)
        if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
            return (values - np.asarray(space.start).reshape(action.shape)).astype(np.int64)
        return values.astype(np.float32)

    def _success(self, infos: dict[str, Any]) -> bool | None:
        """What the last `info` says of success; None where it says nothing, or success means nothing."""
        if self.labelled and not self.schema.has_success:
            return None
        found = [np.atleast_1d(infos[key]) for key in ("is_success", "success") if key in infos]
        return bool(found[0][-1]) if found and len(found[0]) else None

    def _append(self, writer: PairsWriter, rows: dict[str, np.ndarray], success: bool | None) -> None:
        steps = len(rows["reward"])
        for t in range(steps):
            step = {field: values[t : t + 1] for field, values in rows.items()}
            obs = {group: step.pop(f"obs/{group}") for group in self.schema.groups}
            dist = {field: step.pop(f"teacher_{field}") for field in self.schema.teacher_fields}
            told = None if success is None else np.array([success and t == steps - 1])
            writer.append(obs, teacher_dist=dist, success=told, **step)
        if not (rows["terminated"] | rows["truncated"])[-1]:
            writer.restart()

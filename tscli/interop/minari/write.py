"""Pairs as a dataset of Minari, in the form that Minari's own storage writes.

An episode each; observations are a Dict of the groups (or one group, plain), actions as executed, and in `infos` the
teacher's labels. `metadata["tscli"]` holds the schema, from which `read` makes the same pairs again.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from tscli.config import UserError
from tscli.interop.gymnasium import action_space, group_box
from tscli.interop.recorded import LAST_OBSERVATION, label_fields, repeat_last
from tscli.pairs import Pairs, PairsSchema
from tscli.pairs.reader import Episode


def write_dataset(
    path: Path,
    name: str,
    pairs: Pairs,
    schema: PairsSchema,
    env_spec: Any,
    on_episode: Callable[[int], None],
    plain: bool,
) -> None:
    """Write the `data` folder of a dataset, an episode at a time.

    Args:
        path: that folder; its parent exists.
        name: the dataset's id.
        pairs, schema: what to write; the schema has the groups to write.
        env_spec: Gymnasium's description of the env, where there is one.
        on_episode: is told how many are written.
        plain: write the only group as it is, instead of a Dict of groups.

    Raises:
        UserError: this Minari would store a picture with losses.
    """
    minari = importlib.import_module("minari")
    boxes: dict[str, spaces.Space] = {group: group_box(spec) for group, spec in schema.groups.items()}
    storage = importlib.import_module("minari.dataset.minari_storage").MinariStorage.new(
        path,
        observation_space=next(iter(boxes.values())) if plain else spaces.Dict(boxes),
        action_space=action_space(schema.action),
        env_spec=env_spec,
        **_without_jpeg(minari, schema),
    )
    storage.update_metadata(
        {
            "dataset_id": name,
            "minari_version": minari.__version__,
            "algorithm_name": f"teacher {schema.teacher}" if schema.teacher else "unknown",
            "description": f"Pairs of the task {schema.task}, written by tscli. infos hold the teacher's labels. "
            f"The last observation of an episode: {LAST_OBSERVATION}.",
            "tscli": {**schema.to_json(), "plain": plain, "last_observation": LAST_OBSERVATION},
        }
    )
    about: list[dict[str, Any]] = []

    def buffers() -> Iterator[Any]:
        for episode in pairs.iter_episodes(list(schema.row_fields())):
            yield _buffer(episode, schema, plain)
            about.append(_about(episode))
            on_episode(len(about))

    storage.update_episodes(buffers())
    storage.update_episode_metadata(about)


def _without_jpeg(minari: Any, schema: PairsSchema) -> dict[str, Any]:
    """JPEG, Minari's default for pictures, loses what a student may have to see."""
    storage = importlib.import_module("minari.dataset.minari_storage").MinariStorage
    if "jpeg_encoding" in inspect.signature(storage.new).parameters:
        return {"jpeg_encoding": False}
    if images := [name for name, group in schema.groups.items() if group.is_image]:
        raise UserError(f'minari {minari.__version__} stores "{images[0]}" as JPEG: use 0.5.4, or other --groups')
    return {}


def _buffer(episode: Episode, schema: PairsSchema, plain: bool) -> Any:
    """An episode as Minari takes it: T actions, T + 1 observations and infos.

    What stood after the last action was not recorded: the last observation, and its label, are copies of those before.
    `infos` stand beside observations: an entry of a label belongs to the observation of the same number, and that of
    `success` says what came of the action before it. Minari has no unfinished episodes: they are truncated there.
    """
    rows = episode.rows
    obs = {name: repeat_last(rows[f"obs/{name}"]) for name in schema.groups}
    success = np.zeros(len(rows["reward"]) + 1, bool)
    success[-1] = episode.info["success"]
    truncated = rows["truncated"].copy()
    truncated[-1] |= not episode.info["finished"]
    return importlib.import_module("minari.data_collector.episode_buffer").EpisodeBuffer(
        observations=next(iter(obs.values())) if plain else obs,
        actions=rows["action"],
        rewards=rows["reward"],
        terminations=rows["terminated"],
        truncations=truncated,
        infos={name: repeat_last(rows[name]) for name in label_fields(schema)} | {"success": success},
    )


def _about(episode: Episode) -> dict[str, Any]:
    """What Minari's own collector notes of an episode, and what only we know of it."""
    reward = episode.rows["reward"].astype(np.float64)
    figures = {f"rewards_{name}": float(getattr(reward, name)()) for name in ("sum", "mean", "std", "max", "min")}
    return figures | {name: episode.info[name] for name in ("env", "index", "finished")}


def make_known(name: str) -> None:
    """Make the namespace of a dataset known to Minari."""
    namespace = importlib.import_module("minari.namespace")
    owner = name.rpartition("/")[0]
    if owner and owner not in namespace.list_local_namespaces():
        namespace.create_namespace(owner)

"""Minari's datasets, opened."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tscli.config import UserError, did_you_mean
from tscli.interop.recorded import Dataset, Recording, id_of_spec, reading
from tscli.pairs import PairsSchema


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


def open_dataset(name: str) -> Dataset:
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
    with reading(path, "a Minari dataset"):
        dataset = minari.load_dataset(name)
        episodes = int(dataset.total_episodes)
    if not episodes:
        raise UserError(f"{name} holds no episodes")
    data = dataset.storage.metadata.get("tscli")
    return Dataset(
        "minari",
        name,
        dataset.observation_space,
        dataset.action_space,
        episodes,
        int(dataset.total_steps),
        lambda: _episodes(dataset, labelled=data is not None),
        lambda: env_id(dataset, name),
        None if data is None else (PairsSchema.from_json(data), bool(data["plain"])),
    )


def _episodes(dataset: Any, labelled: bool) -> Iterator[Recording]:
    known = dataset.storage.get_episode_metadata(dataset.episode_indices)
    for episode, about in zip(dataset.iterate_episodes(), known, strict=True):
        ends = episode.terminations, episode.truncations
        finished = bool(about["finished"]) if labelled else True
        yield Recording(episode.observations, episode.actions, episode.rewards, *ends, episode.infos or {}, finished)


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
    return id_of_spec(spec)

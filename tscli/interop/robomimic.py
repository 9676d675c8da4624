"""Datasets of robomimic: one HDF5 file with a group for each demonstration.

    data                attributes: total, env_args (JSON: env_name, env_type, env_kwargs), and `tscli` of ours
    data/demo_0         attribute: num_samples, and of ours finished and success
        actions         [T, A]
        rewards, dones  [T]
        states          [T, 0]: a simulator's, which pairs have not
        obs/<group>     [T, ...]; pictures uint8, channels last
        next_obs/...    the same, a step later
        labels/...      of ours: what else pairs hold
    mask/<name>         names of demonstrations: train, valid, and successful

Source: robomimic's documentation of dataset contents, https://robomimic.github.io/docs/datasets/overview.html.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces

from tscli.config import UserError, did_you_mean
from tscli.interop.recorded import (
    LAST_OBSERVATION,
    Dataset,
    Recording,
    array_space,
    label_fields,
    reading,
    repeat_last,
)
from tscli.pairs import Pairs, PairsSchema
from tscli.plain import parse_json

_GYM = 2  # robomimic's number for envs of Gymnasium
_HELD_OUT = 0.1


def write_dataset(
    path: Path, pairs: Pairs, schema: PairsSchema, env_spec: Any, on_episode: Callable[[int], None]
) -> None:
    """Write the file, a demonstration at a time; see the module.

    Args:
        path: new.
        pairs, schema: what to write; the schema has the groups to write.
        env_spec: Gymnasium's description of the env, where there is one.
        on_episode: is told how many are written.
    """
    names, successful = [], []
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for number, episode in enumerate(pairs.iter_episodes(list(schema.row_fields()))):
            rows, steps = episode.rows, len(episode.rows["reward"])
            names.append(f"demo_{number}")
            if episode.info["success"]:
                successful.append(number)
            demo = data.create_group(names[-1])
            demo.attrs.update({"num_samples": steps} | {k: bool(episode.info[k]) for k in ("finished", "success")})
            demo["actions"] = rows["action"].reshape(steps, -1)
            demo["rewards"], demo["dones"] = rows["reward"], rows["terminated"].astype(np.int64)
            demo["states"] = np.zeros((steps, 0))
            for name in schema.groups:
                demo[f"obs/{name}"] = rows[f"obs/{name}"]
                demo[f"next_obs/{name}"] = repeat_last(rows[f"obs/{name}"])[1:]
            for name in (*label_fields(schema), "truncated"):
                demo[f"labels/{name}"] = rows[name]
            on_episode(number + 1)
        env = {"env_name": env_spec.id if env_spec else schema.task, "env_type": _GYM}
        env["env_kwargs"] = dict(env_spec.kwargs) if env_spec else {}
        data.attrs["total"] = pairs.num_steps
        data.attrs["env_args"] = json.dumps(env, default=str)
        data.attrs["tscli"] = json.dumps({**schema.to_json(), "last_next_obs": LAST_OBSERVATION})
        masks: dict[str, Any] = dict(zip(("train", "valid"), pairs.split_episodes(_HELD_OUT), strict=True))
        if schema.has_success:
            masks["successful"] = successful
        for name, numbers in masks.items():
            file[f"mask/{name}"] = np.array([names[i] for i in numbers], "S")


def open_dataset(path: str, mask: str = "") -> Dataset:
    """The dataset of a file; `mask` takes the demonstrations alone that stand under that name.

    Raises:
        UserError: it is none, or holds no such demonstrations.
    """
    with reading(path, "robomimic's HDF5"), h5py.File(path) as file:
        data: Any = file["data"]
        names = _demonstrations(file, path, mask)
        demos = [data[name] for name in names]
        own = data.attrs.get("tscli")
        schema = None if own is None else PairsSchema.from_json(parse_json(own, path))
        about = parse_json(data.attrs.get("env_args", "{}"), path)
        groups: dict[str, spaces.Space] = {
            name: array_space(rows.shape[1:], rows.dtype) for name, rows in demos[0]["obs"].items()
        }
        steps = sum(len(demo["actions"]) for demo in demos)
    return Dataset(
        "robomimic",
        path,
        spaces.Dict(groups),
        None,
        len(names),
        steps,
        lambda: _episodes(path, names, own is not None),
        lambda: _env_id(about, path),
        None if schema is None else (schema, False),
    )


def _demonstrations(file: h5py.File, path: str, mask: str) -> list[str]:
    """Names in the order of their numbers."""
    group: Any = file["data"]
    names = list(group)
    if mask:
        masks: Any = file.get("mask", {})
        if mask not in masks:
            hint = did_you_mean(mask, masks) if masks else "it has none"
            raise UserError(f"--mask {mask}: {path} has no such mask: {hint}")
        names = [name.decode() for name in masks[mask][()]]
    if not names:
        raise UserError(f"{path} holds no demonstrations" + (f" in mask {mask}" if mask else ""))
    return sorted(names, key=lambda name: int("0" + "".join(filter(str.isdecimal, name))))


def _episodes(path: str, names: list[str], labelled: bool) -> Iterator[Recording]:
    with reading(path, "robomimic's HDF5"), h5py.File(path) as file:
        for name in names:
            demo: Any = file[f"data/{name}"]
            steps = len(demo["actions"])
            rewards = demo["rewards"][()] if "rewards" in demo else np.zeros(steps)
            terminated, truncated = np.zeros((2, steps), bool)
            # Others count every step at which a task is solved as done: a demonstration ends with its last one.
            terminated[-1:] = "dones" in demo and demo["dones"][-1:] != 0
            infos: dict[str, Any] = {}
            if labelled:
                infos = {key: rows[()] for key, rows in demo["labels"].items()}
                truncated = infos["truncated"]
                infos["success"] = np.array([demo.attrs["success"]])
            finished = not labelled or bool(demo.attrs["finished"])
            yield Recording(demo["obs"], demo["actions"][()], rewards, terminated, truncated, infos, finished)


def _env_id(about: dict[str, Any], path: str) -> str:
    name, kwargs = about.get("env_name"), about.get("env_kwargs")
    if about.get("env_type") != _GYM or not isinstance(name, str) or kwargs:
        raise UserError(f"{path} is of {name or 'an env that it does not name'}: name a task of this env with --task")
    return name

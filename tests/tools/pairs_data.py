"""A small dataset for the tests of pairs, and a plain record of what was written to compare with."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tscli.envs.spaces import ActionSpec, Group
from tscli.pairs import PairsSchema
from tscli.pairs.writer import PairsWriter

SCHEMA = PairsSchema(
    groups={
        "state": Group((3,), fields=("a", "b", "c"), units=("m",), privileged=True),
        "camera": Group((20, 20, 3), dtype="uint8", low=0, high=255),
        "flag": Group(()),
    },
    action=ActionSpec("discrete", nvec=(4,)),
    task="toy",
    teacher="0001-train-teacher-toy-seed1",
    seed=7,
    has_success=True,
    extra={"control_dt": 0.02},
)
ARM = PairsSchema({"state": Group((3,))}, ActionSpec("continuous", low=(-1.0, -1.0), high=(1.0, 1.0)), task="arm")


def make_step(schema: PairsSchema, num_envs: int, t: int, seed: int = 0) -> dict[str, Any]:
    """One step of made-up data that depends on (seed, t) alone; episodes last 1 to about 20 steps."""
    rng = np.random.default_rng([seed, t])
    obs = {}
    for name, group in schema.groups.items():
        value = rng.random((num_envs, *group.shape)) * 255
        obs[name] = value.astype(group.dtype)
    if schema.action.is_continuous:
        dims = schema.action.num_params
        action, teacher_action, mean, std = rng.uniform(-1, 1, (4, num_envs, dims)).astype(np.float32)
        dist = {"mean": mean, "std": np.abs(std)}
    else:
        action, teacher_action = rng.integers(0, schema.action.nvec[0], (2, num_envs))
        dist = {"logits": rng.normal(size=(num_envs, schema.action.num_params)).astype(np.float32)}
    ended = rng.random(num_envs) < 0.12
    terminated = ended & (rng.random(num_envs) < 0.5)
    return {
        "obs": obs,
        "action": action,
        "teacher_action": teacher_action,
        "teacher_dist": dist,
        "reward": rng.normal(size=num_envs).astype(np.float32),
        "terminated": terminated,
        "truncated": ended & ~terminated,
        "actor": rng.integers(0, 2, num_envs).astype(np.uint8),
        "success": terminated,
    }


def flat(step: dict[str, Any]) -> dict[str, np.ndarray]:
    """A step under the names of the stored fields."""
    fields = {f"obs/{name}": value for name, value in step["obs"].items()}
    fields |= {f"teacher_{name}": value for name, value in step["teacher_dist"].items()}
    names = ("action", "teacher_action", "reward", "terminated", "truncated", "actor")
    return fields | {name: step[name] for name in names}


def write(
    folder: Path, schema: PairsSchema = SCHEMA, num_envs: int = 3, steps: int = 60, **options: Any
) -> PairsWriter:
    """Write and close a dataset; shards are small, so that there are several."""
    seed = options.pop("seed", 0)
    writer = PairsWriter(folder, schema, num_envs, **{"shard_bytes": 70_000, **options})
    for t in range(steps):
        writer.append(**make_step(schema, num_envs, t, seed))
    writer.close()
    return writer


def expected_episodes(schema: PairsSchema, num_envs: int, steps: int, seed: int = 0) -> dict[tuple[int, int], dict]:
    """(env, index) -> rows of each field, start, length, return and end, kept in plain lists."""
    episodes: dict[tuple[int, int], dict] = {}
    index = [0] * num_envs
    for t in range(steps):
        step = make_step(schema, num_envs, t, seed)
        for env in range(num_envs):
            key = (env, index[env])
            episode = episodes.setdefault(key, {"start": t, "length": 0, "return": 0.0, "rows": [], "finished": False})
            episode["rows"].append({name: value[env] for name, value in flat(step).items()})
            episode["length"] += 1
            episode["return"] += float(step["reward"][env])
            for name in ("terminated", "truncated", "success"):
                episode[name] = bool(step[name][env])
            if step["terminated"][env] or step["truncated"][env]:
                episode["finished"] = True
                index[env] += 1
    return episodes


def read_plain(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All of `dataset.h5` (fields and tables, attributes) through h5py alone."""
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(folder / "dataset.h5") as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
        return arrays, dict(file.attrs)


def digest(folder: Path) -> dict[str, str]:
    """Hash of every file of a pairs folder."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}

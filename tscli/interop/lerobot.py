"""Datasets of LeRobot, version 3: a folder of parquet files. No video: pictures are PNG files within the tables.

    meta/info.json                              version, counts, frames per second, what each column is ("features")
    meta/stats.json                             minimum, maximum, mean and deviation of each column
    meta/tasks.parquet                          the tasks, in words
    meta/episodes/chunk-000/file-000.parquet    one row per episode: length, file, first and last row
    meta/tscli.json                             of ours: the schema of the pairs
    data/chunk-000/file-000.parquet             one row per step, episode after episode

A group is the column `observation.<group>`, a picture `observation.images.<group>`; actions are `action`, what came of
them `next.reward`, `next.done`, `next.success`, and what else pairs hold stands in `tscli.<field>`.

Source: https://huggingface.co/docs/lerobot/lerobot-dataset-v3.
"""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from tscli.config import UserError
from tscli.interop.recorded import Dataset, Recording, array_space, label_fields, reading
from tscli.pairs import Pairs, PairsSchema
from tscli.plain import read_json

_FILE_BYTES = 100 << 20
_FILES = 1000  # in a chunk
_FPS = 30  # where the env does not say
_PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of pictures, by their channels
_NO_GROUP = ("video", "string")
_COUNTERS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
_COUNTERS |= {"task_index": "int64"}

Fields = dict[str, tuple[str, tuple[int, ...], np.dtype]]
"""Column -> field of the rows, shape, type."""


def column_of(schema: PairsSchema, group: str) -> str:
    """Where a group stands."""
    return f"observation.{'images.' if schema.groups[group].is_image else ''}{group}"


def _columns(schema: PairsSchema) -> Fields:
    """Of what pairs hold; a single number is a vector of one."""
    known = {"action": "action", "reward": "next.reward"}
    fields = {}
    for name, (shape, dtype) in schema.row_fields().items():
        group = name.removeprefix("obs/")
        column = column_of(schema, group) if name.startswith("obs/") else known.get(name, f"tscli.{name}")
        fields[column] = (name, shape or (1,), dtype)
    fields["next.done"] = ("done", (1,), np.dtype(bool))
    if schema.has_success:
        fields["next.success"] = ("success", (1,), np.dtype(bool))
    return fields


# --- writing ----------------------------------------------------------------------------------------------------------


def write_dataset(
    path: Path, pairs: Pairs, schema: PairsSchema, env_spec: Any, on_episode: Callable[[int], None]
) -> None:
    """Write the folder, an episode at a time; see the module.

    Args:
        path: new.
        pairs, schema: what to write; the schema has the groups to write.
        env_spec: not used: LeRobot has no place for it.
        on_episode: is told how many are written.

    Raises:
        UserError: a picture has as many channels as no PNG.
    """
    for name, group in schema.groups.items():
        if "/" in name or (group.is_image and group.shape[-1] not in _MODES):
            raise UserError(f'LeRobot has no place for the group "{name}" of shape {group.shape}: take other --groups')
    control_dt = schema.extra.get("control_dt")
    fps = round(1 / control_dt) if control_dt else _FPS
    fields = _columns(schema)
    stats = {column: _Stats() for column in fields}
    files, episodes, first = _Files(path), [], 0
    for number, episode in enumerate(pairs.iter_episodes(list(schema.row_fields()))):
        rows = {**episode.rows, "done": np.zeros(len(episode.rows["reward"]), bool)}
        steps = len(rows["done"])
        rows["done"][-1] = episode.info["finished"]
        rows["success"] = rows["done"] & bool(episode.info["success"])
        values = {column: rows[field].reshape(steps, *shape) for column, (field, shape, _) in fields.items()}
        for column, array in values.items():
            stats[column].add(array)
        frame = np.arange(steps)
        counters = (frame / fps, frame, np.full(steps, number), first + frame, np.zeros(steps))
        named = zip(_COUNTERS.items(), counters, strict=True)
        place = files.write({**values, **{name: array.astype(dtype) for (name, dtype), array in named}})
        about = {"episode_index": number, "tasks": [schema.task], "length": steps}
        about |= {"dataset_from_index": first, "dataset_to_index": first + steps}
        about |= {f"data/{key}": value for key, value in place.items()}
        episodes.append(about | {f"meta/episodes/{key}": 0 for key in place})
        first += steps
        on_episode(number + 1)
    files.close()
    _write_meta(path, schema, fields, fps, episodes, {column: one.figures() for column, one in stats.items()})


def _write_meta(
    path: Path, schema: PairsSchema, fields: Fields, fps: int, episodes: list[dict[str, Any]], stats: dict[str, Any]
) -> None:
    pa = import_module("pyarrow")
    pq = import_module("pyarrow.parquet")

    features = {column: _feature(schema, column, *field) for column, field in fields.items()}
    features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in _COUNTERS.items()}
    info = {
        "codebase_version": "v3.0",
        "robot_type": None,
        "total_episodes": len(episodes),
        "total_frames": episodes[-1]["dataset_to_index"],
        "total_tasks": 1,
        "chunks_size": _FILES,
        "data_files_size_in_mb": _FILE_BYTES >> 20,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": f"data/{_PLACE}",
        "video_path": None,
        "features": features,
    }
    (path / "meta" / "episodes" / "chunk-000").mkdir(parents=True)
    for name, content in (("info", info), ("stats", stats), ("tscli", schema.to_json())):
        (path / "meta" / f"{name}.json").write_text(json.dumps(content, indent=4), encoding="utf-8")
    pq.write_table(
        pa.Table.from_pylist(episodes), path / "meta" / "episodes" / _PLACE.format(chunk_index=0, file_index=0)
    )
    tasks = pa.table({"task_index": [0], "task": [schema.task]})
    # What pandas reads a table's index from: LeRobot looks tasks up by it.
    types = {"task_index": ("int64", "int64"), "task": ("unicode", "object")}
    columns = [
        {"name": name, "field_name": name, "pandas_type": one, "numpy_type": two, "metadata": None}
        for name, (one, two) in types.items()
    ]
    about = {"index_columns": ["task"], "column_indexes": [], "columns": columns}
    pq.write_table(tasks.replace_schema_metadata({"pandas": json.dumps(about)}), path / "meta" / "tasks.parquet")


def _feature(schema: PairsSchema, column: str, field: str, shape: tuple[int, ...], dtype: np.dtype) -> dict[str, Any]:
    group = schema.groups.get(field.removeprefix("obs/")) if field.startswith("obs/") else None
    if group is not None and group.is_image:
        return {"dtype": "image", "shape": list(shape), "names": ["height", "width", "channels"]}
    names = group.fields if group is not None else schema.action.names if schema.action.is_continuous else ()
    names = list(names) if len(names) == math.prod(shape) and (group is not None or column == "action") else None
    return {"dtype": dtype.name, "shape": list(shape), "names": names}


class _Files:
    """The data's files, each of some 100 MiB; an episode is a row group of one of them."""

    def __init__(self, path: Path) -> None:
        self._path, self._count = path / "data", 0
        self._writer: Any = None
        self._bytes = 0

    def write(self, values: dict[str, np.ndarray]) -> dict[str, int]:
        """Append an episode; gives the place of its file."""
        pa = import_module("pyarrow")
        pq = import_module("pyarrow.parquet")

        table = pa.table({name: _column(name, array) for name, array in values.items()})
        if self._writer is not None and self._bytes + table.nbytes > _FILE_BYTES:
            self.close()
            self._count += 1
        place = {"chunk_index": self._count // _FILES, "file_index": self._count % _FILES}
        if self._writer is None:
            file = self._path / _PLACE.format(**place)
            file.parent.mkdir(parents=True, exist_ok=True)
            self._writer, self._bytes = pq.ParquetWriter(file, table.schema), 0
        self._writer.write_table(table)
        self._bytes += table.nbytes
        return place

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None


def _column(name: str, array: np.ndarray) -> Any:
    """[T, ...] as a column: numbers, lists of numbers, or pictures."""
    pa = import_module("pyarrow")

    if name.startswith("observation.images."):
        return pa.array([{"bytes": _png(picture), "path": None} for picture in array], _picture_type())
    flat = pa.array(array.ravel())
    for size in reversed(array.shape[1:] if array.shape[1:] != (1,) else ()):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat


def _picture_type() -> Any:
    pa = import_module("pyarrow")

    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def _png(picture: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).save(buffer, "PNG")
    return buffer.getvalue()


class _Stats:
    """Minimum, maximum, mean and deviation of a column's entries; of a picture's channels, within 0 and 1."""

    def __init__(self) -> None:
        self._found: list[np.ndarray] = []
        self._count = self._rows = 0

    def add(self, array: np.ndarray) -> None:
        """Take in [T, ...]."""
        is_image = array.ndim == 4 and array.dtype == np.uint8
        values = array.reshape(-1, array.shape[-1]) / 255 if is_image else array.astype(np.float64)
        found = [values.min(0), values.max(0), values.sum(0), (values**2).sum(0)]
        if is_image:
            found = [figure.reshape(-1, 1, 1) for figure in found]
        self._count += len(array)
        self._rows += len(values)
        functions = (np.minimum, np.maximum, np.add, np.add)
        if self._found:
            found = [f(a, b) for f, a, b in zip(functions, self._found, found, strict=True)]
        self._found = found

    def figures(self) -> dict[str, Any]:
        """As LeRobot writes them."""
        low, high, total, squares = self._found
        mean = total / self._rows
        std = np.sqrt(np.maximum(squares / self._rows - mean**2, 0))
        named = {"min": low, "max": high, "mean": mean, "std": std}
        return {**{name: value.tolist() for name, value in named.items()}, "count": [self._count]}


# --- reading ----------------------------------------------------------------------------------------------------------


def open_dataset(path: str) -> Dataset:
    """The dataset of a folder.

    Raises:
        UserError: it is none, of an older version, or holds no episodes.
    """
    folder = Path(path)
    if not (folder / "meta" / "info.json").is_file():
        raise UserError(f"{path} is no folder of LeRobot: it has no meta/info.json")
    info = read_json(folder / "meta" / "info.json")
    if not str(info.get("codebase_version", "")).startswith("v3."):
        raise UserError(
            f"{path} is of LeRobot's format {info.get('codebase_version')}: convert it to v3.0 with LeRobot's script"
        )
    with reading(path, "a LeRobot dataset"):
        features = {name: (about["dtype"], tuple(about["shape"])) for name, about in info["features"].items()}
        counts = int(info["total_episodes"]), int(info["total_frames"])
        own = folder / "meta" / "tscli.json"
        schema = PairsSchema.from_json(read_json(own)) if own.is_file() else None
        groups = {_group(name): _space(*about) for name, about in features.items() if name.startswith("observation.")}
    if not counts[0]:
        raise UserError(f"{path} holds no episodes")
    return Dataset(
        "lerobot",
        path,
        spaces.Dict(groups),
        None,
        *counts,
        lambda: _episodes(folder, features, schema, counts),
        lambda: _no_env(path),
        None if schema is None else (schema, False),
    )


def _no_env(path: str) -> str:
    raise UserError(f"{path} does not say which env it is of: name its task with --task")


def _group(column: str) -> str:
    return column.removeprefix("observation.").removeprefix("images.")


def _space(dtype: str, shape: tuple[int, ...]) -> spaces.Space:
    if dtype in _NO_GROUP:
        return spaces.Text(1)  # is left out by --groups
    if dtype == "image":
        return array_space(_channels_last(shape), np.dtype(np.uint8))
    return array_space(shape, np.dtype(dtype))


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a picture; some describe theirs with channels first, and none stores it so."""
    height, width, channels = shape if shape[2] in _MODES else (*shape[1:], shape[0])
    return height, width, channels


def _episodes(
    folder: Path, features: dict[str, Any], schema: PairsSchema | None, counts: tuple[int, int]
) -> Iterator[Recording]:
    episodes = steps = 0
    for rows in _rows_of_episodes(folder, {n: about for n, about in features.items() if about[0] not in _NO_GROUP}):
        episodes, steps = episodes + 1, steps + len(rows["action"])
        yield _recording(rows, schema)
    if (episodes, steps) != counts:
        raise UserError(
            f"{folder} holds {episodes} episodes of {steps} steps, its info.json says {counts[0]} of {counts[1]}"
        )


def _recording(rows: dict[str, np.ndarray], schema: PairsSchema | None) -> Recording:
    """Without more than `next.done` an episode ends with success or is cut off; without that, recording ends it."""
    steps = len(rows["action"])
    infos = {"success": rows["next.success"]} if "next.success" in rows else {}
    if schema is not None:
        infos |= {name: rows[f"tscli.{name}"] for name in label_fields(schema)}
        ends = rows["tscli.terminated"], rows["tscli.truncated"]
        obs = {name: rows[column_of(schema, name)].reshape(steps, *g.shape) for name, g in schema.groups.items()}
    else:
        terminated, truncated = np.zeros((2, steps), bool)
        truncated[-1] = rows["next.done"][-1] if "next.done" in rows else True
        terminated[-1] = infos["success"][-1] if infos else False
        ends = terminated, truncated
        obs = {_group(name): values for name, values in rows.items() if name.startswith("observation.")}
    return Recording(obs, rows["action"], rows.get("next.reward", np.zeros(steps)), *ends, infos)


def _rows_of_episodes(folder: Path, features: dict[str, Any]) -> Iterator[dict[str, np.ndarray]]:
    """Every column of an episode, [T, ...], in the order of the files."""
    pa = import_module("pyarrow")
    pq = import_module("pyarrow.parquet")

    with reading(folder, "a LeRobot dataset"):
        pending: list[Any] = []
        for file in sorted((folder / "data").glob("*/*.parquet")):
            for batch in pq.ParquetFile(file).iter_batches(1024, columns=list(features)):
                numbers = batch.column("episode_index").to_numpy()
                starts = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
                for begin, end in itertools.pairwise(starts):
                    if pending and pending[0].column("episode_index")[0].as_py() != numbers[begin]:
                        yield _arrays(pa.Table.from_batches(pending), features)
                        pending = []
                    pending.append(batch.slice(begin, end - begin))
        if pending:
            yield _arrays(pa.Table.from_batches(pending), features)


def _arrays(table: Any, features: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: _array(table.column(name).combine_chunks(), *about) for name, about in features.items()}


def _array(column: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """A column as [T, ...]; a single number per row as [T]."""
    pa = import_module("pyarrow")

    count = len(column)
    if dtype == "image":
        return np.stack([_picture(entry.as_py(), shape) for entry in column])
    while pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
        column = column.flatten()
    return column.to_numpy(zero_copy_only=False).astype(dtype).reshape((count, *(shape if shape != (1,) else ())))


def _picture(entry: dict[str, Any], shape: tuple[int, ...]) -> np.ndarray:
    from PIL import Image

    height, width, channels = _channels_last(shape)
    with Image.open(io.BytesIO(entry["bytes"])) as picture:
        if picture.size != (width, height):
            raise ValueError(f"a picture of {picture.size} instead of {(width, height)}")
        return np.array(picture.convert(_MODES[channels])).reshape(height, width, channels)

"""Check every file of a dataset: sizes, hashes, tables, finite values, kept features, and that dataset.h5 is complete.

Prints one line per file and ends with an error that names the first fault. Nothing is changed, and no HDF5 file is
opened before its hash was found right.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from rich.table import Table

from tscli.config import Config as BaseConfig
from tscli.config import UserError, positional
from tscli.files import file_hash
from tscli.pairs import PairsSchema, find_pairs
from tscli.pairs.features import is_whole
from tscli.pairs.folder import Header, read_header
from tscli.pairs.shard import FEATURES, Shard, list_shards, load_shard, read_sidecar
from tscli.pairs.tables import join_episodes
from tscli.runs.session import Session

ORDER = 61


class Config(BaseConfig):
    """Which dataset."""

    path: str = positional("", description="A run, a pairs folder or its dataset.h5; empty takes the newest run's.")


@dataclass
class Checked:
    """One file and the first thing that is wrong with it."""

    name: str
    rows: int | None = None
    fault: str = ""


@dataclass
class Report:
    """All files checked so far."""

    files: list[Checked] = field(default_factory=list)

    def run(self, name: str, check: Callable[[], int | None]) -> bool:
        """Check a file; a fault is kept, not raised. Tells whether it is right."""
        file = Checked(name)
        self.files.append(file)
        try:
            file.rows = check()
        except UserError as error:
            file.fault = str(error)
        return not file.fault

    @property
    def faults(self) -> list[Checked]:
        """The files that are not right."""
        return [file for file in self.files if file.fault]


def main(config: Config, session: Session) -> None:
    """Header, shards one by one, episodes across shards, dataset.h5."""
    folder = find_pairs(session, config.path)
    report = Report()
    opened: list[tuple[PairsSchema, Header]] = []
    shards: dict[int, Shard] = {}
    if report.run("pairs.json", lambda: opened.append(read_header(folder))):
        schema, about = opened[0]
        found = list_shards(folder)
        if not found and not about.num_shards:
            raise UserError(
                f"{folder}: holds no finished shard; collect again, or --resume the run that was collecting"
            )
        for index in range(max(about.num_shards, found[-1] + 1 if found else 0)):
            report.run(f"shards/{index:05d}", lambda i=index: check_shard(folder, i, schema, shards))
        if not report.faults:
            report.run("episodes", lambda: check_episodes(folder, list(shards.values())))
            report.run("dataset.h5", lambda: check_dataset(folder, schema, about, shards))
            for path in sorted((folder / FEATURES).rglob("*.npy")):
                report.run(str(path.relative_to(folder)), lambda p=path: check_features(p, shards))
    session.show(table_of(folder, report, not opened or opened[0][1].closed), data_of(folder, report))
    if report.faults:
        first, more = report.faults[0], len(report.faults) - 1
        raise UserError(first.fault + (f" (and {more} more)" if more else ""))


def fail(path: Path, what: str) -> None:
    """Raise a fault of a file whose hash is right: whoever wrote it wrote it wrong."""
    raise UserError(f"{path}: {what}; collect again, and report it: the file is whole, its content is wrong")


def check_shard(folder: Path, index: int, schema: PairsSchema, shards: dict[int, Shard]) -> int:
    """Size, hash, where HDF5 says the datasets lie, segments, finite values; gives the number of rows."""
    sidecar = read_sidecar(folder, index, schema)
    shard = shards[index] = load_shard(folder, index, sidecar, "full")
    with h5py.File(shard.path) as file:
        for name, (offset, shape, dtype) in sidecar["layout"].items():
            dataset: Any = file[name]
            if (dataset.id.get_offset(), dataset.shape, dataset.dtype) != (offset, shape, dtype):
                fail(shard.path, f'dataset "{name}" lies elsewhere than its sidecar says')
    ends = np.cumsum(shard.segments["length"])
    if ends[-1] != shard.rows or not np.array_equal(shard.segments["row"], ends - shard.segments["length"]):
        fail(shard.path, "its segments do not cover its rows once each")
    if set(shard.segments["episode"].tolist()) - set(shard.episodes["episode"].tolist()):
        fail(shard.path, "a segment belongs to no episode")
    for name, rows in shard.fields.items():
        blocks = (rows[i : i + 65536] for i in range(0, len(rows), 65536))
        if rows.dtype.kind == "f" and not all(np.isfinite(block).all() for block in blocks):
            fail(shard.path, f'"{name}" holds values that are not finite')
    spec = schema.action
    for name in ("action", "teacher_action"):
        if not spec.is_continuous:
            rows = shard.fields[name].reshape(shard.rows, -1)
            if (rows < 0).any() or (rows >= np.array(spec.nvec)).any():
                fail(shard.path, f'"{name}" holds choices that the action space does not have')
    return shard.rows


def check_features(path: Path, shards: dict[int, Shard]) -> int:
    """Whether kept features are those that were made of a shard of this dataset; gives the number of rows."""
    number = path.stem.rpartition("-")[2]
    shard = shards.get(int(number)) if number.isdecimal() else None
    if shard is None or not is_whole(path, shard.path):
        raise UserError(f"{path}: damaged, or of another shard; delete it: it is made again when it is needed")
    return shard.rows


def check_episodes(folder: Path, shards: list[Shard]) -> int:
    """Whether the segments of all shards make up the episodes: order, lengths, ends, returns, previous actions."""
    episodes = join_episodes([shard.episodes for shard in shards])
    parts = []
    for shard in shards:
        table, rows = shard.segments, shard.fields
        first, last = table["row"], table["row"] + table["length"] - 1
        ended = rows["terminated"] | rows["truncated"]
        inner = np.add.reduceat(ended, first, dtype=np.int64) - ended[last]
        total = np.add.reduceat(rows["reward"], first, dtype=np.float64)
        actions = rows["action"].reshape(shard.rows, -1)[last], table["previous_action"].reshape(len(table), -1)
        parts.append((table["episode"], table["first_step"], table["length"], inner, total, *actions,
                      rows["terminated"][last], rows["truncated"][last]))  # fmt: skip
    episode, first, length, inner, total, last_action, previous, terminated, truncated = map(
        np.concatenate, zip(*parts, strict=True)
    )
    order = np.lexsort((first, episode))
    begins = np.searchsorted(episode[order], episodes["episode"])
    if not np.array_equal(episodes["episode"], np.arange(len(episodes))) or not np.array_equal(
        episode[order][begins], episodes["episode"]
    ):
        fail(folder, "episodes are missing")
    new = np.zeros(len(order), bool)
    new[begins] = True
    ends = np.roll(new, -1)
    before = np.roll(first[order] + length[order], 1)
    if not np.array_equal(first[order], np.where(new, 0, before)):
        fail(folder, "the segments of an episode do not follow each other")
    if not np.array_equal(previous[order], np.where(new[:, None], 0, np.roll(last_action[order], 1, axis=0))):
        fail(folder, "a segment's previous action is not that of the row before")
    if not np.array_equal(np.add.reduceat(length[order], begins), episodes["length"]):
        fail(folder, "an episode's length is not that of its segments")
    if not np.allclose(np.add.reduceat(total[order], begins), episodes["return"], rtol=1e-6, atol=1e-4):
        fail(folder, "an episode's return is not the sum of its rewards")
    flags = terminated[order], truncated[order]
    if inner.any() or (flags[0] | flags[1])[~ends].any():
        fail(folder, "an episode goes on after its end")
    for name, flag in zip(("terminated", "truncated"), flags, strict=True):
        if not np.array_equal(flag[ends], episodes[name]):
            fail(folder, f'the "{name}" of an episode is not that of its last row')
    return len(episodes)


def check_dataset(folder: Path, schema: PairsSchema, about: Header, shards: dict[int, Shard]) -> int:
    """Whether dataset.h5 shows every row of every shard; of a complete dataset, whether it is the file written then."""
    path = folder / "dataset.h5"
    advice = "delete it, and make a new one with `tscli merge`"
    if not path.is_file():
        raise UserError(f"{path}: missing; {advice}")
    if about.closed and file_hash(path) != about.dataset_sha256:
        raise UserError(f"{path}: damaged (its content does not match its sha256); {advice}")
    rows = sum(shard.rows for shard in shards.values())
    with h5py.File(path) as file:
        for name, (shape, dtype) in schema.row_fields().items():
            dataset: Any = file[name]
            sources = [source.file_name for source in dataset.virtual_sources()]
            if sources != [f"shards/{index:05d}.h5" for index in shards]:
                raise UserError(f'{path}: "{name}" does not show all shards; {advice}')
            if dataset.shape != (rows, *shape) or dataset.dtype != dtype:
                raise UserError(f'{path}: "{name}" has shape {dataset.shape}, the shards {(rows, *shape)}; {advice}')
            first = 0
            for shard in shards.values():
                for at in {0, shard.rows - 1}:
                    if not np.array_equal(dataset[first + at], shard.fields[name][at]):
                        raise UserError(f'{path}: "{name}" shows other values than {shard.path.name}; {advice}')
                first += shard.rows
    return rows


def table_of(folder: Path, report: Report, closed: bool) -> Table:
    """One line per file."""
    state = "" if closed else ", unfinished: its run was stopped or is still collecting"
    table = Table(title=f"{folder}{state}", title_justify="left")
    for column in ("file", "rows", "result"):
        table.add_column(column, justify="right" if column == "rows" else "left")
    for file in report.files:
        rows = "" if file.rows is None else str(file.rows)
        table.add_row(file.name, rows, f"[red]{file.fault.split('; ')[0]}[/]" if file.fault else "[green]right[/]")
    return table


def data_of(folder: Path, report: Report) -> dict[str, Any]:
    """The same as plain data."""
    files = [{"name": file.name, "rows": file.rows, "fault": file.fault or None} for file in report.files]
    return {"folder": str(folder), "right": not report.faults, "files": files}


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

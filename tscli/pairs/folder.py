"""A pairs folder: which one a user means, its header, and opening it.

    pairs.json            schema: groups, actions, where the data came from
    shards/               the rows, see `tscli.pairs.shard`
    dataset.h5            one view of all finished shards for plain h5py (virtual datasets, relative paths)

`datasets/README.md` describes the format for users.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tscli.config import UserError
from tscli.files import file_hash
from tscli.pairs.schema import SCHEMA, PairsSchema
from tscli.pairs.sealed import PairsError, read_sealed, well_formed, write_sealed
from tscli.pairs.shard import Shard, list_shards, load_shard, read_sidecar
from tscli.runs import find_run, newest_run
from tscli.runs.session import Session


def find_pairs(session: Session, ref: str) -> Path:
    """The pairs folder of a run (number, name or path), a pairs folder or a `dataset.h5`; "" is the newest run's.

    Raises:
        UserError: there are no pairs there.
    """
    if not ref:
        run = newest_run(session.runs_dir, "", "pairs", "", say=session.note)
        session.say(f"pairs: {run.name}")
        return pairs_folder(run.path)
    return pairs_folder(ref if Path(ref).exists() else find_run(session.runs_dir, ref).path)


def pairs_folder(path: str | Path) -> Path:
    """The pairs folder that is meant by a pairs folder, its run folder, or its `dataset.h5`.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    options = [path, path / "pairs", path.parent] if path.name == "dataset.h5" else [path, path / "pairs"]
    for option in options:
        if (option / "pairs.json").is_file():
            return option
    if (path / "shards").is_dir():
        raise PairsError(path / "pairs.json", "missing")
    what = "holds no pairs" if path.exists() else "does not exist"
    raise UserError(f"{path}: {what}; name a run made by `tscli collect`, its pairs folder or its dataset.h5")


class Header(BaseModel):
    """What pairs.json has beside the schema of its rows."""

    model_config = ConfigDict(strict=True)

    num_envs: int = Field(ge=1, lt=2**31)
    closed: bool
    num_shards: int = Field(default=0, ge=0)
    num_steps: int = Field(default=0, ge=0)
    dataset_sha256: str = ""


def read_header(folder: Path) -> tuple[PairsSchema, Header]:
    """What pairs.json says.

    Raises:
        UserError: it is missing, damaged or malformed, or of another schema.
    """
    path = folder / "pairs.json"
    data = read_sealed(path)
    if data.get("schema") != SCHEMA:
        raise UserError(f"{folder}: has pairs of schema {data.get('schema')}, this tscli reads {SCHEMA}: upgrade tscli")
    with well_formed(path):
        return PairsSchema.from_json(data), Header.model_validate(data)


def write_header(folder: Path, schema: PairsSchema, num_envs: int, complete: tuple[int, int] | None = None) -> None:
    """Write pairs.json. That of a complete dataset says how many shards and rows there have to be."""
    data = {"schema": SCHEMA, **schema.to_json(), "num_envs": num_envs, "closed": complete is not None}
    if complete is not None:
        data["num_shards"], data["num_steps"] = complete
        if data["num_shards"]:
            data["dataset_sha256"] = file_hash(folder / "dataset.h5")
    write_sealed(folder / "pairs.json", data)


def open_folder(folder: Path, verify: Literal["full", "size"]) -> tuple[PairsSchema, list[Shard]]:
    """Its schema and its finished shards; see `Pairs`."""
    schema, about = read_header(folder)
    found = list_shards(folder)
    expected = about.num_shards if about.closed else (found[-1] + 1 if found else 0)
    # The header may say any number, so no more of them are counted than there are files.
    missing = next((i for i, index in enumerate(found) if i != index), len(found))
    if missing < expected:
        raise PairsError(folder / "shards" / f"{missing:05d}.json", "missing")
    if len(found) > expected:
        raise PairsError(folder / "shards" / f"{found[expected]:05d}.json", "does not belong to this dataset")
    if not found:
        raise UserError(f"{folder}: holds no finished shard; collect again, or --resume the run that was collecting")
    sidecars = [read_sidecar(folder, index, schema) for index in found]
    # Hashing leaves the interpreter free, so threads add up.
    with ThreadPoolExecutor(4) as pool:
        return schema, list(pool.map(lambda index: load_shard(folder, index, sidecars[index], verify), found))

"""Convert pairs to a dataset of Minari, robomimic or LeRobot, or one of these to pairs.

`tscli convert RUN --to minari --id cartpole/teacher-v0` writes a Minari dataset, `--to robomimic --out demos.hdf5` a
file of robomimic, `--to lerobot --out demos` a folder of LeRobot (v3): an episode each, the groups as observations, the
actions as executed, the teacher's labels beside them. `tscli convert SOURCE --to pairs` makes a run of pairs: a group
for each entry of the observations, the recorded actions as labels. What tscli wrote comes back whole.

Minari keeps its datasets in ~/.minari/datasets, or where MINARI_DATASETS_PATH says. One episode at a time is in memory,
and a result appears once it is finished: a conversion that was stopped is begun anew.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from tscli.config import Config as BaseConfig
from tscli.config import UserError, positional
from tscli.envs import VecEnv
from tscli.files import disk_errors, sync_file, sync_folder
from tscli.interop import lerobot, minari, robomimic
from tscli.interop.minari import dataset_path, datasets_root
from tscli.interop.recorded import (
    Dataset,
    Reader,
    check_fits,
    env_spec_of,
    foreign_reader,
    own_reader,
    with_groups,
)
from tscli.pairs import Pairs, PairsWriter, find_pairs
from tscli.runs import Run, RunWriter, Session, find_run
from tscli.runs.locks import lock_folder
from tscli.tasks import load_task
from tscli.training import setup

ORDER = 63


class Config(BaseConfig):
    """What to convert, and into what."""

    source: str = positional(
        "",
        description="From pairs: a run, a pairs folder or its dataset.h5; empty takes the newest run's. To pairs: the "
        "id of a Minari dataset, a file of robomimic, or a folder of LeRobot.",
    )
    to: Literal["minari", "robomimic", "lerobot", "pairs"] = Field(description="What to make of it.")
    id: str = Field("", description="To Minari: id of the new dataset, such as cartpole/teacher-v0.")
    out: str = Field("", description="To robomimic: the new file; to LeRobot: the new folder.")
    task: str = Field(
        "", description="To pairs: task that a student is to learn; empty takes the Gymnasium env of the dataset."
    )
    groups: tuple[str, ...] = Field(
        (),
        description="Groups to convert; empty takes all. To Minari, one alone becomes a plain Box instead of a Dict. "
        "To pairs, one alone is the name of plain observations.",
    )
    mask: str = Field("", description="To pairs, of robomimic: take the demonstrations of this mask alone.")
    shard_mb: float = Field(256.0, gt=0, description="To pairs: size of a file, in MiB, at the most.")

    @model_validator(mode="after")
    def _what_each_way_needs(self) -> Config:
        for name, (ways, what) in _NEEDED.items():
            given = bool(getattr(self, name))
            if given and self.to not in ways:
                raise ValueError(f"--{name} is for --to {' and '.join(ways)}")
            if not given and self.to in ways and what:
                raise ValueError(f"--to {self.to} needs {what}")
        return self


# What each setting is for, and what is missing where it is left out.
_NEEDED = {
    "id": (("minari",), "a name for the new dataset, such as --id cartpole/teacher-v0"),
    "out": (("robomimic", "lerobot"), "a place for the new dataset, such as --out demos"),
    "task": (("pairs",), ""),
    "mask": (("pairs",), ""),
}


def main(config: Config, session: Session) -> Run | None:
    """Either way."""
    if config.to == "pairs":
        return to_pairs(config, session)
    if config.to == "minari":
        needs("minari")
        target = dataset_path(config.id)
        part = datasets_root() / f".tscli-{config.id.replace('/', '-')}.part"
    else:
        if config.to == "lerobot":
            needs("lerobot")
        target = Path(config.out)
        part = target.parent / f".{target.name}.part"
    if target.exists():
        given = f"--id {config.id}" if config.id else f"--out {config.out}"
        raise UserError(f"{given}: {target} exists: choose another name")
    write_elsewhere(config, session, target, part)
    return None


def needs(extra: str) -> None:
    """Refuse to begin without the library of a format."""
    library = {"lerobot": "pyarrow"}.get(extra, extra)
    try:
        importlib.import_module(library)
    except ImportError as error:
        raise UserError(f"this conversion needs {library} ({error}): pip install 'tscli[{extra}]'") from None


def write_elsewhere(config: Config, session: Session, target: Path, part: Path) -> None:
    """Write under a hidden name beside the target, then rename."""
    pairs = Pairs(find_pairs(session, config.source))
    schema = with_groups(pairs.schema, config.groups)
    if not target.parent.is_dir() and config.to != "minari":
        raise UserError(f"--out {config.out}: there is no folder {target.parent}")
    with disk_errors(part):
        part.mkdir(exist_ok=True)
    lock = lock_folder(part)
    new = part / "new"
    try:
        shutil.rmtree(new, ignore_errors=True)  # what a killed conversion has left
        with disk_errors(target), session.progress(pairs.num_episodes, "episodes") as progress:
            what = (pairs, schema, env_spec(config, schema.task, session), lambda n: progress.update(n, {}))
            if config.to == "minari":
                new.mkdir()
                minari.write_dataset(new / "data", config.id, *what, plain=len(config.groups) == 1)
                minari.make_known(config.id)
            elif config.to == "robomimic":
                robomimic.write_dataset(new, *what)
            else:
                lerobot.write_dataset(new, *what)
            move_into_place(new, target)
    finally:
        lock.close()
        shutil.rmtree(part, ignore_errors=True)
    data = {"id": config.id, "path": str(target), "episodes": pairs.num_episodes, "steps": pairs.num_steps}
    session.show(f"wrote {target}: {pairs.num_episodes} episodes, {pairs.num_steps} steps", data)
    if config.to == "minari":
        session.say(f'next: minari.load_dataset("{config.id}")')


def move_into_place(made: Path, target: Path) -> None:
    """Bring what was made to the disk, and rename it.

    Raises:
        UserError: there is something of that name by now.
    """
    for path in [made, *sorted(made.rglob("*"))]:
        (sync_folder if path.is_dir() else sync_file)(path)
    if target.exists():
        raise UserError(f"{target} has come to be meanwhile: choose another name")
    os.rename(made, target)
    sync_folder(target.parent)


def env_spec(config: Config, task: str, session: Session) -> Any:
    """What the env is made from; None, with a remark, where the task is not at hand or is a simulator's."""
    try:
        spec = env_spec_of(task)
    except Exception as error:  # building an env runs its own code; the dataset is of use without
        session.note(f"the env of task {task} cannot be built here ({error})")
        spec = None
    if spec is None and config.to != "lerobot":
        session.note(f"so the dataset will not tell {config.to} how the env is made")
    return spec


def open_source(config: Config) -> Dataset:
    """The dataset that a name means: a file is robomimic's, a folder LeRobot's, anything else Minari's id."""
    path = Path(config.source)
    if path.is_file():
        return robomimic.open_dataset(config.source, config.mask)
    if config.mask:
        raise UserError(f"--mask {config.mask} is for a file of robomimic, which {config.source or 'nothing'} is not")
    if path.is_dir():
        needs("lerobot")
        return lerobot.open_dataset(config.source)
    needs("minari")
    return minari.open_dataset(config.source)


def to_pairs(config: Config, session: Session) -> Run:
    """Look at the spaces, then write into a run of its own, which is removed if that fails."""
    if not config.source:
        raise UserError("--to pairs needs the id of a Minari dataset, a file of robomimic or a folder of LeRobot")
    dataset = open_source(config)
    own = dataset.own
    task_name = config.task or (own[0].task if own else dataset.env_id())
    reader = own_reader(dataset, *own, config.groups) if own else described_by_task(config, dataset, task_name)
    if own and config.task:  # which need not be the one that it was recorded in
        with task_env(task_name) as env:
            check_fits(reader.sources, reader.schema.action, env, config.source, task_name)
    schema = replace(reader.schema, task=task_name)
    parents: dict[str, Run] = {}
    if schema.teacher:
        with contextlib.suppress(UserError):  # elsewhere: its labels are here
            parents["teacher"] = find_run(session.runs_dir, schema.teacher)
            session.say(f"the teacher is taken to be {parents['teacher'].path}: the dataset has its name alone")
    shard_bytes, steps = int(config.shard_mb * 2**20), dataset.num_steps
    with (
        removed_if_it_fails(session.start(config, "convert", task_name, parents=parents, checkpoints=False)) as run,
        session.progress(dataset.num_episodes, "episodes") as progress,
    ):
        writer = PairsWriter(run.fresh_folder("pairs"), schema, 1, shard_bytes, expected_steps=steps)
        for count in reader.write(writer, dataset):
            progress.update(count, {"transitions": writer.num_steps})
        writer.close()
        origin = {dataset.kind: config.source, "labels": ["action", *schema.teacher_fields]}
        return run.finish(setup.pairs_summary(run.path / "pairs"), holds=("pairs",), converted=origin)


def described_by_task(config: Config, dataset: Dataset, task_name: str) -> Reader:
    """The reader of a dataset that others made, checked against the task's env."""
    with task_env(task_name) as env:
        return foreign_reader(dataset, env, task_name, config.groups)


@contextlib.contextmanager
def task_env(task_name: str) -> Iterator[VecEnv]:
    """One env of a task, closed afterwards."""
    env = setup.task_env(load_task(task_name), 1, torch.device("cpu"))
    try:
        yield env
    finally:
        env.close()


@contextlib.contextmanager
def removed_if_it_fails(run: RunWriter) -> Iterator[RunWriter]:
    """Half a conversion is of no use: it cannot be resumed."""
    try:
        with run:
            yield run
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

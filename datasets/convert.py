"""Convert pairs to a dataset of Minari, or a dataset of Minari to pairs.

`tscli convert RUN --to minari --id cartpole/teacher-v0` writes a Minari dataset: an episode each, the groups as a Dict
of observations, the actions as executed, the teacher's labels in `infos`. `tscli convert ID --to pairs` makes a run of
pairs: a group for each entry of the observations, the recorded actions as labels. What tscli wrote comes back whole.

Minari keeps its datasets in ~/.minari/datasets, or where MINARI_DATASETS_PATH says. One episode at a time is in memory,
and a result appears once it is finished: a conversion that was stopped is begun anew.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from tscli.config import Config as BaseConfig
from tscli.config import UserError, did_you_mean, positional
from tscli.envs import VecEnv
from tscli.files import disk_errors
from tscli.interop.minari.read import (
    Reader,
    check_fits,
    dataset_path,
    datasets_root,
    env_id,
    foreign_reader,
    open_dataset,
    own_reader,
    own_schema,
)
from tscli.interop.minari.write import env_spec_of, move_into_place, write_dataset
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
        description="To Minari: a run, a pairs folder or its dataset.h5; empty takes the newest run's. To pairs: the "
        "id of a Minari dataset.",
    )
    to: Literal["minari", "pairs"] = Field(description="What to make of it.")
    id: str = Field("", description="To Minari: id of the new dataset, such as cartpole/teacher-v0.")
    task: str = Field(
        "", description="To pairs: task that a student is to learn; empty takes the Gymnasium env of the dataset."
    )
    groups: tuple[str, ...] = Field(
        (),
        description="Groups to convert; empty takes all. To Minari, one alone becomes a plain Box instead of a Dict. "
        "To pairs, one alone is the name of plain observations.",
    )
    shard_mb: float = Field(256.0, gt=0, description="To pairs: size of a file, in MiB, at the most.")

    @model_validator(mode="after")
    def _what_each_way_needs(self) -> Config:
        if self.to == "minari" and not self.id:
            raise ValueError("--to minari needs a name for the new dataset, such as --id cartpole/teacher-v0")
        if self.to == "minari" and self.task:
            raise ValueError("--task is for --to pairs: recorded pairs know their own")
        if self.to == "pairs" and self.id:
            raise ValueError("--id is for --to minari: the dataset to read stands first, `tscli convert ID --to pairs`")
        if self.to == "pairs" and not self.source:
            raise ValueError("--to pairs needs the id of a Minari dataset: `tscli convert ID --to pairs`")
        return self


def main(config: Config, session: Session) -> Run | None:
    """Either way."""
    try:
        importlib.import_module("minari")
    except ImportError as error:
        raise UserError(f"tscli convert needs minari ({error}): pip install 'tscli[minari]'") from None
    if config.to == "pairs":
        return to_pairs(config, session)
    to_minari(config, session)


def to_minari(config: Config, session: Session) -> None:
    """Write under a hidden name among Minari's datasets, then rename."""
    target = dataset_path(config.id)
    if target.exists():
        raise UserError(f"--id {config.id}: {target} exists: choose another name or version")
    folder = find_pairs(session, config.source)
    pairs = Pairs(folder)
    schema = pairs.schema
    for name in config.groups:
        if name not in schema.groups:
            raise UserError(f'--groups: {folder} has no group "{name}": {did_you_mean(name, schema.groups)}')
    schema = replace(schema, groups={name: schema.groups[name] for name in config.groups or schema.groups})
    part = datasets_root() / f".tscli-{config.id.replace('/', '-')}.part"
    with disk_errors(part):
        part.mkdir(exist_ok=True)
    lock = lock_folder(part)
    try:
        shutil.rmtree(part / "new", ignore_errors=True)  # what a killed conversion has left
        with disk_errors(target), session.progress(pairs.num_episodes, "episodes") as progress:
            (part / "new").mkdir()
            write_dataset(
                part / "new" / "data",
                config.id,
                pairs,
                schema,
                plain=len(config.groups) == 1,
                env_spec=env_spec(schema.task, session),
                on_episode=lambda count: progress.update(count, {}),
            )
            move_into_place(part / "new", target, config.id)
    finally:
        lock.close()
        shutil.rmtree(part, ignore_errors=True)
    data = {"id": config.id, "path": str(target), "episodes": pairs.num_episodes, "steps": pairs.num_steps}
    session.show(f"wrote {target}: {pairs.num_episodes} episodes, {pairs.num_steps} steps", data)
    session.say(f'next: minari.load_dataset("{config.id}")')


def env_spec(task: str, session: Session) -> Any:
    """What the env is made from; None, with a remark, where the task is not at hand or is a simulator's."""
    try:
        spec = env_spec_of(task)
    except Exception as error:  # building an env runs its own code; the dataset is of use without
        session.note(f"the env of task {task} cannot be built here ({error})")
        spec = None
    if spec is None:
        session.note("so Minari's recover_environment will not know the env")
    return spec


def to_pairs(config: Config, session: Session) -> Run:
    """Look at the spaces, then write into a run of its own, which is removed if that fails."""
    dataset = open_dataset(config.source)
    own = own_schema(dataset)
    task_name = config.task or (own[0].task if own else env_id(dataset, config.source))
    reader = own_reader(dataset, *own, config.groups) if own else described_by_task(config, dataset, task_name)
    if own and config.task:  # which need not be the one that it was recorded in
        with task_env(task_name) as env:
            check_fits(reader.sources, reader.schema.action, env, config.source, task_name)
    schema = replace(reader.schema, task=task_name)
    parents: dict[str, Run] = {}
    if schema.teacher:
        with contextlib.suppress(UserError):  # elsewhere: its labels are here
            parents["teacher"] = find_run(session.runs_dir, schema.teacher)
    shard_bytes, steps = int(config.shard_mb * 2**20), int(dataset.total_steps)
    with (
        removed_if_it_fails(session.start(config, "convert", task_name, parents=parents, checkpoints=False)) as run,
        session.progress(int(dataset.total_episodes), "episodes") as progress,
    ):
        writer = PairsWriter(run.fresh_folder("pairs"), schema, 1, shard_bytes, expected_steps=steps)
        for count in reader.write(writer, dataset, config.source):
            progress.update(count, {"transitions": writer.num_steps})
        writer.close()
        origin = {"minari": config.source, "labels": ["action", *schema.teacher_fields]}
        return run.finish(setup.pairs_summary(run.path / "pairs"), holds=("pairs",), converted=origin)


def described_by_task(config: Config, dataset: Any, task_name: str) -> Reader:
    """The reader of a dataset that others made, checked against the task's env."""
    with task_env(task_name) as env:
        return foreign_reader(dataset, config.source, env, task_name, config.groups)


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

"""Join several datasets of one task and teacher into one, without touching them.

Groups, actions and teacher have to agree; the result is a run of its own, with episodes in the order of the datasets
named. Shard files are never changed once they are finished, so on one disk the result shares them with its sources
(hard links) and takes hardly any space; `--copy-files` makes it independent of what is done to those files.
"""

from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path

from pydantic import Field

from tscli.config import Config as BaseConfig
from tscli.config import UserError, positional
from tscli.files import disk_errors, sync_file, sync_folder
from tscli.pairs import Pairs, PairsSchema, features, find_pairs
from tscli.pairs.folder import read_header, write_header
from tscli.pairs.hdf5 import write_dataset_file
from tscli.pairs.shard import list_shards, read_sidecar, shard_path, write_sidecar
from tscli.pairs.tables import join_episodes
from tscli.runs import Run, find_run, task_stem
from tscli.runs.session import Session
from tscli.training.teachers import TeacherRuns, teachers_of

ORDER = 62


class Config(BaseConfig):
    """What to join."""

    sources: tuple[str, ...] = positional(description="Two or more runs, pairs folders or dataset.h5 files.")
    copy_files: bool = Field(False, description="Copy the files instead of sharing them by hard links.")
    seed: int = Field(1, ge=0, lt=2**31, description="Number in the new run's name; nothing is drawn.")


def main(config: Config, session: Session) -> Run:
    """Verify the sources, link or copy their shards under new numbers, renumber episodes and steps."""
    folders = [find_pairs(session, source) for source in config.sources]
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise UserError(f"{', '.join(config.sources)}: name two or more datasets, each once")
    # Reads every byte: a fault must not be carried into a new dataset with new hashes.
    pairs = Pairs(folders)
    schema = pairs.schema
    headers = [read_header(folder) for folder in folders]
    for folder, (made, about) in zip(folders, headers, strict=True):
        if not about.closed:
            raise UserError(f"{folder}: unfinished; --resume its run first, or leave it out")
        if made.teacher != schema.teacher:
            raise UserError(
                f"{folder} was labelled by {made.teacher}, {folders[0]} by {schema.teacher}: "
                "merge datasets of one teacher, or name several where they are used"
            )
        if task_stem(made.task) != task_stem(schema.task):
            raise UserError(
                f"{folder} is of task {task_stem(made.task)}, {folders[0]} of {task_stem(schema.task)}: merge datasets "
                "of one task"
            )
    num_envs = max(about.num_envs for _, about in headers)
    sources = {
        f"pairs-{i}": find_run(session.runs_dir, str(folder.parent))
        for i, folder in enumerate(folders, 1)
        if (folder.parent / "manifest.json").exists()
    }
    teachers = teachers_within(session, schema, list(sources.values()))
    task = next((source.task for source in sources.values()), schema.task)
    with session.start(config, "merge", task, parents=teachers.parents | sources) as run:
        target = run.fresh_folder("pairs")
        (target / "shards").mkdir()
        write_header(target, schema, num_envs)
        at = (0, 0, 0)  # the next shard, episode and step
        for folder in folders:
            at = add(target, *at, folder, schema, config.copy_files)
        write_dataset_file(target, schema)
        write_header(target, schema, num_envs, (at[0], pairs.num_steps))
        merged = Pairs(target, verify="size")
        if (merged.num_steps, merged.num_episodes) != (pairs.num_steps, pairs.num_episodes):
            raise RuntimeError("the merged dataset does not hold what its sources hold")
        metrics = {"steps": merged.num_steps, "episodes": merged.num_episodes}
        return run.finish(metrics, holds=("pairs",), **teachers.details)


def teachers_within(session: Session, schema: PairsSchema, sources: list[Run]) -> TeacherRuns:
    """The teachers that labelled the sources, where one of these is a run and they are still there.

    Raises:
        UserError: two sources were labelled by different policies, whose runs have one name.
    """
    taught, nobody = [source for source in sources if source.teachers], TeacherRuns((), "", schema.task)
    alone = "behaviour cloning needs the labels alone, the other methods ask for who gave them"
    if not taught:
        if schema.teacher:
            session.say(f"no source is a run, which would tell where {schema.teacher} is: {alone}")
        return nobody
    try:
        teachers = teachers_of(taught[0])
    except UserError as error:
        session.say(f"{error}; {alone}")
        return nobody
    for source in taught:
        if not teachers.taught(source):
            raise UserError(
                f"{source.path} was labelled by another policy of the name {teachers.name} than {taught[0].path}: "
                "merge datasets of one teacher"
            )
    return teachers


def add(
    target: Path, number: int, first_episode: int, first_step: int, folder: Path, schema: PairsSchema, copy: bool
) -> tuple[int, int, int]:
    """Add a folder's shards from `number` on; gives the next number, episode and step."""
    episodes, end_step = [], first_step
    for index in list_shards(folder):
        sidecar = read_sidecar(folder, index, schema)
        source, path = shard_path(folder, index), shard_path(target, number)
        with disk_errors(path, sidecar["bytes"]):
            link_or_copy(source, path, copy)
            features.share(source, path, partial(link_or_copy, copy=copy))
        about = {name: sidecar[name] for name in ("num_envs", "rows", "steps", "capacity")}
        about["first_step"] = first_step + sidecar["first_step"]
        episodes.append(sidecar["episodes"].copy())
        for table in (sidecar["segments"], sidecar["episodes"]):
            table["episode"] += first_episode
        sidecar["episodes"]["start"] += first_step
        write_sidecar(path, sidecar["layout"], sidecar["segments"], sidecar["episodes"], about)
        end_step = max(end_step, about["first_step"] + about["steps"])
        number += 1
    return number, first_episode + len(join_episodes(episodes)), end_step


def link_or_copy(source: Path, path: Path, copy: bool) -> None:
    """Give a finished file a second name, or make a copy where that is asked for or cannot be done."""
    if not copy:
        try:
            os.link(source, path)
            return
        except OSError:  # another disk, or a file system without hard links
            pass
    shutil.copyfile(source, path)
    sync_file(path)
    sync_folder(path.parent)


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

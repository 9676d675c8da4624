"""What a kill or a full disk leaves of the shard that is being written, and how writing goes on from there."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pairs_data import SCHEMA, digest, make_step, read_plain, write

from tscli import files
from tscli.config import UserError
from tscli.pairs import Pairs, live
from tscli.pairs import writer as writing
from tscli.pairs.folder import write_header
from tscli.pairs.sealed import PairsError
from tscli.pairs.shard import list_shards
from tscli.pairs.writer import PairsWriter

# --- a full disk ------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_one_line_and_leaves_nothing_half_made(tmp_path, monkeypatch):
    def no_space(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    writer = PairsWriter(tmp_path, SCHEMA, 3, shard_bytes=70_000)
    for t in range(18):
        writer.append(**make_step(SCHEMA, 3, t))
    assert writer.num_shards == 1
    state = writer.state_dict()
    monkeypatch.setattr(os, "posix_fallocate", no_space, raising=False)
    with pytest.raises(UserError, match=r"the disk is full .*MiB needed\); free space"):
        writer.append(**make_step(SCHEMA, 3, 18))
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == ["00000.h5", "00000.json"]
    assert Pairs(tmp_path).num_steps == 54
    monkeypatch.undo()
    resumed = PairsWriter.resume(tmp_path, state)
    resumed.append(**make_step(SCHEMA, 3, 18))
    resumed.close()
    assert Pairs(tmp_path).num_steps == 57


def test_a_disk_that_fills_up_while_a_shard_is_packed_loses_nothing(tmp_path, monkeypatch):
    write(tmp_path / "whole", steps=25)
    writer = PairsWriter(tmp_path / "pairs", SCHEMA, 3, shard_bytes=70_000)
    for t in range(25):
        writer.append(**make_step(SCHEMA, 3, t))
    writer.flush()
    state = writer.state_dict()

    def no_space(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", no_space, raising=False)
    with pytest.raises(UserError, match="the disk is full"):
        writer.close()
    monkeypatch.undo()
    PairsWriter.resume(tmp_path / "pairs", state).close()
    assert digest(tmp_path / "pairs") == digest(tmp_path / "whole")


# --- kills ------------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys
import torch
from pairs_data import SCHEMA, make_step
from tscli.pairs.writer import PairsWriter
folder, checkpoint, save_at, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
writer = PairsWriter(folder, SCHEMA, 3, shard_bytes=70_000)
for t in range(1000):
    if t == save_at:
        writer.flush()
        torch.save(writer.state_dict(), checkpoint)
    if t == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    writer.append(**make_step(SCHEMA, 3, t))
"""


def run_and_kill(folder: Path, checkpoint: Path, save_at: int, kill_at: int) -> None:
    arguments = [str(folder), str(checkpoint), str(save_at), str(kill_at)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *arguments], cwd=Path(__file__).parents[1] / "tools", check=False
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_kill_keeps_finished_shards_and_a_resumed_run_ends_equal_byte_for_byte(recorded, tmp_path):
    run_and_kill(tmp_path / "pairs", tmp_path / "checkpoint.pt", save_at=25, kill_at=50)
    assert Pairs(tmp_path / "pairs").num_steps == 2 * 18 * 3
    reward = read_plain(tmp_path / "pairs")[0]["reward"]
    np.testing.assert_array_equal(reward[[0, 18, 36]], make_step(SCHEMA, 3, 0)["reward"])
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    resume_and_finish(tmp_path / "pairs", state, 25)
    assert digest(tmp_path / "pairs") == digest(recorded)


def resume_and_finish(folder: Path, state: dict[str, Any], at: int) -> None:
    writer = PairsWriter.resume(folder, state)
    assert writer.step == at
    assert list_shards(folder) == list(range(writer.num_shards))
    for t in range(at, 60):
        writer.append(**make_step(SCHEMA, 3, t))
    writer.close()


@pytest.mark.parametrize("saved_at", [0, 7, 18, 19, 35, 36, 59, 60])
@pytest.mark.parametrize("abandoned_at", [0, 1, 20, None])
def test_resuming_anywhere_gives_the_same_files(recorded, tmp_path, saved_at, abandoned_at):
    writer = PairsWriter(tmp_path, SCHEMA, 3, shard_bytes=70_000)
    state = None
    last = 60 if abandoned_at is None else min(60, saved_at + abandoned_at)
    for t in range(last + 1):
        if t == saved_at:
            writer.flush()
            state = writer.state_dict()
        if t < last:
            writer.append(**make_step(SCHEMA, 3, t))
    if abandoned_at is None:
        writer.close()  # the run was complete, but an older checkpoint is continued
    assert state is not None
    resume_and_finish(tmp_path, state, saved_at)
    assert digest(tmp_path) == digest(recorded)


def test_resuming_rows_that_were_not_all_kept_gives_the_same_files(tmp_path):
    hashes = []
    for name, stops in {"whole": [], "stopped": [5, 20, 28]}.items():
        writer = PairsWriter(tmp_path / name, SCHEMA, 3, shard_bytes=40_000)
        t = 0
        while t < 40:
            step = make_step(SCHEMA, 3, t)
            # Env 1 is left out for a while; its episodes last one step each, so it may come back at any time.
            keep = np.array([True, not 3 <= t < 15, True])
            step["terminated"][1], step["truncated"][1] = True, False
            writer.append(**step, keep=keep)
            t += 1
            if stops and t == stops[0]:
                at, state = stops.pop(0), writer.state_dict()
                writer.append(**make_step(SCHEMA, 3, 99))
                writer.close()
                writer, t = PairsWriter.resume(tmp_path / name, state), at
        writer.close()
        hashes.append(digest(tmp_path / name))
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("name", ["write_sidecar", "write_dataset_file", "sync_folder", "sync_file"])
@pytest.mark.parametrize("steps", [18, 24], ids=["a-full-shard", "a-packed-shard"])
def test_dying_while_a_shard_is_finished_can_be_resumed(recorded, tmp_path, monkeypatch, name, steps):
    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    writer = PairsWriter(tmp_path, SCHEMA, 3, shard_bytes=70_000)
    for t in range(steps - 1):
        writer.append(**make_step(SCHEMA, 3, t))
    state = writer.state_dict()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        for module in (files, live, writing):
            patch.setattr(module, name, die, raising=False)
        writer.append(**make_step(SCHEMA, 3, steps - 1))
        writer.close()
    resume_and_finish(tmp_path, state, steps - 1)
    assert digest(tmp_path) == digest(recorded)


def test_resuming_without_an_earlier_shard_is_refused(tmp_path):
    writer = PairsWriter(tmp_path, SCHEMA, 3, shard_bytes=70_000)
    for t in range(40):
        writer.append(**make_step(SCHEMA, 3, t))
    writer.flush()
    state = writer.state_dict()
    (tmp_path / "shards" / "00000.h5").unlink()
    with pytest.raises(PairsError, match=r"00000.h5: missing"):
        PairsWriter.resume(tmp_path, state)


def test_resuming_without_the_unfinished_shard_is_refused(tmp_path):
    writer = PairsWriter(tmp_path, SCHEMA, 3, shard_bytes=70_000)
    writer.append(**make_step(SCHEMA, 3, 0))
    writer.flush()
    state = writer.state_dict()
    (tmp_path / "shards" / "00000.part").unlink()
    with pytest.raises(PairsError, match=r"00000.part: missing"):
        PairsWriter.resume(tmp_path, state)


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A dataset of two finished shards and a live one, killed some steps after the state; and that state."""
    folder = tmp_path_factory.mktemp("stopped") / "pairs"
    writer = PairsWriter(folder, SCHEMA, 3, shard_bytes=70_000)
    for t in range(44):
        writer.append(**make_step(SCHEMA, 3, t))
    state = writer.state_dict()
    for t in range(44, 47):
        writer.append(**make_step(SCHEMA, 3, t))
    writer.flush()
    assert writer.num_shards == 2
    return folder, state


@pytest.mark.parametrize("name", ["pairs.json", "00000.h5", "00000.json", "00001.h5", "00001.json", "00002.part"])
def test_a_flipped_bit_in_any_file_is_refused_or_was_not_of_the_state(tmp_path, stopped, name):
    folder, state = stopped
    write(tmp_path / "whole", steps=50)
    size = next(folder.rglob(name)).stat().st_size
    refused = 0
    for bit in random.Random(name).sample(range(size * 8), 12):
        copy = Path(shutil.copytree(folder, tmp_path / str(bit)))
        path = next(copy.rglob(name))
        content = bytearray(path.read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            writer = PairsWriter.resume(copy, state)
        except PairsError as error:
            refused += 1
            assert path.name in str(error) or path.stem in str(error)
            continue
        for t in range(44, 50):
            writer.append(**make_step(SCHEMA, 3, t))
        writer.close()
        assert digest(copy) == digest(tmp_path / "whole"), bit
    assert refused > 3 if name.endswith(".part") else refused == 12


@pytest.mark.parametrize("size", [0, 100, 50_000])
def test_a_live_file_that_was_cut_short_is_refused(tmp_path, stopped, size):
    folder = Path(shutil.copytree(stopped[0], tmp_path / "pairs"))
    os.truncate(folder / "shards" / "00002.part", size)
    with pytest.raises(PairsError, match=rf"00002\.part: has {size} bytes instead of"):
        PairsWriter.resume(folder, stopped[1])


def test_a_shard_in_the_place_of_another_is_refused(tmp_path, stopped):
    folder = Path(shutil.copytree(stopped[0], tmp_path / "pairs"))
    for ending in ("h5", "json"):
        shutil.copy(folder / "shards" / f"00001.{ending}", folder / "shards" / f"00000.{ending}")
    with pytest.raises(PairsError, match=r"00000\.h5: is another one than at the checkpoint"):
        PairsWriter.resume(folder, stopped[1])


def test_a_header_of_other_rows_than_at_the_checkpoint_is_refused(tmp_path, stopped):
    folder = Path(shutil.copytree(stopped[0], tmp_path / "pairs"))
    renamed = dict(zip(("seen", "camera", "flag"), SCHEMA.groups.values(), strict=True))
    write_header(folder, replace(SCHEMA, groups=renamed), 3)
    with pytest.raises(PairsError, match=r"pairs\.json: is another one than at the checkpoint"):
        PairsWriter.resume(folder, stopped[1])


def test_states_of_versions_without_hashes_go_on(tmp_path, stopped):
    folder = Path(shutil.copytree(stopped[0], tmp_path / "pairs"))
    old = {key: value for key, value in stopped[1].items() if key not in ("sha256", "shards", "schema")}
    assert PairsWriter.resume(folder, old).step == 44

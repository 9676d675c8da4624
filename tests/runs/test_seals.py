"""A stopped run of which a bit has changed is refused, or was not changed in anything that is read."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from toy_runs import make_policy, start

from tscli.config import UserError
from tscli.runs import RunWriter, Session, Stopped, find_run, find_unfinished
from tscli.runs.seals import Journal, seal, unseal

FILES = ("checkpoint.pt", "config.yaml", "manifest.json", "metrics.jsonl", "policy.safetensors")


@pytest.fixture
def stopped(session: Session) -> Path:
    """A run with a checkpoint, metrics and a best policy."""
    with pytest.raises(Stopped), start(session) as run:
        for step in range(5):
            run.log({"step": step, "loss": 1 / (step + 1)})
        run.save_policy(make_policy())
        run.checkpoint({"x": 1})
        raise Stopped(run.name)
    return run.path


def resume(session: Session, ref: str = "") -> RunWriter:
    session.resume = find_unfinished(session.runs_dir, "train-teacher", None, ref)
    assert session.resume.config
    with start(session) as run:
        run.finish({})
    return run


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_a_stopped_run_is_refused_with_any_bit_flipped(
    session: Session, stopped: Path, name: str
) -> None:
    kept = stopped.with_name("kept")
    shutil.copytree(stopped, kept)
    bits = random.Random(name).sample(range((stopped / name).stat().st_size * 8), 30)
    for bit in bits:
        flip(stopped / name, bit)
        with pytest.raises(UserError, match=name) as caught:
            resume(session, str(stopped))
        assert "\n" not in str(caught.value)
        shutil.rmtree(stopped)
        shutil.copytree(kept, stopped)
    assert resume(session, str(stopped)).path == stopped


def test_each_flipped_bit_of_a_manifest_is_noticed_or_changes_nothing() -> None:
    data = {"schema": 1, "status": "stopped", "seconds": 1.5, "holds": ["policy"], "parents": {}}
    text = json.dumps(seal(data), indent=1).encode()
    for bit in range(len(text) * 8):
        changed = bytearray(text)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert unseal(json.loads(changed)) == data
        except ValueError:
            continue


def test_what_was_written_after_the_checkpoint_is_cut_off_and_what_was_before_has_to_be_there(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journal = Journal(path)
    journal.append(b"1\n2\n")
    size, sha256 = journal.committed()
    journal.append(b"3\n")
    journal.close()
    again = Journal(path, size, sha256)
    assert path.read_bytes() == b"1\n2\n" and again.committed() == (size, sha256)
    again.append(b"4\n")
    longer = again.committed()
    again.close()
    Journal(path, *longer).close()
    path.write_bytes(b"1\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl has changed since the checkpoint"):
        Journal(path, size, None)


def test_a_kill_while_a_policy_is_replaced_leaves_the_one_before(
    session: Session, stopped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (stopped / "policy.safetensors").read_bytes()
    session.resume = find_unfinished(session.runs_dir, "train-teacher", None, "")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt), start(session) as run:
        patch.setattr("tscli.runs.writer.os.replace", _interrupt_at(".policy.safetensors.new"))
        run.save_policy(make_policy(seed=7))
    assert (stopped / "policy.safetensors").read_bytes() == before
    resume(session)
    assert find_run(session.runs_dir, "1").policy_path().read_bytes() == before


def _interrupt_at(name: str) -> Callable[[Path, Path], None]:
    replace = os.replace

    def replacing(source: Path, target: Path) -> None:
        if Path(source).name == name:
            raise KeyboardInterrupt
        replace(source, target)

    return replacing


def test_a_run_that_another_process_has_finished_meanwhile_is_not_done_again(session: Session, stopped: Path) -> None:
    late = Session(runs_dir=session.runs_dir, resume=find_unfinished(session.runs_dir, "train-teacher", None, ""))
    resume(session)
    content = (stopped / "manifest.json").read_bytes()
    with pytest.raises(UserError, match="is finished, there is nothing to resume"), start(late):
        pass
    assert (stopped / "manifest.json").read_bytes() == content
    assert find_run(session.runs_dir, "1").status == "finished"

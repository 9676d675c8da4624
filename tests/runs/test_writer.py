"""Runs in the making: numbered, finished, stopped, resumed."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from pydantic import Field
from toy_runs import Config, make_policy, start, stopped, teacher

from tscli.config import UserError
from tscli.runs import RunWriter, Session, Stopped, find_run, find_unfinished, list_runs
from tscli.runs import writer as writing

# --- making and numbering ---------------------------------------------------------------------------------------------


def test_a_finished_run_says_what_it_is(session: Session) -> None:
    with start(session, "distill", method="dagger", role="student") as run:
        assert find_run(session.runs_dir, "1").status == "running"
        run.save_policy(make_policy())
        run.log({"step": 1, "loss": float("nan"), "best": -float("inf"), "return": 2.5})
        run.finish({"eval/return": 1.5, "best": float("inf")}, holds=("pairs",), about="it went well")
    found = find_run(session.runs_dir, "1")
    assert found.name == "0001-distill-dagger-cartpole-seed3"
    assert (found.status, found.command, found.method, found.role) == ("finished", "distill", "dagger", "student")
    assert (found.task, found.seed, found.number, found.holds) == ("cartpole", 3, 1, ("pairs", "policy"))
    assert found.metrics == {"eval/return": 1.5, "best": None} and found.manifest["about"] == "it went well"
    assert found.config["lr"] == 0.1 and found.manifest["view"]["name"] == "full"
    assert found.manifest["versions"]["torch"] == torch.__version__
    assert found.policy_path().name == "policy.safetensors"
    lines = [json.loads(line) for line in (found.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": None, "best": None, "return": 2.5}]
    assert not list(found.path.glob(".*.tmp"))


def test_runs_that_start_at_once_get_numbers_of_their_own(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)
    iterdir = Path.iterdir

    def look(path: Path) -> Iterator[Path]:
        # If a second one could look before the first has made its folder, they would meet here.
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(timeout=0.2)
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", look)
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda i: writing._make_folder(session.runs_dir, f"c{i}")[1], range(40)))
    assert sorted(numbers) == list(range(1, 41))


def test_numbers_go_on_after_deleted_runs_and_beyond_four_digits(session: Session) -> None:
    for name in ("0007-eval-x-seed1", "9999-eval-x-seed1", "notes", "12-mine"):
        (session.runs_dir / name).mkdir(parents=True)
    assert teacher(session).name == "10000-train-teacher-cartpole-seed3"
    assert find_run(session.runs_dir, "10000").number == 10000


def test_a_tasks_path_or_id_makes_a_plain_folder_name(session: Session) -> None:
    assert start(session, task="/some where/my task.yaml").name == "0001-train-teacher-my_task-seed3"
    assert start(session, task="ale_py:ALE/Pong-v5").name == "0002-train-teacher-ale_py_ALE_Pong_v5-seed3"


def test_a_place_that_cannot_hold_runs_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot create a run in .*: choose another with --runs-dir"):
        start(Session(runs_dir=tmp_path / "file" / "runs"))


# --- ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("a bug"), "failed", "a bug"),
        (UserError("the lamp is off"), "failed", "the lamp is off"),
        (KeyboardInterrupt(), "stopped", None),
        (Stopped("x"), "stopped", None),
    ],
)
def test_a_run_that_ends_early_says_how(session: Session, error: BaseException, status: str, text: str | None) -> None:
    with pytest.raises(type(error)), start(session):
        raise error
    run = find_run(session.runs_dir, "1")
    assert run.status == status and run.manifest["error"] == text


def test_a_run_that_ends_without_a_result_has_failed(session: Session) -> None:
    with start(session):
        pass
    run = find_run(session.runs_dir, "1")
    assert run.status == "failed" and run.manifest["error"] == "ended without a result"


def test_a_full_disk_is_told_in_one_line_and_the_run_can_be_resumed(session: Session) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with (
        pytest.raises(UserError, match=r"cannot write .*metrics.jsonl: No space left on device"),
        start(session) as run,
    ):
        run._journal.close()
        run._journal._file = open("/dev/full", "ab")  # noqa: SIM115 - the run closes it
        run.log({"step": 1})
    assert find_unfinished(session.runs_dir, "train-teacher", None, "").status == "failed"


def test_ctrl_c_waits_for_the_iteration_and_a_second_one_does_not(session: Session) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Stopped), start(session) as run:
        os.kill(os.getpid(), signal.SIGTERM)
        assert not run._checkpoint.exists()
        run.save_if_due(lambda: {"x": 1}, every=1e9)
    assert find_run(session.runs_dir, "1").status == "stopped" and run._checkpoint.exists()
    with pytest.raises(KeyboardInterrupt), start(session):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert find_run(session.runs_dir, "2").status == "stopped"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_new_best_policy_is_due_for_a_checkpoint_where_nothing_comes_again_alike(session: Session) -> None:
    with start(session) as run:
        run.save_if_due(lambda: {"values": 1}, 1e9, exact=False)
        run.save_policy(make_policy())
        run.save_policy(make_policy(1), "last")
        run.save_if_due(lambda: {"values": 2}, 1e9, exact=True)
        assert not run._checkpoint.exists()
        run.save_if_due(lambda: {"values": 3}, 1e9, exact=False)
        assert run._checkpoint.exists()
        run._checkpoint.unlink()
        run.save_if_due(lambda: {"values": 4}, 1e9, exact=False)
        assert not run._checkpoint.exists(), "once is enough"
        run.finish({})


# --- resuming ---------------------------------------------------------------------------------------------------------


def resume(session: Session, config: Config | None = None) -> RunWriter:
    again = Session(runs_dir=session.runs_dir, resume=find_unfinished(session.runs_dir, "train-teacher", None, ""))
    return again.start(config or Config(seed=3), "train-teacher", "cartpole", role="teacher")


def test_a_resumed_run_goes_on_from_its_checkpoint_and_logs_no_point_twice(session: Session) -> None:
    with pytest.raises(ValueError), start(session, role="teacher") as run:
        run.log({"step": 1})
        run.log({"step": 2})
        run.checkpoint({"values": {"iteration": 2}})
        run.log({"step": 3})
        raise ValueError("power cut")
    with resume(session) as run:
        assert run.state is not None and run.state["values"] == {"iteration": 2}
        assert run.read_metrics() == [{"step": 1}, {"step": 2}]
        run.log({"step": 3})
        assert find_run(session.runs_dir, "1").status == "running"
        run.finish({})
        assert [line["step"] for line in run.read_metrics()] == [1, 2, 3]
    found = find_run(session.runs_dir, "1")
    assert found.status == "finished" and "error" not in found.manifest
    assert not (found.path / "checkpoint.pt").exists()
    assert len(list_runs(session.runs_dir)) == 1


def test_a_run_stopped_before_its_first_checkpoint_begins_anew(session: Session) -> None:
    with pytest.raises(Stopped), start(session) as run:
        run.log({"step": 1})
        (run.fresh_folder("pairs") / "half").write_text("made")
        raise Stopped
    with resume(session) as run:
        assert run.state is None and run.read_metrics() == []
        assert list(run.fresh_folder("pairs").iterdir()) == []
        run.finish({})


def test_a_run_whose_checkpoint_is_gone_is_not_begun_anew_in_its_place(session: Session) -> None:
    with pytest.raises(ValueError), start(session, role="teacher") as run:
        run.log({"step": 1})
        (run.fresh_folder("pairs") / "half").write_text("made")
        run.checkpoint({"values": {}})
        raise ValueError("power cut")
    (run.path / "checkpoint.pt").unlink()
    with pytest.raises(UserError, match=r"checkpoint\.pt is gone: restore it, or start anew"):
        resume(session)
    assert (run.path / "pairs" / "half").exists() and (run.path / "metrics.jsonl").read_text()


def test_a_run_is_resumed_by_a_version_that_knows_more_settings(session: Session) -> None:
    class Newer(Config):
        extra: float = Field(default=1.0, description="A setting that came later.")

    stopped(session)
    with resume(session, Newer(seed=3)) as run:
        assert run.finish({}).status == "finished"


def test_other_settings_are_not_resumed(session: Session) -> None:
    stopped(session)
    with pytest.raises(UserError, match=r"the settings of .* have changed since"):
        resume(session, Config(seed=3, lr=0.2))

"""Run folders: numbered, found, locked, finished, stopped, resumed."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import Field

from tscli.config import NetworkConfig, StageConfig, UserError, parse_view
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import resolve_view
from tscli.networks import Policy, PolicySpec
from tscli.runs import Run, find_run, find_unfinished, list_runs, newest_run, parent_task
from tscli.runs import session as sessions
from tscli.runs.locks import Lock
from tscli.runs.session import RunWriter, Session, Stopped


class Config(StageConfig):
    """Settings of the runs made here."""

    lr: float = Field(default=0.1, description="A setting.")


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(runs_dir=tmp_path / "runs")


def make_policy(seed: int = 0) -> Policy:
    torch.manual_seed(seed)
    spec = resolve_view("full", parse_view("state"), {"state": Group((2,))}, ActionSpec("discrete", nvec=(2,)))
    return Policy(PolicySpec(spec, ActionSpec("discrete", nvec=(2,)), NetworkConfig(hidden=(2,))))


def start(session: Session, command: str = "train-teacher", **kwargs: Any) -> RunWriter:
    return session.start(Config(seed=3), command, kwargs.pop("task", "cartpole"), **kwargs)


def teacher(session: Session, task: str = "cartpole") -> Run:
    with start(session, role="teacher", task=task) as run:
        run.save_policy(make_policy())
        return run.finish({"eval/return": 500.0})


def collected(session: Session, of: Run) -> Run:
    with start(session, "collect", parents={"teacher": of}) as run:
        return run.finish({"steps": 10}, holds=("pairs",))


def stopped(session: Session, command: str = "train-teacher", **kwargs: Any) -> Run:
    with pytest.raises(Stopped), start(session, command, **kwargs) as run:
        raise Stopped(run.name)
    return find_run(session.runs_dir, run.name)


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
        numbers = list(pool.map(lambda i: sessions._make_folder(session.runs_dir, f"c{i}")[1], range(40)))
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


# --- finding ----------------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_number_name_and_path(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = teacher(session), teacher(session)
    for ref in ("2", "0002", second.name, str(second.path), str(second.path) + "/"):
        assert find_run(session.runs_dir, ref).name == second.name
    assert [run.name for run in list_runs(session.runs_dir)] == [first.name, second.name]
    monkeypatch.chdir(session.runs_dir)
    assert find_run(Path("elsewhere"), first.name).name == first.name


def test_a_run_that_is_not_there_is_one_line(session: Session, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there are no runs in .*; start with"):
        find_run(session.runs_dir, "7")
    run = teacher(session)
    with pytest.raises(UserError, match=f'did you mean "{run.name}"'):
        find_run(session.runs_dir, "train-teacher-cartpole")
    with pytest.raises(UserError, match=r"is no run folder: it has no manifest.json"):
        find_run(session.runs_dir, str(tmp_path))


def test_a_damaged_or_newer_manifest_is_passed_over_in_lists_and_named_when_asked_for(session: Session) -> None:
    good, bad, new = teacher(session), teacher(session), teacher(session)
    (bad.path / "manifest.json").write_text('{"schema": 1, "nu')
    (new.path / "manifest.json").write_text(json.dumps({**new.manifest, "schema": 99}))
    assert [run.name for run in list_runs(session.runs_dir)] == [good.name]
    with pytest.raises(UserError, match=r"manifest.json is damaged"):
        find_run(session.runs_dir, str(bad.path))
    with pytest.raises(UserError, match="has schema 99, this tscli reads up to 1: upgrade"):
        find_run(session.runs_dir, str(new.path))


@pytest.mark.parametrize(
    ("content", "missing"),
    [
        ("{}", '"schema" of type int'),
        ('{"schema": "a"}', '"schema" of type int'),
        ('{"schema": 1}', '"number" of type int'),
        ("[1]", '"schema" of type int'),
        ("7", '"schema" of type int'),
        ('"' + "x" * 9 + '"', '"schema" of type int'),
    ],
)
def test_a_manifest_of_something_else_is_passed_over_and_named_when_asked_for(
    session: Session, content: str, missing: str
) -> None:
    good, bad = teacher(session), teacher(session)
    (bad.path / "manifest.json").write_text(content)
    assert [run.name for run in list_runs(session.runs_dir)] == [good.name]
    assert find_run(session.runs_dir, "1").name == good.name
    with pytest.raises(UserError, match=f"manifest.json is damaged \\(no {missing}\\): restore it"):
        find_run(session.runs_dir, str(bad.path))


@pytest.mark.parametrize(
    "change", [{"number": "1"}, {"holds": None}, {"metrics": []}, {"parents": {"teacher": "0001"}}, {"artifacts": 1}]
)
def test_a_manifest_with_an_entry_of_another_type_is_passed_over(session: Session, change: dict[str, Any]) -> None:
    run = teacher(session)
    (run.path / "manifest.json").write_text(json.dumps(run.manifest | change))
    assert list_runs(session.runs_dir) == []


def test_the_newest_fitting_run_is_taken(session: Session) -> None:
    first = teacher(session)
    pairs = collected(session, first)
    second = teacher(session)
    with start(session, "distill", method="bc", role="student") as run:
        run.save_policy(make_policy())
        student = run.finish({})
    stopped(session)
    where = session.runs_dir
    assert newest_run(where, "", "policy", "run").name == student.name
    assert newest_run(where, "", "policy", "teacher", role="teacher").name == second.name
    assert newest_run(where, "1", "policy", "teacher", role="teacher").name == first.name
    assert (
        newest_run(
            where, "", "pairs", "pairs", fits=lambda run: run.teachers == [first.name], commands=("collect",)
        ).name
        == pairs.name
    )
    assert pairs.parents == [first.name]
    wrongs: list[dict[str, Any]] = [{"fits": lambda run: run.teachers == [second.name]}, {"commands": ("distill",)}]
    for wrong in wrongs:
        with pytest.raises(UserError, match=r"no finished run in .* holds pairs: run `tscli collect` first"):
            newest_run(where, "", "pairs", "pairs", **wrong)


def test_a_named_run_that_does_not_fit_is_refused(session: Session) -> None:
    run = teacher(session)
    pairs, unfinished = collected(session, run), stopped(session)
    manifest = {**unfinished.manifest, "holds": ["policy"], "role": "teacher"}
    (unfinished.path / "manifest.json").write_text(json.dumps(manifest))
    where = session.runs_dir
    with pytest.raises(UserError, match=f"--teacher 2: {pairs.name} is a collect run, which does not hold a teacher's"):
        newest_run(where, "2", "policy", "teacher", role="teacher")
    with pytest.raises(UserError, match=r"--teacher 1: .* does not hold a student's policy"):
        newest_run(where, "1", "policy", "teacher", role="student")
    with pytest.raises(UserError, match="is stopped, not finished: resume it first"):
        newest_run(where, "3", "policy", "teacher", role="teacher")
    with pytest.raises(UserError, match=r"holds a student's policy: run .* or name one with --run"):
        newest_run(where, "", "policy", "run", role="student")


def test_a_stage_without_a_task_inherits_its_parents(session: Session) -> None:
    where = session.runs_dir
    assert parent_task(where, "collect", {}) is None
    pairs = collected(session, teacher(session, "acrobot"))
    teacher(session, "pendulum")
    assert parent_task(where, "collect", {}) == "pendulum"
    assert parent_task(where, "collect", {"teacher": "1"}) == "acrobot"
    assert parent_task(where, "distill", {"pairs": pairs.name}) == "cartpole"


# --- parents ----------------------------------------------------------------------------------------------------------


def test_a_parent_that_has_changed_or_gone_is_refused(session: Session) -> None:
    run = teacher(session)
    pairs = collected(session, run)
    assert pairs.parent("teacher").name == run.name
    with pytest.raises(UserError, match="was not made from a student"):
        pairs.parent("student")
    manifest = {**run.manifest, "artifacts": {"policy.safetensors": "0" * 64}}
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=f"{run.name} has changed since {pairs.name} was made from it"):
        pairs.parent("teacher")
    (run.path / "manifest.json").unlink()
    with pytest.raises(UserError, match=f"{run.name}, which {pairs.name} was made from, is gone"):
        pairs.parent("teacher")


def test_a_parent_may_live_in_another_folder_of_runs(session: Session, tmp_path: Path) -> None:
    other = Session(runs_dir=tmp_path / "other")
    run = teacher(other)
    assert collected(session, run).parent("teacher").path.resolve() == run.path.resolve()


def test_a_policy_whose_file_has_changed_is_refused(session: Session) -> None:
    run = teacher(session)
    path = run.policy_path()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="has changed since its run finished"):
        run.policy_path()
    path.unlink()
    with pytest.raises(UserError, match="has changed since its run finished"):
        run.policy_path()
    with pytest.raises(UserError, match="holds no policy: name one made by train-teacher or distill"):
        collected(session, run).policy_path()
    with pytest.raises(UserError, match=r"--which last: run .* has no such policy: choose policy$"):
        run.policy_path("last")


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
        run._log_file.close()
        run._log_file = open("/dev/full", "ab")  # noqa: SIM115 - the run closes it
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


def test_other_settings_are_not_resumed(session: Session) -> None:
    stopped(session)
    with pytest.raises(UserError, match=r"the settings of .* have changed since"):
        resume(session, Config(seed=3, lr=0.2))


def test_only_an_unfinished_run_of_that_command_is_resumed(session: Session) -> None:
    where = session.runs_dir
    teacher(session)
    with pytest.raises(UserError, match="no unfinished train-teacher run"):
        find_unfinished(where, "train-teacher", None, "")
    with pytest.raises(UserError, match="is finished, there is nothing to resume"):
        find_unfinished(where, "train-teacher", None, "1")
    run = stopped(session, "distill", method="bc")
    assert find_unfinished(where, "distill", "bc", "").name == run.name
    assert find_unfinished(where, "distill", None, "2").name == run.name
    with pytest.raises(UserError, match="no unfinished distill run"):
        find_unfinished(where, "distill", "dagger", "")
    with pytest.raises(UserError, match="is a distill run: use `tscli distill --resume 2`"):
        find_unfinished(where, "collect", None, "2")


# --- several processes ------------------------------------------------------------------------------------------------

CHILD = """
import sys
from pathlib import Path
from tscli.config import StageConfig
from tscli.runs.session import Session
with Session(runs_dir=Path(sys.argv[1])).start(StageConfig(seed=3), "train-teacher", "cartpole") as run:
    print(run.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def child(session: Session) -> Iterator[subprocess.Popen[str]]:
    """Another process with a run of its own at work."""
    command = [sys.executable, "-c", CHILD, str(session.runs_dir)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def test_a_killed_process_leaves_a_stopped_run(session: Session, child: subprocess.Popen[str]) -> None:
    run = find_run(session.runs_dir, "1")
    assert run.status == "running" and run.manifest["pid"] == child.pid
    with pytest.raises(UserError, match=f"is still running \\(process {child.pid}\\)"):
        find_unfinished(session.runs_dir, "train-teacher", None, "1")
    child.kill()
    child.wait()
    assert run.status == "stopped"
    assert find_unfinished(session.runs_dir, "train-teacher", None, "").name == run.name


def test_two_processes_cannot_hold_one_run(session: Session, child: subprocess.Popen[str]) -> None:
    held = Session(runs_dir=session.runs_dir, resume=find_run(session.runs_dir, "1"))
    with pytest.raises(UserError, match="another process is at work in 0001-"):
        held.start(StageConfig(seed=3), "train-teacher", "cartpole")
    assert find_run(session.runs_dir, "1").manifest["pid"] == child.pid
    assert child.poll() is None


def test_those_who_only_look_do_not_take_each_other_for_the_owner(session: Session) -> None:
    run = stopped(session)
    (run.path / "manifest.json").write_text(json.dumps({**run.manifest, "status": "running"}))
    lookers = [Lock(run.path, shared=True) for _ in range(2)]
    assert find_run(session.runs_dir, "1").status == "stopped"
    for looker in lookers:
        looker.close()

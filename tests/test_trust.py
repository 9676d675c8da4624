"""Code that somebody else's run or task names does not run; the user's own does, without a question."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from stage_tools import RUNS, TEACHER, at_call, call, error_of, signal_once

from tscli import trust
from tscli.cli.app import main
from tscli.config import UserError
from tscli.learning.optim import FlatAdam
from tscli.runs import list_runs
from tscli.tasks import load_task

MODULE = """
from pathlib import Path
import gymnasium

Path({mark!r}).touch()
gymnasium.register("theirs-v0", entry_point="gymnasium.envs.classic_control:CartPoleEnv", max_episode_steps=20)


def make(num_envs, device, **kwargs):
    raise ValueError("no simulator")
"""
ENVS = {
    "gym": "{kind: gym, id: 'theirs.evil:theirs-v0'}",
    "rsl": "{kind: rsl, entry_point: 'theirs.evil:make'}",
    "wrapped": "{kind: gym, id: CartPole-v1, wrappers: [theirs.evil.Wrapper]}",
    "mixed": "{kind: mixed, tasks: {one: {kind: gym, id: 'theirs.evil:theirs-v0'}, two: cartpole}}",
}
DAGGER = ("distill", "--method", "dagger", "--teacher", "1")


@pytest.fixture
def mark(folder: Path, runs: Path, no_plots: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is there once the code of others has run; that lies in the folder to stand in, where it is found."""
    monkeypatch.setenv(trust.TRUST, "0")
    monkeypatch.syspath_prepend(folder)
    (folder / "theirs").mkdir()
    (folder / "theirs" / "evil.py").write_text(MODULE.format(mark=str(folder / "mark")))
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    monkeypatch.delitem(sys.modules, "theirs.evil", raising=False)
    forget(monkeypatch)
    return folder / "mark"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on another machine, in a new process."""
    monkeypatch.setenv("XDG_STATE_HOME", tempfile.mkdtemp())
    monkeypatch.setattr(trust, "_allowed", set())


def task_file(path: Path, env: str) -> Path:
    path.write_text(f"env: {env}\nviews: {{full: [state]}}\n")
    return path


def received(env: str) -> Path:
    """A finished teacher's run that says that it was made on a task of its own."""
    run = list_runs(RUNS)[0]
    (run.path / "task").mkdir()
    task_file(run.path / "task" / "theirs.yaml", env)
    manifest = {**run.manifest, "task": "/elsewhere/theirs.yaml"}
    (run.path / "manifest.json").write_text(json.dumps(manifest))
    return run.path


@pytest.mark.parametrize("env", ENVS.values(), ids=ENVS)
@pytest.mark.parametrize(
    "command", [("eval", "1"), ("collect", "--teacher", "1"), DAGGER, ("diagnose", "--teacher", "1")]
)
def test_a_run_of_somebody_else_imports_no_module_that_its_env_names(
    mark: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], env: str
) -> None:
    received(env)
    error = error_of(capsys, *command)
    assert "theirs.yaml would run code of its own, theirs.evil" in error and "add --trust" in error
    assert not mark.exists()


def test_a_run_of_somebody_else_imports_no_module_of_an_id(mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = list_runs(RUNS)[0]
    (run.path / "manifest.json").write_text(json.dumps({**run.manifest, "task": "theirs.evil:theirs-v0"}))
    error = error_of(capsys, "eval", "1")
    assert "task theirs.evil:theirs-v0 would run code of its own, theirs.evil:theirs-v0" in error
    assert not mark.exists()
    assert main(["eval", "1", "--trust", "--episodes", "2", "--quiet"]) == 0 and mark.exists()


def test_a_task_of_a_run_is_not_the_users_by_its_path(mark: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = received(ENVS["rsl"])
    assert "would run code of its own, theirs.evil:make" in error_of(
        capsys, "train-teacher", f"{path}/task/theirs.yaml"
    )
    assert main(["tasks", f"{path}/task/theirs.yaml"]) == 2
    assert "would run code of its own, theirs.evil:make" in capsys.readouterr().err
    settings = path / "config.yaml"
    settings.write_text(f"task: {path}/task/theirs.yaml\n")
    assert "would run code of its own, theirs.evil:make" in error_of(
        capsys, "train-teacher", "cartpole", "--config", str(settings)
    )
    settings.write_text("network: {kind: theirs/evil.py}\n")
    assert f"{settings} would run code of its own, theirs/evil.py" in error_of(
        capsys, "train-teacher", "cartpole", "--config", str(settings)
    )
    assert not mark.exists()


def test_ones_own_task_runs_its_code_and_so_do_the_runs_that_it_leaves(
    mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = task_file(mark.with_name("own.yaml"), ENVS["gym"])
    command = [word if word != "cartpole" else "own.yaml" for word in TEACHER]
    with monkeypatch.context() as patch:
        patch.setattr(FlatAdam, "step", at_call(FlatAdam.step, 9, signal_once(2)))
        assert main([*command, "--quiet"]) == 130
    assert mark.exists()
    monkeypatch.setattr(trust, "_allowed", set())  # a new process of the same user
    run = call("train-teacher", "--resume")
    call("eval", "--episodes", "2")
    file.unlink()
    call("eval", "3", "--episodes", "2")
    moved = Path("elsewhere")
    shutil.move(RUNS, moved)
    assert main(["eval", str(moved / run.name), "--episodes", "2", "--quiet"]) == 0
    # With other arguments it is other code.
    task_file(moved / run.name / "task" / "own.yaml", "{kind: gym, id: 'theirs.evil:theirs-v0', kwargs: {a: 1}}")
    assert "has changed since the run began" in error_of(capsys, "eval", str(moved / run.name))
    manifest = {**run.manifest, "files": {}}
    (moved / run.name / "manifest.json").write_text(json.dumps(manifest))
    assert "would run code of its own, theirs.evil:theirs-v0" in error_of(capsys, "eval", str(moved / run.name))


def test_a_module_of_the_same_name_in_another_folder_is_other_code(
    mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = trust.named_code({"kind": "rsl", "entry_point": "theirs.evil:make"}, None)
    assert code is not None
    trust.allow(code[1])
    other = mark.with_name("other")
    shutil.copytree("theirs", other / "theirs")
    shutil.rmtree("theirs")
    monkeypatch.syspath_prepend(other)
    assert trust.named_code({"kind": "rsl", "entry_point": "theirs.evil:make"}, None) != code
    shutil.copytree(other / "theirs", "theirs")


@pytest.mark.parametrize("point", ["os:system", "torch.hub:load", "builtins:exec", "subprocess:run", "gymnasium:make"])
def test_what_can_be_made_to_do_anything_is_no_entry_point_even_in_ones_own_task(
    mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], point: str
) -> None:
    task_file(mark.with_name("own.yaml"), f"{{kind: rsl, entry_point: '{point}', kwargs: {{command: 'touch {mark}'}}}}")
    monkeypatch.setenv(trust.TRUST, "1")
    error = error_of(capsys, "train-teacher", "own.yaml")
    assert f"{point.partition('.')[0].partition(':')[0]} has no environments" in error and not mark.exists()


def test_what_comes_with_tscli_or_gymnasium_is_never_asked_about(mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    for name in ("cartpole", "CartPole-v1"):
        load_task(name)
    with pytest.raises(UserError, match=r"GymV26Environment-v0 would run code of its own"):
        load_task("GymV26Environment-v0")


def test_a_comparison_of_somebody_else_runs_no_script_of_its_own(
    mark: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tscli.compare.command import describe
    from tscli.runs import Session, Stopped

    Path("methods.yaml").write_text("mine: [./theirs/evil.py]\n")
    comparison = describe("cartpole", "mine", "1", Path("methods.yaml"), {})
    with (
        pytest.raises(Stopped),
        Session(runs_dir=RUNS).start(comparison, "compare", "cartpole", checkpoints=False) as run,
    ):
        raise Stopped(run.name)
    forget(monkeypatch)
    assert f"{list_runs(RUNS)[-1].name} would run code of its own" in error_of(capsys, "compare", "--resume")
    assert not mark.exists()

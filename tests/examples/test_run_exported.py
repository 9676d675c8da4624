"""The example drives an exported policy as tscli does, and refuses what it cannot drive."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from exported_policies import ACTIONS, exported, make, needs_onnx
from stage_tools import BC, SMALL, call

import tscli.interop.gymnasium  # noqa: F401 - registers the ids, as importing tscli after Gymnasium does
from tscli.cli.app import main
from tscli.interop import export

pytestmark = needs_onnx

RUNNER = Path(__file__).resolve().parents[2] / "examples" / "run_exported.py"


def load_runner() -> Any:
    """The example, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("run_exported", RUNNER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_exported_lstm_student_has_the_returns_outside_that_it_has_inside(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*BC, *SMALL, "--student", "rnn", "--obs", "partial", "--lr", "0.02")
    capsys.readouterr()
    assert main(["eval", "--num-envs", "1", "--episodes", "8", "--no-teacher", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    inside = report["policies"]["student"]["greedy"]["return"]
    Path("examples").mkdir()
    shutil.copy(RUNNER, "examples")
    assert main(["export", "3"]) == 0
    assert "next: python examples/run_exported.py runs/0005-export" in "".join(capsys.readouterr())

    path, seed = "runs/0005-export-cartpole-seed1/policy.onnx", str(report["reset_seed"])
    command = ["run_exported.py", path, "--env", "tscli:tscli/CartPole-v0", "--episodes", "8"]
    monkeypatch.setattr(sys, "argv", [*command, "--seed", seed])
    load_runner().main()
    expected = f"return {inside['mean']:.2f}, deviation {inside['sd']:.2f}, 8 episodes"
    assert expected in capsys.readouterr().out and inside["sd"] > 0


def test_without_onnxruntime_it_says_so_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit, match=r"^this program needs numpy and onnxruntime \(.*\): pip install onnxruntime$"):
        load_runner()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--env", "Pendulum-v1"), "it takes the actions Box"),
        (("--env", "Acrobot-v1"), "it takes the actions Discrete(3), the policy gives discrete [2]"),
        (("--env", "toy_envs:toy/Dict-v0"), "it shows body, camera, goal, the policy sees 4 entries of state"),
        (("--env", "toy_envs:toy/Success-v0"), "it shows state, the policy sees 4 entries of state"),
        (("--env", "Nope-v1"), "--env Nope-v1: "),
    ],
)
def test_the_example_drives_no_environment_that_the_policy_does_not_fit(
    runs: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], words: str
) -> None:
    call("export", "1", "--check-steps", "5")
    path = str(next(runs.glob("*/policy.onnx")))
    module = load_runner()
    monkeypatch.setattr(sys, "argv", ["run_exported.py", path, *args])
    with pytest.raises(SystemExit, match=re.escape(words)):
        module.main()


def test_the_example_refuses_what_is_no_exported_policy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("notes.txt").write_text("none")
    module = load_runner()
    for name in ("notes.txt", "gone.onnx"):
        monkeypatch.setattr(sys, "argv", ["run_exported.py", name])
        with pytest.raises(SystemExit, match=f"^{name} is no policy exported by"):
            module.main()


@pytest.mark.parametrize(
    ("shown", "fits"),
    [("camera", True), ("other", False), ("small", False), ("float", False)],
)
def test_the_example_gives_a_policy_the_pictures_that_it_sees_and_no_others(shown: str, fits: bool) -> None:
    module = load_runner()
    shape, dtype = ((4, 4, 3) if shown == "small" else (8, 8, 3)), (np.float32 if shown == "float" else np.uint8)
    name, high = ("other" if shown == "other" else "camera"), (1.0 if shown == "float" else 255)
    space = gymnasium.spaces.Dict({name: gymnasium.spaces.Box(0, high, shape, dtype)})  # type: ignore[arg-type]
    env = SimpleNamespace(action_space=gymnasium.spaces.Discrete(2), observation_space=space)
    about = {"action": {"kind": "discrete", "nvec": [2]}}
    policy = SimpleNamespace(about=about, inputs={"camera": {"shape": [1, 8, 8, 3]}, "hidden": {"shape": [1, 4]}})
    reason = module.misfit(policy, env)
    assert not reason if fits else "the policy sees pictures camera (8, 8, 3) uint8" in reason


def test_the_example_names_what_an_environment_shows_as_tscli_does() -> None:
    module = load_runner()
    seen = module.readings_of({"robot": {"joints": [1.0, 2.0]}, "goal": np.zeros(1)})
    assert set(seen) == {"robot.joints", "goal"}
    assert set(module.readings_of(np.zeros((4, 4, 3), np.uint8))) == {"image"}
    assert set(module.readings_of(np.zeros(4, np.uint8))) == {"state"}


@pytest.mark.parametrize("kind", ["multi_discrete", "bounded"])
def test_the_example_acts_as_the_policy_does(kind: str, tmp_path: Path) -> None:
    network = {"kind": "rnn", "memory": 6} if kind == "bounded" else {}
    policy, env = make(network, ACTIONS[kind], lengths=[[5, -9, 30]])
    _, path, _ = exported(policy, env, "onnx", tmp_path)
    robot = load_runner().ExportedPolicy(str(path))
    recording = export.record(policy, env, 1, 25)
    env.reset(1)
    for reset, dist in zip(recording.resets, recording.dists, strict=True):
        if reset[0]:
            robot.reset()
        action = robot.act({name: env.observe(name)[0].numpy() for name in ("state", "flag", "goal")})
        expected = dist.mode()
        if policy.spec.action.is_continuous:
            expected = expected.clamp(torch.tensor(env.action.low), torch.tensor(env.action.high))
        np.testing.assert_allclose(action, expected[0].numpy(), atol=1e-5)
        env.step(expected)

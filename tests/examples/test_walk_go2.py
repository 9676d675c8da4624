"""The outside judge of the quadruped moves and senses as the env does, and judges an exported student."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_policies import needs_onnx
from robots import quadruped
from stage_tools import call

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
pytestmark = needs_onnx


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("mujoco")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("walk_go2", EXAMPLES / "walk_go2.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_judges_robot_is_the_envs_on_the_same_body_and_actions(judge: Any) -> None:
    env = quadruped(1, push=0, standing=0, joints=(0.7, 1.4), latency=0.012)
    env.reset(4)
    drawn = dict(zip(("friction", "mass", "x", "y", "z", "kp", "kd", "armature", "dry", "damping", "late"),
                     env._now["dynamics"][0], strict=True))  # fmt: skip
    body = drawn | {"com": np.array([drawn["x"], drawn["y"], drawn["z"]]), "late": round(drawn["late"] / 0.005)}
    robot = judge.Go2(judge.MODEL, 2.5)
    robot.start(body, None)
    robot.data.qpos[:], robot.data.qvel[:] = env._now["qpos"][0], env._now["qvel"][0]
    robot.turns, robot.command = env._now["turns"][0, 0], env._now["command"][0].copy()
    rng = np.random.default_rng(0)
    for _ in range(25):
        action = 0.5 * rng.standard_normal(12)
        env.step(torch.from_numpy(action)[None])
        robot.step(action)
    for name, value in robot.readings().items():
        assert value == pytest.approx(env.observe(name)[0].double().numpy(), abs=1e-4), name
    assert robot.velocity() == pytest.approx(env._velocity(env._now)[0], abs=1e-6) and body["late"] == 2
    assert robot.power() == pytest.approx(float(env.measures()["cost of transport"][0][0]))
    assert not robot.fallen()
    robot.data.qpos[3:7] = [0, 1, 0, 0]
    assert robot.fallen()


def test_robogauges_measures_by_hand(judge: Any) -> None:
    robot = judge.Go2(judge.MODEL, 2.5)
    robot.start(judge.NOMINAL, None)
    robot.command = np.array([0.5, 0.0, -1.0])
    low, high = robot.model.jnt_range[robot.joint].T
    robot.data.qpos[robot.q] = (low + high) / 2
    robot.data.qpos[robot.q[4]] = high[4]  # a tenth of its range beyond
    robot.data.qpos[3:7] = [np.cos(0.1), 0.0, np.sin(0.1), 0.0]  # bent forward by 0.2 rad
    robot.data.qvel[:], robot.data.qvel[4] = 0.0, 0.3
    robot.data.qvel[robot.v[0]] = 4.0
    robot.data.actuator_force[:] = 0.0
    robot.data.actuator_force[robot.motor[0]] = 6.0
    expected = [0.1 / np.sqrt(12), 0.5 / np.hypot(0.5, 1), np.hypot(0.3, 1), 24 / np.sqrt(12) / 100, np.sin(0.2)]
    expected.append(np.sqrt((6.0 - 2.0) ** 2 / 12) / 30)
    before = np.zeros(12)
    before[0] = 2.0
    assert judge.measures(robot, before) == pytest.approx(1 - np.array(expected))
    assert len(judge.goals()) == 14 and sum(seconds for goal in judge.goals() for seconds, _ in goal) == 90.0


def test_it_judges_an_exported_student_and_refuses_a_teacher(
    judge: Any, folder: Path, no_plots: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ("--num-envs", "4", "--rollout-steps", "4", "--bptt", "4", "--num-minibatches", "4", "--eval-episodes", "4")
    short = ("--set", "eval_every=0")
    task = Path("go2.yaml")
    text = (Path(judge.MODEL).parents[2] / "tasks" / "quadruped.yaml").read_text()
    task.write_text(text.replace("threads: 2", "threads: 1, max_episode_steps: 5"))
    call("ts", str(task), *small, *short, "--total-steps", "16")
    for which in ("policy", "teacher"):
        call("export", "1", "--which", which, "--check-steps", "2")
    student, teacher = sorted(folder.glob("runs/*/*.onnx"))
    monkeypatch.setattr(sys, "argv", ["walk_go2.py", str(student), "--episodes", "2", "--seconds", "1.2"])
    judge.main()
    assert "speed error [m/s]" in capsys.readouterr().out
    monkeypatch.setattr(judge, "goals", lambda: [[(0.3, np.array([0.5, 0, 0]))]])
    monkeypatch.setattr(sys, "argv", ["walk_go2.py", str(student), "--gauge"])
    judge.main()
    out = capsys.readouterr().out
    assert "smooth torque" in out and "fell 0 times in 15" in out
    monkeypatch.setattr(sys, "argv", ["walk_go2.py", str(teacher)])
    with pytest.raises(SystemExit, match="sees contacts, dynamics, heights, lin_vel, push, which no robot senses"):
        judge.main()
    monkeypatch.setattr(sys, "argv", ["walk_go2.py", str(task)])
    with pytest.raises(SystemExit, match="is no policy exported by"):
        judge.main()

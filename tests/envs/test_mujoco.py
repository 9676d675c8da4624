"""MuJoCo underneath: threads against a plain loop, what is missing, and what goes wrong inside."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from robots import quadruped

from tscli.config import UserError
from tscli.envs import make_env, rays
from tscli.envs.quadruped import MODEL
from tscli.tasks import load_task


def test_threads_give_the_same_bits_as_a_plain_loop() -> None:
    by_threads, by_loop = quadruped(threads=2), quadruped(threads=0)
    for env in (by_threads, by_loop):
        env.reset(3)
    rng = np.random.default_rng(0)
    for _ in range(40):  # some of which end episodes
        action = torch.from_numpy(rng.normal(0, 3, (3, 12)).astype(np.float32))
        one, other = by_threads.step(action), by_loop.step(action)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    for group in by_threads.groups:
        assert torch.equal(by_threads.observe(group), by_loop.observe(group))
    assert by_threads._episode.any(), "no episode ended"


def test_a_lost_simulation_is_named_with_its_env_and_step(folder: Path) -> None:
    env = quadruped()
    env.reset(0)
    env.step(torch.zeros(3, 12))
    env._now["qvel"][1, 7] = np.nan
    with (
        pytest.warns(RuntimeWarning, match=r"MuJoCo: Nan, Inf or huge value"),
        pytest.raises(UserError, match=r"env 1 is not finite in step 2 of its episode 0") as caught,
    ):
        env.step(torch.zeros(3, 12))
    assert "\n" not in str(caught.value)
    assert not list(folder.iterdir()), "MuJoCo left its own log"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, r"pip install 'tscli\[mujoco\]'"),
        (SimpleNamespace(__version__="3.1.2"), "3.1.2 is installed: pip install"),
    ],
)
@pytest.mark.parametrize("kind", ["quadruped", "drawer"])
def test_without_mujoco_or_with_an_old_one_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, kind: str, module: Any, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "mujoco", module)
    with pytest.raises(UserError, match=message):
        make_env({"kind": kind}, 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"FR_calf_joint"', '"FR_clf_joint"', r'has no joint "FR_calf_joint": did you mean "FR_clf_joint"'),
        ('class="hip" name="RL_hip" joint', 'class="hip" name="rear" joint', 'has no actuator "RL_hip"'),
        ("<worldbody>", "<worldbody", "is no MJCF file that MuJoCo can read"),
        ('axis="0 1 0"', 'axis="0 0 0"', "mine.xml cannot be compiled"),
        ('name="floor"', 'name="ground"', 'has no geom "floor" that other ground could replace'),
    ],
)
def test_a_model_of_ones_own_that_lacks_something_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "mine.xml"
    path.write_text(MODEL.read_text().replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        quadruped(model=str(path), terrain="rough")
    assert "\n" not in str(caught.value)


def test_a_model_of_ones_own_keeps_the_tasks_control_rate_and_is_looked_for_beside_the_tasks_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mujoco")
    folder = tmp_path / "robots"
    folder.mkdir()
    text = MODEL.read_text()
    assert text.count('timestep="0.005"') == 1
    (folder / "mine.xml").write_text(text.replace('timestep="0.005"', 'timestep="0.02"'))
    (folder / "mine.yaml").write_text("extends: quadruped\nenv: {model: mine.xml}\n")
    monkeypatch.chdir(tmp_path)
    env: Any = make_env(load_task("robots/mine.yaml").env, 1)
    assert env.control_dt == pytest.approx(0.02) and env.model.opt.timestep == 0.005


def test_a_picture_by_rays_shows_what_stands_where() -> None:
    mujoco = pytest.importorskip("mujoco")
    ball = '<geom type="sphere" size="0.5" pos="0 0 1" rgba="1 0 0 1"/>'
    model = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody><body>{ball}</body></worldbody></mujoco>")
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    picture = rays.Camera(model, np.array([-3.0, 0.0, 1.0]), np.array([0.0, 0.0, 1.0]), (9, 11)).draw(model, data)
    assert picture.shape == (9, 11, 3) and picture.dtype == np.uint8
    red = (picture[..., 0] > 60) & (picture[..., 1] == 0)
    assert red[4, 5] and not red[0].any() and not red[:, 0].any()
    assert (picture[0, 0] == (255 * rays.SKY).astype(np.uint8)).all()

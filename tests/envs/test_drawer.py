"""The drawer: where its handle is, what is paid, what counts as opened, and what the camera shows."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from robots import drawer

from tscli.config import UserError
from tscli.envs.drawer import CAMERAS, DECIMATION
from tscli.envs.rays import Camera

FIXED = {"position": 0.0, "height": 0.0, "yaw": 0.0}
READY = np.array([0, -0.785, 0, -2.356, 0, 1.571, 0.785])
GRIP = np.array([0.30702, 0.0, 0.48687])  # where the ready pose has it, m
HANDLE = np.array([0.63, 0.0, 0.45])
AWAY = np.array([2.5, *READY[1:]])  # turned out of the picture


def placed(joints: np.ndarray = READY, opening: float = 0.0, **settings: Any) -> Any:
    """One Panda in a pose, at rest."""
    env = drawer(1, **{**FIXED, **settings})
    env.reset(0)
    env._now["qpos"][0, :7], env._now["qpos"][0, 9] = joints, opening
    env._now["qvel"][:] = 0.0
    env._physics.forward()
    env._seen = {}
    return env


def written(env: Any, name: str) -> np.ndarray:
    """A derived array of the env, to be written into."""
    env._now[name] = env._now[name].copy()
    return env._now[name][0]


def geoms_of(env: Any, camera: Camera) -> np.ndarray:
    """The shape in each pixel of a picture of row 0."""
    env._draw_scene(camera, env._now, 0)
    return camera.look(*env._scenes[0])[0]


def pixel(env: Any, name: str, point: np.ndarray) -> tuple[int, int]:
    """Row and column at which a pinhole camera shows a point."""
    eye, look_at, fovy = (np.array(part) for part in CAMERAS[name])
    ahead = (look_at - eye) / np.linalg.norm(look_at - eye)
    right = np.cross(ahead, [0, 0, 1]) / np.linalg.norm(np.cross(ahead, [0, 0, 1]))
    depth = (point - eye) @ ahead
    focal = 32 / np.tan(np.radians(fovy) / 2)
    return int(32 - focal * (point - eye) @ np.cross(right, ahead) / depth), int(
        32 + focal * (point - eye) @ right / depth
    )


def test_the_handle_is_given_in_the_axes_of_the_hand() -> None:
    # The hand points down: its x is the robot's, its y and z are turned round.
    found = placed(opening=0.1).observe("handle")[0].numpy()
    away = HANDLE - [0.1, 0, 0] - GRIP
    assert found[:3] == pytest.approx(away * [1, -1, -1], abs=2e-4)
    assert abs(found[4]) == pytest.approx(1, abs=1e-5) and found[6:] == pytest.approx([0.1, 0])


def test_the_cabinet_is_moved_turned_and_lifted_within_its_ranges() -> None:
    env = drawer(64, position=0.05, height=0.03, yaw=10.0)
    env.reset(1)
    cabinet, turn = env._now["cabinet"][:, :3], 2 * np.arctan2(*env._now["cabinet"][:, [6, 3]].T)
    moved = cabinet - [0.86, 0, 0.45]
    reach = np.array([0.05, 0.05, 0.03])
    assert (np.abs(moved) <= reach).all() and (np.ptp(moved, axis=0) > 1.8 * reach).all()
    assert 9.5 < np.degrees(np.abs(turn).max()) <= 10
    handle = cabinet - 0.23 * np.stack([np.cos(turn), np.sin(turn), 0 * turn], -1)
    assert env._now["site_xpos"][:, env._handle] == pytest.approx(handle, abs=1e-6)


def test_each_term_of_the_reward_is_what_its_formula_says() -> None:
    env = placed()
    env._action = np.full((1, 7), 0.5)
    far = np.linalg.norm(HANDLE - GRIP)
    close = 1 - np.tanh(2.5 * far)
    near = 0.5 / (1 + (far / 0.1) ** 2) + 0.5 / (1 + (far / 0.03) ** 2) + close
    turned = 0.25 * close * np.sqrt(0.5)  # the hand points down, and its x is across the bar
    assert env._outcome()[0][0] == pytest.approx(0.1 * (near + turned - 0.01 * 7 * 0.25), abs=1e-4)
    env._now["qpos"][0, 9], env._now["before"][0, 0] = 0.16, 0.15  # it slides, but not by the hand
    assert env._outcome()[0][0] == pytest.approx(0.1 * (near + turned + 1 - 0.01 * 7 * 0.25), abs=1e-4)


def test_what_opens_the_drawer_near_the_handle_is_paid() -> None:
    env = placed()
    written(env, "site_xpos")[env._grip] = HANDLE
    env._action = np.zeros((1, 7))
    still = env._outcome()[0][0]
    env._now["qpos"][0, 9], env._now["before"][0, 0] = 0.009, 0.004
    assert env._outcome()[0][0] - still == pytest.approx(0.1 * (10 * 0.005 + 100 * 0.005))


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([0, 0.03, 0], [0, -0.03, 0], True),
        ([0, 0.03, 0], [0, 0.01, 0], False),  # both fingers above the bar
        ([0, 0.03, 0.03], [0, -0.03, 0.03], True),  # at the palm
        ([0, 0.03, -0.02], [0, -0.03, -0.02], False),  # before the fingers' tips
        ([0.07, 0.03, 0], [0.07, -0.03, 0], False),  # beside the bar
    ],
)
def test_the_bar_is_between_the_fingers_where_one_is_on_each_side(left: Any, right: Any, expected: bool) -> None:
    env = placed()
    turn = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])  # the hand's axes in the world, as columns
    written(env, "site_xmat")[env._grip] = turn.reshape(-1)
    written(env, "geom_xpos")[env._pads] = HANDLE + np.array([left, right]) @ turn.T
    assert env.between(env._now).tolist() == [expected]


@pytest.mark.parametrize(
    ("opening", "held", "expected"), [(0.16, True, True), (0.16, False, False), (0.14, True, False)]
)
def test_an_episode_succeeds_whose_drawer_ends_open_with_the_bar_in_the_hand(
    monkeypatch: pytest.MonkeyPatch, opening: float, held: bool, expected: bool
) -> None:
    env = placed(max_episode_steps=3)
    monkeypatch.setattr(type(env), "between", lambda self, at: np.full(1, held))
    for k in range(3):
        env._now["qpos"][0, 9] = opening
        step = env.step(torch.zeros(1, 7))
        assert bool(step.success) == (expected and k == 2) and bool(step.truncated) == (k == 2)


def test_a_drawer_that_slides_by_itself_is_not_pulled() -> None:
    env = placed()
    env._now["qvel"][0, 9] = 2.0
    step = env.step(torch.zeros(1, 7))
    assert env._now["qpos"][0, 9] > 0.02 and env._now["near"][0, 0] == 0
    assert float(step.reward) < 0.1 * (0.2 + 0.4 + 0.5)  # what the distance pays, and that it is open by 1 cm


def test_an_action_moves_the_joints_by_so_many_radians_within_their_limits() -> None:
    env = placed()
    env._act(np.array([[1, -1, 0.5, 0, 0, 0, 0.0]]))
    assert env._now["ctrl"][0, :7] - READY == pytest.approx([0.15, -0.15, 0.075, 0, 0, 0, 0])
    env._now["qpos"][0, 3] = -3.05
    env._act(np.full((1, 7), -1.0))
    assert env._now["ctrl"][0, 3] == pytest.approx(-3.0718)
    assert env.control_dt == pytest.approx(DECIMATION * 0.008)


def test_a_pixel_shows_what_stands_there() -> None:
    env = placed(AWAY, opening=0.1)
    for name in env._cameras:
        geoms = geoms_of(env, env._cameras[name]).reshape(64, 64)
        assert geoms[pixel(env, name, HANDLE - [0.1, 0, 0])] == env._bar
        assert env.model.geom(int(geoms[pixel(env, name, np.array([0.95, 0.0, 0.59]))])).name == "cabinet"
        assert env.model.geom(int(geoms[pixel(env, name, np.array([0.569, -0.15, 0.45]))])).name == "front"
    picture = env.observe("camera")[0].numpy()
    bar, front = (picture[pixel(env, "camera", p)] for p in (HANDLE - [0.1, 0, 0], np.array([0.569, 0.1, 0.52])))
    assert bar.max() < 32 and front[0] > front[1] > front[2] > 32


@pytest.mark.parametrize("turn", [-0.35, -0.2, 0.0])
def test_the_visible_share_is_that_of_the_bars_pixels_that_the_arm_leaves(turn: float) -> None:
    reached = np.array([turn, 0.1, 0, -1.9, 0, 2.4, 0.785])  # before the drawer
    eye, look_at, fovy = CAMERAS["camera"]
    pixels = []
    for joints in (reached, AWAY):
        env = placed(joints)
        large = Camera(env.model, np.array(eye), np.array(look_at), (400, 400), fovy)
        pixels.append(int((geoms_of(env, large) == env._bar).sum()))
    env = placed(reached)
    assert env.visible(np.array([0]), env._now)[0] == pytest.approx(pixels[0] / pixels[1], abs=0.15)
    away = placed(AWAY)
    assert away.visible(np.array([0]), away._now)[0] == 1


def test_the_share_is_told_until_the_handle_is_held() -> None:
    env = placed(AWAY)
    env.step(torch.zeros(1, 7))
    (seen, looked), *_ = env.measures().values()
    assert (seen.tolist(), looked.tolist() if looked is not None else None) == ([1], [1])
    env._now["held"][:] = 1
    env.step(torch.zeros(1, 7))
    assert not torch.stack(*env.measures().values()).any()


def test_pictures_are_drawn_for_the_rows_that_are_asked_for_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    env = drawer(5)
    env.reset(0)
    drawn = []
    monkeypatch.setattr(
        type(env), "_draw_scene", lambda self, camera, at, i, w: drawn.append(i) or np.zeros((64, 64, 3))
    )
    env.observe("robot")
    env.step(torch.zeros(5, 7))
    assert not drawn
    env.observe("camera", torch.tensor([4, 1]))
    assert len(drawn) == 2
    env.observe("camera")
    env.observe("camera", torch.tensor([3]))
    assert len(drawn) == 7


def test_threads_draw_the_same_pictures() -> None:
    by_one, by_three = drawer(5, camera_noise=2.0), drawer(5, camera_noise=2.0, threads=3)
    for env in (by_one, by_three):
        env.reset(1)
    assert torch.equal(by_one.observe("side"), by_three.observe("side"))


def test_the_noise_of_a_picture_is_as_strong_as_it_is_said_to_be_and_new_at_each_step() -> None:
    clear, noisy = drawer(2), drawer(2, camera_noise=6.0)
    pictures = []
    for env in (clear, noisy):
        env.reset(4)
        pictures.append(env.observe("camera").float())
    noise = pictures[1] - pictures[0]
    inner = (pictures[0] > 30) & (pictures[0] < 225)
    assert float(noise[inner].std()) == pytest.approx(6, rel=0.05) and abs(float(noise[inner].mean())) < 0.2
    assert float((noise[0] - noise[1])[inner[0] & inner[1]].std()) > 7
    noisy._now["when"][:, 1] += 1
    noisy._seen = {}
    assert not torch.equal(noisy.observe("camera").float(), pictures[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 0.5}, "height"),
        ({"yaw": -3}, "yaw"),
        ({"camera_noise": 300}, "camera_noise"),
        ({"postion": 0.1}, 'did you mean "position"'),
    ],
)
def test_a_setting_out_of_its_bounds_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        drawer(1, **settings)
    assert "\n" not in str(caught.value)


def test_a_film_shows_the_robot_and_what_its_camera_sees() -> None:
    env = placed()
    picture = env.render(0)
    inset = env.observe("camera")[0].numpy().repeat(2, 0).repeat(2, 1)
    assert picture.shape == (240, 400, 3) and (picture[4:132, 268:396] == inset).all()
    assert picture[:, :260].std() > 10

"""The Go2: its commands, rewards by hand, what is drawn, pushes, and the ground."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from robots import quadruped

from tscli.config import UserError
from tscli.envs.quadruped import DYNAMICS
from tscli.envs.rays import march
from tscli.envs.terrain import KINDS, LEVELS, MARGIN, PATCH, Terrain
from tscli.envs.walking import turned

STILL = {"added_mass": (0, 0), "com": (0, 0), "gains": (1, 1), "joints": (1, 1), "latency": (0, 0), "push": 0}


def terms_of(env: Any, **now: Any) -> dict[str, float]:
    """The reward's terms of row 0 in its state with what is given."""
    for name, value in now.items():
        env._now[name][0] = value
    feet = env._now["geom_xpos"][:, env._robot.feet]
    return {k: float(v[0]) for k, v in env._robot.terms(env._now, feet, np.zeros((1, 4)), 0.02).items()}


def test_each_term_of_the_reward_is_what_its_formula_says() -> None:
    env = quadruped(1, **STILL)
    env.reset(0)
    upright, pose = [0, 0, 0.3, 1, 0, 0, 0, *env._robot.default], env._robot.default
    qvel = np.array([0.3, 0.1, 0.2, 0.4, 0.5, 0.6, *[2.0] * 12])
    action = {"action": np.full(12, 0.5), "action_1": np.full(12, 0.2), "action_2": np.full(12, 0.1)}
    off = pose.copy()
    off[[0, 3]] += [0.1, -0.2]
    touch = np.array([1, 0, 1, 1, *[0] * 8, 0])
    touch[[5, 9]] = 1
    found = terms_of(env, qpos=[*upright[:7], *off], qvel=qvel, joint_vel_1=np.full(12, 1.0), command=[0.5, 0.0, 0.2],
                     touch=touch, air=[0.02, 0.3, 0.02, 0.0], feet_1=env._now["geom_xpos"][0, env._robot.feet].ravel(),
                     **action)  # fmt: skip
    assert found["track_lin"] == pytest.approx(np.exp(-(0.2**2 + 0.1**2) / 0.25))
    assert found["track_ang"] == pytest.approx(np.exp(-(0.4**2) / 0.25))
    assert found["lin_vel_z"] == pytest.approx(0.04)
    assert found["ang_vel_xy"] == pytest.approx(0.41)
    assert found["dof_acc"] == pytest.approx(12 * 50**2)
    assert found["action_rate"] == pytest.approx(12 * 0.3**2)
    assert found["action_smoothness"] == pytest.approx(12 * 0.2**2)
    assert found["hip"] == pytest.approx(0.05)
    assert found["collision"] == 2
    assert found["foot_clearance"] == 1  # no foot has moved
    assert found["feet_air_time"] == found["stand_still"] == found["stand_contact"] == found["joint_limits"] == 0


def test_a_foot_is_paid_for_its_time_in_the_air_when_it_lands() -> None:
    env = quadruped(1, **STILL)
    env.reset(0)
    found = terms_of(env, command=[0.5, 0, 0], touch=[1, 1, 0, 0, *[0] * 9], air=[0.6, 0.02, 0.3, 0.02])
    assert found["feet_air_time"] == pytest.approx(0.6 - 0.25)


def test_standing_still_is_paid_only_when_it_is_commanded() -> None:
    env = quadruped(1, **STILL)
    env.reset(0)
    off = env._now["qpos"][0].copy()
    off[env._robot.qpos] = env._robot.default + 0.01
    found = terms_of(env, qpos=off, command=[0, 0, 0], touch=[1] * 4 + [0] * 9)
    assert found["stand_still"] == pytest.approx(0.12) and found["stand_contact"] == 1
    assert terms_of(env, command=[0, 0, 0.5])["stand_still"] == 0


def test_the_reward_is_never_negative_and_the_sum_of_its_terms_else() -> None:
    env = quadruped(4, **STILL)
    env.reset(1)
    standing = env.step(0.0 * torch.ones(4, 12)).reward
    told = sum(value for name, value in env.metrics().items() if name.startswith("env/reward_"))
    assert (standing > 0).all() and float(standing.mean()) == pytest.approx(told * env.control_dt, rel=1e-5)
    assert (env.step(9.0 * torch.ones(4, 12)).reward == 0).all()


def test_what_is_drawn_is_within_its_range_shown_and_in_the_model() -> None:
    env = quadruped(64, friction=(0.3, 0.5))
    env.reset(2)
    shown = dict(zip(DYNAMICS, env.observe("dynamics").double().numpy().T, strict=True))
    assert 0.3 <= shown["friction"].min() < 0.35 and 0.45 < shown["friction"].max() <= 0.5
    assert set(np.round(shown["latency"] / 0.005, 3)) == {0, 1, 2, 3, 4}
    model = env._physics.get_model(5)
    assert model.geom("RL_foot").friction[0] == pytest.approx(shown["friction"][5])
    assert model.body("base").mass[0] == pytest.approx(6.923 + shown["added_mass"][5], abs=1e-6)
    assert model.actuator("FR_calf").gainprm[0] == pytest.approx(20 * shown["kp"][5], abs=1e-5)
    assert model.actuator("FR_calf").biasprm[2] == pytest.approx(-0.5 * shown["kd"][5], abs=1e-6)


def test_latency_holds_the_old_command_for_so_many_physics_steps() -> None:
    forces = []
    for late in (0.0, 0.005, 0.01, 0.015, 0.02):
        env = quadruped(1, **{**STILL, "latency": (late, late)})
        env.reset(0)
        env._now["qpos"][0, env._robot.qpos], env._now["qvel"][0] = env._robot.held, 0.0
        env._now["qpos"][0, 2] = 1.0  # in the air
        env._now["ctrl"][0, 2] = env._robot.held[2] + 0.3
        force = []
        for _ in range(6):
            env._physics.step(nstep=1)
            force.append(float(env._now["actuator_force"][0, 2]))
        forces.append(force)
    for late, force in enumerate(forces):
        assert int(np.argmax(np.array(force) > 1.0)) == late


def test_a_push_changes_the_velocity_and_is_shown_for_half_a_second() -> None:
    env = quadruped(1, **{**STILL, "push": 1.0, "push_seconds": 1.0})
    env.reset(0)
    shown = []
    for _ in range(70):
        before = env._now["push"].copy()
        env.step(torch.zeros(1, 12))
        shown.append(bool(env.observe("push").any()))
        assert before.shape == (1, 2)
    first = shown.index(True)
    assert shown[first : first + 25] == [True] * 25 and not any(shown[first + 25 : first + 40])


def test_vectors_are_turned_into_the_axes_of_the_body() -> None:
    half = np.sqrt(0.5)
    left = np.array([[half, 0, 0, half]])  # turned left by 90 degrees: what is ahead in the world is on its right
    assert turned(left, np.array([[1.0, 0.0, 0.0]]))[0] == pytest.approx([0, -1, 0])
    nose_down = np.array([[half, 0, half, 0]])
    assert turned(nose_down, np.array([0.0, 0.0, -1.0]))[0] == pytest.approx([1, 0, 0])


def test_new_commands_come_every_ten_seconds_within_their_ranges() -> None:
    env = quadruped(200, lin_x=(0.2, 0.5), lin_y=(0, 0), standing=0.25)
    env.reset(0)
    first = env.observe("command")
    assert 0.15 < (first == 0).all(1).float().mean() < 0.35
    walking = first[(first != 0).any(1)]
    assert (walking[:, 0] >= 0.2).all() and (walking[:, 0] <= 0.5).all() and (walking[:, 1] == 0).all()
    env._steps[:] = 498
    env.step(torch.zeros(200, 12))
    assert torch.equal(env.observe("command"), first)
    env._steps[:] = 499
    env._happen()
    assert torch.equal(env.observe("command"), first)
    env._steps[:], env._seen = 500, {}
    env._happen()
    assert not torch.equal(env.observe("command"), first)


def test_the_height_field_in_mujoco_is_the_one_that_is_looked_up() -> None:
    env = quadruped(1, terrain="patches", threads=1)
    mujoco = pytest.importorskip("mujoco")
    data = mujoco.MjData(env.model)
    mujoco.mj_forward(env.model, data)
    rng, half = np.random.default_rng(0), env._terrain.half
    far = []
    for point in rng.uniform(-half, half, (300, 2)):
        down = mujoco.mj_ray(env.model, data, np.array([*point, 9.0]), np.array([0, 0, -1.0]), None, True,
                             env._robot.trunk, np.zeros(1, np.int32), np.zeros(3))  # fmt: skip
        far.append(9.0 - down - env._terrain.height(point))
    assert np.median(np.abs(far)) < 1e-3 and np.quantile(np.abs(far), 0.95) < 0.06


def test_rays_meet_the_height_field_where_they_do_in_mujoco() -> None:
    mujoco = pytest.importorskip("mujoco")
    env = quadruped(1, terrain="patches", threads=1)
    data = mujoco.MjData(env.model)
    data.qpos[:2] = 100.0  # the robot is out of the way
    mujoco.mj_forward(env.model, data)
    rng, off = np.random.default_rng(0), []
    eye = np.array([3.0, -2.0, 2.0])
    rays = rng.standard_normal((200, 3)) * [1, 1, 0.3] - [0, 0, 0.6]
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    for ray, far in zip(rays, march(env._terrain, eye, rays), strict=True):
        theirs = mujoco.mj_ray(env.model, data, eye, ray, None, True, -1, np.zeros(1, np.int32), np.zeros(3))
        edge = np.abs(eye + theirs * ray)[:2] > env._terrain.half - 0.2
        if theirs >= 0 and not edge.any():
            off.append(abs(far - theirs))
    assert len(off) > 100 and np.median(off) < 0.01 and np.quantile(off, 0.9) < 0.1
    assert np.isinf(march(env._terrain, eye, np.array([[0.6, 0.0, 0.8]])))


def test_terrain_rises_level_by_level_and_starts_stand_on_flat_ground() -> None:
    terrain = Terrain("patches")
    for kind in range(5):
        levels = np.arange(LEVELS)
        middle = terrain.origin(np.full(LEVELS, kind), levels)
        around = np.array([[0.3, 0.0], [-0.3, 0.3], [0.0, -0.6]])
        assert np.ptp(terrain.height(middle[:, None] + around), axis=1) == pytest.approx(0)
        steps = np.linspace(-PATCH / 2, PATCH / 2, 161)[:, None] * [1, 0]
        rough = np.ptp(terrain.height(middle[:, None] + steps), axis=1)
        assert rough[-1] > 1.5 * rough[0] > 0
    assert terrain.height(np.array([0.0, 1e4])) == 0 and terrain.beyond(terrain.half - 0.5)
    assert terrain.half == pytest.approx([LEVELS * PATCH / 2 + MARGIN, 5 * PATCH / 2 + MARGIN])


def test_a_kind_and_a_level_have_the_whole_field() -> None:
    stairs = Terrain("stairs_up", 3)
    places = np.stack(np.meshgrid(range(len(KINDS)), range(LEVELS), indexing="ij"), -1).reshape(-1, 2)
    middle = stairs.height(stairs.origin(places[:, 0], places[:, 1]))
    assert middle == pytest.approx(-9 * 0.075)  # down into each, by nine steps
    env = quadruped(4, terrain="stairs_up", level=3)
    env.reset(0)
    env._now["went"][:] = 5.0
    assert env._levels(np.arange(4), np.array([0.1, 0.4, 0.6, 0.9])).tolist() == [0, 2, 3, 5]


def test_who_walks_far_goes_up_a_level_and_who_stays_goes_down() -> None:
    env = quadruped(3, terrain="patches")
    env.reset(0)
    env._now["level"][:] = 2
    env._now["went"][:] = [[5.0, 0.0], [3.0, 0.0], [0.1, 0.0]]
    env._now["asked"][:] = 10.0
    assert env._levels(np.arange(3), np.full(3, 0.9)).tolist() == [3, 2, 1]
    env._now["asked"][:] = 0.1  # it was told to stand
    assert env._levels(np.arange(3), np.full(3, 0.9)).tolist() == [3, 2, 2]
    assert "env/level" in env.metrics() and "env/level" not in quadruped(1, terrain="rough", level=3).metrics()


def test_how_far_a_robot_was_told_to_go_is_by_the_commands_that_were_in_force() -> None:
    env = quadruped(1, lin_x=0.5, lin_y=0, standing=0, max_episode_steps=502)
    env.reset(0)
    env._now["asked"][:], env._steps[:] = 3.0, 499
    for walked in (3.01, 3.02, None):
        env._now["command"][:, 0] = 0.5
        env.step(torch.zeros(1, 12))
        assert walked is None or env._now["asked"][0, 0] == pytest.approx(walked)
    assert env._now["asked"][0, 0] == 0  # of the next episode


def test_ground_is_seen_as_the_robot_looks() -> None:
    env, half = quadruped(1, terrain="slope_up", level=6), np.sqrt(0.5)
    at = {name: np.repeat(env._now[name], 3, 0) for name in ("qpos", "geom_xpos")}
    where = env._terrain.origin(np.array([2]), np.array([2])) + np.array([2.5, 0.3])
    at["qpos"][:, :2], at["geom_xpos"][..., :2] = where, where
    at["qpos"][:, 3:7] = [[1, 0, 0, 0], [0, 0, 0, 1], [half, 0, 0, half]]  # uphill, downhill, and along it
    up, down, along = env._fields("heights", at).reshape(3, 4, 5)
    assert down == pytest.approx(up[:, [0, 2, 1, 4, 3]]) and (up[:, 1] < up[:, 0] - 0.03).all()
    assert along == pytest.approx(up[:, [0, 3, 4, 2, 1]])  # uphill is on its right
    up, down, along = env._fields("normals", at).reshape(3, 4, 3)
    assert down == pytest.approx(up * [-1, -1, 1]) and (up[:, 0] < -0.3).all()
    assert along == pytest.approx(np.stack([up[:, 1], -up[:, 0], up[:, 2]], -1))
    up, down, along = env._fields("height_scan", at).reshape(3, 17, 11)
    assert down == pytest.approx(up[::-1, ::-1]) and up[0, 5] > up[-1, 5] + 0.5
    assert along[8, 0] < along[8, -1] - 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"friction": (2, 1)}, r"friction \(2, 1\): give the lower end first"),
        ({"gains": (-1, 1)}, r"gains \(-1, 1\): cannot be below 0"),
        ({"friction": 0}, r"friction 0: cannot be below 0.01"),
        ({"latency": 0.5}, r"latency 0.5: cannot be above 0.1"),
        ({"added_mass": -8}, r"added_mass -8.0: leaves a trunk of -1.1 kg: take off less"),
        ({"model": "none.xml"}, "model 'none.xml': there is no such file"),
        ({"terrain": "hills"}, "terrain"),
        ({"terrain": "rough", "level": 7}, "level"),
        ({"level": 3}, "level 3: flat ground has none: give terrain"),
        ({"weights": {"hips": -1}}, 'no term of the reward is called "hips": did you mean "hip"'),
    ],
)
def test_a_setting_out_of_its_bounds_is_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        quadruped(1, **settings)
    assert "\n" not in str(caught.value)


def test_an_env_tells_its_terms_and_errors_once() -> None:
    env = quadruped(2)
    env.reset(0)
    env.step(torch.zeros(2, 12))
    found = env.metrics()
    assert {"env/speed_error", "env/yaw_error", "env/reward_track_lin"} <= set(found) and not env.metrics()


def test_a_picture_shows_the_robot_its_command_and_its_velocity() -> None:
    env = quadruped(1)
    env.reset(0)
    picture = env.render(0)
    assert picture.shape == (240, 320, 3) and picture.std() > 10


@pytest.mark.parametrize("dynamics", [{}, {"gains": (0.8, 0.8)}, {"added_mass": (1, 1)}, {"gains": (1.2, 1.2)}])
def test_without_actions_it_stands_on_its_feet(dynamics: dict[str, Any]) -> None:
    env = quadruped(1, friction=(0.8, 0.8), standing=1, **(STILL | dynamics))
    env.reset(0)
    env._now["qpos"][0], env._now["qvel"][0] = env.model.key_qpos[0], 0.0
    for _ in range(100):
        env.step(torch.zeros(1, 12))
    assert env._now["touch"][0].tolist() == [1] * 4 + [0] * 9
    assert 0.2 < env._now["qpos"][0, 2] < 0.3


def test_actions_are_added_to_a_trot_whose_clock_is_shown_and_to_none_where_it_stands() -> None:
    env = quadruped(2, **STILL)
    env.reset(0)
    env._now["command"][:], env._now["turns"][:] = [[0.3, 0.2, -0.5], [0, 0, 0]], 0.21
    env.step(torch.zeros(2, 12))
    turns = 0.21 + 0.02 * 2.5
    told = (env._now["ctrl"] - env._robot.held).reshape(2, 4, 3)
    wave = np.sin(2 * np.pi * turns)
    up, stride = 0.3 * wave, 1.5 * wave / (4 * 2.5 * 0.31)
    assert told[0, 0] == pytest.approx([-0.2 * 0.2 * stride, up - (0.3 + 0.5 * 0.142) * stride, -2 * up])
    assert told[0, 1] == pytest.approx([0.2 * 0.2 * stride, -up / 2 + (0.3 - 0.5 * 0.142) * stride, up])
    assert told[0, 2:, 2] == pytest.approx(told[0, [1, 0], 2])  # diagonal legs together
    assert not told[1].any()
    sine, cosine = wave, np.cos(2 * np.pi * turns)
    shown = [[sine, cosine, 0.3 * sine, 0.3 * cosine, 0.2 * sine, 0.2 * cosine, -0.5 * sine, -0.5 * cosine], [0] * 8]
    assert env.observe("clock").numpy() == pytest.approx(np.array(shown), abs=1e-6)
    plain = quadruped(1, gait_hz=0, **STILL)
    plain.reset(0)
    plain.step(torch.zeros(1, 12))
    assert not plain.observe("clock").any() and (plain._now["ctrl"][0] == plain._robot.held).all()


def test_an_evaluation_is_told_errors_of_settled_commands_falls_and_effort() -> None:
    env = quadruped(2, **STILL)
    env.reset(0)
    env._now["command"][:] = [[0.5, 0.0, 0.0], [0.0, 0.0, 0.0]]
    env._steps[:] = [10, 100]
    env._now["qpos"][1, 3:7] = [0.0, 1.0, 0.0, 0.0]  # on its back
    env.step(torch.zeros(2, 12))
    found = env.measures()
    error, counted = found["speed error [m/s]"]
    assert counted is not None and counted.tolist() == [0, 0]  # the first has just been told, the second starts anew
    assert found["falls per minute"][0].tolist() == [0, 1]
    assert found["falls per minute"][1].tolist() == pytest.approx([0.02 / 60] * 2)
    above, below = found["cost of transport"]
    moves = np.linalg.norm(env._velocity(env._now)[0, :2])
    assert below.tolist() == pytest.approx([9.81 * env.model.body_mass.sum() * moves, 0.0]) and above[1] == 0
    env._steps[0] = 100
    env.step(torch.zeros(2, 12))
    error, counted = env.measures()["speed error [m/s]"]
    off = env._now["command"][0, :2] - env._velocity(env._now)[0, :2]
    assert error[0] == pytest.approx(np.linalg.norm(off)) and counted[0] == 1


def test_weights_of_terms_can_be_other_ones_and_a_range_one_number() -> None:
    env = quadruped(1, weights={"collision": -0.5}, friction=0.4)
    assert env._weights["collision"] == -0.5 and env._weights["hip"] == -0.1
    assert float(env.observe("dynamics")[0, 0]) == pytest.approx(0.4)

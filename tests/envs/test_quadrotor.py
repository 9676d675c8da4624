"""The quadrotor: flight, crashes, pay, and pictures, each against numbers worked out by hand."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from native_envs import put

from tscli.envs.halls import draw_halls, first_free
from tscli.envs.quadrotor import BODY, DT, GRAVITY, HALL, VIEW, Env, EnvConfig

NOTHING = torch.zeros(1, 4)


def state(x: float = 0.0, y: float = 0.0, z: float = 1.5, yaw: float = 0.0, **more: Any) -> np.ndarray:
    """At rest, hovering, in hall 0; rows are replaced by their numbers, as in v=(3, [1, 0, 0])."""
    out = np.zeros(21)
    out[:3], out[6], out[9], out[13] = (x, y, z), math.cos(yaw / 2), math.sin(yaw / 2), GRAVITY
    for first, values in more.values():
        out[first : first + len(values)] = values
    return out


def build(num_envs: int, **settings: Any) -> Env:
    return Env(EnvConfig.model_validate(settings), num_envs)


def alone(columns: list[tuple[float, float, float]] | None = None, num_envs: int = 1, **settings: Any) -> Env:
    """An env whose halls have these columns (x, y, radius) alone; the others are far outside."""
    env = build(num_envs, num_halls=1, **settings)
    placed = [*(columns or []), *[(1000.0, 1000.0, 0.5)] * 16][:16]
    env._tables["halls"] = np.array(placed).T.reshape(48, 1)
    return env


def test_hovering_thrust_keeps_it_where_it_is() -> None:
    env = alone()
    put(env, state()[None])
    for _ in range(50):
        env.step(NOTHING)
    np.testing.assert_allclose(env._state[:6, 0], [0, 0, 1.5, 0, 0, 0], atol=1e-9)


def test_thrust_and_rates_follow_their_commands_with_a_lag() -> None:
    env = alone()
    put(env, state()[None])
    env.step(torch.tensor([[1.0, 0.0, 0.0, 1.0]]))
    thrust = GRAVITY + 0.9 * GRAVITY * (1 - math.exp(-DT / 0.03))
    rate = 3 * (1 - math.exp(-DT / 0.05))
    assert env._state[13, 0] == pytest.approx(thrust)
    assert env._state[10:13, 0] == pytest.approx([0, 0, rate])
    # Semi-implicit: the new velocity moves it.
    climb = DT * (thrust - GRAVITY)
    assert env._state[5, 0] == pytest.approx(climb)
    assert env._state[2, 0] == pytest.approx(1.5 + DT * climb)
    assert env._yaw(env._state[6:10])[1][0] == pytest.approx(math.sin(rate * DT))


def test_a_flight_controller_leans_to_the_acceleration_that_is_asked_for() -> None:
    env = alone(control="acceleration")
    put(env, state(yaw=math.pi / 2)[None])
    env.step(torch.tensor([[1.0, 0.0, 0.0, 0.5]]))
    follows = 1 - math.exp(-DT / 0.05)
    assert env._state[10:13, 0] == pytest.approx([0, 5 * follows, 1.5 * follows]), "as fast as it may, nose down"
    assert env._state[13, 0] == pytest.approx(GRAVITY), "upright, its axis has nothing of it"
    put(env, state(yaw=math.pi / 2)[None])
    speeds = []
    for _ in range(50):
        env.step(torch.tensor([[0.5, 0.0, 0.2, 0.0]]))
        speeds.append(env._state[3:6, 0].copy())
    sideways, ahead, up = ((speeds[49] - speeds[39]) / (10 * DT)).tolist()
    assert abs(sideways) < 0.01 and up + 0.15 * speeds[44][2] == pytest.approx(1, rel=0.02)
    assert ahead + 0.15 * speeds[44][1] == pytest.approx(4, rel=0.02)


def test_a_body_that_leans_is_pulled_that_way_and_the_air_slows_it() -> None:
    env = alone()
    lean = 0.3  # about y: nose down, so that thrust points ahead
    tilted = (6, [math.cos(lean / 2), 0, math.sin(lean / 2), 0])
    put(env, state(tilted=tilted, v=(3, [2.0, 0, 0]))[None])
    env.step(NOTHING)
    assert env._state[3, 0] == pytest.approx(2 + DT * (GRAVITY * math.sin(lean) - 0.15 * 2))
    assert env._state[5, 0] == pytest.approx(DT * GRAVITY * (math.cos(lean) - 1))
    assert float(env.observe("own")[0, 15]) == pytest.approx(-math.sin(lean), abs=1e-6), "the camera looks down"


@pytest.mark.parametrize(
    ("where", "crashes"),
    [
        (state(x=-1.3), False),
        (state(x=-1.2), True),  # the column's radius and the body's are 1.25
        (state(z=0.09), True),
        (state(z=2.91), True),
        (state(x=14.91, y=5), True),
        (state(y=-14.91), True),
        (state(x=5, tumbled=(6, [0.0, 1, 0, 0])), True),
    ],
    ids=["beside", "column", "floor", "ceiling", "wall", "other_wall", "upside_down"],
)
def test_touching_anything_ends_the_episode_without_success(where: np.ndarray, crashes: bool) -> None:
    env = alone([(0, 0, 1.0)])
    put(env, where[None])
    step = env.step(NOTHING)
    assert bool(step.terminated) == crashes and not step.success
    assert (float(step.reward) < -9) == crashes


def test_progress_pays_by_the_metre_and_the_goal_ten() -> None:
    env = alone()
    # The goal is at (13, 0): 1 m/s towards it, then 3.2 m/s, of which 3 are paid; its fifth above 3.5 costs.
    for speed, pays in ((1.0, 0.02 * 0.997), (3.2, 0.06)):
        put(env, state(v=(3, [speed, 0, 0]))[None])
        assert float(env.step(NOTHING).reward) == pytest.approx(pays, abs=1e-6)
    put(env, state(x=11.49, v=(3, [1.0, 0, 0]))[None])
    step = env.step(NOTHING)
    assert step.terminated and step.success
    assert float(step.reward) == pytest.approx(10 + 0.02 * 0.997, abs=1e-5)


def test_what_is_taken_off_for_jerks_height_and_a_near_column() -> None:
    env = alone([(0, 1.5, 1.0)])
    put(env, state(z=2.0)[None])
    # Clearance 0.25 of 0.6; half a metre too high; no jerk.
    expected = -0.02 * 0.5 - 0.03 * (1 - 0.25 / 0.6)
    assert float(env.step(NOTHING).reward) == pytest.approx(expected, abs=1e-5)
    put(env, state(before=(14, [0, 0, 0, 0.5]))[None])
    assert float(alone_step(env, [0, 0, 0, -0.5])) == pytest.approx(
        -0.003 - 0.002 * (1.5 * (1 - math.exp(-0.4))) ** 2 + expected_at_rest(), abs=1e-5
    )


def alone_step(env: Env, action: list[float]) -> torch.Tensor:
    return env.step(torch.tensor([action])).reward


def expected_at_rest() -> float:
    return -0.03 * (1 - 0.25 / 0.6)  # the column beside it


def test_a_collision_course_costs_by_how_near_and_how_straight_it_is() -> None:
    env = alone([(4, 0, 0.5), (-3, 0, 0.5), (0, 3, 1.0)])
    still = state(v=(3, [2.7, 0, 0]))
    env._terminal(still[:, None])
    # Speed 3 with the 0.3 that keep it from 0; 3.6 m along the way of 6; the one behind does not count.
    assert env._collision_course(still[:, None])[0] == pytest.approx(1 - 4 * 2.7 / 3 / 6)
    aside = state(y=-1.0, v=(3, [2.7, 0, 0]))  # passes by at 0.9 - 0.5 - 0.25
    env._terminal(aside[:, None])
    miss = 2.7 / 3 - 0.75
    assert env._collision_course(aside[:, None])[0] == pytest.approx((1 - miss / 0.5) * (1 - 3.6 / 6))


def test_the_camera_measures_columns_walls_and_the_floor() -> None:
    env = alone([(4, 0, 1.0)])
    put(env, state()[None])
    picture = env.observe("depth").reshape(VIEW[::-1]) * 10
    # The ray next to the middle: 1/16 to the left and up per metre ahead.
    away = 1 / 16
    ray = math.sqrt(1 + 2 * away**2)
    flat, aside = math.sqrt(1 + away**2), 4 * away / math.sqrt(1 + away**2)
    in_plane = 4 / flat - math.sqrt(1 - aside**2)
    assert float(picture[5, 7]) == pytest.approx(in_plane / flat * ray, rel=1e-5)
    assert float(picture[0, 0]) == pytest.approx(10), "nothing is there, and the hall has no ceiling"
    # The lowest row looks down by 11/16 per metre, and the leftmost column by 15/16 to the left.
    assert float(picture[11, 0]) == pytest.approx(1.5 / (11 / 16) * math.sqrt(1 + (15 / 16) ** 2 + (11 / 16) ** 2))
    put(env, state(x=0, y=13.0, yaw=math.pi / 2)[None])
    wall = env.observe("depth").reshape(VIEW[::-1]) * 10
    assert float(wall[5, 7]) == pytest.approx(2 * ray, rel=1e-5)
    assert float(wall[5, 0]) == pytest.approx(2 * math.sqrt(1 + (15 / 16) ** 2 + away**2), rel=1e-5)


def test_the_picture_is_mirrored_where_the_hall_is() -> None:
    left, right = alone([(3, 2, 0.7)]), alone([(3, -2, 0.7)])
    for env in (left, right):
        put(env, state()[None])
    a, b = (env.observe("depth").reshape(VIEW[::-1]) for env in (left, right))
    assert torch.equal(a[:, :8], b.flip(1)[:, :8]) and not torch.equal(a, b)


def test_pictures_of_some_rows_are_those_of_all_and_no_others_are_made() -> None:
    env, made = build(7, num_halls=8), []
    depth = env._depth
    env._depth = lambda state: made.append(state.shape[1]) or depth(state)
    some = env.observe("depth", torch.tensor([4, 1]))
    assert made == [2]
    assert torch.equal(some, env.observe("depth")[[4, 1]])


def test_the_nearest_columns_are_told_in_order_ahead_and_to_the_left() -> None:
    env = alone([(0, 3, 1.0), (2, 0, 0.5), (0, -9, 0.6)])
    put(env, state(yaw=math.pi / 2)[None])  # looks along y: what is at x is to the right
    ahead, left, near, radius = env.observe("columns").reshape(4, 5).tolist()
    assert ahead[:3] == pytest.approx([0, 1, -1], abs=1e-5)
    assert left[:3] == pytest.approx([-1, 0, 0], abs=1e-5)
    assert near[:3] == pytest.approx([1 - 1.5 / 6, 1 - 2 / 6, 1 - 8.4 / 6], abs=1e-5)
    assert radius[:3] == pytest.approx([0.5, 1.0, 0.6])


def test_the_scan_tells_how_near_what_is_in_its_way_is() -> None:
    columns = [(4.0, 1.0, 0.5), (-3.0, 0.0, 0.5), (0.0, 3.0, 0.5), (6.0, 0.0, 1.0)]
    env = alone(columns, num_envs=3)
    flies, back, turned = (
        state(v=(3, [2.0, 0, 0])),
        state(v=(3, [-2.0, 0, 0])),
        state(yaw=math.pi / 2, v=(3, [2.0, 0, 0])),
    )
    put(env, np.stack([flies, back, turned]))
    scan, second = env.observe("scan"), 2 * math.pi / 32
    assert scan[0, 0] == pytest.approx(1.5 - 5 / 6, abs=1e-5), "the column right ahead, 5 m away"
    aside, weight = abs(4 * math.sin(second) - math.cos(second)) - 0.5, 2 * 4 / math.sqrt(17) - 1
    met = weight * (1.5 - (math.sqrt(17) - 0.5) / 6)
    assert aside < 0 and scan[0, 1] == pytest.approx(met, abs=1e-5), (
        "nearer than the other, and a little beside the flight"
    )
    assert scan[0, 8:25].count_nonzero() == 0, "what is beside and behind is not in its way"
    assert scan[1, 16] == pytest.approx(1.5 - 2.5 / 6, abs=1e-5) and scan[1, :8].count_nonzero() == 0
    assert torch.allclose(scan[2].roll(8), scan[0], atol=1e-5), "what was ahead is to the right"
    put(env, np.stack([state(yaw=math.pi)] * 3))  # at rest, its back to the goal
    assert env.observe("scan")[0, 16] == pytest.approx(1.5 - 5 / 6, abs=1e-5)


@pytest.mark.parametrize("way", ["aside", "ahead"])
def test_a_column_comes_into_the_scan_by_degrees(way: str) -> None:
    """What is told is continuous: no step of a centimetre changes any number by more than a few hundredths."""
    places = torch.arange(0.0, 10.0, 0.01).tolist()
    env = alone([(4.0, 0.0, 0.5)], num_envs=len(places))
    at = [state(y=y, v=(3, [2.0, 0, 0])) if way == "aside" else state(x=-y, v=(3, [2.0, 0, 0])) for y in places]
    put(env, np.stack(at))
    told = env.observe("scan")
    assert told.diff(dim=0).abs().max() < 0.03
    assert told[-1].count_nonzero() == 0 and told[0].max() > 0.8


@pytest.mark.parametrize("control", ["rates", "acceleration"])
def test_in_training_each_turns_by_itself_at_a_rate_that_its_command_can_make_up_for(control: str) -> None:
    env = alone(num_envs=2, control=control)
    put(env, np.stack([state(drift=(20, [1.2]))] * 2))
    for _ in range(20):  # eight lags of 50 ms
        env.step(torch.tensor([[0.0, 0, 0, 0], [0.0, 0, 0, -0.4]]))
    assert env._state[12].tolist() == pytest.approx([1.2, 0.0], abs=1e-3)


def test_the_drift_is_drawn_where_starts_are_spread() -> None:
    drift = np.asarray(build(256, spread_starts=True, yaw_drift=1.5)._state[20])
    assert -1.5 <= drift.min() < -1.4 and 1.4 < drift.max() <= 1.5
    assert not np.asarray(build(8, yaw_drift=1.5)._state[20]).any()


def test_goal_and_velocity_are_told_in_the_cameras_direction() -> None:
    env = alone()
    put(env, state(x=13, y=-7.5, yaw=math.pi / 2, v=(3, [3.0, 0, 1.0]))[None])
    assert env.observe("goal")[0].tolist() == pytest.approx([1, 0, 0.5], abs=1e-5)
    assert env.observe("own")[0, :3].tolist() == pytest.approx([0, -1, 0.5], abs=1e-5)


def test_metrics_are_means_since_they_were_asked_for_last() -> None:
    env = alone([(4, 0, 1.0), (-4, 0, 1.0)], num_envs=2)
    put(env, np.stack([state(v=(3, [2.0, 0, 0])), state(yaw=math.pi / 2, v=(3, [2.0, 0, 0]))]))
    env.step(torch.zeros(2, 4))
    found = env.metrics()
    assert found["env/camera_angle"] == pytest.approx(45, abs=0.1)
    assert found["env/in_view"] == pytest.approx(0.25)  # one of two, and none
    assert found["env/speed"] == pytest.approx(2, abs=0.01)
    assert "env/crashes" not in found, "no episode ended"
    put(env, np.stack([state(z=0.05), state(x=12)]))
    env.step(torch.zeros(2, 4))
    found = env.metrics()
    assert found["env/crashes"] == 0.5 and found["env/timeouts"] == 0


def test_a_hand_made_reward_for_the_camera_is_an_option() -> None:
    looks, aside = state(v=(3, [2.0, 0, 0])), state(yaw=math.pi / 2, v=(3, [2.0, 0, 0]))
    paid = []
    for coef in (0.0, 0.5):
        env = alone(num_envs=2, camera_coef=coef)
        put(env, np.stack([looks, aside]))
        paid.append(env.step(torch.zeros(2, 4)).reward)
    assert (paid[0] - paid[1]).tolist() == pytest.approx([0, 0.5], abs=2e-3)


def test_halls_keep_their_columns_apart_and_no_split_has_anothers() -> None:
    halls = draw_halls(16, 50, (0.5, 1.0), "train")
    x, y, radius = halls
    assert abs(x).max() <= 9.5 and abs(y).max() <= 12.5
    assert radius.min() >= 0.5 and radius.max() <= 1.0
    gap = np.hypot(x[:, None] - x, y[:, None] - y) - radius[:, None] - radius
    gap = gap[np.triu_indices(16, 1)]
    assert gap.min() > 0.2 and (gap > 1.4).mean() > 0.99
    assert not np.isin(halls[0], draw_halls(16, 50, (0.5, 1.0), "report")[0]).any()


def test_spread_starts_fly_to_any_side_clear_of_the_columns() -> None:
    env = build(512, spread_starts=True, num_halls=64)
    x, _, _, vx, vy, vz = env._state[:6]
    away = env._columns(env._state)
    assert (away[2] - away[3]).min() > BODY and x.min() < -10 and x.max() > 8 and abs(x).max() < HALL
    assert np.hypot(vx, vy).max() <= 3 and not vz.any()
    cos, sin = env._yaw(env._state[6:10])
    ahead = (cos * vx + sin * vy) / np.hypot(vx, vy)
    assert abs(ahead.mean()) < 0.1 and len(np.unique(x)) == 512


def test_of_places_the_first_that_is_free_is_taken() -> None:
    columns = torch.tensor([[[0.0], [5.0]], [[0.0], [0.0]], [[1.0], [1.0]]])
    places = torch.tensor([[1.2, 3.0, 5.0]]).T.unbind(), torch.zeros(3, 1).unbind()
    assert [float(x) for x in first_free(*places, columns, 0.5)] == [3.0, 0.0]
    assert float(first_free(*places, columns, 2.0)[0]) == 5.0, "the last, where none is"


def test_a_reset_after_steps_is_a_new_run() -> None:
    env = build(3, num_halls=8)
    start = env.observe("own").clone()
    env.step(torch.zeros(3, 4))
    env.reset(0)
    assert torch.equal(env.observe("own"), start)

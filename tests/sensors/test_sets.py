"""Which sensors there are to choose from, and what they are called."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pytest

from tscli.config import UserError, parse_view
from tscli.envs import make_env
from tscli.envs.views import resolve_view
from tscli.sensors.sets import Candidate, find_sensors, parse_costs, sensor_view
from tscli.tasks import load_task


def sensors_of(task_name: str, expression: str = "", costs: str = "") -> list[tuple[str, float]]:
    task = load_task(task_name)
    env = make_env(task.env, 1)
    found = find_sensors(expression, parse_costs(costs.split()), task, env.groups, env.action)
    return [(sensor.name, sensor.cost) for sensor in found]


def test_a_small_task_has_a_sensor_for_each_entry_and_a_large_one_for_each_group() -> None:
    entries = ["position", "velocity", "angle", "angular_velocity"]
    assert sensors_of("cartpole") == [(f"state[{name}]", 1.0) for name in entries]
    groups = ["goal_offset", "colors", "last_move", "masked_colors"]
    assert sensors_of("color_maze", costs="colors=10") == [(name, 10.0 if name == "colors" else 1.0) for name in groups]


def test_the_parts_of_an_expression_are_sensors_and_a_cost_of_a_group_is_for_each_of_its_own() -> None:
    found = sensors_of("cartpole", "state[0,2] + state[velocity]", "state=2 state[velocity]=5")
    assert found == [("state[position, angle]", 2.0), ("state[velocity]", 5.0)]


@pytest.mark.parametrize(
    ("expression", "costs", "message"),
    [
        ("state[angel]", "", 'no entry "angel": did you mean "angle"'),
        ("state[2] + state[angle]", "", "name each sensor once"),
        ("state + previous_action", "", "is no sensor"),
        ("", "camera=3", 'there is no sensor "camera"'),
    ],
)
def test_what_is_no_sensor_is_refused(expression: str, costs: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        sensors_of("cartpole", expression, costs)


@pytest.mark.parametrize("word", ["camera", "camera=", "=3", "camera=-1", "camera=nan", "camera=inf"])
def test_a_cost_is_a_number_of_a_sensor(word: str) -> None:
    with pytest.raises(ValueError, match="write sensor=cost"):
        parse_costs([word])


def test_a_candidate_is_a_view_with_a_part_for_each_sensor() -> None:
    task = load_task("cartpole")
    env = make_env(task.env, 1)
    sensors = find_sensors("", {}, task, env.groups, env.action)
    one = Candidate(sensors, True).without(sensors[1])
    assert one.names == "state[position, angle, angular_velocity]" and one.cost == 3
    view = resolve_view("mine", parse_view(one.view), env.groups, env.action)
    assert [part.index for part in view.parts] == [(0,), (2,), (3,), None]
    assert view.parts[-1].group == "previous_action"
    assert Candidate(one.sensors, False).view == "state[position] + state[angle] + state[angular_velocity]"
    assert sensor_view(one.sensors, env.groups, env.action).parts == view.parts[:-1]

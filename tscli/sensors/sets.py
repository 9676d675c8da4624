"""Sensors, and sets of them that a student may be given."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tscli.config import UserError, ViewPart, did_you_mean, parse_view
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import PREVIOUS_ACTION, ViewSpec, resolve_view
from tscli.tasks import Task

FEW = 8  # entries of all groups together, up to which each is a sensor of its own
_WORD = re.compile(r"[\w.\-]+")  # a name that an expression can hold


@dataclass(frozen=True)
class Sensor:
    """What a student has as a whole or not at all: a group, or some entries of one."""

    name: str  # as an expression of a view: `camera`, `state[angle]`
    cost: float = 1.0

    @property
    def group(self) -> str:
        """The group that it is of."""
        return self.name.partition("[")[0]


@dataclass(frozen=True)
class Candidate:
    """What a student sees, and whether it remembers."""

    sensors: tuple[Sensor, ...]
    memory: bool

    @property
    def cost(self) -> float:
        """Of all its sensors."""
        return sum(sensor.cost for sensor in self.sensors)

    @property
    def names(self) -> str:
        """`state[position, angle], camera`: entries of a group together."""
        entries: dict[str, list[str]] = {}
        for sensor in self.sensors:
            entries.setdefault(sensor.group, []).append(sensor.name[len(sensor.group) :].strip("[]"))
        return ", ".join(f"{group}[{', '.join(inner)}]" if all(inner) else group for group, inner in entries.items())

    @property
    def view(self) -> str:
        """The expression of its view, a part for each sensor in their order; who remembers knows what it has done."""
        return " + ".join([*(sensor.name for sensor in self.sensors), *([PREVIOUS_ACTION] if self.memory else [])])

    def without(self, sensor: Sensor) -> Candidate:
        """The same with one sensor less."""
        return Candidate(tuple(one for one in self.sensors if one != sensor), self.memory)


def find_sensors(
    expression: str, costs: Mapping[str, float], task: Task, groups: Mapping[str, Group], action: ActionSpec
) -> tuple[Sensor, ...]:
    """The sensors to choose from.

    Args:
        expression: a view, each part of which is one; "" takes the groups of the task's views of teacher and student,
            entry by entry where there are no more than `FEW` of them, or but one group.
        costs: by sensor, or by group for each of its sensors; 1 where there is none.
        task, groups, action: of the env.

    Raises:
        UserError: a sensor that is not there, is named twice or is the previous action; a cost of none of them.
    """
    parts = task.view(expression) if expression else _all_parts(task, groups)
    names = []
    for part in parts:
        if part.group == PREVIOUS_ACTION:
            raise UserError(f"--sensors: {PREVIOUS_ACTION} is no sensor: students with memory know it, others do not")
        (spec,) = resolve_view(expression or task.name, (part,), groups, action, owner=f"task {task.name}").parts
        names.append(_name(spec.group, spec.index, groups[spec.group]))
    if len(set(names)) < len(names):
        raise UserError(f"--sensors {expression}: name each sensor once")
    for name in costs:
        if not any(name in (sensor, sensor.partition("[")[0]) for sensor in names):
            raise UserError(f'--cost {name}={costs[name]:g}: there is no sensor "{name}": {did_you_mean(name, names)}')
    return tuple(Sensor(name, costs.get(name, costs.get(name.partition("[")[0], 1.0))) for name in names)


def parse_costs(words: Sequence[str]) -> dict[str, float]:
    """`["camera=10"]` as a mapping.

    Raises:
        ValueError: one is no `name=number`, or the number is negative.
    """
    costs = {}
    for word in words:
        name, _, value = word.rpartition("=")
        try:
            costs[name.strip()] = float(value)
        except ValueError:
            name = ""
        if not name.strip() or not 0 <= costs[name.strip()] < float("inf"):
            raise ValueError(f'"{word}": write sensor=cost, such as camera=10')
    return costs


def sensor_view(sensors: Sequence[Sensor], groups: Mapping[str, Group], action: ActionSpec) -> ViewSpec:
    """The view that shows all of them, part by part."""
    return resolve_view("sensors", parse_view(" + ".join(one.name for one in sensors)), groups, action)


def _all_parts(task: Task, groups: Mapping[str, Group]) -> list[ViewPart]:
    used = [part.group for role in (task.teacher, task.student) for part in task.views[role]]
    names = [name for name in dict.fromkeys(used) if name != PREVIOUS_ACTION]
    names = [name or next(iter(groups)) for name in names]  # bare numbers are entries of the only group
    vectors = [name for name in names if name in groups and not groups[name].is_image]
    by_entry = sum(groups[name].size for name in vectors) <= FEW or len(names) == 1
    parts = []
    for name in dict.fromkeys(names):
        entries = range(groups[name].size) if by_entry and name in vectors else ()
        parts += [ViewPart(group=name, index=(str(i),)) for i in entries] or [ViewPart(group=name)]
    return parts


def _name(group: str, index: tuple[int, ...] | None, spec: Group) -> str:
    """As an expression that is read again: by names where these can be written there."""
    if index is None or spec.size == 1:
        return group
    fields = [spec.fields[i] if spec.fields and _WORD.fullmatch(spec.fields[i]) else str(i) for i in index]
    return f"{group}[{', '.join(fields)}]"

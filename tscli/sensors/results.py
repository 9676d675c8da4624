"""All that a search has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tscli.sensors.bearing import Bearing
from tscli.sensors.knowing import Told
from tscli.sensors.search import Found, Scale, kept
from tscli.sensors.sets import Candidate, Sensor


@dataclass(frozen=True)
class Results:
    """The figures of a search.

    Attributes:
        task: its name.
        sensors: to choose from.
        full: all of them, with memory and without, as far as these were tried.
        bodies: the students' body with memory (True) and without.
        scale: of returns.
        found: returns of every candidate.
        told: what the probes say.
        bearings: of the kept sets.
    """

    task: str
    sensors: tuple[Sensor, ...]
    full: Sequence[Candidate]
    bodies: Mapping[bool, str]
    scale: Scale
    found: Found
    told: Told
    bearings: Mapping[Candidate, Sequence[Bearing]]

    @property
    def kept(self) -> list[Candidate]:
        """The smallest set without a loss, of each mode whose students can do the task at all."""
        return [kept(one, self.found, self.scale) for one in self.full if not self.is_hopeless(one)]

    @property
    def best(self) -> Candidate:
        """The cheapest of these, without memory if that costs the same."""
        return min(self.kept or self.full, key=lambda one: (one.cost, one.memory))

    @property
    def episodes(self) -> int:
        """On which each was measured."""
        return self.found[self.full[0]].returns.shape[1]

    @property
    def students(self) -> int:
        """How many there are of each set, with seeds of their own."""
        return len(self.found[self.full[0]].returns)

    @property
    def has_costs(self) -> bool:
        """Whether sensors differ in what they cost."""
        return any(sensor.cost != 1 for sensor in self.sensors)

    def all_of(self, candidate: Candidate) -> Candidate:
        """All sensors in the same mode."""
        return Candidate(self.sensors, candidate.memory)

    def left(self, candidate: Candidate) -> float:
        """Share of what all sensors give in the same mode, or the teacher if that is less."""
        return self.scale.share(self.found[candidate].mean, self.found[self.all_of(candidate)].mean)

    def holds(self, candidate: Candidate) -> bool:
        """Whether it loses nothing beside all sensors in the same mode."""
        return self.scale.holds(self.found[candidate].mean, self.found[self.all_of(candidate)].mean)

    def is_hopeless(self, candidate: Candidate) -> bool:
        """Whether not even all sensors bring a student of this mode near to its teacher."""
        return not self.scale.is_hopeful(self.found[self.all_of(candidate)].mean)

    def mode(self, candidate: Candidate) -> str:
        """`with memory (rnn)`."""
        return f"with memory ({self.bodies[True]})" if candidate.memory else "without memory"

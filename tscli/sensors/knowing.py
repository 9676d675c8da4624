"""What sensors tell of the teacher's action, by the probes of `tscli diagnose`: before anything is distilled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tscli.diagnose.probe import HISTORY, Effort, Probes, features, make_probes
from tscli.diagnose.sample import Sample
from tscli.sensors.sets import Candidate, Sensor

EFFORT = Effort(fit_rows=3000, test_rows=1000, units=128, updates=200, hurry=False)
LENGTHS = (1, 2, 4, 8, 16)  # of a history, in steps


@dataclass(frozen=True)
class Told:
    """Scores, see `Knowing`."""

    nothing: float  # of what sees nothing
    rows: list[tuple[Sensor, dict[str, float]]]  # alone, alone_past, others, others_past
    lengths: dict[str, dict[int, float]]  # of a set, by the steps of its history


@dataclass
class Knowing:
    """Scores of candidates, each computed once.

    A score is the share of steps in which the action was told right (discrete), or the share of the actions' variance
    that was explained (continuous), on episodes that the probes were not fitted on.

    Attributes:
        sample: steps with the teacher's labels; its second view shows `sensors`, a part for each.
        sensors: all of them.
        probes: fitted on it.
    """

    sample: Sample
    sensors: tuple[Sensor, ...]
    probes: Probes
    _known: dict[tuple[Candidate, int], float] = field(default_factory=dict)

    def seen(self, chosen: tuple[Sensor, ...]) -> Tensor:
        """[T, B, F]: what the probes read of these sensors."""
        parts, obs, start = self.sample.views[1].parts, {}, 0
        columns = []
        for sensor, part in zip(self.sensors, parts, strict=True):
            if sensor in chosen and part.is_image:
                obs[part.group] = self.sample.student[part.group]
            elif sensor in chosen:
                columns.append(self.sample.student["vector"][..., start : start + part.size])
            start += part.size
        if columns:
            obs["vector"] = torch.cat(columns, dim=-1)
        return features(obs)

    def score(self, candidate: Candidate) -> float:
        """That of what it sees now or, where it has memory, of the last `HISTORY` steps if that is more."""
        alone = self.of_length(candidate.sensors, 1)
        if not candidate.memory:
            return alone
        key = candidate, HISTORY
        if key not in self._known:
            self._known[key] = self.probes.remembered(self.seen(candidate.sensors), alone)
        return self._known[key]

    def of_length(self, chosen: tuple[Sensor, ...], steps: int) -> float:
        """The score of the last `steps` observations and actions; of one observation alone."""
        key = Candidate(chosen, False), steps
        if key not in self._known:
            x = self.seen(chosen)
            self._known[key] = self.probes.score(x if steps == 1 else self.probes.past(x, steps))
        return self._known[key]

    def told(self, sets: Sequence[Candidate]) -> Told:
        """Scores to show: of each sensor alone and of all others, now and with the past; and by history's length."""
        every = Candidate(self.sensors, False)
        rows = []
        for sensor in self.sensors:
            scores = {}
            for name, chosen in (("alone", (sensor,)), ("others", every.without(sensor).sensors)):
                for memory in (False, True) if chosen else ():
                    scores[f"{name}_past" if memory else name] = self.score(Candidate(chosen, memory))
            rows.append((sensor, scores))
        by_name = {one.names: one.sensors for one in sets}
        lengths = {name: {n: self.of_length(chosen, n) for n in LENGTHS} for name, chosen in by_name.items()}
        return Told(self.probes.base, rows, lengths)


def ask_probes(sample: Sample, sensors: tuple[Sensor, ...], seed: int) -> Knowing | None:
    """Probes of a sample whose second view shows these sensors; None where it is one episode alone."""
    probes = make_probes(sample, EFFORT, seed)
    return None if probes is None else Knowing(sample, sensors, probes)

"""Results of a search for sensors, made by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tscli.sensors.bearing import Bearing
from tscli.sensors.knowing import Told
from tscli.sensors.results import Results
from tscli.sensors.search import Measured, Scale
from tscli.sensors.sets import Candidate, Sensor


def results_of(with_memory: Mapping[str, float], without: Mapping[str, float], **costs: float) -> Results:
    """Of sensors a, b, ...: returns by sets of them, of which the first one is all.

    Random actions have 0, the teacher 100. What is kept bears a little, whatever it is.
    """
    names = next(iter({**with_memory, **without}))
    sensors = {name: Sensor(name, costs.get(name, 1.0)) for name in names}

    def candidate(letters: str, memory: bool) -> Candidate:
        return Candidate(tuple(sensors[name] for name in letters), memory)

    found = {
        candidate(letters, memory): Measured(np.array([[value - 1, value + 1]]))
        for memory, values in ((True, with_memory), (False, without))
        for letters, value in values.items()
    }
    every = tuple(sensors.values())
    full = [Candidate(every, memory) for memory in (True, False) if Candidate(every, memory) in found]
    told = Told(0.5, [(one, {"alone": 0.6, "alone_past": 0.7}) for one in every], {names: {1: 0.9, 8: 0.95}})
    scale = Scale(0.0, 100.0, 0.05)
    bare = Results("toy", every, full, {True: "rnn", False: "mlp"}, scale, found, told, {})
    levels = {"noise": (0.5, 0.7, "0.02 rad"), "delay": (0.0, 1, ""), "dropout": (0.9, None, "")}
    bearings = {
        one: [
            Bearing(sensor, kind, *level[:2], 0.9, level[2]) for sensor in one.sensors for kind, level in levels.items()
        ]
        for one in bare.kept
    }
    return Results("toy", every, full, bare.bodies, scale, found, told, bearings)

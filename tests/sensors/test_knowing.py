"""Probes of sets of sensors: on labels of which it is known what they come from."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from dataclasses import replace

import torch
from diagnose_data import readings, sample_of, see, teacher_of, view

from tscli.sensors.knowing import ask_probes
from tscli.sensors.sets import Candidate, Sensor

SENSORS = (Sensor("state[place]"), Sensor("camera"), Sensor("state[aim, speed]"), Sensor("colors"))
VIEW = "state[place] + camera + state[aim, speed] + colors"


def test_the_probes_read_the_entries_of_each_sensor() -> None:
    sample = sample_of(teacher_of(), VIEW)
    knowing = ask_probes(sample, SENSORS, 1)
    assert knowing is not None
    state, colors = readings()["state"], readings()["colors"]
    assert torch.equal(knowing.seen(SENSORS[2:3]), state[..., [2, 1]])
    assert torch.equal(knowing.seen((SENSORS[0], SENSORS[3])), torch.cat([state[..., :1], colors], dim=-1))
    assert knowing.seen(SENSORS[1:2]).shape == (*state.shape[:2], 144)
    assert torch.equal(knowing.seen(SENSORS), knowing.seen(SENSORS[::-1])), "always in the order of the view"


def test_what_the_action_comes_from_is_found_alone_and_missed_elsewhere() -> None:
    sensors = (SENSORS[0], SENSORS[3])
    sample = sample_of(teacher_of(), "state[place] + colors")
    label = (sample.groups["state"][..., 0] > 0).long()
    knowing = ask_probes(
        replace(sample, label=label, student=see(view("state[place] + colors"), readings())), sensors, 1
    )
    assert knowing is not None
    told = knowing.told([Candidate(sensors, True)])
    place, colors = (scores for _, scores in told.rows)
    assert place["alone"] > 0.95 and colors["alone"] < 0.75 and told.nothing < 0.75
    assert place["others"] == colors["alone"] and colors["others"] == place["alone"]
    assert place["alone_past"] >= place["alone"]
    assert list(told.lengths["state[place], colors"]) == [1, 2, 4, 8, 16]
    assert knowing.score(Candidate(sensors[:1], True)) == place["alone_past"]

"""Where student and teacher part."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import torch
from fake_env import DISCRETE, GROUPS, FakeEnv

from tscli.config import NetworkConfig, parse_view
from tscli.envs.views import resolve_view
from tscli.networks import Policy, PolicySpec
from tscli.training.parting import Parting


def make(view: str) -> Policy:
    spec = resolve_view("mine", parse_view(view), GROUPS, DISCRETE)
    return Policy(PolicySpec(spec, DISCRETE, NetworkConfig(hidden=(4,))))


def test_means_stand_over_the_step_and_over_the_entries_that_matter_most() -> None:
    parting = Parting({"student": make("flag"), "teacher": make("state")}, FakeEnv([[1], [1]]))
    for step, reset in enumerate((True, False, True)):
        full = torch.tensor([[0.0, 5, step], [1, 5, step]])
        seen = {"teacher": {"vector": full}, "student": {"vector": torch.zeros(2, 1)}}
        apart = {"action_agreement": torch.tensor([True, False]), "kl_teacher_student": torch.tensor([1.0, 3.0 + step])}
        parting(seen, apart, torch.tensor([reset, reset]), torch.tensor([True, step < 2]))
    found = parting.figures()
    assert found["steps"] == 5, "the second env's last step does not count"
    agreement = found["over_step"]["action_agreement"]
    assert (agreement["x"], agreement["y"]) == ([0.0, 1.0], [0.66667, 0.5])
    assert found["over_step"]["kl_teacher_student"]["y"] == [round(5 / 3, 4), 2.5]
    assert found["of"] == "kl_teacher_student"
    assert next(iter(found["over"])) == "env"
    assert found["over"]["env"]["y"] == [1.0, 3.5]
    assert found["over"]["flag"]["spread"] == 0.0

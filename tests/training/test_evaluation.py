"""A student beside its teacher."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import torch

from tscli.config import NetworkConfig
from tscli.networks import Policy, PolicySpec
from tscli.tasks import load_task
from tscli.training import setup
from tscli.training.evaluation import beside_teacher


def test_a_student_with_less_than_four_fifths_of_its_teachers_gain_is_said_to_be_far_below_it() -> None:
    task = load_task("cartpole")
    env = setup.task_env(task, 8, torch.device("cpu"))
    student = Policy(PolicySpec(setup.resolve(task, "full", env), env.action, NetworkConfig(hidden=(2,))))
    before = torch.random.get_rng_state()
    found, remark = beside_teacher(student, env, 3, 100.0, 500.0)
    chance = found["untrained_return"]
    assert 10 < chance < 60, "CartPole falls soon when it is pushed at random"
    assert torch.equal(torch.random.get_rng_state(), before)
    assert remark.startswith(f"the student has {100 * (100 - chance) / (500 - chance):.0f} % of what its teacher gains")
    enough = chance + 0.81 * (500 - chance)
    assert beside_teacher(student, env, 3, enough, 500.0) == ({"teacher_return": 500.0, "untrained_return": chance}, "")
    assert beside_teacher(student, env, 3, 501.0, 500.0) == ({"teacher_return": 500.0}, "")

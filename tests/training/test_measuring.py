"""Figures of policies: the same episodes for each, and who acts, is compared and counted."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import math

import pytest
import torch
from fake_env import DISCRETE, GROUPS, FakeEnv

from tscli.config import NetworkConfig, parse_view
from tscli.envs.views import resolve_view
from tscli.learning.episodes import Episodes
from tscli.networks import Policy, PolicySpec
from tscli.training.evaluation import compare_on_student_states, figures, measure, summary, task_figures


def make(*logits: float, kind: str = "mlp") -> Policy:
    """A policy with these logits, whatever it sees."""
    view = resolve_view("mine", parse_view("state"), GROUPS, DISCRETE)
    policy = Policy(PolicySpec(view, DISCRETE, NetworkConfig(kind=kind, hidden=(4,), memory=4)))
    with torch.no_grad():
        policy.head.linear.weight.zero_()
        policy.head.linear.bias.copy_(torch.tensor(logits))
    return policy


def episodes(returns: list[float], success: list[bool] | None = None) -> Episodes:
    told = None if success is None else torch.tensor(success)
    return Episodes(torch.tensor(returns), torch.ones(len(returns)), told)


def test_every_policy_is_measured_on_the_same_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    env, seeds, policies = FakeEnv([[2, 4], [-6]]), [], {"eval": make(1, 0), "eval_teacher": make(0, 1)}
    reset = FakeEnv.reset
    monkeypatch.setattr(FakeEnv, "reset", lambda self, seed: (seeds.append(seed), reset(self, seed))[1])
    found = measure(policies, env, 7, per_slot=2)
    assert seeds == [7, 7] and [name for name in found if "return" in name] == ["eval/return", "eval_teacher/return"]
    assert found["eval/return"] == found["eval_teacher/length"] == (2 + 4 + 6 + 6) / 4
    assert found["eval/success_rate"] == 0.5


def test_figures_are_of_the_first_episodes_alone_with_wilsons_interval_for_success() -> None:
    found = figures(episodes([1.0, 3.0, 99.0], [True, True, False]), 2)
    assert found["return"]["mean"] == 2.0 and found["return"]["count"] == found["length"]["count"] == 2
    assert found["success_rate"]["mean"] == 1.0 and 0 < found["success_rate"]["low"] < 0.5
    assert "success_rate" not in figures(episodes([1.0]), 1)
    assert summary(episodes([1.0, 2.0], [True, False]))["eval/success_rate"] == 0.5


def test_in_a_mixture_each_task_has_the_figures_of_its_own_rows() -> None:
    env = FakeEnv([[1]] * 4)
    assert task_figures(episodes([1.0] * 4), 4, env) == {}
    env.members = ("left", "right")  # rows 0 and 2, and 1 and 3
    found = task_figures(episodes([1.0, 1, 2, 2, 3, 3, 4, 4], [True, True, False, False] * 2), 7, env)["tasks"]
    assert found["left"]["return"]["mean"] == 2.0 and found["left"]["success_rate"]["mean"] == 1.0
    assert found["right"]["return"]["mean"] == pytest.approx(8 / 3) and found["right"]["return"]["count"] == 3


def test_what_the_env_tells_of_a_policys_episodes_stands_beside_its_return(monkeypatch: pytest.MonkeyPatch) -> None:
    env, asked = FakeEnv([[2], [6]]), [0]

    def metrics(self: FakeEnv) -> dict[str, float]:
        new, asked[0] = len(self.actions) - asked[0], len(self.actions)
        return {"env/steps_told": float(new)}

    monkeypatch.setattr(FakeEnv, "metrics", metrics)
    env.step(torch.zeros(2, dtype=torch.int64))  # of nobody's episodes
    found = measure({"eval": make(1, 0), "eval_teacher": make(0, 1)}, env, 0)
    assert found["eval/steps_told"] == found["eval_teacher/steps_told"] == 6


def test_a_comparison_is_made_where_the_student_goes_until_its_episodes_have_ended() -> None:
    env = FakeEnv([[2, 9], [5, 9]])
    student, teacher = make(1.0, 0.0), make(0.0, math.log(3.0))
    found = compare_on_student_states(student, teacher, env, 0, 1)
    p, q = math.e / (1 + math.e), 0.25  # of the first action, for student and teacher
    expected = q * math.log(q / p) + (1 - q) * math.log((1 - q) / (1 - p))
    assert found == {"action_agreement": 0.0, "kl_teacher_student": pytest.approx(expected)}
    assert len(env.actions) == 5 and not torch.stack(env.actions).any(), "the student acts, until slot 1 has ended"
    assert compare_on_student_states(student, student, env, 0, 2)["action_agreement"] == 1.0


def test_the_memories_of_a_comparison_begin_anew_with_each_episode() -> None:
    env, resets = FakeEnv([[2], [3]]), []
    student = make(1.0, 0.0, kind="gru")
    student.encoder.register_forward_pre_hook(lambda module, args: resets.append(args[2][0].tolist()))
    compare_on_student_states(student, make(1.0, 0.0), env, 0, 2)
    assert resets == [[True, True], [False, False], [True, False], [False, True], [True, False], [False, False]]

"""What a teacher is charged for where its student cannot follow, by hand-computed numbers; and the memory of pairs."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import io

import pytest
import torch

from tscli.config import NetworkConfig, PenaltyConfig, UserError
from tscli.envs import make_env
from tscli.envs.spaces import ActionSpec
from tscli.envs.views import resolve_view
from tscli.learning import alignment
from tscli.learning.record import Fields
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import Categorical, Gaussian, TanhGaussian, kl, with_std
from tscli.tasks import load_task

CPU = torch.device("cpu")
BOUNDED = ActionSpec("continuous", low=(-1.0, -4.0), high=(1.0, 0.0))


def gaussian(mean: list[float], std: float) -> Gaussian:
    return Gaussian(torch.tensor(mean), torch.full((len(mean),), std))


def test_in_fixed_units_the_same_difference_costs_the_same_however_sure_both_are() -> None:
    unit = torch.tensor([0.2, 0.2])
    for std in (0.5, 0.05):
        pair = gaussian([0.1, 0.0], std), gaussian([0.0, 0.0], 2 * std)
        for direction in ("teacher_proxy", "proxy_teacher"):
            # (0.1 / 0.2)^2 / 2
            assert float(alignment.directed_kl(*pair, direction, unit)) == pytest.approx(0.125)
    own = alignment.directed_kl(gaussian([0.1, 0.0], 0.05), gaussian([0.0, 0.0], 0.05), "teacher_proxy")
    assert float(own) == pytest.approx(2.0), "at a deviation of a quarter of that it costs 16 times as much"


def test_the_unit_is_in_half_ranges_and_of_a_squashed_policy_in_those_of_its_normal() -> None:
    device = torch.device("cpu")
    unit = alignment.reference_std(0.2, BOUNDED, NetworkConfig(), device)
    assert unit is not None and unit.tolist() == pytest.approx([0.2, 0.4])
    squashed = alignment.reference_std(0.2, BOUNDED, NetworkConfig(squash=True), device)
    assert squashed is not None and squashed.tolist() == pytest.approx([0.2, 0.2])
    assert alignment.reference_std(None, BOUNDED, NetworkConfig(), device) is None
    for action, network in ((ActionSpec("discrete", nvec=(2,)), {}), (BOUNDED, {"distribution": "beta"})):
        with pytest.raises(UserError, match=r"--penalty-std 0\.2 is for Gaussian actions"):
            alignment.reference_std(0.2, action, NetworkConfig(**network), device)


def test_another_deviation_leaves_the_means_and_the_kind() -> None:
    half = torch.tensor([1.0])
    squashed = with_std(TanhGaussian(torch.tensor([0.3]), torch.tensor([0.1]), half * 0, half), torch.tensor([0.5]))
    assert isinstance(squashed, TanhGaussian) and squashed.mean == 0.3 and squashed.std == 0.5
    with pytest.raises(TypeError, match="Categorical has no deviation"):
        with_std(Categorical(torch.zeros(2)), torch.ones(1))


def test_a_step_is_charged_no_more_than_the_cap_and_a_failure_for_the_time_it_cut_off() -> None:
    divergence = torch.tensor([[0.1, 0.5], [2.0, 0.4]])
    failed = torch.tensor([[False, False], [False, True]])
    assert torch.equal(alignment.charged(divergence, failed, None, None), divergence)
    capped = alignment.charged(divergence, failed, 0.6, None)
    assert capped.flatten().tolist() == pytest.approx([0.1, 0.5, 0.6, 0.4])
    # The mean of those, 0.4, from the next step on: 0.4 (0.9 + 0.81 + ...).
    made_up = alignment.charged(divergence, failed, 0.6, 0.9)
    assert made_up.flatten().tolist() == pytest.approx([0.1, 0.5, 0.6, 0.4 + 0.4 * 9])


def test_a_charge_is_the_kl_in_its_unit() -> None:
    config = PenaltyConfig.model_validate({"task": "t", "penalty_std": 0.2})
    teacher = Gaussian(torch.zeros(2, 1, 2), torch.full((2, 1, 2), 0.7))
    proxy = Gaussian(torch.tensor([[[0.2, 0.0]], [[-0.1, 0.0]]]), torch.full((2, 1, 2), 0.7))
    never = torch.zeros(2, 1, dtype=torch.bool)
    found = alignment.charge(config, teacher, proxy, never, torch.tensor([0.2, 0.2]))
    assert found.flatten().tolist() == pytest.approx([0.5, 0.125])
    assert torch.equal(alignment.charge(config, teacher, proxy, never, None), kl(teacher, proxy))


def test_the_memory_keeps_the_newest_pairs_together_and_goes_on_after_a_resume() -> None:
    memory, generator = alignment.PairMemory(5, CPU), torch.Generator().manual_seed(0)
    for begin, rows in ((0, 3), (3, 4), (7, 1)):
        numbers = torch.arange(begin, begin + rows)
        memory.add(student={"vector": numbers[:, None].float()}, teacher={"vector": -numbers[:, None].float()})
    assert memory.count == 5
    file = io.BytesIO()
    torch.save(memory.state_dict(), file)
    file.seek(0)
    other = alignment.PairMemory(5, CPU)
    other.load_state_dict(torch.load(file, weights_only=True))
    for each in (memory, other):
        drawn = each.draw(200, generator)
        assert set(drawn["student"]["vector"].flatten().tolist()) == {3, 4, 5, 6, 7}
        assert torch.equal(drawn["teacher"]["vector"], -drawn["student"]["vector"])
    elsewhere = alignment.PairMemory(5, torch.device("meta"))
    elsewhere.load_state_dict(memory.state_dict())  # which was read on the CPU
    assert elsewhere._stored["student"]["vector"].is_meta and not memory._stored["student"]["vector"].is_meta
    memory.add(student={"vector": torch.arange(9.0)[:, None]}, teacher={"vector": torch.arange(9.0)[:, None]})
    assert sorted(set(memory.draw(200, generator)["student"]["vector"].flatten().tolist())) == [4, 5, 6, 7, 8]


def test_in_practice_the_greedy_student_acts_and_both_see_where_it_comes_to() -> None:
    task = load_task("pendulum")
    env = make_env(task.env, 3)
    views = {name: resolve_view(name, task.views["full"], env.groups, env.action) for name in ("teacher", "student")}
    student = Policy(PolicySpec(views["student"], env.action, NetworkConfig(hidden=(8,))))
    viewed, other = (ViewedEnv(make_env(task.env, 3), views, 5) for _ in range(2))
    own = alignment.practise(viewed, student, 4)
    for t in range(4):
        seen = other.observe("student")
        assert torch.equal(own.student_obs["vector"][t], seen["vector"])
        assert torch.equal(own.paired_obs["vector"][t], seen["vector"])
        with torch.no_grad():
            other.step(student.step(seen, torch.zeros(3, 0), torch.ones(3, dtype=torch.bool))[0].mode())
    rollout = Fields({"student_obs": {"vector": torch.ones(4, 2, 3)}, "paired_obs": {"vector": torch.ones(4, 2, 3)},
                      "paired_reset": torch.zeros(4, 2, dtype=torch.bool), "reward": 1})  # fmt: skip
    both = alignment.with_own(rollout, own)
    assert both.reward == 1 and both.paired_reset.shape == (4, 5)
    assert torch.equal(both.student_obs["vector"][:, 2:], own.student_obs["vector"])

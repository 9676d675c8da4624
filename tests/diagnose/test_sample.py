"""Steps to look at: read from pairs, or rolled out."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diagnose_data import linear

import tscli
from tscli.config import NetworkConfig, parse_view
from tscli.diagnose import checks
from tscli.diagnose.sample import read_sample, roll_out
from tscli.envs import make_env
from tscli.envs.views import resolve_view
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import Beta, Categorical, Gaussian


def test_recorded_steps_are_whole_episodes_from_their_start(runs: Path) -> None:
    pairs, teacher = tscli.open_pairs("2"), tscli.load_policy("1")
    sample = read_sample(pairs, teacher.spec.view, teacher.spec.view, 10_000, seed=3)
    assert sample.num_steps == pairs.num_steps
    assert sample.reset.sum() == pairs.num_episodes and bool(sample.reset[0].all())
    assert len(sample.rows(sample.episode).unique()) == pairs.num_episodes
    part = read_sample(pairs, teacher.spec.view, teacher.spec.view, 30, seed=3)
    assert 30 <= part.num_steps < pairs.num_steps
    assert checks.labels_come_out_again(teacher, sample).level == "fine"


def test_a_roll_out_carries_the_distribution_the_views_and_the_action_before() -> None:
    policy, sample = linear("cartpole", "full", {1: [0.0, 0.0, 10.0, 3.0]})
    assert isinstance(sample.dist, Categorical) and sample.valid.all()
    assert checks.labels_come_out_again(policy, sample).level == "fine"
    assert torch.equal(sample.student["vector"][..., 2:], sample.previous)
    assert not sample.previous[sample.reset].any() and sample.previous[~sample.reset].abs().eq(1).all()


@pytest.mark.parametrize(("network", "kind"), [({"distribution": "beta"}, Beta), ({"squash": True}, Gaussian)])
def test_distributions_of_every_kind_are_rolled_out(network: dict[str, object], kind: type) -> None:
    env = make_env({"kind": "pendulum"}, 4)
    spec = resolve_view("all", parse_view("+".join(env.groups)), env.groups, env.action)
    teacher = Policy(PolicySpec(spec, env.action, NetworkConfig.model_validate({"hidden": (4,), **network})))
    sample = roll_out(teacher, env, spec, 40, seed=1)
    assert isinstance(sample.dist, kind) and sample.label.shape == (10, 4, 1)
    assert checks.labels_come_out_again(teacher, sample).level == "fine"

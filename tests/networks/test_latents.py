"""A policy of two encoders is a policy like any other: to every command, and outside of tscli."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from stage_tools import BC, COLLECT, call
from torch import nn

import tscli
from tscli.config import NetworkConfig, StageConfig, parse_view
from tscli.envs import make_env
from tscli.envs.views import entries_of, resolve_view
from tscli.networks import LatentSpec, Policy, PolicySpec
from tscli.runs import Run
from tscli.runs.session import Session


def teacher(kind: str, inner: str) -> Run:
    """A finished run of CartPole whose policy makes a latent of the velocities."""
    env = make_env({"kind": "cartpole"}, 1)
    view, seen, hidden = (
        resolve_view(name, parse_view(text), env.groups, env.action)
        for name, text in (
            ("full", "state + previous_action"),
            ("seen", "previous_action + state[position, angle]"),
            ("hidden", "state[velocity, angular_velocity]"),
        )
    )
    network, encoder = (
        NetworkConfig.model_validate({"kind": name, "hidden": (8,), "memory": 6, "history": 3})
        for name in (kind, inner)
    )
    torch.manual_seed(0)
    latent = LatentSpec(entries_of(view, seen), entries_of(view, hidden), encoder, 2)
    policy = Policy(PolicySpec(view, env.action, network, latent))
    nn.init.normal_(policy.head.linear.weight)
    policy.encoder.update_normalizer({"vector": torch.randn(50, view.vector_size)})
    with Session(quiet=True).start(StageConfig(), "train-teacher", "cartpole", role="teacher") as run:
        run.save_policy(policy)
        return run.finish({})


@pytest.mark.parametrize(("kind", "inner"), [("mlp", "mlp"), ("gru", "history")])
def test_every_command_takes_a_policy_with_a_latent(folder: Path, no_plots: None, kind: str, inner: str) -> None:
    run = teacher(kind, inner)
    policy = tscli.load_policy(run)
    assert policy.spec.latent is not None and policy.spec.latent.own == (4, 0, 2) and policy.spec.latent.reads == (1, 3)
    report = json.loads((call("eval", "1", "--episodes", "6").path / "report.json").read_text())
    assert report["policies"]["teacher"]["greedy"]["return"]["mean"] > 1
    pairs = call(*COLLECT, "--teacher", "1")
    assert tscli.open_pairs(pairs).schema.teacher_fields == ("logits",)
    student = call(*BC, "--student.hidden", "8", "--obs", "partial")
    assert student.teachers == [run.name]
    exported = call("export", "1", "--format", "torchscript", "--check-steps", "30")
    assert exported.metrics["max_error"] < 1e-5

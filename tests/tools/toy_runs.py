"""Runs that do no work, for the tests of run folders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import Field

from tscli.config import NetworkConfig, StageConfig, parse_view
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import resolve_view
from tscli.networks import Policy, PolicySpec
from tscli.runs import Run, RunWriter, Session, Stopped, find_run


class Config(StageConfig):
    """Settings of the runs made here."""

    lr: float = Field(default=0.1, description="A setting.")


def make_policy(seed: int = 0) -> Policy:
    """A policy of two units, which has learnt nothing."""
    torch.manual_seed(seed)
    spec = resolve_view("full", parse_view("state"), {"state": Group((2,))}, ActionSpec("discrete", nvec=(2,)))
    return Policy(PolicySpec(spec, ActionSpec("discrete", nvec=(2,)), NetworkConfig(hidden=(2,))))


def start(session: Session, command: str = "train-teacher", **kwargs: Any) -> RunWriter:
    """A run in the making; use it as a context manager."""
    return session.start(Config(seed=3), command, kwargs.pop("task", "cartpole"), **kwargs)


def teacher(session: Session, task: str = "cartpole", metrics: dict[str, float] | None = None) -> Run:
    """A finished run that holds a teacher's policy."""
    with start(session, role="teacher", task=task) as run:
        run.save_policy(make_policy())
        return run.finish(metrics or {"eval/return": 500.0})


def collected(session: Session, of: Run) -> Run:
    """A finished run that says that it holds pairs."""
    with start(session, "collect", parents={"teacher": of}) as run:
        return run.finish({"steps": 10}, holds=("pairs",))


def stopped(session: Session, command: str = "train-teacher", **kwargs: Any) -> Run:
    """A run that was stopped before it did anything."""
    with pytest.raises(Stopped), start(session, command, **kwargs) as run:
        raise Stopped(run.name)
    return find_run(session.runs_dir, run.name)

"""Episodes that are kept step by step."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import h5py
import numpy as np
import torch
from fake_env import DISCRETE, GROUPS, FakeEnv
from PIL import Image

from tscli.config import NetworkConfig, parse_view
from tscli.envs.views import resolve_view
from tscli.networks import LatentSpec, Policy, PolicySpec
from tscli.training.recording import record_episodes, write_episodes


def make(view: str, *logits: float, latent: LatentSpec | None = None) -> Policy:
    """A policy with these logits, whatever it sees."""
    spec = resolve_view("mine", parse_view(view), GROUPS, DISCRETE)
    policy = Policy(PolicySpec(spec, DISCRETE, NetworkConfig(hidden=(4,)), latent))
    with torch.no_grad():
        policy.head.linear.weight.zero_()
        policy.head.linear.bias.copy_(torch.tensor(logits))
    return policy


def test_each_step_has_what_both_saw_and_would_do_and_how_far_they_part() -> None:
    policies = {"student": make("flag + camera", 0.0, 0.0), "teacher": make("state", math.log(3), 0.0)}
    one, two = record_episodes(policies, FakeEnv([[3, -2]]), 0, 2)
    assert (one.ended, one.success, two.ended, two.success) == ("terminated", True, "truncated", False)
    assert [len(one.steps[name]) for name in ("reward", "kl", "student/vector")] == [3, 3, 3]
    np.testing.assert_array_equal(np.stack(two.steps["teacher/vector"]), [[0, 1, 0], [0, 1, 1]])
    np.testing.assert_array_equal(np.stack(one.steps["student/camera"])[:, 0, 0, 0], [0, 1, 2])
    wanted = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    np.testing.assert_allclose(one.steps["kl"], wanted, rtol=1e-5)


def test_a_mixture_is_kept_task_by_task_and_drawn_25_times_a_second() -> None:
    env = FakeEnv([[9], [2, 4]])
    env.members, env.control_dt = ("long", "short"), 0.01
    found = record_episodes({"policy": make("state", 1.0, 0.0)}, env, 0, 2)
    assert [(one.task, len(one.steps["reward"]), one.shown_at) for one in found] == [
        ("long", 9, [0, 4, 8]),
        ("long", 9, [0, 4, 8]),
        ("short", 2, [0]),
        ("short", 4, [0]),
    ]


def test_the_file_is_read_with_h5py_alone(tmp_path: Path) -> None:
    latent = LatentSpec((0,), (1, 2), NetworkConfig(hidden=(4,)), 5)
    policies, env = {"teacher": make("state", 1.0, 0.0, latent=latent)}, FakeEnv([[4]])
    path = write_episodes(tmp_path, record_episodes(policies, env, 0, 1), policies, {"teacher": "run 1"}, env)
    with h5py.File(path) as file:
        header, episode = json.loads(str(file.attrs["header"])), file["episode_0"]
        assert isinstance(episode, h5py.Group)
        assert header["roles"]["teacher"]["entries"] == [["env", ""], ["episode", ""], ["step", ""]]
        assert episode.attrs["return"] == 4.0
        assert np.asarray(episode["teacher/latent"]).shape == (4, 5)
        ends, frames = np.asarray(episode["frame_ends"]), np.asarray(episode["frames"])
        picture = Image.open(io.BytesIO(frames[ends[1] : ends[2]].tobytes()))
        assert picture.size == (8, 8)
    assert [one.name for one in tmp_path.iterdir()] == ["episodes.h5"]

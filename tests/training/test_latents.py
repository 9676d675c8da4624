"""What a linear probe reads from latents."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pytest
import torch
from fake_env import DISCRETE, GROUPS

from tscli.config import NetworkConfig, UserError, parse_view
from tscli.envs.views import ViewSpec, resolve_view
from tscli.networks import Policy, PolicySpec
from tscli.training.latents import _probe, inferring_policy, numbered, privileged_latent


def test_a_probe_is_scored_on_envs_that_it_was_not_fitted_to() -> None:
    latent = torch.randn(50, 8, 2, generator=torch.Generator().manual_seed(0)).double()
    linear = latent @ torch.tensor([[1.0, 2.0], [-3.0, 0.5]]).double() + torch.tensor([5.0, -1.0])
    nothing, other = torch.randn(50, 8, 2, generator=torch.Generator().manual_seed(1)).double().unbind(-1)
    wanted = torch.cat([linear, nothing[..., None], torch.full_like(linear[..., :1], 3.0)], -1)
    found = _probe(latent, wanted)
    assert (found[:2] > 0.999).all() and -0.2 < found[2] < 0.1
    assert found[3] == 0  # what does not vary cannot be explained
    wanted[:, 4:, 0] = 20 * other[:, 4:]  # elsewhere it is something else
    assert _probe(latent, wanted)[0] < 0.1


def view(text: str) -> ViewSpec:
    return resolve_view(text, parse_view(text), GROUPS, DISCRETE)


def test_a_student_sees_by_its_teachers_convolutions_and_pictures_are_not_privileged() -> None:
    small, full, own = NetworkConfig(hidden=(4,)), view("state + flag + camera"), view("state + camera")
    teacher = Policy(PolicySpec(full, DISCRETE, small, privileged_latent(full, own, small, 2)))
    student = inferring_policy(teacher, own, small, 1)
    assert student.encoder.images is teacher.encoder.images and len(list(student.encoder.images.parameters()))
    with pytest.raises(UserError, match="a picture cannot be what is privileged"):
        inferring_policy(teacher, view("state"), small, 1)
    with pytest.raises(UserError, match="a picture cannot be what is privileged"):
        privileged_latent(full, view("state"), small, 2)


def test_probes_of_entries_with_one_name_are_told_apart() -> None:
    assert numbered(["mass", "height", "mass", "mass"]) == ["mass", "height", "mass 2", "mass 3"]

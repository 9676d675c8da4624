"""What an encoder makes of a view: its vector, its images, and of nothing else."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pytest
import torch
from policies import DISCRETE, GROUPS, KINDS, make, sequence, view

from tscli.envs.views import view_of_pairs


@pytest.mark.parametrize("kind", KINDS)
def test_a_students_output_does_not_change_with_what_it_cannot_see(kind: str) -> None:
    spec, policy = view("state[0,2] + camera"), make(kind, "state[0,2] + camera")
    fields = {f"obs/{name}": torch.rand(5, 2, *group.shape) for name, group in GROUPS.items()}
    fields["obs/camera"] = (fields["obs/camera"] * 255).to(torch.uint8)
    fields["first"] = torch.zeros(5, 2, dtype=torch.bool)
    other = {**fields, "obs/secret": fields["obs/secret"] + 9, "obs/state": fields["obs/state"].clone()}
    other["obs/state"][..., [1, 3]] += 9
    a, b = (policy(view_of_pairs(spec, DISCRETE, f), policy.initial_hidden(2), None)[0] for f in (fields, other))
    assert torch.equal(a.logits, b.logits)
    other["obs/state"][..., 2] += 1
    seen = policy(view_of_pairs(spec, DISCRETE, other), policy.initial_hidden(2), None)[0]
    assert not torch.equal(a.logits, seen.logits)


@pytest.mark.parametrize("text", ["camera", "tiny + camera", "state + tiny + previous_action"])
def test_images_go_through_the_network_with_and_without_a_time_axis(text: str) -> None:
    policy, obs = make("mlp", text), sequence(3, 2, text)
    hidden = policy.initial_hidden(2)
    whole = policy(obs, hidden, None)[0].logits
    one = policy.step({k: v[1] for k, v in obs.items()}, hidden, torch.zeros(2, dtype=torch.bool))[0].params()["logits"]
    assert whole.shape == (3, 2, 3)
    torch.testing.assert_close(whole[1], one)
    name = next(iter(policy.spec.view.images))
    brighter = policy({**obs, name: 255 - obs[name]}, hidden, None)[0].logits
    assert not torch.allclose(whole, brighter)

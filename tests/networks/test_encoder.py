"""What an encoder makes of a view: its vector, its images, and of nothing else."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from policies import DISCRETE, GROUPS, KINDS, RESETS, make, sequence, step_by_step, view

from tscli.config import NetworkConfig, UserError
from tscli.envs.views import entries_of, view_of_pairs
from tscli.networks import LatentSpec, Policy, PolicySpec
from tscli.networks.files import load_policy_file, save_policy_file

HISTORY = NetworkConfig(kind="history", hidden=(8,), history=3)


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


def with_latent(kind: str, inner: str, text: str = "secret + state", own: str = "state") -> Policy:
    """A policy that makes a latent of what `own` does not show."""
    torch.manual_seed(0)
    whole, seen = view(text), entries_of(view(text), view(own)) if own else ()
    reads = tuple(i for i in range(whole.vector_size) if i not in seen)
    small = {"hidden": (8,), "memory": 6, "history": 3}
    network, inner_network = (NetworkConfig.model_validate({"kind": k, **small}) for k in (kind, inner))
    policy = Policy(PolicySpec(whole, DISCRETE, network, LatentSpec(seen, reads, inner_network, 2)))
    torch.nn.init.normal_(policy.head.linear.weight)
    return policy


@pytest.mark.parametrize("inner", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_encoders_act_as_one_policy(kind: str, inner: str) -> None:
    policy, obs, reset = with_latent(kind, inner), sequence(7, 5, "secret + state"), RESETS
    policy.encoder.update_normalizer(obs)
    encoder = policy.encoder
    assert encoder.hidden_size == encoder.inner.hidden_size + encoder.body.hidden_size
    dist, last = policy(obs, policy.initial_hidden(5), reset)
    expected, after = step_by_step(policy, obs, policy.initial_hidden(5), reset)
    torch.testing.assert_close(dist.params()["logits"], expected)
    torch.testing.assert_close(last, after)
    # By hand: the inner hidden state comes first, and its encoder reads what the body does not.
    assert encoder.norm is not None and encoder.norm.count == 7 * 5
    vector, inner_hidden = encoder.norm(obs["vector"]), torch.zeros(5, encoder.inner.hidden_size)
    y, inner_last = encoder.inner(vector[..., :2], inner_hidden, reset)
    latent = encoder.to_latent(y)
    z, outer = encoder.body(torch.cat([vector[..., 2:], latent], -1), torch.zeros(5, encoder.body.hidden_size), reset)
    torch.testing.assert_close(policy.head(z).params()["logits"], expected)
    torch.testing.assert_close(torch.cat([inner_last, outer], -1), last)
    for hidden in (policy.initial_hidden(5), inner_hidden):
        found, found_last = encoder.latent(obs, hidden, reset)
        assert torch.equal(found, latent) and torch.equal(found_last, inner_last)


def test_a_latent_is_all_that_tells_the_body_of_what_its_encoder_reads() -> None:
    policy, obs = with_latent("mlp", "mlp", "secret + state + camera"), sequence(3, 2, "secret + state + camera")
    hidden = policy.initial_hidden(2)
    base = policy(obs, hidden)[0].params()["logits"]
    for name, change in (("vector", obs["vector"] + 1), ("camera", 255 - obs["camera"])):
        assert not torch.allclose(policy({**obs, name: change}, hidden)[0].params()["logits"], base)
    torch.nn.init.zeros_(policy.encoder.to_latent.weight)
    blind = policy(obs, hidden)[0].params()["logits"]
    secret = torch.cat([obs["vector"][..., :2] + 1, obs["vector"][..., 2:]], -1)
    assert torch.equal(policy({**obs, "vector": secret}, hidden)[0].params()["logits"], blind)
    assert not torch.equal(policy({**obs, "vector": obs["vector"] + 1}, hidden)[0].params()["logits"], blind)


def test_two_policies_may_share_a_body_and_head_and_have_latents_of_their_own(tmp_path: Path) -> None:
    teacher = with_latent("mlp", "mlp")
    spec = replace(teacher.spec, view=view("state"), latent=LatentSpec((0, 1, 2, 3), (0, 1, 2, 3), HISTORY, 2))
    student = Policy(spec)
    student.encoder.body, student.head = teacher.encoder.body, teacher.head
    obs, hidden = sequence(5, 2), student.initial_hidden(2)
    save_policy_file(tmp_path / "policy.safetensors", student)
    again = load_policy_file(tmp_path / "policy.safetensors")
    assert again.spec == spec and again.is_recurrent
    assert torch.equal(again(obs, hidden)[0].params()["logits"], student(obs, hidden)[0].params()["logits"])


def test_a_memory_that_ends_says_how_far_back_it_reaches() -> None:
    policy, obs = with_latent("history", "history", own="secret"), sequence(8, 1, "secret + state")
    assert policy.encoder.lookback == 4
    base = policy(obs, policy.initial_hidden(1))[0].params()["logits"]
    for back in range(7):
        vector = obs["vector"].clone()
        vector[7 - back] += 1
        found = policy({"vector": vector}, policy.initial_hidden(1))[0].params()["logits"]
        assert torch.equal(found[7], base[7]) == (back > policy.encoder.lookback)


def test_a_body_may_see_the_latent_alone() -> None:
    policy, obs = with_latent("mlp", "gru", own=""), sequence(3, 2, "secret + state")
    assert policy(obs, policy.initial_hidden(2))[0].mode().shape == (3, 2)


@pytest.mark.parametrize(("own", "reads"), [((0, 4), (1,)), ((0,), (-1,)), ((0,), ())])
def test_a_latent_of_entries_that_the_view_lacks_is_refused(own: tuple[int, ...], reads: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="of a view of 4 entries"):
        Policy(PolicySpec(view("state"), DISCRETE, NetworkConfig(), LatentSpec(own, reads, NetworkConfig(), 2)))

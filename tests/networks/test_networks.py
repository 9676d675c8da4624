"""Policies and critics of every kind: one call, whatever the body remembers and the head draws."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from tscli.config import NetworkConfig, parse_view
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import Obs, ViewSpec, resolve_view, view_of_pairs
from tscli.learning.ppo import policy_loss
from tscli.networks import Critic, Policy, PolicySpec
from tscli.networks.distributions import Categorical, Gaussian, MultiCategorical, TanhGaussian

KINDS = get_args(NetworkConfig.model_fields["kind"].annotation)
GROUPS = {
    "state": Group((4,)),
    "secret": Group((2,), privileged=True),
    "camera": Group((9, 12, 3), dtype="uint8"),
    "tiny": Group((8, 8, 1), dtype="uint8"),
}
DISCRETE = ActionSpec("discrete", nvec=(3,))
ARM = ActionSpec("continuous", low=(-1.0, 2.0), high=(3.0, 4.0))


def view(text: str, action: ActionSpec = DISCRETE) -> ViewSpec:
    return resolve_view("mine", parse_view(text), GROUPS, action)


def make(kind: str, text: str = "state", action: ActionSpec = DISCRETE, **settings: Any) -> Policy:
    torch.manual_seed(0)
    config = NetworkConfig.model_validate({"kind": kind, "hidden": (8,), "memory": 6, "history": 3, **settings})
    policy = Policy(PolicySpec(view(text, action), action, config))
    # A new head is all but uniform, which would hide what comes before it.
    torch.nn.init.normal_(policy.head.linear.weight)
    return policy


def sequence(steps: int, num_envs: int, text: str = "state") -> Obs:
    spec, generator = view(text), torch.Generator().manual_seed(1)
    obs = {
        name: torch.randint(256, (steps, num_envs, *shape), generator=generator, dtype=torch.uint8)
        for name, shape in spec.images.items()
    }
    if spec.vector_size:
        obs["vector"] = torch.randn(steps, num_envs, spec.vector_size, generator=generator)
    return obs


RESETS = torch.tensor(  # none, at the start alone, in the middle, twice, every step
    [[0, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 1, 0, 0, 0], [1, 0, 1, 0, 0, 1, 0], [1] * 7],
    dtype=torch.bool,
).T


def step_by_step(policy: Policy, obs: Obs, hidden: Tensor, reset: Tensor) -> tuple[Tensor, Tensor]:
    logits = []
    for t in range(len(reset)):
        dist, hidden = policy.step({k: v[t] for k, v in obs.items()}, hidden, reset[t])
        assert isinstance(dist, Categorical)
        logits.append(dist.logits)
    return torch.stack(logits), hidden


@pytest.mark.parametrize("envs", [4, 5])  # few resets take columns of their own, many are packed
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_is_the_same_step_by_step(kind: str, layers: int, envs: int) -> None:
    policy = make(kind, memory_layers=layers, hidden=(8,) * layers)
    policy.encoder.update_normalizer({"vector": torch.randn(50, 4) * 3 + 1})
    obs, reset = sequence(7, envs), RESETS[:, :envs]
    # An arbitrary hidden state that was reached by acting, not zeros.
    with torch.no_grad():
        _, hidden = step_by_step(policy, sequence(4, envs), policy.initial_hidden(envs), reset[:4])

    def gradients(logits: Tensor, last: Tensor) -> list[Tensor]:
        loss = logits.square().sum() + last.square().sum()
        return list(torch.autograd.grad(loss, list(policy.parameters())))

    expected, after = step_by_step(policy, obs, hidden, reset)
    dist, last = policy(obs, hidden, reset)
    torch.testing.assert_close(dist.logits, expected)
    torch.testing.assert_close(last, after)
    torch.testing.assert_close(gradients(dist.logits, last), gradients(expected, after))
    assert last.shape == (envs, policy.encoder.hidden_size)
    assert policy.is_recurrent == (kind != "mlp") == (last.numel() > 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_reset_forgets_and_the_lack_of_one_does_not(kind: str) -> None:
    policy, obs = make(kind), sequence(4, 1)
    changed = {"vector": obs["vector"].clone()}
    changed["vector"][1] += 1
    for at, forgets in ((2, True), (1, False), (None, False)):
        reset = torch.zeros(4, 1, dtype=torch.bool)
        if at is not None:
            reset[at] = True
        a, b = (policy(o, policy.initial_hidden(1), reset)[0].logits for o in (obs, changed))
        assert torch.equal(a[2:], b[2:]) == (forgets or kind == "mlp")
        assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


@pytest.mark.parametrize("kind", KINDS)
def test_no_resets_and_resets_that_are_all_false_are_the_same(kind: str) -> None:
    policy, obs = make(kind), sequence(4, 2)
    hidden = policy.initial_hidden(2)
    without, a = policy(obs, hidden, None)
    with_false, b = policy(obs, hidden, torch.zeros(4, 2, dtype=torch.bool))
    torch.testing.assert_close(without.logits, with_false.logits)
    torch.testing.assert_close(a, b)


def test_a_history_network_sees_that_many_observations_and_no_more() -> None:
    policy, obs = make("history", history=3), sequence(6, 1)
    base = policy(obs, policy.initial_hidden(1), None)[0].logits
    for back in range(5):
        changed = {"vector": obs["vector"].clone()}
        changed["vector"][5 - back] += 1
        found = policy(changed, policy.initial_hidden(1), None)[0].logits
        assert torch.equal(found[5], base[5]) == (back >= 3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_reaches_every_parameter_and_flows_back_through_time(kind: str) -> None:
    policy, obs = make(kind, "state + camera", memory_layers=2), sequence(7, 5, "state + camera")
    obs["vector"].requires_grad_()
    dist, _ = policy(obs, policy.initial_hidden(5), RESETS)
    dist.log_prob(torch.zeros(7, 5, dtype=torch.int64))[-1].sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).any()) for p in policy.parameters())
    assert obs["vector"].grad is not None
    seen = (obs["vector"].grad != 0).any(-1)
    # The last step looks back to the latest reset: not beyond, and with a memory of 3 no further than 2 steps.
    latest = [0, 0, 3, 5, 6]
    reach = {"mlp": 0, "history": 2}.get(kind, 7)
    for n, first in enumerate(latest):
        assert seen[:, n].tolist() == [t >= max(first, 6 - reach) for t in range(7)]


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


@pytest.mark.parametrize(
    ("action", "settings", "kind"),
    [
        (DISCRETE, {}, Categorical),
        (ActionSpec("multi_discrete", nvec=(2, 3)), {}, MultiCategorical),
        (ARM, {}, Gaussian),
        (ARM, {"std": "network"}, Gaussian),
        (ARM, {"squash": True}, TanhGaussian),
        (ARM, {"squash": True, "std": "network"}, TanhGaussian),
    ],
)
def test_every_kind_of_action_has_its_head(action: ActionSpec, settings: dict[str, Any], kind: type) -> None:
    policy, obs = make("mlp", "state", action, **settings), sequence(5, 4)
    dist, _ = policy(obs, policy.initial_hidden(4), None)
    assert type(dist) is kind
    sample = dist.sample(torch.Generator().manual_seed(0))
    assert sample.shape == (5, 4, *action.shape) and sample.dtype == getattr(torch, action.dtype)
    assert dist.log_prob(sample).shape == dist.entropy().shape == (5, 4)
    dist.log_prob(sample).sum().backward()
    assert all(p.grad is not None for p in policy.parameters())
    if settings.get("squash"):
        low, high = torch.tensor(action.low), torch.tensor(action.high)
        assert bool(((sample >= low) & (sample <= high)).all())


@pytest.mark.parametrize("std", ["state_independent", "network"])
def test_a_new_gaussian_policy_stands_in_the_middle_with_the_deviation_asked_for(std: str) -> None:
    config = NetworkConfig.model_validate({"std": std, "init_std": 0.5})
    policy = Policy(PolicySpec(view("state", ARM), ARM, config))
    params = policy(sequence(1, 50), policy.initial_hidden(50), None)[0].params()
    # centre 1 and 3, half range 2 and 1
    torch.testing.assert_close(params["mean"], torch.tensor([1.0, 3.0]).expand(1, 50, 2), atol=0.2, rtol=0)
    torch.testing.assert_close(params["std"], torch.tensor([1.0, 0.5]).expand(1, 50, 2), atol=0.1, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_ratio_of_an_update_is_one(kind: str) -> None:
    policy, obs = make(kind), sequence(7, 5)
    hidden, log_probs, actions = policy.initial_hidden(5), [], []
    with torch.no_grad():
        for t in range(7):
            dist, hidden = policy.step({"vector": obs["vector"][t]}, hidden, RESETS[t])
            actions.append(dist.sample(torch.Generator().manual_seed(t)))
            log_probs.append(dist.log_prob(actions[-1]))
    dist, _ = policy(obs, policy.initial_hidden(5), RESETS)
    found = policy_loss(dist.log_prob(torch.stack(actions)), torch.stack(log_probs), torch.randn(7, 5), 1e-4)
    assert found.clip_fraction == 0 and abs(found.approx_kl) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_critic_is_called_as_a_policy_is(kind: str) -> None:
    torch.manual_seed(0)
    critic = Critic(view("state + secret"), NetworkConfig.model_validate({"kind": kind, "hidden": (8,), "history": 3}))
    obs = sequence(7, 5, "state + secret")
    value, hidden = critic(obs, critic.initial_hidden(5), RESETS)
    assert value.shape == (7, 5) and hidden.shape == (5, critic.encoder.hidden_size)
    assert critic.is_recurrent == (kind != "mlp")


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_without_layers_acts(kind: str) -> None:
    policy = make(kind, hidden=())
    dist, _ = policy(sequence(2, 3), policy.initial_hidden(3), None)
    assert dist.mode().shape == (2, 3)


@pytest.mark.parametrize("action", [DISCRETE, ARM])
def test_a_spec_survives_json(action: ActionSpec) -> None:
    spec = PolicySpec(view("state[1:3] + camera", action), action, NetworkConfig(kind="gru", squash=True))
    assert PolicySpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec

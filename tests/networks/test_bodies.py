"""Bodies of every kind that is found: one call, whatever they remember."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pytest
import torch
from policies import KINDS, RESETS, make, sequence, step_by_step
from torch import Tensor

from tscli.config import NetworkConfig
from tscli.config.network import BODIES
from tscli.networks.bodies import body_config, build_body


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
    assert policy.is_recurrent == (last.numel() > 0)


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
        assert torch.equal(a[2:], b[2:]) == (forgets or not policy.is_recurrent)
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
    # The last step looks back to the latest reset: not beyond, and no further than the body says.
    latest = [0, 0, 3, 5, 6]
    body = policy.encoder.body
    reach = body.lookback if body.lookback or not policy.is_recurrent else 7
    for n, first in enumerate(latest):
        assert seen[:, n].tolist() == [t >= max(first, 6 - reach) for t in range(7)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_without_layers_acts(kind: str) -> None:
    policy = make(kind, hidden=())
    dist, _ = policy(sequence(2, 3), policy.initial_hidden(3), None)
    assert dist.mode().shape == (2, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_has_the_sizes_that_it_says(kind: str) -> None:
    body = build_body(4, NetworkConfig(kind=kind, hidden=(8,), memory=6))
    y, hidden = body(torch.randn(3, 2, 4), torch.zeros(2, body.hidden_size), None)
    assert (y.shape, hidden.shape) == ((3, 2, body.output_size), (2, body.hidden_size))


@pytest.mark.parametrize("kind", ["rnn", "gru"])
def test_layers_stand_after_the_memory_where_they_are_asked_for(kind: str) -> None:
    body = build_body(4, NetworkConfig.model_validate({"kind": kind, "memory": 6, "hidden_after": (5,)}))
    y, _ = body(torch.randn(3, 2, 4), torch.zeros(2, body.hidden_size), None)
    assert y.shape == (3, 2, 5) and body.output_size == 5


@pytest.mark.parametrize("kind", KINDS)
def test_every_setting_of_a_body_has_a_sentence_of_help_and_no_name_of_all_networks(kind: str) -> None:
    for name, field in BODIES[kind].model_fields.items():
        assert field.description and field.description.endswith(".") and len(field.description) > 5, name
        assert name not in NetworkConfig.__annotations__
    assert BODIES[kind].model_json_schema() == type(body_config(NetworkConfig(kind=kind))).model_json_schema()


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_no_body_looks_at_values_that_a_device_holds(kind: str, layers: int) -> None:
    # There are none on this device: a look at them, or a shape that depends on them, is an error.
    policy = make(kind, "state + camera", memory_layers=layers).to("meta")
    obs = {name: value.to("meta") for name, value in sequence(7, 5, "state + camera").items()}
    dist, hidden = policy(obs, policy.initial_hidden(5), RESETS.to("meta"))
    (dist.log_prob(torch.zeros(7, 5, dtype=torch.int64, device="meta")).sum() + hidden.sum()).backward()
    assert dist.entropy().shape == (7, 5)

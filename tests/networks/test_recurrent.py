"""Memory over sequences with resets: every way to compute it gives the same."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tscli import devices
from tscli.config import NetworkConfig
from tscli.networks.bodies import build_body


@pytest.mark.parametrize("resets", ["no", "some", "every step"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["rnn", "gru"])
def test_a_device_that_is_not_waited_for_gives_what_the_cpu_gives(
    monkeypatch: pytest.MonkeyPatch, kind: str, layers: int, resets: str
) -> None:
    torch.manual_seed(0)
    body = build_body(3, NetworkConfig(kind=kind, hidden=(4,), memory=5, memory_layers=layers, hidden_after=(6,)))

    def found(x: Tensor, hidden: Tensor, reset: Tensor) -> tuple[Tensor, ...]:
        inputs = (x.requires_grad_(), hidden.requires_grad_())
        y, last = body(*inputs, reset)
        loss = y.sin().sum() + last.cos().sum()
        return y, last, *torch.autograd.grad(loss, [*inputs, *body.parameters()])

    for steps in range(1, 17):
        x, hidden = torch.randn(steps, 4, 3), torch.randn(4, body.hidden_size)
        reset = torch.rand(steps, 4) < {"no": 0.0, "some": 0.3, "every step": 1.1}[resets]
        expected = found(x, hidden, reset)
        with monkeypatch.context() as patch:
            patch.setattr(devices, "host_may_look", lambda device: False)
            torch.testing.assert_close(found(x, hidden, reset), expected)


def test_a_forget_bias_says_what_an_lstm_keeps_at_first() -> None:
    body = build_body(3, NetworkConfig(kind="rnn", hidden=(), memory=5, memory_layers=2, forget_bias=1.0))
    cells = torch.ones(1, 10)  # of both layers, behind their outputs of 0
    _, last = body(torch.zeros(1, 1, 3), torch.cat([torch.zeros(1, 10), cells], dim=-1), None)
    # Nothing comes in, so the first layer's cells fall by the forget gate alone.
    torch.testing.assert_close(last[:, 10:15], cells[:, :5] * torch.sigmoid(torch.tensor(1.0)))

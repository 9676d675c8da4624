"""What a linear probe reads from latents."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import torch

from tscli.training.latents import _probe


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

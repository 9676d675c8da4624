"""What an actor of ours can hold comes along; the rest is refused."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign_policies import ARM, cleanrl, numbered, perceptron, readings, saved, view_of
from stage_tools import error_of
from torch import Tensor, nn

from tscli.config import NetworkConfig
from tscli.interop import export
from tscli.networks import Policy, PolicySpec

REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "sizes": (numbered("actor", perceptron((5, 6, 2), "tanh")), "--obs (full (4), partial (3)"),
    "actions": (numbered("actor", perceptron((4, 6, 3), "tanh")), "gives 3 numbers and cartpole takes 2"),
    "layers": (
        numbered("actor", nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 2))),
        "which tscli's networks do not have",
    ),
    "memory": (
        {**numbered("actor", perceptron((4, 6, 2), "tanh")), **numbered("lstm", nn.LSTM(4, 4))},
        "which tscli's networks do not have",
    ),
    "trunk": (
        {
            **numbered("mlp_extractor.shared_net", perceptron((4, 6), "tanh")),
            **numbered("action_net", nn.Linear(4, 2)),
            **numbered("value_net", nn.Linear(4, 1)),
        },
        "(Stable-Baselines3 PPO or A2C) has mlp_extractor.shared_net.0.weight [6, 4], mlp_extractor.shared_net.0.bias",
    ),
    "gSDE": (
        {
            **numbered("actor.latent_pi", perceptron((3, 4), "relu")),
            **numbered("actor.mu", nn.Sequential(nn.Linear(4, 2), nn.Hardtanh())),
            "actor.log_std": torch.zeros(4, 2),
        },
        "actor.latent_pi.0.weight",
    ),
    "rest": (
        {**numbered("actor", perceptron((4, 2), "tanh")), "symmetry": torch.eye(4)},
        "has symmetry [4, 4], which tscli's networks do not have",
    ),
    "half": (
        {**numbered("actor", perceptron((4, 2), "tanh")), "normalizer._mean": torch.zeros(4)},
        "has no normalizer._std",
    ),
    "nan": ({"actor.0.weight": torch.full((2, 4), float("nan"))}, "actor.0.weight is not finite"),
    "names": (numbered("brain", perceptron((4, 6, 2), "tanh")), "no layout that is known (brain.0.weight"),
    "squash": (cleanrl("td3")[0], "takes 3 numbers"),
}


@pytest.mark.parametrize(("state", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_imported_is_refused_in_one_line(
    state: dict[str, Tensor], words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(folder, state)
    assert words in error_of(capsys, "import", "model.pt", "--task", "cartpole", "--activation", "tanh")
    assert not Path("runs").exists()


def test_layers_after_the_memory_see_every_step_once() -> None:
    torch.manual_seed(1)
    network = NetworkConfig(kind="gru", memory=5, hidden=(4,), hidden_after=(6, 3))
    policy = Policy(PolicySpec(view_of(2), ARM, network)).eval()
    obs, reset = readings(9, 3, 2), torch.rand(9, 3) < 0.3
    whole, last = policy({"vector": obs}, policy.initial_hidden(3), reset)
    hidden = policy.initial_hidden(3)
    for t in range(9):
        dist, hidden = policy.step({"vector": obs[t]}, hidden, reset[t])
        torch.testing.assert_close(dist.mode(), whole.mode()[t])
    torch.testing.assert_close(hidden, last)
    assert export.Actor(policy).outputs[-1] == "next_hidden"

"""A TorchScript file of our own comes back as the policy that it was."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stage_tools import call, error_of

from tscli.launch.start import load_policy


def test_what_was_exported_comes_back_whole(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call("export", "--format", "torchscript", "--output", "mine.pt", "--check-steps", "5")
    policy = load_policy(call("import", "mine.pt", "--task", "cartpole", "--eval-episodes", "0"))
    for flag, value in (("obs", "partial"), ("activation", "relu"), ("normalizer", "nope.npz"), ("std", "0.5")):
        said = error_of(capsys, "import", "mine.pt", "--task", "cartpole", f"--{flag}", value)
        assert said.endswith("mine.pt was exported by tscli and says it: leave it out")
    original = load_policy("1")
    assert policy.spec == original.spec
    for name, value in original.state_dict().items():
        assert torch.equal(policy.state_dict()[name], value), name

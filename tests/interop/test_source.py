"""Nothing in a file is executed, and a file that can be run is compared with what is made of it."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_policies import perceptron, saved
from stage_tools import error_of
from torch import Tensor, nn


class _Trap:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("sprung"),)


def test_nothing_in_a_file_is_executed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(_Trap(), "trap.pt")
    Path("trap.pkl").write_bytes(pickle.dumps(_Trap()))
    saved(folder, {"actor.0.weight": torch.zeros(2, 4), "actor.0.bias": torch.zeros(2)})
    with zipfile.ZipFile("trap.zip", "w") as archive:
        archive.write("trap.pt", "policy.pth")
    for name in ("trap.pt", "trap.zip"):
        assert "it holds more than tensors" in error_of(capsys, "import", name, "--task", "cartpole")
    command = ("import", "model.pt", "--task", "cartpole", "--normalizer", "trap.pkl", "--trust-pickle")
    assert "is no VecNormalize" in error_of(capsys, *command)
    assert not Path("sprung").exists()
    pickle.loads(Path("trap.pkl").read_bytes())
    assert Path("sprung").exists(), "the trap works"


def test_a_file_that_computes_more_than_its_weights_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class More(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.actor = perceptron((4, 6, 2), "tanh")

        def forward(self, x: Tensor) -> Tensor:
            return self.actor(x.abs())

    torch.jit.trace(More(), torch.randn(1, 4)).save("more.pt")  # type: ignore[union-attr]
    assert "gives other outputs than its weights" in error_of(capsys, "import", "more.pt", "--task", "cartpole")

"""Nothing in a file is executed, and a file that can be run is compared with what is made of it."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_policies import cleanrl, perceptron, saved
from safetensors.torch import save_file
from stage_tools import call, error_of
from torch import Tensor, nn

from tscli.cli.app import main
from tscli.config import UserError
from tscli.interop import archive
from tscli.interop.source import read_policy


class _Trap:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("sprung"),)


def test_nothing_in_a_file_is_executed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(_Trap(), "trap.pt")
    Path("trap.pkl").write_bytes(pickle.dumps(_Trap()))
    saved(folder, {"actor.0.weight": torch.zeros(2, 4), "actor.0.bias": torch.zeros(2)})
    with zipfile.ZipFile("trap.zip", "w") as packed:
        packed.write("trap.pt", "policy.pth")
    for name in ("trap.pt", "trap.zip"):
        assert "it holds more than tensors" in error_of(capsys, "import", name, "--task", "cartpole")
    command = ("import", "model.pt", "--task", "cartpole", "--normalizer", "trap.pkl", "--trust-pickle")
    assert "name VecNormalize's file" in error_of(capsys, *command)
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


def test_safetensors_hold_the_same_layouts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, actor = cleanrl("ppo")
    save_file(state, "model.safetensors")
    found = read_policy(Path("model.safetensors")).found
    assert found is not None and torch.equal(found.layers[-1][0], actor.state_dict()["4.weight"].double())
    teacher = call("import", "model.safetensors", "--task", "cartpole", "--activation", "tanh")
    own = str(teacher.path / "policy.safetensors")
    assert "is a policy of tscli's own" in error_of(capsys, "import", own, "--task", "cartpole")


def test_damage_anywhere_is_one_line(folder: Path) -> None:
    saved(folder, {"model_state_dict": cleanrl("ppo")[0]}, "policy.pth")
    with zipfile.ZipFile("model.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write("policy.pth")
        packed.writestr("data", '{"policy_kwargs": {}}')
    save_file(cleanrl("ppo")[0], "model.safetensors")
    rng = np.random.default_rng(0)
    refused = 0
    for name in ("policy.pth", "model.zip", "model.safetensors"):
        whole = Path(name).read_bytes()
        for case in range(60):
            data = bytearray(whole)
            if case % 2:
                data = data[: rng.integers(len(data))]
            else:
                for at in rng.integers(len(data), size=3):
                    data[at] ^= 1 << rng.integers(8)
            path = Path(f"damaged{Path(name).suffix}")
            path.write_bytes(data)
            try:
                read_policy(path)  # anything but a UserError fails the test
            except UserError as error:
                refused += 1
                assert str(error).startswith("damaged") and "\n" not in str(error)
    assert refused > 90


def test_sizes_that_a_file_claims_are_not_believed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LIMIT", 1 << 20)
    saved(folder, {"actor.0.weight": torch.zeros(1, 1).expand(4_000, 4_000), "actor.0.bias": torch.zeros(4_000)})
    with pytest.raises(UserError, match="claims more numbers than a policy has"):
        read_policy(folder / "model.pt")
    with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("policy.pth", bytes(2 << 20))
    with pytest.raises(UserError, match="of more than 1 MiB"):
        read_policy(Path("bomb.zip"))


def test_an_activation_that_does_far_worse_than_another_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Pushes where the pole falls to: with tanh it balances, with relu it never pushes to the right.
    weight = -torch.tensor([[0.05, 0.1, 1.0, 0.3]])
    saved(
        folder,
        {"actor.0.weight": weight, "actor.0.bias": torch.zeros(1), "actor.2.weight": torch.tensor([[1.0], [-1.0]])},
    )
    command = ("import", "model.pt", "--task", "cartpole", "--eval-episodes", "10")
    assert "--activation relu: its return is " in error_of(capsys, *command, "--activation", "relu")
    assert not Path("runs").exists()
    assert main([*command, "--activation", "tanh"]) == 0
    assert "nothing but the return says that tanh is right" in capsys.readouterr().err

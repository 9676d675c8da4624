"""The settings of what pictures go through: which folders are checkpoints, and that they stay the same."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tscli.config import NetworkConfig, images, one_line


def checkpoint(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text("weights")
    return folder


def refusal(**image: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        NetworkConfig(image=image)
    return one_line(caught.value, NetworkConfig)


def test_a_kind_without_a_checkpoint_and_a_checkpoint_without_a_kind_are_refused(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "dino")
    assert "dinov2 needs a path, the folder of a checkpoint on this machine" in refusal(kind="dinov2")
    assert "a path is that of a frozen encoder: give the kind dinov2" in refusal(path=str(folder))
    assert NetworkConfig(image="cnn") == NetworkConfig()


def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    folder, name = tmp_path / "dino", str(tmp_path / "dino")
    assert f"--image.path '{name}': there is no such folder" in refusal(kind="dinov2", path=name)
    checkpoint(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickled weights are not read: save it with safetensors" in refusal(kind="dinov2", path=name)
    (folder / "config.json").unlink()
    assert "that folder has no config.json, it is no checkpoint" in refusal(kind="dinov2", path=name)


def test_a_checkpoint_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path / "dino")
    monkeypatch.chdir(tmp_path)
    network = NetworkConfig(image={"kind": "dinov2", "path": "dino"})
    assert network.image.path == str(folder)
    assert NetworkConfig.model_validate(network.model_dump(mode="json")) == network
    checkpoint(tmp_path / "copy")
    assert NetworkConfig(image={"kind": "dinov2", "path": "copy"}).image.sha256 == network.image.sha256
    with monkeypatch.context() as patch:
        patch.setattr(images, "checkpoint_hash", lambda path: (_ for _ in ()).throw(OSError(5, "Input/output error")))
        assert f"{folder} cannot be read: Input/output error" in refusal(**network.image.model_dump())
    (folder / "model.safetensors").write_text("others!")
    assert "has changed since: restore it, or start anew" in refusal(**network.image.model_dump())

"""Frozen vision encoders: what they make of a picture, how they travel with a policy, and what is refused."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user expects
from checkpoints import image_config, make_checkpoint
from policies import DISCRETE, make, sequence, view
from safetensors.torch import load_file, save_file
from torch import Tensor

from tscli.config import NetworkConfig, UserError
from tscli.networks import Policy, PolicySpec, frozen
from tscli.networks.files import check_loadable, load_policy_file, save_policy_file
from tscli.networks.frozen import FrozenEncoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_checkpoint(tmp_path / "dino")
    return tmp_path / "dino"


def seeing(folder: Path, kind: str = "mlp", text: str = "state + camera") -> Policy:
    return make(kind, text, image=image_config(folder).model_dump())


def says(policy: Policy, text: str = "state + camera") -> Tensor:
    return policy(sequence(3, 2, text), policy.initial_hidden(2))[0].params()["logits"]


@pytest.mark.parametrize(("shape", "size"), [((9, 12, 3), (8, 12)), ((8, 8, 1), (8, 8)), ((1, 29, 3), (4, 28))])
def test_features_are_the_tokens_of_all_patches(tmp_path: Path, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    model = make_checkpoint(tmp_path / "dino")
    encoder = FrozenEncoder(shape, image_config(tmp_path / "dino"))
    images = torch.randint(256, (2, 3, *shape), dtype=torch.uint8)
    found = encoder(images)
    x = (images.flatten(0, 1).permute(0, 3, 1, 2) / 255).expand(-1, 3, -1, -1)
    x = F.interpolate(x, size, mode="bilinear", align_corners=False)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        tokens = model(pixel_values=(x - mean[:, None, None]) / std[:, None, None]).last_hidden_state[:, 1:]
    torch.testing.assert_close(found, tokens.reshape(2, 3, -1), atol=1e-5, rtol=1e-4)
    assert encoder.features == size[0] * size[1] // 16 * 8 == found.shape[-1]
    assert not found.requires_grad


def test_features_that_were_made_before_take_the_pictures_place(folder: Path) -> None:
    policy, obs = seeing(folder), sequence(3, 2, "state + camera")
    made = policy.encoder.features_of(obs)
    assert made["camera"].dtype == torch.float16 and made["vector"] is obs["vector"]
    again = policy(made, policy.initial_hidden(2))[0].params()["logits"]
    torch.testing.assert_close(again, says(policy), atol=2e-2, rtol=1e-2)
    plain = make("mlp", "state + camera")
    assert plain.encoder.features_of(obs) is obs


def test_its_weights_are_none_of_the_policys_and_shared(folder: Path) -> None:
    one, other = seeing(folder), seeing(folder, "gru")
    assert not any("layer." in name for name in one.state_dict())
    shared = [policy.encoder.frozen["camera"].model("cpu") for policy in (one, other)]
    assert shared[0] is shared[1] and not any(p.requires_grad for p in shared[0].parameters())
    before = torch.get_rng_state()
    frozen._loaded.clear()
    one.encoder.frozen["camera"].model("cpu")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_a_policy_brings_its_encoder_along(folder: Path, tmp_path: Path, kind: str) -> None:
    policy, path = seeing(folder, kind), tmp_path / "run" / "policy.safetensors"
    path.parent.mkdir()
    check_loadable(policy)
    save_policy_file(path, policy)
    shutil.rmtree(folder)
    (tmp_path / "run").rename(tmp_path / "moved")
    frozen._loaded.clear()
    again = load_policy_file(tmp_path / "moved" / "policy.safetensors")
    assert torch.equal(says(again), says(policy))
    assert str(tmp_path) not in json.dumps(policy.spec.to_json())
    save_policy_file(tmp_path / "second.safetensors", again)
    assert torch.equal(says(load_policy_file(tmp_path / "second.safetensors")), says(policy))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_another_encoder_beside_a_policy_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy_file(path, seeing(folder))
    make_checkpoint(tmp_path / "other", seed=1, layer_norm_eps=1e-5)
    copy = next((tmp_path / "encoders").iterdir()) / name
    copy.unlink()
    shutil.copy(tmp_path / "other" / name, copy)
    with pytest.raises(UserError, match="is missing, or has changed since the policy was written: restore it"):
        load_policy_file(path)
    copy.unlink()
    with pytest.raises(UserError, match="is missing, or has changed"):
        load_policy_file(path)


def test_a_cnns_policy_is_written_as_before(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy_file(path, make("mlp", "camera"))
    assert "image" not in make("mlp", "camera").spec.to_json()["network"] and not (tmp_path / "encoders").exists()


def test_no_code_of_a_checkpoint_is_run(folder: Path, tmp_path: Path) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nDinov2Model = Dinov2Config = None\n")
    said |= {"auto_map": {"AutoConfig": "theirs.Dinov2Config", "AutoModel": "theirs.Dinov2Model"}}
    (folder / "config.json").write_text(json.dumps(said | {"_attn_implementation": "someone/kernels"}))
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}')
    says(seeing(folder))
    assert not (tmp_path / "ran").exists()


def spoil(folder: Path, what: str) -> None:
    weights, about = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    tensors = load_file(weights)
    if what == "cut":
        weights.write_bytes(weights.read_bytes()[:-8])
    elif what == "missing":
        del tensors["layernorm.weight"]
    elif what == "wide":
        tensors["layernorm.weight"] = torch.zeros(9)
    elif what == "huge":
        about["hidden_size"] = 2**40
    elif what == "other":
        about["model_type"] = "vit"
    if what in ("missing", "wide"):
        save_file(tensors, weights)
    (folder / "config.json").write_text("[]" if what == "list" else json.dumps(about))


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("cut", "cannot be read as a dinov2 (SafetensorError: "),
        ("missing", "cannot be read as a dinov2 (it has no layernorm.weight): restore"),
        ("wide", "cannot be read as a dinov2 (it has another size of "),
        ("huge", "is no description of an encoder (hidden_size "),
        ("other", 'holds a "vit": give the folder of a dinov2'),
        ("list", "is damaged"),
    ],
)
def test_a_folder_that_holds_something_else_is_refused(folder: Path, what: str, words: str) -> None:
    spoil(folder, what)
    with pytest.raises(UserError) as caught:
        seeing(folder)
    assert words in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_without_transformers_it_is_said_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name))
    with pytest.raises(UserError, match=r"^image.kind dinov2 needs transformers: pip install 'tscli\[vision\]'$"):
        seeing(folder)


def test_a_view_it_cannot_see_is_refused(folder: Path) -> None:
    with pytest.raises(UserError, match=r'^image.kind dinov2: the view "mine" has no picture'):
        seeing(folder, text="state")
    lossy = replace(view("camera"), parts=(replace(view("camera").parts[0], dropout=0.1),))
    with pytest.raises(UserError, match="loses pictures, whose features are made once: leave its dropout out"):
        Policy(PolicySpec(lossy, DISCRETE, seeing(folder).spec.network))
    with pytest.raises(UserError, match="pictures of 1 or 3 channels, not 4"):
        FrozenEncoder((8, 8, 4), image_config(folder))


def test_transformers_is_imported_for_a_frozen_encoder_alone() -> None:
    code = "import sys, tscli.networks.files, tscli.pairs; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert NetworkConfig().image.is_frozen is False

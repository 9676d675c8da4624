"""Files that hold a policy or a checkpoint: whole, damaged, foreign, malicious; and files that are written whole."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import errno
import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from policies import KINDS
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from tscli import files
from tscli.config import NetworkConfig, UserError, parse_view
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import resolve_view
from tscli.files import atomic_write, file_hash
from tscli.learning.optim import FlatAdam
from tscli.networks import LatentSpec, Policy, PolicySpec
from tscli.networks import files as policy_files
from tscli.networks.files import check_loadable, load_policy_file, save_policy_file
from tscli.runs.checkpoint import load_state, save_state

GROUPS = {"state": Group((4,)), "camera": Group((8, 8, 3), dtype="uint8")}
UNBOUNDED = ActionSpec("continuous", low=(-1.0, -float("inf")), high=(3.0, float("inf")))


def make_policy(kind: str = "rnn", text: str = "state[0,2] + camera + previous_action") -> Policy:
    torch.manual_seed(0)
    config = NetworkConfig.model_validate({"kind": kind, "hidden": (8,), "memory": 4})
    policy = Policy(PolicySpec(resolve_view("mine", parse_view(text), GROUPS, UNBOUNDED), UNBOUNDED, config))
    policy.encoder.update_normalizer({"vector": torch.randn(50, policy.spec.view.vector_size) * 5 + 2})
    return policy


def one_line(path: Path, load: Any = load_policy_file) -> str:
    with pytest.raises(UserError) as caught:
        load(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and len(text) < 400
    return text


# What the first version wrote. All of its versions have to read it, and write it of a policy that has nothing newer.
HEADER = (
    '{"format": 1, "view": {"name": "mine", "parts": [{"group": "state", "index": [0, 2], "size": 2, "shape": [2], '
    '"noise": 0.0, "delay": 0, "dropout": 0.0}, {"group": "camera", "index": null, "size": 0, "shape": [8, 8, 3], '
    '"noise": 0.0, "delay": 0, "dropout": 0.0}, {"group": "previous_action", "index": null, "size": 2, "shape": [2], '
    '"noise": 0.0, "delay": 0, "dropout": 0.0}]}, "action": {"kind": "continuous", "nvec": [], "low": [-1.0, null], '
    '"high": [3.0, null], "names": []}, "network": {"kind": "gru", "hidden": [8], "activation": "tanh", "memory": 4, '
    '"memory_layers": 1, "hidden_after": [], "history": 8, "normalize": true, "normalize_clip": 10.0, '
    '"std": "state_independent", "init_std": 1.0, "squash": false, "distribution": "gaussian"}}'
)


def test_the_header_is_that_of_the_first_version(tmp_path: Path) -> None:
    policy = make_policy("gru")
    save_policy_file(tmp_path / "policy.safetensors", policy)
    with safe_open(tmp_path / "policy.safetensors", framework="pt") as file:
        assert file.metadata()["tscli"] == HEADER
    assert PolicySpec.from_json(json.loads(HEADER)) == policy.spec


@pytest.mark.parametrize("newer", [{}, {"head_hidden": (4,)}, {"latent": True}])
def test_a_file_that_older_versions_cannot_read_has_another_number(tmp_path: Path, newer: dict[str, Any]) -> None:
    spec = make_policy("mlp", "state").spec
    if newer.pop("latent", False):
        spec = replace(spec, latent=LatentSpec((0,), (1,), NetworkConfig(), 3))
    policy = Policy(replace(spec, network=spec.network.model_copy(update=newer)))
    save_policy_file(tmp_path / "policy.safetensors", policy)
    with safe_open(tmp_path / "policy.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["tscli"])["format"] == (2 if newer or spec.latent else 1)
    assert load_policy_file(tmp_path / "policy.safetensors").spec == policy.spec


def test_a_policy_that_its_spec_does_not_tell_is_refused(tmp_path: Path) -> None:
    policy, wide = make_policy("mlp", "state"), make_policy("mlp", "state + previous_action")
    check_loadable(policy)
    before = torch.get_rng_state()
    policy.encoder.body = wide.encoder.body
    words = "could not be loaded again: its spec does not tell its encoder.body.layers.0.weight as it is"
    with pytest.raises(UserError, match=words):
        save_policy_file(tmp_path / "policy.safetensors", policy)
    assert not list(tmp_path.iterdir()) and torch.equal(torch.get_rng_state(), before)
    policy = make_policy("mlp", "state")
    policy.encoder.body.layers = nn.Sequential(policy.encoder.body.layers[0], nn.ELU())  # type: ignore[index]
    with pytest.raises(UserError, match=r"its spec does not tell its encoder.body.layers.1 as it is"):
        check_loadable(policy)
    policy = make_policy("mlp", "state")
    policy.spec = replace(policy.spec, view=replace(policy.spec.view, parts=list(policy.spec.view.parts)))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="its spec does not tell its view as it is"):
        check_loadable(policy)


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_comes_back_equal_and_frozen(tmp_path: Path, kind: str) -> None:
    policy = make_policy(kind)
    FlatAdam(policy.parameters(), 0.1)  # weights that are views of one buffer
    save_policy_file(tmp_path / "policy.safetensors", policy)
    again = load_policy_file(tmp_path / "policy.safetensors")
    assert again.spec == policy.spec
    obs = {"vector": torch.randn(3, 2, 4), "camera": torch.randint(256, (3, 2, 8, 8, 3), dtype=torch.uint8)}
    a, b = (p(obs, p.initial_hidden(2), None)[0].params() for p in (policy, again))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not again.training and not any(p.requires_grad for p in again.parameters())
    assert not b["mean"].requires_grad


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_policy_file(tmp_path / name, make_policy())
    assert file_hash(tmp_path / "a") == file_hash(tmp_path / "b")


@pytest.mark.parametrize("part", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_a_truncated_policy_is_refused(tmp_path: Path, part: float) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy_file(path, make_policy())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    assert "is damaged" in one_line(path)


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_a_flipped_bit_in_the_header_is_refused_or_changes_no_more_than_a_name(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    save_policy_file(path, make_policy("mlp", "state"))
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    refused = 0
    for position in range(0, end, 17):
        path.write_bytes(bytes([*data[:position], data[position] ^ 1, *data[position + 1 :]]))
        try:
            load_policy_file(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    # What a flip can change unnoticed are free words (a view's name) and numbers; a run's manifest has the file's hash.
    assert refused > 0.6 * (end // 17)


def test_foreign_files_are_no_policies(tmp_path: Path) -> None:
    path = tmp_path / "policy.safetensors"
    assert "is missing" in one_line(path)
    save_file({"weight": torch.zeros(2)}, path)
    assert "is not a tscli policy" in one_line(path)
    path.write_bytes(b"PK\x03\x04 a zip, perhaps")
    assert "is damaged" in one_line(path)
    save_file({"weight": torch.zeros(2)}, path, {"tscli": json.dumps({"format": 99})})
    assert "has format 99" in one_line(path) and "upgrade tscli" in one_line(path)
    for spec in ("[]", "nonsense", '{"format": 1}', '{"format": 1, "view": 3, "action": [], "network": null}'):
        save_file({"weight": torch.zeros(2)}, path, {"tscli": spec})
        assert "is damaged" in one_line(path)


def test_a_policy_of_other_sizes_than_its_spec_is_refused(tmp_path: Path) -> None:
    policy = make_policy("mlp", "state")
    tensors = {name: value.clone() for name, value in policy.state_dict().items()}
    header = {"tscli": json.dumps({"format": 1, **policy.spec.to_json()})}
    tensors["head.linear.weight"] = torch.zeros(3, 3)
    save_file(tensors, tmp_path / "a", header)
    assert "size mismatch" in one_line(tmp_path / "a")
    del tensors["head.linear.weight"]
    save_file(tensors, tmp_path / "b", header)
    assert "Missing key" in one_line(tmp_path / "b")


def test_a_state_comes_back_equal(tmp_path: Path) -> None:
    state = {
        "parts": {"net": make_policy().state_dict(), "act": torch.Generator().manual_seed(3).get_state()},
        "values": {"iteration": 3, "best": -float("inf"), "name": "x", "none": None, "list": [1, 2.5]},
    }
    save_state(tmp_path / "checkpoint.pt", state)
    again = load_state(tmp_path / "checkpoint.pt")
    assert again["values"] == state["values"]
    assert all(torch.equal(v, again["parts"]["net"][k]) for k, v in state["parts"]["net"].items())
    assert torch.equal(again["parts"]["act"], state["parts"]["act"])


def test_a_damaged_or_missing_state_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    assert "is missing, so there is nothing to resume" in one_line(path, load_state)
    save_state(path, {"x": torch.zeros(1000)})
    data = path.read_bytes()
    for part in (b"", data[:100], data[: len(data) // 2], b"hello" * 100):
        path.write_bytes(part)
        assert "is damaged" in one_line(path, load_state)


class _Evil:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_a_state_that_would_run_a_program_is_refused(tmp_path: Path, form: str) -> None:
    path, proof = tmp_path / "checkpoint.pt", tmp_path / "proof"
    if form == "pickle":
        path.write_bytes(pickle.dumps({"x": _Evil(proof)}, protocol=2))
    else:
        torch.save({"x": _Evil(proof)}, path)
        assert zipfile.is_zipfile(path)
    assert "is damaged" in one_line(path, load_state)
    assert not proof.exists()


# --- files ------------------------------------------------------------------------------------------------------------


def full(*args: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "manifest.json"
    atomic_write(path, "old")
    monkeypatch.setattr(files.os, call, full)
    with pytest.raises(UserError, match="No space left on device: free some space") as caught:
        atomic_write(path, "new")
    assert str(path) in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["manifest.json"] and path.read_text() == "old"


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file or directory"):
        atomic_write(tmp_path / "none" / "x", "data")


def test_a_file_is_whole_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "x", []
    replace = os.replace
    monkeypatch.setattr(
        files.os, "replace", lambda a, b: seen.append((Path(a).read_bytes(), path.exists())) or replace(a, b)
    )
    atomic_write(path, "grüß")
    assert seen == [("grüß".encode(), False)] and path.read_text(encoding="utf-8") == "grüß"


def test_a_files_hash_is_its_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert file_hash(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_policy_that_is_no_longer_numbers_is_not_written(tmp_path: Path, bad: float) -> None:
    policy = make_policy()
    with torch.no_grad():
        policy.head.linear.bias[0] = bad
    with pytest.raises(UserError, match=r"diverged \(the policy's head.linear.bias is no longer finite\)"):
        save_policy_file(tmp_path / "policy.safetensors", policy)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": [9000, 9000]},
        {"hidden": [8] * 100_000},
        {"memory": 10**9},
        {"memory_layers": 10**9},
        {"history": 10**9},
    ],
)
def test_a_spec_of_sizes_that_its_file_does_not_hold_takes_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    policy = make_policy("history" if "history" in change else "rnn", "state")
    data = policy.spec.to_json()
    data["network"] |= change
    save_file(policy.state_dict(), tmp_path / "a", {"tscli": json.dumps({"format": 2, **data})})
    devices: set[str] = set()

    def made(spec: PolicySpec) -> Policy:
        devices.add(torch.get_default_device().type)
        return Policy(spec)

    monkeypatch.setattr(policy_files, "Policy", made)
    assert "is damaged" in one_line(tmp_path / "a")
    assert devices <= {"meta"}


def test_a_header_of_shapes_that_its_file_does_not_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for shape in ([2**62, 2**62], [2**40], [3]):
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 4 * shape[0] % 2**63]}
        header = json.dumps({"__metadata__": {"tscli": "{}"}, "w": entry}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
        assert "is damaged" in one_line(path)

"""Exported files give what the policy gives, for every kind of policy, and say what they are."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported_policies import ACTIONS, FORMATS, HAS_ONNX, LENGTHS, MODULES, exported, make
from fake_env import FakeEnv

from tscli.config import NetworkConfig, parse_view
from tscli.envs.spaces import Group
from tscli.envs.views import resolve_view
from tscli.interop import export
from tscli.networks import Policy, PolicySpec

NETWORKS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "rnn": {"kind": "rnn", "memory": 6},
    "two layers": {"kind": "rnn", "memory": 6, "memory_layers": 2},
    "gru": {"kind": "gru", "memory": 6},
    "history": {"kind": "history", "history": 4},
    "deep head": {"kind": "gru", "memory": 6, "head_hidden": (5,)},
    "latent": {"latent": "mlp"},
    "latent with memory": {"kind": "history", "history": 4, "latent": "rnn"},
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_every_network_gives_the_same_over_whole_episodes(network: Any, format: str, tmp_path: Path) -> None:
    policy, env = make(network, ACTIONS["discrete"])
    actor, _, run = exported(policy, env, format, tmp_path)
    recording = export.record(policy, env, 1, 40)
    assert len({tuple(reset) for reset in recording.resets}) > 3, "episodes begin at different steps"
    assert export.max_error(actor, recording, run) < 1e-5
    if policy.is_recurrent:  # the comparison is of sequences: a file that forgets is found out
        assert export.max_error(actor, recording, lambda x: [*run(x)[:-1], np.zeros_like(x[-1])]) > 1e-3


HEADS = (
    ("discrete", {}),
    ("multi_discrete", {}),
    ("bounded", {}),
    ("bounded", {"squash": True, "std": "network"}),
    ("bounded", {"distribution": "beta"}),
    ("unbounded", {"std": "network"}),
    ("unbounded", {"squash": True}),
)


@pytest.mark.parametrize(("kind", "network"), HEADS)
def test_every_action_space_gives_the_same_within_its_bounds(
    kind: str, network: dict[str, Any], tmp_path: Path
) -> None:
    action = ACTIONS[kind]
    policy, env = make(network, action)
    # ONNX, which takes seconds, for the richest of them.
    rich = "squash" in network or "distribution" in network
    actor, _, run = exported(policy, env, "onnx" if HAS_ONNX and rich else "torchscript", tmp_path)
    recording = export.record(policy, env, 1, 10)
    assert export.max_error(actor, recording, run) < 1e-5
    far = [np.full((5, policy.spec.view.vector_size), 100, np.float32)]
    found = run(far)[0]
    assert found.shape == (5, *action.shape)
    if action.is_continuous:
        assert (found >= action.low).all() and (found <= action.high).all()
        params = ("alpha", "beta") if "distribution" in network else ("mean", "std")
        assert actor.outputs == ("action", *params)


@pytest.mark.parametrize("format", FORMATS)
def test_images_are_inputs_of_their_own(format: str, tmp_path: Path) -> None:
    policy, env = make({"kind": "gru", "memory": 6}, ACTIONS["discrete"], "state + camera")
    actor, _, run = exported(policy, env, format, tmp_path)
    assert actor.inputs == ("vector", "camera", "hidden")
    assert export.max_error(actor, export.record(policy, env, 1, 12), run) < 1e-5


@pytest.mark.parametrize("format", FORMATS)
def test_pictures_of_a_size_that_the_network_has_to_pool_unevenly_give_the_same(format: str, tmp_path: Path) -> None:
    camera = Group((50, 71, 3), dtype="uint8")
    groups = {"robot.camera": camera}  # an entry of a Dict within a Dict
    action = ACTIONS["bounded"]  # whose outputs are called what torch calls such a pooling: mean
    torch.manual_seed(3)
    view = resolve_view("seen", parse_view("robot.camera"), groups, action)
    policy = Policy(PolicySpec(view, action, NetworkConfig(hidden=(8,)))).eval().requires_grad_(False)
    env = FakeEnv(LENGTHS, action)
    env.groups = groups
    actor, path, run = exported(policy, env, format, tmp_path)
    assert actor.inputs == ("robot.camera",)
    pictures = torch.randint(0, 256, (7, *camera.shape), dtype=torch.uint8)
    for expected, found in zip(actor(pictures), run([pictures.numpy()]), strict=True):
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    about = MODULES[format].read_metadata(path)
    assert about is not None and about["inputs"][0]["shape"] == ["batch", 50, 71, 3]


def test_a_choice_between_equals_is_no_error_and_another_one_is() -> None:
    policy, env = make({}, ACTIONS["multi_discrete"])
    actor = export.Actor(policy)
    recording = export.record(policy, env, 1, 6)

    def wrong(inputs: Any) -> list[np.ndarray]:
        action, logits = (value.numpy() for value in actor(*map(torch.from_numpy, inputs)))
        return [(action + np.array([0, 1])) % np.array([3, 2]), logits]

    assert export.max_error(actor, recording, wrong) > 1e-2
    torch.nn.init.zeros_(policy.head.linear.weight)
    actor = export.Actor(policy)
    assert export.max_error(actor, export.record(policy, env, 1, 6), wrong) == 0


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_says_what_goes_in_and_comes_out(format: str, tmp_path: Path) -> None:
    policy, env = make({"kind": "history", "history": 4}, ACTIONS["bounded"])
    env.control_dt = 0.05
    _, path, _ = exported(policy, env, format, tmp_path)
    about = MODULES[format].read_metadata(path)
    assert about is not None and about["control_rate_hz"] == 20
    vector, hidden = about["inputs"]
    assert [part["group"] for part in vector["parts"]] == ["state", "previous_action", "flag", "goal"]
    assert vector["parts"][0]["names"] == ["env", "episode", "step"]
    assert vector["parts"][3]["index"] == [1]
    assert hidden["shape"] == ["batch", 3 * 7]
    assert about["action"]["low"] == [-2.0, 0.0] and about["action"]["high"] == [2.0, 0.5]
    assert PolicySpec.from_json(about["spec"]) == policy.spec

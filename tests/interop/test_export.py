"""Exported files give what the policy gives, for every kind of policy, and say what they are."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import FakeEnv
from stage_tools import BC, SMALL, TEACHER, call, error_of, weights_hash

from tscli.cli.app import main
from tscli.config import NetworkConfig, UserError, parse_view
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import resolve_view
from tscli.interop import export
from tscli.networks import LatentSpec, Policy, PolicySpec

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="the extra `export` is not installed")
FORMATS = [pytest.param("onnx", marks=needs_onnx), "torchscript"]
RUNNER = Path(__file__).resolve().parents[2] / "examples" / "run_exported.py"

ACTIONS = {
    "discrete": ActionSpec("discrete", nvec=(3,)),
    "multi_discrete": ActionSpec("multi_discrete", nvec=(3, 2)),
    "bounded": ActionSpec("continuous", low=(-2.0, 0.0), high=(2.0, 0.5)),
    "unbounded": ActionSpec("continuous", low=(-float("inf"),) * 2, high=(float("inf"),) * 2),
}
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
SEEN = "state + previous_action + flag + goal[1]"
LENGTHS = [[3, -7], [12], [-4, 5], [30]]


def make(
    network: dict[str, Any], action: ActionSpec, view: str = SEEN, lengths: Any = LENGTHS
) -> tuple[Policy, FakeEnv]:
    """A policy with a normaliser that has seen something and a head that is not near zero."""
    env = FakeEnv(lengths, action)
    torch.manual_seed(3)
    latent = None
    if "latent" in network:  # of a part of the view, beside another one
        inner = NetworkConfig(kind=network["latent"], hidden=(4,), memory=3)
        latent = LatentSpec((5, 0, 1), (2, 3), inner, 2)
    config = NetworkConfig.model_validate({"hidden": (8, 8), **{k: v for k, v in network.items() if k != "latent"}})
    policy = Policy(PolicySpec(resolve_view("seen", parse_view(view), env.groups, action), action, config, latent))
    torch.nn.init.normal_(policy.head.linear.weight)
    policy.encoder.update_normalizer({"vector": 3 + 2 * torch.randn(50, policy.spec.view.vector_size)})
    return policy.eval().requires_grad_(False), env


def exported(policy: Policy, env: FakeEnv, format: str, folder: Path) -> tuple[export.Actor, Path, export.Runner]:
    actor = export.Actor(policy)
    about = export.describe(policy, env, run="a", task="b")
    path = folder / ("p.onnx" if format == "onnx" else "p.pt")
    if format == "onnx":
        export.write_onnx(actor, path, about)
        return actor, path, export.load_onnx(path)
    export.write_torchscript(actor, path, about)
    return actor, path, export.load_torchscript(path)


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
    action = ACTIONS["discrete"]
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
    about = export.read_metadata(path)
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
    about = export.read_metadata(path)
    assert about is not None and about["control_rate_hz"] == 20
    vector, hidden = about["inputs"]
    assert [part["group"] for part in vector["parts"]] == ["state", "previous_action", "flag", "goal"]
    assert vector["parts"][0]["names"] == ["env", "episode", "step"]
    assert vector["parts"][3]["index"] == [1]
    assert hidden["shape"] == ["batch", 3 * 7]
    assert about["action"]["low"] == [-2.0, 0.0] and about["action"]["high"] == [2.0, 0.5]
    assert PolicySpec.from_json(about["spec"]) == policy.spec


def load_runner() -> Any:
    """The example, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("run_exported", RUNNER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_onnx
def test_an_exported_lstm_student_has_the_returns_outside_that_it_has_inside(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call(*BC, *SMALL, "--student", "rnn", "--obs", "partial", "--lr", "0.02")
    capsys.readouterr()
    assert main(["eval", "--num-envs", "1", "--episodes", "8", "--no-teacher", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    inside = report["policies"]["student"]["greedy"]["return"]
    assert main(["export", "3"]) == 0
    assert "next: python examples/run_exported.py runs/0005-export" in "".join(capsys.readouterr())

    path, seed = "runs/0005-export-cartpole-seed1/policy.onnx", str(report["reset_seed"])
    command = ["run_exported.py", path, "--env", "tscli:tscli/CartPole-v0", "--episodes", "8"]
    monkeypatch.setattr(sys, "argv", [*command, "--seed", seed])
    load_runner().main()
    expected = f"return {inside['mean']:.2f}, deviation {inside['sd']:.2f}, 8 episodes"
    assert expected in capsys.readouterr().out and inside["sd"] > 0


@needs_onnx
@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--env", "Pendulum-v1"), "it takes the actions Box"),
        (("--env", "Acrobot-v1"), "it takes the actions Discrete(3), the policy gives discrete [2]"),
        (("--env", "toy_envs:toy/Dict-v0"), "it shows body, camera, goal, the policy sees 4 entries of state"),
        (("--env", "toy_envs:toy/Success-v0"), "it shows state, the policy sees 4 entries of state"),
        (("--env", "Nope-v1"), "--env Nope-v1: "),
    ],
)
def test_the_example_drives_no_environment_that_the_policy_does_not_fit(
    runs: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], words: str
) -> None:
    call("export", "1", "--check-steps", "5")
    path = str(next(runs.glob("*/policy.onnx")))
    module = load_runner()
    monkeypatch.setattr(sys, "argv", ["run_exported.py", path, *args])
    with pytest.raises(SystemExit, match=re.escape(words)):
        module.main()


@needs_onnx
def test_the_example_refuses_what_is_no_exported_policy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("notes.txt").write_text("none")
    module = load_runner()
    for name in ("notes.txt", "gone.onnx"):
        monkeypatch.setattr(sys, "argv", ["run_exported.py", name])
        with pytest.raises(SystemExit, match=f"^{name} is no policy exported by"):
            module.main()


@needs_onnx
def test_the_example_names_what_an_environment_shows_as_tscli_does() -> None:
    module = load_runner()
    seen = module.readings_of({"robot": {"joints": [1.0, 2.0]}, "goal": np.zeros(1)})
    assert set(seen) == {"robot.joints", "goal"}
    assert set(module.readings_of(np.zeros((4, 4, 3), np.uint8))) == {"image"}
    assert set(module.readings_of(np.zeros(4, np.uint8))) == {"state"}


@needs_onnx
@pytest.mark.parametrize("kind", ["multi_discrete", "bounded"])
def test_the_example_acts_as_the_policy_does(kind: str, tmp_path: Path) -> None:
    network = {"kind": "rnn", "memory": 6} if kind == "bounded" else {}
    policy, env = make(network, ACTIONS[kind], lengths=[[5, -9, 30]])
    _, path, _ = exported(policy, env, "onnx", tmp_path)
    robot = load_runner().ExportedPolicy(str(path))
    recording = export.record(policy, env, 1, 25)
    env.reset(1)
    for reset, dist in zip(recording.resets, recording.dists, strict=True):
        if reset[0]:
            robot.reset()
        action = robot.act({name: env.observe(name)[0].numpy() for name in ("state", "flag", "goal")})
        expected = dist.mode()
        if policy.spec.action.is_continuous:
            expected = expected.clamp(torch.tensor(env.action.low), torch.tensor(env.action.high))
        np.testing.assert_allclose(action, expected[0].numpy(), atol=1e-5)
        env.step(expected)


@pytest.mark.parametrize("format", FORMATS)
def test_the_command_writes_checks_and_reports(format: str, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["export", "--format", format, "--output", "mine.bin", "--check-steps", "20", "--json"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert "policy: 0001-train-teacher" in err and "wrote runs/0003-export-cartpole" in err
    assert report["max_error"] < 1e-5 and report["checked_steps"] == 80
    assert report["latency_us"]["median"] <= report["latency_us"]["p95"]
    assert report["metadata"]["role"] == "teacher" and report["metadata"]["control_rate_hz"] == 50
    assert Path("mine.bin").stat().st_size == report["bytes"]
    manifest = json.loads((runs / "0003-export-cartpole-seed1" / "manifest.json").read_text())
    assert report["sha256"] in manifest["artifacts"].values()
    assert manifest["parents"]["policy"]["name"] == report["run"]


def test_a_file_that_differs_is_refused(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load = export.load_torchscript
    monkeypatch.setattr(export, "load_torchscript", lambda path: lambda x: [*load(path)(x)[:-1], load(path)(x)[-1] + 1])
    error = error_of(capsys, "export", "--format", "torchscript", "--output", "mine.pt")
    assert "differs from 0001-train-teacher" in error
    assert not Path("mine.pt").exists()


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("mine.bin", "--output mine.bin exists: name another file, or give --force"),
        ("mine.onnx", "--output mine.onnx would hold torchscript: end it in .pt, or use --format onnx"),
        ("runs/0001-train-teacher-cartpole-seed1/policy.safetensors", "is among the files of a run"),
        ("runs/0001-train-teacher-cartpole-seed1/new.pt", "is among the files of a run"),
    ],
)
def test_nothing_is_overwritten_unasked(
    runs: Path, capsys: pytest.CaptureFixture[str], output: str, words: str
) -> None:
    Path("mine.bin").write_text("dear to somebody")
    before = weights_hash(Path("runs/0001-train-teacher-cartpole-seed1/policy.safetensors"))
    assert words in error_of(capsys, "export", "--format", "torchscript", "--output", output)
    assert weights_hash(Path("runs/0001-train-teacher-cartpole-seed1/policy.safetensors")) == before
    assert Path("mine.bin").read_text() == "dear to somebody"
    call("export", "--format", "torchscript", "--output", "mine.bin", "--force", "--check-steps", "5")
    assert Path("mine.bin").stat().st_size > 1000


def test_missing_packages_and_folders_are_refused_in_one_line(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no folder nowhere" in error_of(
        capsys, "export", "--format", "torchscript", "--output", "nowhere/p"
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'tscli\[export\]'"):
        export.require_onnx()


def test_the_last_policy_and_a_teachers_are_exported_too(folder: Path) -> None:
    call(*TEACHER)
    run = call("export", "--which", "last", "--format", "torchscript", "--check-steps", "5")
    assert json.loads((run.path / "report.json").read_text())["metadata"]["which"] == "last"

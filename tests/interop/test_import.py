"""Policies of other libraries act here as they do there."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib.util
import json
import pickle
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stage_tools import BC, COLLECT, SMALL, call, error_of
from torch import Tensor, nn

from tscli.config import NetworkConfig
from tscli.envs.spaces import ActionSpec
from tscli.envs.views import Part, ViewSpec
from tscli.interop import export, foreign
from tscli.launch.start import load_policy
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import Gaussian, TanhGaussian

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="the extra `export` is not installed")
ARM = ActionSpec("continuous", low=(-2.0, -1.0, -float("inf")), high=(2.0, 3.0, float("inf")))
ACTIVATIONS = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


def view_of(size: int) -> ViewSpec:
    return ViewSpec("all", (Part("state", None, size, (size,)),))


def policy_of(path: Path, size: int, action: ActionSpec, activation: str | None = None) -> Policy:
    """What `tscli import` makes of a file."""
    source = foreign.read_policy(path)
    found = source.found
    assert found is not None and (found.num_inputs, found.num_outputs) == (size, action.num_params)
    return foreign.settle_activation(
        source, activation, lambda name: foreign.build(found, view_of(size), action, name, 0.1), path
    )


def readings(steps: int, num: int, size: int) -> Tensor:
    return 4 * torch.randn(steps, num, size, generator=torch.Generator().manual_seed(1))


def saved(folder: Path, content: Any, name: str = "model.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


def perceptron(sizes: tuple[int, ...], activation: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def numbered(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}


# --- Stable-Baselines3 ------------------------------------------------------------------------------------------------


def sb3_model(name: str, env: str, **kwargs: Any) -> Any:
    sb3 = pytest.importorskip("stable_baselines3")
    extra = {"n_steps": 64} if name in ("PPO", "A2C") else {"buffer_size": 100}
    model = getattr(sb3, name)("MlpPolicy", env, seed=1, device="cpu", **extra, **kwargs)
    for parameter in model.policy.parameters():  # untrained heads are nearly zero
        torch.nn.init.normal_(parameter, std=0.3)
    return model


SB3 = {
    "PPO, continuous": ("PPO", "Pendulum-v1", {"activation_fn": nn.ELU, "net_arch": {"pi": [8], "vf": [16]}}),
    "A2C, discrete": ("A2C", "CartPole-v1", {}),
    "PPO, multi-discrete": ("PPO", "toy_envs:toy/Multi-v0", {"net_arch": [8, 8]}),
    "PPO, one layer": ("PPO", "CartPole-v1", {"net_arch": []}),
    "SAC": ("SAC", "Pendulum-v1", {"net_arch": [16, 16]}),
    "TD3": ("TD3", "Pendulum-v1", {"net_arch": [16, 16], "activation_fn": nn.Tanh}),
    "DQN": ("DQN", "CartPole-v1", {"net_arch": [16]}),
}


@pytest.mark.parametrize(("name", "env", "kwargs"), SB3.values(), ids=SB3)
def test_policies_of_stable_baselines3_act_the_same(name: str, env: str, kwargs: Any, folder: Path) -> None:
    model = sb3_model(name, env, policy_kwargs=kwargs)
    model.save("model.zip")
    run = call("import", "model.zip", "--task", env, "--eval-episodes", "2")
    assert run.role == "teacher" and run.command == "import" and "eval/return" in run.metrics
    policy = load_policy(run)
    obs = readings(1, 200, policy.spec.view.vector_size)
    wanted, _ = model.predict(obs[0].numpy(), deterministic=True)
    found = policy({"vector": obs}, policy.initial_hidden(200), None)[0].mode()[0]
    if policy.spec.action.is_continuous:
        found = found.clamp(torch.tensor(policy.spec.action.low), torch.tensor(policy.spec.action.high))
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)


@pytest.mark.parametrize("name", ["PPO", "SAC"])
def test_the_deviation_of_stable_baselines3_comes_along(name: str, folder: Path) -> None:
    model = sb3_model(name, "Pendulum-v1")
    model.save("model.zip")
    policy = load_policy(call("import", "model.zip", "--task", "Pendulum-v1", "--eval-episodes", "0"))
    obs = readings(1, 20, 3)
    dist, _ = policy({"vector": obs}, policy.initial_hidden(20), None)
    assert isinstance(dist, Gaussian)
    if name == "PPO":
        theirs = model.policy.get_distribution(obs[0]).distribution
        torch.testing.assert_close(dist.mean[0], theirs.mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(dist.std.expand_as(dist.mean)[0], theirs.stddev, atol=1e-5, rtol=1e-5)
    else:
        assert isinstance(dist, TanhGaussian)
        mean, log_std, _ = model.actor.get_action_dist_params(obs[0])
        torch.testing.assert_close(dist.mean[0], mean, atol=1e-5, rtol=1e-5)
        # ours keeps log deviations above -10, theirs above -20
        torch.testing.assert_close(dist.std[0], log_std.clamp(min=-10).exp(), atol=1e-5, rtol=1e-4)


def test_vec_normalize_is_read_once_it_is_trusted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vec_env = pytest.importorskip("stable_baselines3.common.vec_env")
    model = sb3_model("PPO", "Pendulum-v1")
    model.save("model.zip")
    normalize = vec_env.VecNormalize(vec_env.DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")]))
    normalize.obs_rms.update(3 + 2 * np.random.default_rng(1).standard_normal((50, 3)))
    normalize.save("norm.pkl")
    command = ("import", "model.zip", "--task", "Pendulum-v1", "--eval-episodes", "0", "--normalizer", "norm.pkl")
    assert "--trust-pickle" in error_of(capsys, *command)
    relu = error_of(capsys, *command, "--trust-pickle", "--activation", "relu")
    assert "--activation relu: model.zip says that it is tanh: leave it out" in relu
    policy = load_policy(call(*command, "--trust-pickle"))
    obs = 10 * readings(1, 100, 3)
    wanted = model.policy.get_distribution(torch.from_numpy(normalize.normalize_obs(obs[0].numpy())).float()).mode()
    found = policy({"vector": obs}, policy.initial_hidden(100), None)[0].mode()[0]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


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


# --- rsl_rl -----------------------------------------------------------------------------------------------------------


def rsl_model(kind: str, activation: str, **kwargs: Any) -> tuple[Any, Any]:
    pytest.importorskip("rsl_rl")
    models = pytest.importorskip("rsl_rl.models")
    tensordict = pytest.importorskip("tensordict")
    torch.manual_seed(5)
    obs = tensordict.TensorDict({"policy": torch.zeros(6, 7)}, batch_size=[6])
    distribution = {"class_name": "rsl_rl.modules.distribution:GaussianDistribution", **kwargs}
    more = {} if kind == "mlp" else {"rnn_type": kind, "rnn_hidden_dim": 9, "rnn_num_layers": 2}
    model = (models.MLPModel if kind == "mlp" else models.RNNModel)(
        obs, {"actor": ["policy"]}, "actor", 3, (12, 10), activation, True, distribution, **more
    )
    model.train()
    model.obs_normalizer.update(5 + 3 * torch.randn(100, 7))
    return model.eval(), lambda x: tensordict.TensorDict({"policy": x}, batch_size=[len(x)])


@torch.inference_mode()
def rsl_actions(model: Any, pack: Any, obs: Tensor, reset: Tensor) -> Tensor:
    """As rsl_rl's runner acts: reset where an episode ended, then one step."""
    found = []
    for x, done in zip(obs, reset, strict=True):
        model.reset(done.float())
        found.append(model(pack(x)))
    return torch.stack(found)


@pytest.mark.parametrize("std_type", ["scalar", "log"])
@pytest.mark.parametrize("kind", ["mlp", "lstm", "gru"])
def test_policies_of_rsl_rl_act_the_same_over_episodes(kind: str, std_type: str, tmp_path: Path) -> None:
    model, pack = rsl_model(kind, "elu", std_type=std_type, init_std=0.7)
    path = saved(tmp_path, {"actor_state_dict": model.state_dict(), "iter": 3, "infos": None})
    policy = policy_of(path, 7, ARM, "elu")
    obs, reset = readings(30, 6, 7), torch.rand(30, 6, generator=torch.Generator().manual_seed(2)) < 0.1
    dist, _ = policy({"vector": 5 * obs}, policy.initial_hidden(6), reset)  # far beyond our usual clip
    torch.testing.assert_close(dist.mode(), rsl_actions(model, pack, 5 * obs, reset), atol=1e-5, rtol=1e-5)
    assert isinstance(dist, Gaussian)
    torch.testing.assert_close(dist.std.expand_as(dist.mean)[0, 0], torch.full((3,), 0.7), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["mlp", "lstm", "gru"])
def test_exported_torchscript_of_rsl_rl_finds_its_own_activation(kind: str, tmp_path: Path) -> None:
    model, pack = rsl_model(kind, "swish")  # rsl_rl's name of SiLU
    torch.jit.script(model.as_jit()).save(str(tmp_path / "policy.pt"))
    policy = policy_of(tmp_path / "policy.pt", 7, ARM)
    assert policy.spec.network.activation == "silu"
    obs, reset = readings(10, 6, 7), torch.zeros(10, 6, dtype=torch.bool)
    dist, _ = policy({"vector": obs}, policy.initial_hidden(6), None)
    torch.testing.assert_close(dist.mode(), rsl_actions(model, pack, obs, reset), atol=1e-5, rtol=1e-5)


@needs_onnx
def test_exported_onnx_of_rsl_rl_finds_its_own_activation(tmp_path: Path) -> None:
    model, pack = rsl_model("mlp", "relu")
    module = model.as_onnx(verbose=False)
    args, names = module.get_dummy_inputs(), {"input_names": module.input_names, "output_names": module.output_names}
    torch.onnx.export(module, args, str(tmp_path / "policy.onnx"), opset_version=18, verbose=False, **names)
    policy = policy_of(tmp_path / "policy.onnx", 7, ARM)
    obs, reset = readings(1, 6, 7), torch.zeros(1, 6, dtype=torch.bool)
    dist, _ = policy({"vector": obs}, policy.initial_hidden(6), None)
    torch.testing.assert_close(dist.mode(), rsl_actions(model, pack, obs, reset), atol=1e-5, rtol=1e-5)


def test_the_names_of_rsl_rl_3_are_known(tmp_path: Path) -> None:
    actor, memory = perceptron((9, 8, 3), "elu"), nn.LSTM(7, 9)
    mean, std = torch.randn(1, 7), torch.rand(1, 7) + 0.1
    state = {**numbered("actor", actor), **numbered("critic", perceptron((9, 4, 1), "elu"))}
    state |= {**numbered("memory_a.rnn", memory), **numbered("memory_c.rnn", nn.LSTM(5, 9))}
    state |= {"std": torch.full((3,), 0.5), "actor_obs_normalizer._mean": mean, "actor_obs_normalizer._std": std}
    state |= {"actor_obs_normalizer._var": std.square(), "actor_obs_normalizer.count": torch.tensor(7)}
    path = saved(tmp_path, {"model_state_dict": state, "optimizer_state_dict": {}, "iter": 1, "infos": None})
    policy = policy_of(path, 7, ARM, "elu")
    obs = readings(12, 4, 7)
    wanted = actor(memory((obs - mean) / (std + 1e-2))[0])
    dist, _ = policy({"vector": obs}, policy.initial_hidden(4), None)
    torch.testing.assert_close(dist.mode(), wanted.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dist.params()["std"][0, 0], torch.full((3,), 0.5))


# --- cleanrl ----------------------------------------------------------------------------------------------------------


def cleanrl(name: str) -> tuple[dict[str, Tensor], nn.Module]:
    """Parameters under cleanrl's names, and the function that they stand for."""
    torch.manual_seed(4)
    if name == "ppo":
        actor = perceptron((4, 6, 6, 2), "tanh")
        return {**numbered("actor", actor), **numbered("critic", perceptron((4, 6, 6, 1), "tanh"))}, actor
    if name == "dqn":
        network = perceptron((4, 12, 8, 2), "relu")
        return numbered("network", network), network
    if name == "ppo_continuous_action":
        actor = perceptron((3, 6, 6, 1), "tanh")
        return {**numbered("actor_mean", actor), "actor_logstd": torch.full((1, 1), -0.3)}, actor
    actor = perceptron((3, 6, 6, 1), "relu")
    names = {"0": "fc1", "2": "fc2", "4": "fc_mu" if name == "td3" else "fc_mean"}
    state = {f"{names[key[0]]}{key[1:]}": value for key, value in actor.state_dict().items()}
    state |= {"action_scale": torch.full((1, 1), 2.0), "action_bias": torch.zeros(1, 1)}
    if name == "sac":
        state |= numbered("fc_logstd", nn.Linear(6, 1))
    return state, nn.Sequential(*actor, nn.Tanh())


@pytest.mark.parametrize("name", ["ppo", "dqn", "ppo_continuous_action", "td3", "sac"])
def test_policies_of_cleanrl_act_the_same(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, function = cleanrl(name)
    saved(folder, (state, {}, {}) if name == "td3" else state, "agent.cleanrl_model")
    task = "cartpole" if name in ("ppo", "dqn") else "Pendulum-v1"
    command = ("import", "agent.cleanrl_model", "--task", task, "--eval-episodes", "2")
    assert "--activation tanh|relu|elu|silu" in error_of(capsys, *command)
    policy = load_policy(call(*command, "--activation", "tanh" if "ppo" in name else "relu"))
    obs = readings(1, 50, policy.spec.view.vector_size)
    dist, _ = policy({"vector": obs}, policy.initial_hidden(50), None)
    wanted = function(obs[0]).detach() * (2 if name in ("td3", "sac") else 1)
    found = dist.mode() if policy.spec.action.is_continuous else dist.params()["logits"]
    torch.testing.assert_close(found[0], wanted, atol=1e-5, rtol=1e-5)
    if name == "ppo_continuous_action":
        torch.testing.assert_close(dist.params()["std"][0, 0], torch.tensor([np.exp(-0.3)], dtype=torch.float32))


# --- what comes of it -------------------------------------------------------------------------------------------------


def test_the_other_stages_go_on_from_an_imported_teacher(folder: Path, no_plots: None) -> None:
    saved(folder, cleanrl("ppo")[0])
    teacher = call("import", "model.pt", "--task", "cartpole", "--activation", "tanh", "--eval-episodes", "2")
    assert call(*COLLECT).parents == [teacher.name]
    student = call(*BC, *SMALL, "--student", "rnn", "--obs", "partial")
    assert teacher.name in student.parents
    report = json.loads((call("eval", "--episodes", "4").path / "report.json").read_text())
    assert list(report["policies"]) == ["student", "teacher"]


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


@pytest.mark.parametrize(
    ("mean", "var"),
    [
        ([0.0] * 4, [1.0, 1.0, 1.0, -1.0]),
        ([float("nan")] * 4, [1.0] * 4),
        ([0.0] * 4, [1.0] * 3),
        (["a"] * 4, [1.0] * 4),
    ],
)
def test_statistics_that_are_none_are_refused_and_leave_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], mean: list[Any], var: list[float]
) -> None:
    saved(folder, cleanrl("ppo")[0])
    np.savez("norm.npz", mean=np.array(mean), var=np.array(var))
    command = ("import", "model.pt", "--task", "cartpole", "--activation", "tanh", "--normalizer", "norm.npz")
    assert "--normalizer norm.npz: " in error_of(capsys, *command)
    assert not list(folder.glob("runs/0*"))


def test_an_empty_onnx_file_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    Path("empty.onnx").touch()
    assert "empty.onnx holds no network: export it again" in error_of(
        capsys, "import", "empty.onnx", "--task", "cartpole"
    )


def test_statistics_in_an_npz_need_no_trust(folder: Path) -> None:
    state, actor = cleanrl("ppo")
    saved(folder, state)
    mean, var = np.arange(4.0), np.arange(1.0, 5.0)
    np.savez("norm.npz", mean=mean, var=var)
    command = ("import", "model.pt", "--task", "cartpole", "--activation", "tanh", "--eval-episodes", "0")
    policy = load_policy(call(*command, "--normalizer", "norm.npz"))
    obs = readings(1, 50, 4)
    seen = ((obs[0] - torch.from_numpy(mean)) / torch.from_numpy(var).sqrt()).clamp(-10, 10)
    found = policy({"vector": obs}, policy.initial_hidden(50), None)[0].params()["logits"]
    torch.testing.assert_close(found[0], actor(seen.float()).detach(), atol=1e-5, rtol=1e-5)


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

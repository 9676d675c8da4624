"""Policies of rsl_rl act here as they do there."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from exported_policies import needs_onnx
from foreign_policies import ARM, numbered, perceptron, policy_of, readings, saved
from torch import Tensor, nn

from tscli.config import UserError
from tscli.networks.distributions import Gaussian


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


def test_statistics_beside_the_model_of_rsl_rl_2_are_read(tmp_path: Path) -> None:
    actor, mean, std = perceptron((7, 8, 3), "elu"), torch.randn(1, 7), torch.rand(1, 7) + 0.1
    norm = {"_mean": mean, "_std": std, "_var": std.square(), "count": torch.tensor(7)}
    model = {**numbered("actor", actor), **numbered("critic", perceptron((9, 4, 1), "elu")), "std": torch.ones(3)}
    content = {"model_state_dict": model, "optimizer_state_dict": {"state": {}, "param_groups": []}, "iter": 1}
    content |= {"obs_norm_state_dict": norm, "privileged_obs_norm_state_dict": {"_mean": torch.zeros(1, 9)}}
    policy = policy_of(saved(tmp_path, content), 7, ARM, "elu")
    obs = readings(3, 4, 7)
    dist, _ = policy({"vector": obs}, policy.initial_hidden(4), None)
    torch.testing.assert_close(dist.mode(), actor((obs - mean) / (std + 1e-2)).detach(), atol=1e-5, rtol=1e-5)


def test_the_settings_beside_a_checkpoint_name_the_activation(tmp_path: Path) -> None:
    path = saved(tmp_path, {"actor_state_dict": numbered("mlp", perceptron((7, 8, 3), "elu"))})
    settings = tmp_path / "params" / "agent.yaml"
    settings.parent.mkdir()
    settings.write_text("actor: {hidden_dims: !!python/tuple [8], activation: swish}\ncritic: {activation: elu}\n")
    assert policy_of(path, 7, ARM).spec.network.activation == "silu"
    with pytest.raises(UserError, match=r"--activation relu: params/agent.yaml beside model.pt says that it is silu"):
        policy_of(path, 7, ARM, "relu")
    settings.write_text("policy: {activation: selu}\n")
    with pytest.raises(UserError, match="names the activation selu: tscli's networks have tanh, relu, elu, silu"):
        policy_of(path, 7, ARM)
    for damaged in ("policy: [", "[" * 3000, "policy: {activation: &a [*a]}"):
        settings.write_text(damaged)
        with pytest.raises(UserError):
            policy_of(path, 7, ARM)

"""Policies of Stable-Baselines3 act here as they do there."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from foreign_policies import cleanrl, readings, saved
from stage_tools import call, error_of
from torch import nn

from tscli.launch.start import load_policy
from tscli.networks.distributions import Gaussian, TanhGaussian


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


@pytest.mark.parametrize("name", ["SAC", "PPO"])
def test_what_gsde_needs_is_refused_where_it_acts_and_replaced_where_it_only_explores(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = sb3_model(name, "Pendulum-v1", use_sde=True, policy_kwargs={"net_arch": [3]})
    model.save("model.zip")
    command = ("import", "model.zip", "--task", "Pendulum-v1", "--eval-episodes", "0")
    if name == "SAC":
        assert "has actor.log_std [3, 1], actor.latent_pi.0.weight [3, 3]" in error_of(capsys, *command)
        return
    policy, obs = load_policy(call(*command)), readings(1, 20, 3)
    found = policy({"vector": obs}, policy.initial_hidden(20), None)[0].mode()[0]
    wanted, _ = model.predict(obs[0].numpy(), deterministic=True)
    np.testing.assert_allclose(found.clamp(-2, 2).numpy(), wanted, atol=1e-5)


def test_an_archive_of_statistics_that_is_damaged_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(folder, cleanrl("ppo")[0])
    np.savez("norm.npz", mean=np.zeros(4), var=np.ones(4))
    whole = Path("norm.npz").read_bytes()
    command = ("import", "model.pt", "--task", "cartpole", "--activation", "tanh", "--normalizer", "norm.npz")
    for damaged in (whole[:100], whole[:-30], whole.replace(b"var.npy", b"vor.npy"), b""):
        Path("norm.npz").write_bytes(damaged)
        assert "norm.npz: it is damaged" in error_of(capsys, *command)

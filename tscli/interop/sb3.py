"""Stable-Baselines3: the actors that its .zip files hold, and the statistics of its VecNormalize.

Sources: `common/policies.py`, `sac/policies.py`, `td3/policies.py`, `dqn/policies.py`,
`common/vec_env/vec_normalize.py`.
"""

from __future__ import annotations

import io
import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tscli.config import UserError
from tscli.interop.archive import read_bytes, reading
from tscli.interop.weights import ACTIVATIONS, Found, Layout, Normalizer

_CRITICS = ("critic.", "critic_target.", "actor_target.")
LAYOUTS = (
    Layout(
        "Stable-Baselines3 PPO or A2C",
        ("mlp_extractor.policy_net", "action_net"),
        memory=("lstm_actor",),
        activation="tanh",
        others=("mlp_extractor.value_net.", "value_net.", "lstm_critic.", "critic.", "vf_features_extractor."),
    ),
    Layout(
        "Stable-Baselines3 SAC",
        ("actor.latent_pi", "actor.mu"),
        std_layer="actor.log_std",
        squash=True,
        activation="relu",
        others=_CRITICS,
    ),
    Layout("Stable-Baselines3 TD3 or DDPG", ("actor.mu",), squash=True, activation="relu", others=_CRITICS),
    Layout("Stable-Baselines3 DQN", ("q_net.q_net",), activation="relu", others=("q_net_target.",)),
)


def with_settings(path: Path, found: Found, data: bytes) -> Found:
    """The actor with what the readable part of `data` says, which names the activation; its pickles are left alone.

    Raises:
        UserError: it is damaged, or names an activation that our networks do not have.
    """
    with reading(path):
        settings = json.loads(data) if data else {}
        kwargs = settings.get("policy_kwargs") or {}
        named = kwargs.get("activation_fn")
    if not data:
        return replace(found, activation=None)
    if kwargs.get("squash_output"):
        found = replace(found, squash=True)
    if named is None:
        return found
    match = re.search(r"(\w+)'>?$", str(named))
    word = match[1].lower() if match else str(named)
    if word not in ACTIVATIONS:
        raise UserError(f"{path} has the activation {word}: tscli's networks have {', '.join(ACTIVATIONS)}")
    return replace(found, activation=word)


class _Shell:
    """Stands for any object in a pickle: it keeps what it was given and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.args = args

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)


class _Numbers(pickle.Unpickler):
    """Builds numpy arrays; everything else becomes a shell."""

    _ALLOWED = frozenset({"_reconstruct", "scalar", "ndarray", "dtype", "_frombuffer"})

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "numpy" and name in self._ALLOWED:
            return super().find_class(module, name)
        return type(name, (_Shell,), {})


def read_normalizer(path: Path, trust_pickle: bool) -> Normalizer:
    """Mean and deviation from a file of their own: an .npz with `mean` and `var`, or SB3's VecNormalize.

    Raises:
        UserError: missing, damaged, or a pickle that the user does not trust.
    """
    data = read_bytes(path)
    if path.suffix == ".npz":
        needs = "it needs the arrays `mean` and `var`"
        with reading(f"--normalizer {path}", needs), np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            mean, var = (torch.from_numpy(arrays[name]).double().flatten() for name in ("mean", "var"))
        if len(mean) != len(var) or not bool((mean.isfinite() & var.isfinite() & (var >= 0)).all()):
            raise UserError(
                f"--normalizer {path}: `mean` and `var` have {len(mean)} and {len(var)} numbers: as many of both "
                "are needed, finite, and no variance below 0"
            )
        return Normalizer(mean, (var + 1e-8).sqrt(), 10.0)
    if not trust_pickle:
        raise UserError(
            f"--normalizer {path} is a pickle, a format that can hold anything: add --trust-pickle if you know where "
            "it comes from, or give an .npz with mean and var"
        )
    with reading(f"--normalizer {path}", "name VecNormalize's file with one vector, or an .npz"):
        found = _Numbers(io.BytesIO(data)).load()
        rms = found.obs_rms
        mean, var = (torch.from_numpy(np.asarray(value)).double().flatten() for value in (rms.mean, rms.var))
        return Normalizer(mean, (var + float(found.epsilon)).sqrt(), float(found.clip_obs))

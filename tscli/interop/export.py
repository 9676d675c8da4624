"""Policies as files that run without tscli: ONNX and TorchScript, with all that a robot must know inside.

An exported policy is one step of one policy, with the batch axis free:

    action, logits | mean, std | alpha, beta [, next_hidden] = f(vector [, images ...] [, hidden])

`action` is the greedy one within the env's bounds; the normaliser is inside. `hidden` is [N, hidden_size], zeros at an
episode's start and then what the last step gave; a policy without memory has neither. The order of inputs and outputs,
what they mean, the action space and the control rate are JSON under the key "tscli": in an ONNX file's
`metadata_props`, in a TorchScript file's extra files.
"""

from __future__ import annotations

import copy
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tscli.envs import VecEnv
from tscli.envs.spaces import Group
from tscli.envs.views import PREVIOUS_ACTION, Part
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy
from tscli.networks.bodies import Tanh
from tscli.networks.distributions import Distribution
from tscli.networks.frozen import FrozenEncoder

FORMAT = 1
KEY = "tscli"
# A step of an exported policy on numpy arrays: inputs to outputs, in the order of the metadata.
Runner = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


class Actor(nn.Module):
    """One step of a policy as a plain function of tensors.

    Attributes:
        inputs: names in order: "vector" and the images' groups as the view has them, "hidden" with memory.
        outputs: "action", the distribution's parameters, "next_hidden" with memory.
    """

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = copy.deepcopy(policy).cpu().eval().requires_grad_(False)
        _replace_tanh(self.policy)
        for module in list(self.policy.modules()):
            if isinstance(module, FrozenEncoder):
                module.hold()
        view, action = policy.spec.view, policy.spec.action
        observed = [*(["vector"] if view.vector_size else []), *view.images]
        self.inputs = (*observed, *(["hidden"] if policy.is_recurrent else []))
        if action.is_continuous:  # as `ViewedEnv.step` keeps them
            self.register_buffer("low", torch.tensor(action.low, dtype=torch.float32), persistent=False)
            self.register_buffer("high", torch.tensor(action.high, dtype=torch.float32), persistent=False)
        with torch.no_grad():
            params = self._act(self.example(1))[0].params()
        self.outputs = ("action", *params, *(["next_hidden"] if policy.is_recurrent else []))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Inputs of [N, ...] each, in the order of `inputs`; gives those of `outputs`."""
        dist, hidden = self._act(inputs)
        action = dist.mode()
        if self.policy.spec.action.is_continuous:
            action = torch.minimum(torch.maximum(action, self.get_buffer("low")), self.get_buffer("high"))
        found = [action, *dist.params().values()]
        return (*(value.squeeze(0) for value in found), *([hidden] if self.policy.is_recurrent else []))

    def _act(self, inputs: tuple[Tensor, ...]) -> tuple[Distribution, Tensor]:
        obs = {name: value.unsqueeze(0) for name, value in zip(self.inputs, inputs, strict=True) if name != "hidden"}
        hidden = inputs[-1] if self.policy.is_recurrent else inputs[0].new_zeros(0, 0)
        return self.policy(obs, hidden, None)

    def example(self, num: int) -> tuple[Tensor, ...]:
        """Inputs of the right shapes for a batch of `num`."""
        view = self.policy.spec.view
        shapes = {"vector": (view.vector_size,), **view.images, "hidden": (self.policy.encoder.hidden_size,)}
        dtypes = dict.fromkeys(view.images, torch.uint8)
        return tuple(torch.zeros(num, *shapes[name], dtype=dtypes.get(name, torch.float32)) for name in self.inputs)


def _replace_tanh(module: nn.Module) -> None:
    """Put torch's own tanh in the place of ours, which looks at the batch's size and would fix it."""
    for name, child in module.named_children():
        if isinstance(child, Tanh):
            setattr(module, name, nn.Tanh())
        else:
            _replace_tanh(child)


def describe(policy: Policy, env: VecEnv, **about: Any) -> dict[str, Any]:
    """What the file's user must know, as plain data; `about` says where the policy comes from: run, task, hash."""
    actor, spec = Actor(policy), policy.spec
    vector = [part for part in spec.view.parts if not part.is_image]
    inputs: list[dict[str, Any]] = []
    for name, value in zip(actor.inputs, actor.example(1), strict=True):
        entry: dict[str, Any] = {"name": name, "dtype": _dtype(value), "shape": ["batch", *value.shape[1:]]}
        if name == "vector":
            entry["parts"] = [_part(part, env.groups, policy) for part in vector]
        elif name != "hidden":
            entry["about"] = env.groups[name].about
        else:
            entry["about"] = "zeros at an episode's start, then next_hidden of the step before"
        inputs.append(entry)
    with torch.no_grad():
        found = zip(actor.outputs, actor(*actor.example(1)), strict=True)
    outputs = [{"name": name, "dtype": _dtype(v), "shape": ["batch", *v.shape[1:]]} for name, v in found]
    dt = env.control_dt
    return {
        "format": FORMAT,
        "tscli": metadata.version("tscli"),
        "torch": torch.__version__,
        **about,
        "inputs": inputs,
        "outputs": outputs,
        "action": {**spec.action.to_json(), "squash": spec.network.squash},
        "control_dt": dt,
        "control_rate_hz": None if dt is None else 1.0 / dt,
        "spec": spec.to_json(),
    }


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _part(part: Part, groups: Mapping[str, Group], policy: Policy) -> dict[str, Any]:
    """One piece of the vector: where it comes from, and each entry's name and unit where the env has them."""
    if part.group == PREVIOUS_ACTION:
        kind = policy.spec.action.kind
        how = "(action - center) / half range, of bounded dimensions" if kind == "continuous" else "one-hot, 2: -1 or 1"
        return {"group": PREVIOUS_ACTION, "size": part.size, "encoding": how, "start": "zeros"}
    group = groups[part.group]
    index = list(range(group.size)) if part.index is None else list(part.index)
    units = group.units * group.size if len(group.units) == 1 else group.units
    return {
        "group": part.group,
        "size": part.size,
        "index": index,
        "names": [group.fields[i] for i in index] if group.fields else [],
        "units": [units[i] for i in index] if units else [],
        "trained_with": {"noise": part.noise, "delay": part.delay, "dropout": part.dropout},
        "about": group.about,
    }


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the exporters' remarks about their own future and about torchvision to themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class Recording(NamedTuple):
    """What a policy saw and did: a dict of inputs without "hidden", `reset` [N], and the distribution, per step."""

    observed: list[dict[str, np.ndarray]]
    resets: list[np.ndarray]
    dists: list[Distribution]
    hidden: np.ndarray  # [N, hidden_size] at the start


@torch.no_grad()
def record(policy: Policy, env: VecEnv, seed: int, steps: int) -> Recording:
    """Roll the greedy policy in its env, as tscli itself does."""
    n = env.num_envs
    viewed = ViewedEnv(env, {"policy": policy.spec.view}, seed)
    hidden, reset = policy.initial_hidden(n), torch.ones(n, dtype=torch.bool, device=env.device)
    found = Recording([], [], [], hidden.cpu().numpy().copy())
    for _ in range(steps):
        obs = viewed.observe("policy")
        dist, hidden = policy.step(obs, hidden, reset)
        found.observed.append({name: value.cpu().numpy().copy() for name, value in obs.items()})
        found.resets.append(reset.cpu().numpy().copy())
        found.dists.append(dist)
        reset = viewed.step(dist.mode()).done
    return found


def max_error(actor: Actor, recording: Recording, run: Runner) -> float:
    """Replay a recording through an exported file, which carries its own hidden state, and compare every step.

    Returns:
        The largest |found - expected| / max(1, |expected|) over actions and the distribution's parameters. A choice
        counts by how far its logit lies below the best one's: rounding may decide between equals.
    """
    spec, worst = actor.policy.spec, 0.0
    hidden = recording.hidden
    for obs, reset, dist in zip(recording.observed, recording.resets, recording.dists, strict=True):
        hidden = np.where(reset[:, None], np.float32(0), hidden)
        named = {**obs, "hidden": hidden}
        found = dict(zip(actor.outputs, run([named[name] for name in actor.inputs]), strict=True))
        hidden = found.get("next_hidden", hidden)
        expected = {name: value.cpu().numpy() for name, value in dist.params().items()}
        if spec.action.is_continuous:
            expected["action"] = np.clip(dist.mode().cpu().numpy(), spec.action.low, spec.action.high)
        else:
            expected["action"], found["action"] = _choices(spec.action.nvec, expected["logits"], found["action"])
        for name, value in expected.items():
            error = np.abs(found[name] - value) / np.maximum(1.0, np.abs(value))
            worst = max(worst, float(np.max(error)) if np.isfinite(error).all() else float("inf"))
    return worst


def _choices(nvec: Sequence[int], logits: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(best, chosen) logit of each dimension, [N, D] each."""
    columns = action.reshape(len(logits), -1)
    parts = np.split(logits, np.cumsum(nvec)[:-1], axis=-1)
    best = np.stack([part.max(-1) for part in parts], axis=-1)
    taken = [np.take_along_axis(part, columns[:, i : i + 1], -1)[:, 0] for i, part in enumerate(parts)]
    return best, np.stack(taken, axis=-1)


class Latency(NamedTuple):
    """Microseconds per step of a batch of one."""

    median: float
    p95: float


def latency_of(run: Runner, inputs: Sequence[np.ndarray], repeats: int = 2000) -> Latency:
    """Time steps one by one, after as many as a tenth that do not count."""
    for _ in range(repeats // 10):
        run(inputs)
    times = np.empty(repeats)
    for i in range(repeats):
        start = time.perf_counter()
        run(inputs)
        times[i] = time.perf_counter() - start
    median, p95 = np.percentile(times * 1e6, [50, 95])
    return Latency(round(float(median), 1), round(float(p95), 1))

"""Policies that other libraries saved, as policies of ours.

Read are the weights, and nothing is executed: an actor of linear layers, an LSTM or GRU before them, a normaliser, a
deviation, found by the names that each library gives them (`_LAYOUTS`). They are put into a `Policy` whose numbers are
the same. What cannot be held by one (convolutions, LayerNorm, other activations) is refused.

Sources: Stable-Baselines3 `common/policies.py`, `sac/policies.py`, `td3/policies.py`, `dqn/policies.py`; rsl_rl
`modules/actor_critic*.py` (3), `models/*_model.py` (4, 5), `modules/normalization.py`; cleanrl's single files.
"""

from __future__ import annotations

import importlib
import io
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from tscli.config import NetworkConfig, UserError
from tscli.envs.spaces import ActionSpec, action_scale
from tscli.envs.views import ViewSpec
from tscli.interop import export
from tscli.networks import Policy, PolicySpec
from tscli.networks.bodies import Recurrent

__all__ = [
    "ACTIVATIONS",
    "Found",
    "Normalizer",
    "Source",
    "build",
    "read_normalizer",
    "read_policy",
    "settle_activation",
    "with_normalizer",
]

State = Mapping[str, Tensor]
ACTIVATIONS = ("tanh", "relu", "elu", "silu")
TOLERANCE = 1e-5
_EPS = 1e-2  # of rsl_rl's EmpiricalNormalization
_STEPS = 40  # through which a file that can be run is compared with what was made of it


class Normalizer(NamedTuple):
    """(x - mean) / divisor, cut off at +-clip where that is given; [D] float64 each."""

    mean: Tensor
    divisor: Tensor
    clip: float | None = None


class _Layout(NamedTuple):
    """Names of an actor's parts, several where versions differ.

    `layers` are those after the memory, in order; a name stands for all that are numbered below it. `std` and `log_std`
    are parameters, `std_layer` is a linear layer that gives the log deviation. `squash`: actions go through tanh and
    are then scaled to their bounds. `activation` is what the library takes when it is told nothing.
    """

    name: str
    layers: tuple[str, ...]
    memory: tuple[str, ...] = ()
    normalizer: tuple[str, ...] = ()
    std: tuple[str, ...] = ()
    log_std: tuple[str, ...] = ()
    std_layer: str = ""
    squash: bool = False
    activation: str | None = None


_LAYOUTS = (
    _Layout(
        "Stable-Baselines3 PPO or A2C",
        ("mlp_extractor.policy_net", "action_net"),
        memory=("lstm_actor",),
        log_std=("log_std",),
        activation="tanh",
    ),
    _Layout(
        "Stable-Baselines3 SAC",
        ("actor.latent_pi", "actor.mu"),
        std_layer="actor.log_std",
        squash=True,
        activation="relu",
    ),
    _Layout("Stable-Baselines3 TD3 or DDPG", ("actor.mu",), squash=True, activation="relu"),
    _Layout("Stable-Baselines3 DQN", ("q_net.q_net",), activation="relu"),
    _Layout(
        "rsl_rl 4 or 5",
        ("mlp",),
        memory=("rnn.rnn", "rnn"),
        normalizer=("obs_normalizer",),
        std=("distribution.std_param", "std"),
        log_std=("distribution.log_std_param", "log_std"),
    ),
    _Layout(
        "rsl_rl 3 or cleanrl PPO",
        ("actor",),
        memory=("memory_a.rnn", "rnn"),
        normalizer=("actor_obs_normalizer", "normalizer"),
        std=("std",),
        log_std=("log_std",),
    ),
    _Layout(
        "rsl_rl 3, a student",
        ("student",),
        memory=("memory_s.rnn",),
        normalizer=("student_obs_normalizer",),
        std=("std",),
        log_std=("log_std",),
    ),
    _Layout("cleanrl PPO", ("actor_mean",), log_std=("actor_logstd",)),
    # SAC's log deviation goes through a tanh there, which ours does not.
    _Layout("cleanrl SAC", ("fc1", "fc2", "fc_mean"), squash=True),
    _Layout("cleanrl TD3 or DDPG", ("fc1", "fc2", "fc_mu"), squash=True),
    _Layout("cleanrl DQN", ("network",)),
)


@dataclass(frozen=True)
class Found:
    """An actor as it was found; all tensors are float64.

    Attributes:
        name: of the layout.
        layers: (weight [out, in], bias [out]) in order; a non-linearity stands between them.
        memory: "rnn" or "gru" and its parameters by torch's names; None without.
        normalizer: None without.
        log_std: [D] of the outputs, or the (weight, bias) that give it; None where there is none to be had.
        squash: the action is tanh of the output, scaled to its bounds.
        activation: None where the file does not say.
        bounds: (center, half) that the file itself scales by; None without.
    """

    name: str
    layers: list[tuple[Tensor, Tensor]]
    memory: tuple[Literal["rnn", "gru"], dict[str, Tensor]] | None
    normalizer: Normalizer | None
    log_std: Tensor | tuple[Tensor, Tensor] | None
    squash: bool
    activation: str | None
    bounds: tuple[Tensor, Tensor] | None = None

    @property
    def num_inputs(self) -> int:
        """Entries of an observation."""
        first = self.memory[1]["weight_ih_l0"] if self.memory else self.layers[0][0]
        return first.shape[1]

    @property
    def num_outputs(self) -> int:
        """Logits, or dimensions of the action."""
        return len(self.layers[-1][1])

    @property
    def has_activation(self) -> bool:
        """Whether there is a non-linearity to know about."""
        return len(self.layers) > 1


class Source(NamedTuple):
    """What a file holds: an actor, or a policy of ours as exported; `run` is set where the file itself can be run."""

    found: Found | None
    policy: Policy | None
    run: export.Runner | None


def read_policy(path: Path) -> Source:
    """Read a file: .zip of Stable-Baselines3, .pt or .cleanrl_model of tensors, TorchScript, .onnx.

    Raises:
        UserError: missing, of no known kind, or with parts that our networks do not have.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file: name a policy's .zip, .pt, .cleanrl_model or .onnx")
    if path.suffix == ".onnx":
        return _read_onnx(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if "policy.pth" in names:
                return Source(_read_sb3(path, archive), None, None)
            if any("/code/" in name for name in names):
                return _read_torchscript(path)
    content = _load_tensors(path, path.read_bytes())
    return Source(_find(path, _actor_state(path, content)), None, None)


def _load_tensors(path: Path, data: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen types for what it cannot read
        reason = "it holds more than tensors" if "weights_only" in str(error).lower() else "it is damaged, or no policy"
        raise UserError(f"{path}: {reason}: save the policy's state_dict() with torch.save") from None


def _actor_state(path: Path, content: Any) -> State:
    """The actor's parameters in what a training script saved."""
    if isinstance(content, (tuple, list)) and content:  # cleanrl's TD3: actor, critics
        content = content[0]
    if isinstance(content, dict):
        for key in ("actor_state_dict", "student_state_dict", "model_state_dict", "state_dict"):
            if isinstance(content.get(key), dict):
                content = content[key]
                break
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"{path} holds no state dict: save the policy's state_dict() with torch.save")
    return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}


def _read_sb3(path: Path, archive: zipfile.ZipFile) -> Found:
    """`policy.pth` and the readable part of `data`, which names the activation; its pickles are left alone."""
    found = _find(path, _actor_state(path, _load_tensors(path, archive.read("policy.pth"))))
    try:
        settings = json.loads(archive.read("data"))
        kwargs = settings.get("policy_kwargs") or {}
        named = kwargs.get("activation_fn")
    except (KeyError, ValueError, AttributeError):
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


def _find(path: Path, state: State) -> Found:
    """The actor among a state dict's entries.

    Raises:
        UserError: no known layout fits, or there is more to it than linear layers and one memory.
    """
    for layout in _LAYOUTS:
        layers = _layers(state, layout)
        if layers is None:
            continue
        memory = next((name for name in layout.memory if f"{name}.weight_ih_l0" in state), None)
        _check_nothing_more(path, state, layout, memory)
        normalizer = None
        for name in layout.normalizer:
            if f"{name}._mean" in state and f"{name}._std" in state:
                mean, std = (state[f"{name}.{entry}"].double().flatten() for entry in ("_mean", "_std"))
                normalizer = Normalizer(mean, std + _EPS)
        bounds = None
        if layout.squash and "action_scale" in state:
            bounds = state["action_bias"].double().flatten(), state["action_scale"].double().flatten()
        return Found(
            layout.name,
            layers,
            _memory(path, state, memory) if memory else None,
            normalizer,
            _log_std(state, layout),
            layout.squash,
            layout.activation,
            bounds,
        )
    raise UserError(
        f"{path} has no layout that is known ({', '.join(list(state)[:3])}, ...): linear layers called as in rsl_rl or "
        "cleanrl (actor.0.weight, actor.0.bias, actor.2.weight, ...) can be imported"
    )


def _layers(state: State, layout: _Layout) -> list[tuple[Tensor, Tensor]] | None:
    """All linear layers of a layout in order; None where it does not fit."""
    if layout.std_layer and f"{layout.std_layer}.weight" not in state:
        return None
    found: list[tuple[Tensor, Tensor]] = []
    for name in layout.layers:
        names = [name] if f"{name}.weight" in state else _numbered(state, name)
        if not names and (name != layout.layers[0] or len(layout.layers) == 1):
            return None  # an empty first part is a network without hidden layers
        for one in names:
            weight, bias = state[f"{one}.weight"], state.get(f"{one}.bias")
            bias = torch.zeros(len(weight)) if bias is None else bias
            found.append((weight.double(), bias.double()))
    return found


def _numbered(state: State, name: str) -> list[str]:
    pattern = re.compile(rf"{re.escape(name)}\.(\d+)\.weight")
    numbers = [int(match[1]) for match in map(pattern.fullmatch, state) if match]
    return [f"{name}.{number}" for number in sorted(numbers)]


def _check_nothing_more(path: Path, state: State, layout: _Layout, memory: str | None) -> None:
    """Refuse an actor with parts that would be left out."""
    for key, value in state.items():
        if any(word in key for word in ("critic", "memory_c", "memory_t", "vf_features", "target")):
            continue
        inside = any(key.startswith(f"{name}.") for name in layout.layers)
        linear = value.dim() == (2 if key.endswith("weight") else 1)
        other_memory = key.startswith(("memory_", "rnn.", "lstm", "gru")) and not (memory and key.startswith(memory))
        if (inside and not linear) or "features_extractor." in key or other_memory:
            raise UserError(
                f"{path} ({layout.name}) has {key} {list(value.shape)}, which tscli's networks do not have: only "
                "linear layers, an LSTM or GRU before them and a normaliser can be imported"
            )
    sizes = _layers(state, layout) or []
    if any(len(bias) != weight.shape[1] for (_, bias), (weight, _) in pairwise(sizes)):
        raise UserError(f"{path} ({layout.name}): its layers do not follow each other, so there is more between them")


def _memory(path: Path, state: State, name: str) -> tuple[Literal["rnn", "gru"], dict[str, Tensor]]:
    starts = (f"{name}.weight_", f"{name}.bias_")
    found = {key.removeprefix(f"{name}."): v.double() for key, v in state.items() if key.startswith(starts)}
    gates = found["weight_hh_l0"].shape[0] / found["weight_hh_l0"].shape[1]
    if gates not in (3, 4) or "bias_ih_l0" not in found:
        raise UserError(f"{path}: {name} is neither an LSTM nor a GRU with biases, which are what can be imported")
    return ("rnn" if gates == 4 else "gru"), found


def _log_std(state: State, layout: _Layout) -> Tensor | tuple[Tensor, Tensor] | None:
    if layout.std_layer:
        return state[f"{layout.std_layer}.weight"].double(), state[f"{layout.std_layer}.bias"].double()
    for name in layout.log_std:
        if name in state:  # gSDE's is a matrix over the features: a deviation that depends on the state
            found = state[name].double()
            return found.flatten() if found.dim() == 1 or len(found) == 1 else None
    for name in layout.std:
        if name in state:
            return state[name].double().flatten().clamp(min=1e-6).log()
    return None


# --- files that can be run --------------------------------------------------------------------------------------------


def _read_torchscript(path: Path) -> Source:
    """The weights of a TorchScript file; one of our own comes back as the policy that it was."""
    try:
        about = export.read_metadata(path)
        module = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:  # torch raises RuntimeError, ValueError and others
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:120]}): save it again") from None
    state = dict(module.state_dict())
    if about is not None:
        policy = Policy(PolicySpec.from_json(about["spec"]))
        expected = policy.state_dict()
        policy.load_state_dict({name: state[f"policy.{name}"] for name in expected})
        return Source(None, policy.eval().requires_grad_(False), None)
    return Source(_find(path, state), None, _stateful(module))


def _stateful(module: Any) -> export.Runner:
    """A TorchScript module that keeps its hidden state to itself, from zeros on."""
    if hasattr(module, "reset"):
        module.reset()

    @torch.inference_mode()
    def run(inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
        found = module(torch.from_numpy(inputs[0]))
        return [(found[0] if isinstance(found, tuple) else found).numpy()]

    return run


def _read_onnx(path: Path) -> Source:
    """The weights of an ONNX file, where its exporter kept their names."""
    export.require_onnx("importing an ONNX file", "")
    onnx: Any = importlib.import_module("onnx")
    try:
        if export.read_metadata(path) is not None:
            raise UserError(
                f"{path} was exported by tscli, and an ONNX file has its weights rearranged: import the run's own "
                "policy, or export it with --format torchscript"
            )
        model = onnx.load(str(path))
    except UserError:
        raise
    except Exception as error:  # protobuf's own errors
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:120]}): export it again") from None
    if not model.graph.node:
        raise UserError(f"{path} holds no network: export it again")
    named = {e.name: torch.from_numpy(onnx.numpy_helper.to_array(e).copy()) for e in model.graph.initializer}
    state = {name: value for name, value in named.items() if value.is_floating_point()}
    state |= _folded_deviation(model.graph.node, state)
    if any(node.op_type in ("LSTM", "GRU") for node in model.graph.node):
        raise UserError(
            f"{path}: an ONNX file has its memory's weights rearranged: import the .pt that it was made from"
        )
    session_run = export.load_onnx(path)
    return Source(_find(path, state), None, lambda inputs: session_run(inputs)[:1])


def _folded_deviation(nodes: Any, state: State) -> dict[str, Tensor]:
    """rsl_rl's normaliser in an ONNX file, whose exporter has added eps to the deviation once and for all."""
    means = {f"{name}._mean": f"{name}._std" for layout in _LAYOUTS for name in layout.normalizer}
    centred = {
        node.output[0]: means[node.input[1]] for node in nodes if node.op_type == "Sub" and node.input[1] in means
    }
    divisions = [
        node for node in nodes if node.op_type == "Div" and node.input[0] in centred and node.input[1] in state
    ]
    return {centred[node.input[0]]: state[node.input[1]].double() - _EPS for node in divisions}


def settle_activation(source: Source, given: str | None, make: Callable[[str], Policy], path: Path) -> Policy:
    """The policy with the activation that was given, that the file names, or that makes it give the file's own outputs.

    Args:
        source: what was read.
        given: --activation; None where it was left out.
        make: builds the policy with an activation.
        path: for the error line.

    Raises:
        UserError: nobody says, or none reproduces the file.
    """
    found = source.found
    assert found is not None
    if given and found.activation and given != found.activation:
        raise UserError(f"--activation {given}: {path} says that it is {found.activation}: leave it out")
    said = given or found.activation or ("tanh" if not found.has_activation else None)
    if source.run is None:
        if said is None:
            raise UserError(
                f"{path} ({found.name}) does not say which activation stands between its layers: name it with "
                f"--activation {'|'.join(ACTIVATIONS)}"
            )
        return make(said)
    wanted = _replay_file(source.run, found.num_inputs)
    errors = {}
    for name in [said] if said else ACTIVATIONS:
        policy = make(name)
        errors[name] = _difference(policy, wanted)
        if errors[name] <= TOLERANCE:
            return policy
    best = min(errors, key=lambda name: errors[name])
    raise UserError(
        f"{path} gives other outputs than its weights do in tscli's networks, by {errors[best]:.2g} with {best}: "
        "it computes more than linear layers, a memory and a normaliser"
    )


def _readings(size: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (2 * generator.standard_normal((_STEPS, 1, size))).astype(np.float32)


def _replay_file(run: export.Runner, size: int) -> np.ndarray:
    return np.concatenate([run([x])[0].reshape(1, -1).copy() for x in _readings(size)])


@torch.no_grad()
def _difference(policy: Policy, wanted: np.ndarray) -> float:
    """Largest |ours - theirs| / max(1, |theirs|) over a sequence, of actions or of logits, whichever the file gives."""
    readings = torch.from_numpy(_readings(policy.spec.view.vector_size))
    dist, _ = policy({"vector": readings}, policy.initial_hidden(1), None)
    options = [dist.mode(), *dist.params().values()]
    found = [option.reshape(len(wanted), -1).double().numpy() for option in options]
    fitting = [value for value in found if value.shape == wanted.shape]
    return min(
        (float((np.abs(value - wanted) / np.maximum(1, np.abs(wanted))).max()) for value in fitting),
        default=float("inf"),
    )


# --- normalisers that are files of their own --------------------------------------------------------------------------


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
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"--normalizer {path}: {error.strerror}: name VecNormalize's file, or an .npz") from None
    if path.suffix == ".npz":
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                mean, var = (torch.from_numpy(arrays[name]).double().flatten() for name in ("mean", "var"))
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise UserError(f"--normalizer {path}: {error}: it needs the arrays `mean` and `var`") from None
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
    try:
        found = _Numbers(io.BytesIO(data)).load()
        rms = found.obs_rms
        mean, var = (torch.from_numpy(np.asarray(value)).double().flatten() for value in (rms.mean, rms.var))
        return Normalizer(mean, (var + float(found.epsilon)).sqrt(), float(found.clip_obs))
    except Exception as error:  # whatever a pickle of something else runs into
        raise UserError(f"--normalizer {path} is no VecNormalize with one vector ({type(error).__name__})") from None


# --- ours -------------------------------------------------------------------------------------------------------------


def with_normalizer(found: Found, normalizer: Normalizer) -> Found:
    """The same actor behind a normaliser that was kept elsewhere."""
    return replace(found, normalizer=normalizer)


def build(found: Found, view: ViewSpec, action: ActionSpec, activation: str, std: float) -> Policy:
    """The same network as a `Policy`.

    Args:
        found: what was read; it fits the view and the action space.
        view: what it sees.
        action: the env's.
        activation: of all its layers.
        std: deviation, of half ranges, where the file has none that ours can have.
    """
    widths = tuple(len(bias) for _, bias in found.layers[:-1])
    kind, memory = found.memory if found.memory else ("mlp", {})
    per_state = isinstance(found.log_std, tuple)
    config = NetworkConfig(
        kind=kind,
        hidden=() if memory else widths,
        hidden_after=widths if memory else (),
        memory=memory["weight_hh_l0"].shape[1] if memory else 64,
        memory_layers=sum(name.startswith("weight_hh") for name in memory) or 1,
        activation=cast(Any, activation),
        normalize=found.normalizer is not None,
        normalize_clip=found.normalizer.clip if found.normalizer else None,
        std="network" if per_state else "state_independent",
        squash=found.squash,
    )
    policy = Policy(PolicySpec(view, action, config))
    state = dict(policy.state_dict())
    state |= {f"encoder.body.memory.{name}": value for name, value in memory.items()}
    stack = "encoder.body.after" if isinstance(policy.encoder.body, Recurrent) else "encoder.body.layers"
    for i, (weight, bias) in enumerate(found.layers[:-1]):
        state |= {f"{stack}.{2 * i}.weight": weight, f"{stack}.{2 * i}.bias": bias}
    if found.normalizer is not None:
        state["encoder.norm.mean"], state["encoder.norm.var"] = found.normalizer.mean, found.normalizer.divisor.square()
        state["encoder.norm.count"] = torch.ones((), dtype=torch.float64)
    state |= _head(found, action, std)
    policy.load_state_dict(state)
    return policy.eval().requires_grad_(False)


def _head(found: Found, action: ActionSpec, std: float) -> dict[str, Tensor]:
    """The last layer in our units: a Gaussian's mean is center + half * output."""
    weight, bias = found.layers[-1]
    if not action.is_continuous:
        return {"head.linear.weight": weight, "head.linear.bias": bias}
    center, half = (side.double() for side in action_scale(action))
    if not found.squash:
        weight, bias = weight / half.unsqueeze(-1), (bias - center) / half
    log_std: Tensor | tuple[Tensor, Tensor] | None = found.log_std
    if isinstance(log_std, tuple):
        weight, bias = torch.cat([weight, log_std[0]]), torch.cat([bias, log_std[1]])
        return {"head.linear.weight": weight, "head.linear.bias": bias}
    if log_std is None:
        log_std = torch.full((len(bias),), np.log(std), dtype=torch.float64)
    elif not found.squash:
        log_std = log_std - half.log()
    return {"head.linear.weight": weight, "head.linear.bias": bias, "head.log_std": log_std}

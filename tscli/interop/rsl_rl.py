"""rsl_rl: the actors that its checkpoints and exported files hold.

Sources: `runners/on_policy_runner.py` (2), `modules/actor_critic*.py` (2, 3), `models/*_model.py` (4, 5),
`modules/normalization.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from tscli.config import UserError
from tscli.interop import archive
from tscli.interop.weights import ACTIVATIONS, Found, Layout, State

_EPS = 1e-2  # of its EmpiricalNormalization

# Of a checkpoint's other parts; a runner that normalises in versions 1 and 2 keeps its statistics beside the model.
_OTHERS = ("critic", "memory_c.", "teacher", "privileged_obs_norm_state_dict.", "rnd_", "hidden_state", "cell_state")

LAYOUTS = (
    Layout(
        "rsl_rl 4 or 5",
        ("mlp",),
        memory=("rnn.rnn", "rnn"),
        normalizer=("obs_normalizer",),
        eps=_EPS,
        std=("distribution.std_param", "std"),
        log_std=("distribution.log_std_param", "log_std"),
        others=_OTHERS,
    ),
    Layout(
        "rsl_rl 2 or 3, or cleanrl PPO",
        ("actor",),
        memory=("memory_a.rnn", "rnn"),
        normalizer=("actor_obs_normalizer", "normalizer", "obs_norm_state_dict"),
        eps=_EPS,
        others=_OTHERS,
    ),
    Layout(
        "rsl_rl 2 or 3, a student",
        ("student",),
        memory=("memory_s.rnn",),
        normalizer=("student_obs_normalizer", "obs_norm_state_dict"),
        eps=_EPS,
        others=("teacher", "memory_t", "privileged_obs_norm_state_dict."),
    ),
)


def with_settings(path: Path, found: Found) -> Found:
    """The actor with the activation that `params/agent.yaml` beside a checkpoint names: Isaac Lab and mjlab write it.

    Raises:
        UserError: it is damaged, or names one that our networks do not have.
    """
    settings = path.parent / "params" / "agent.yaml"
    if not found.name.startswith("rsl_rl") or not settings.is_file():
        return found
    content = archive.read_settings(settings)
    sections = [content[name] for name in ("policy", "student", "actor") if isinstance(content.get(name), dict)]
    named = next((section["activation"] for section in sections if "activation" in section), None)
    if named is None:
        return found
    word = {"swish": "silu"}.get(str(named).lower(), str(named).lower())
    if word not in ACTIVATIONS:
        raise UserError(
            f"{settings} names the activation {str(named)[:40]}: tscli's networks have {', '.join(ACTIVATIONS)}"
        )
    return replace(found, activation=word, says="params/agent.yaml")


def unfolded_deviation(nodes: Any, state: State) -> dict[str, Tensor]:
    """The normaliser's `_std` in an ONNX file, whose exporter has added eps to it once and for all."""
    means = {f"{name}._mean": f"{name}._std" for layout in LAYOUTS for name in layout.normalizer}
    centred = {
        node.output[0]: means[node.input[1]] for node in nodes if node.op_type == "Sub" and node.input[1] in means
    }
    return {
        centred[node.input[0]]: state[node.input[1]].double() - _EPS
        for node in nodes
        if node.op_type == "Div" and node.input[0] in centred and node.input[1] in state
    }

"""rsl_rl: the actors that its checkpoints and exported files hold.

Sources: `modules/actor_critic*.py` (3), `models/*_model.py` (4, 5), `modules/normalization.py`.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tscli.interop.weights import Layout, State

_EPS = 1e-2  # of its EmpiricalNormalization

LAYOUTS = (
    Layout(
        "rsl_rl 4 or 5",
        ("mlp",),
        memory=("rnn.rnn", "rnn"),
        normalizer=("obs_normalizer",),
        eps=_EPS,
        std=("distribution.std_param", "std"),
        log_std=("distribution.log_std_param", "log_std"),
    ),
    Layout(
        "rsl_rl 3 or cleanrl PPO",
        ("actor",),
        memory=("memory_a.rnn", "rnn"),
        normalizer=("actor_obs_normalizer", "normalizer"),
        eps=_EPS,
    ),
    Layout(
        "rsl_rl 3, a student", ("student",), memory=("memory_s.rnn",), normalizer=("student_obs_normalizer",), eps=_EPS
    ),
)


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

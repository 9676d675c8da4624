"""What the tests of the native environments share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tscli.envs import VecEnv
from tscli.envs.native import NativeEnv


def put(env: NativeEnv, states: np.ndarray) -> None:
    """Set the states [N, D] without touching episodes or step counts."""
    env.load_state_dict({**env.state_dict(), "state": torch.tensor(np.asarray(states, dtype=np.float64).T.copy())})


def last_seen(env: NativeEnv, done: torch.Tensor) -> torch.Tensor:
    """What each env saw after the step, which is the final observation where its episode ended."""
    seen, rows = env.observe("state").clone(), done.nonzero()[:, 0]
    seen[rows] = env.final_observation("state", rows)
    return seen


def use_torch(env: VecEnv) -> None:
    """Let a native env, or a mixture of them, do all in torch and look at no value, as on a GPU."""
    for name, value in vars(env).items():
        if isinstance(value, dict):
            setattr(env, name, {key: _as_torch(each) for key, each in value.items()})
        else:
            setattr(env, name, _as_torch(value))
    vars(env).update(_on_host=False, _xp=torch)
    for member in getattr(env, "_envs", ()):
        use_torch(member)


def _as_torch(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

"""What the tests of the classic-control environments share."""

from __future__ import annotations

import numpy as np
import torch

from tscli.envs.classic.base import ClassicEnv


def put(env: ClassicEnv, states: np.ndarray) -> None:
    """Set the states [N, D] without touching episodes or step counts."""
    env.load_state_dict({**env.state_dict(), "state": torch.tensor(np.asarray(states, dtype=np.float64).T.copy())})


def last_seen(env: ClassicEnv, done: torch.Tensor) -> torch.Tensor:
    """What each env saw after the step, which is the final observation where its episode ended."""
    seen, rows = env.observe("state").clone(), done.nonzero()[:, 0]
    seen[rows] = env.final_observation("state", rows)
    return seen

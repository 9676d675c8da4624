"""Episodes counted fairly: a policy's measured, and those that end while it trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tscli import ranks, streams
from tscli.config import UserError
from tscli.envs import VecEnv
from tscli.learning import statistics
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Actor

# An env without a time limit of its own is taken for endless when an episode has lasted that long.
_ENDLESS = 100_000


@dataclass(frozen=True)
class Episodes:
    """Finished episodes, each tensor [E], in the order of env slot and episode."""

    returns: Tensor
    lengths: Tensor
    success: Tensor | None


class Tally:
    """What an env measures (`VecEnv.measures`), added up."""

    def __init__(self, env: VecEnv) -> None:
        self._env = env
        self._above: dict[str, Tensor] = {}
        self._below: dict[str, Tensor] = {}

    def add(self, counted: Tensor) -> None:
        """The latest step of the slots that count, bool [N]."""
        for name, (above, below) in self._env.measures().items():
            value = (above * counted).double()
            if below is None:
                self._above[name] = torch.maximum(self._above[name], value) if name in self._above else value
                continue
            self._above[name] = self._above.get(name, 0.0) + value
            self._below[name] = self._below.get(name, 0.0) + (below * counted).double()

    def figures(self) -> dict[str, statistics.Estimate]:
        """Each with its interval; what is the largest has none, and what was never counted is left out."""
        found = {}
        for name, above in self._above.items():
            values = above.cpu().numpy()
            if name in self._below:
                below = self._below[name].cpu().numpy()
                found |= {name: statistics.ratio(values, below)} if below.sum() > 0 else {}
            else:
                most = float(values.max())
                found[name] = statistics.Estimate(most, 0.0, most, most, len(values))
        return found


@torch.no_grad()
def run_episodes(
    policy: Actor,
    env: VecEnv,
    seed: int,
    per_slot: int = 1,
    greedy: bool = True,
    name: str = "eval",
    watch: Callable[[Tensor], None] | None = None,
    tally: Tally | None = None,
) -> Episodes:
    """Run a policy for a fixed number of episodes in each env slot, so that short episodes are not over-counted.

    Args:
        policy: acts on its own view.
        env: N slots; it is reset.
        seed: of episodes, sensor noise and (unless greedy) actions. Same seed, same episodes.
        per_slot: episodes counted per slot; N * per_slot in all.
        greedy: the mode, or a sample.
        name: of the random stream that samples actions.
        watch: called before each step with the slots whose episodes count, bool [N], while the env shows their states.
        tally: adds up what the env measures of the steps that count.
    """
    n, device, env.per_slot = env.num_envs, env.device, per_slot
    viewed = ViewedEnv(env, {"policy": policy.spec.view}, seed)
    generator = streams.generator(seed, f"{name}/act", device)
    hidden = policy.initial_hidden(n)
    reset = torch.ones(n, dtype=torch.bool, device=device)
    returns, lengths = torch.zeros(n, per_slot, device=device), torch.zeros(n, per_slot, device=device)
    success = torch.zeros(n, per_slot, dtype=torch.bool, device=device)
    count = torch.zeros(n, dtype=torch.int64, device=device)
    slots = torch.arange(n, device=device)
    running = torch.ones(n, dtype=torch.bool, device=device)
    for _ in range(per_slot * (env.max_episode_steps or _ENDLESS)):
        if watch is not None:
            watch(running)
        dist, hidden = policy.step(viewed.observe("policy"), hidden, reset)
        step = viewed.step(dist.mode() if greedy else dist.sample(generator))
        if tally is not None:
            tally.add(running)
        column = count.clamp(max=per_slot - 1)
        returns[slots, column] += step.reward * running
        lengths[slots, column] += running
        reset = step.done
        if bool(step.done.any()):
            success[slots, column] |= step.success & running
            count += step.done & running
            running = count < per_slot
            if not bool(running.any()):
                return Episodes(returns.flatten(), lengths.flatten(), success.flatten() if env.has_success else None)
    raise UserError(
        f"an episode has not ended after {_ENDLESS} steps, so its return cannot be measured: give the env a time limit "
        "(max_episode_steps in the task's env section)"
    )


class EpisodeStats:
    """Mean return and length of the episodes that end in each rollout, in all processes."""

    def __init__(self, num_envs: int):
        self.returns = torch.zeros(num_envs, dtype=torch.float64)
        self.lengths = torch.zeros(num_envs, dtype=torch.float64)
        self.latest: dict[str, float | None] = {"rollout/return": None, "rollout/length": None}
        self.episodes = 0

    def update(self, reward: Tensor, done: Tensor) -> dict[str, float | None]:
        """reward, done: [T, N]. Where no episode ended, the figures before are repeated."""
        returns, lengths = self.returns.numpy(), self.lengths.numpy()
        ended_returns, ended_lengths = [], []
        for r, d in zip(reward.cpu().numpy(), done.cpu().numpy(), strict=True):
            returns += r
            lengths += 1
            if d.any():
                ended_returns.extend(returns[d])
                ended_lengths.extend(lengths[d])
                returns[d] = 0
                lengths[d] = 0
        sums = torch.tensor([sum(ended_returns), sum(ended_lengths), len(ended_returns)], dtype=torch.float64)
        returned, steps, count = (ranks.mean(sums) * ranks.size()).tolist()
        if count:
            self.latest = {"rollout/return": returned / count, "rollout/length": steps / count}
            self.episodes += round(count)
        return self.latest

    def restart(self) -> None:
        """Forget the episodes under way: the envs were reset from outside."""
        self.returns.zero_()
        self.lengths.zero_()

    def state_dict(self) -> dict[str, Any]:
        """For exact resume."""
        state = {"returns": self.returns, "lengths": self.lengths, "episodes": self.episodes}
        return {**state, "latest": {k: None if v is None else float(v) for k, v in self.latest.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.returns, self.lengths = state["returns"].clone(), state["lengths"].clone()
        self.latest, self.episodes = state["latest"], state["episodes"]

"""What was recorded, by us and by others."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from tscli.pairs import Pairs


def episodes_of(source: Any) -> list[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """What is known of each episode, and its rows."""
    return [(episode.info, episode.rows) for episode in Pairs(source).iter_episodes()]


def controller(obs: np.ndarray) -> int:
    """Balances CartPole's pole."""
    return int(obs @ np.array([0.05, 0.1, 1.0, 0.5]) > 0)


def play(env: gymnasium.Env, policy: Any, episodes: int) -> list[dict[str, list]]:
    """Observations (one more), actions, rewards and ends of episodes."""
    played = []
    for seed in range(episodes):
        obs, _ = env.reset(seed=seed)
        env.action_space.seed(seed)
        episode: dict[str, list] = {"observations": [obs], "actions": [], "rewards": []}
        episode |= {"terminations": [], "truncations": []}
        while not (episode["rewards"] and (episode["terminations"][-1] or episode["truncations"][-1])):
            action = policy(obs)
            obs, reward, terminated, truncated, _ = env.step(action)
            for name, value in (("observations", obs), ("actions", action), ("rewards", reward)):
                episode[name].append(value)
            episode["terminations"].append(terminated)
            episode["truncations"].append(truncated)
        played.append(episode)
    return played

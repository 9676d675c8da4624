"""Films of policies at work: greedy episodes drawn frame by frame, written or shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from tscli.envs import VecEnv
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Actor
from tscli.pictures import film


def make_film(
    render: str, episodes: int, policies: Mapping[str, Actor], env: VecEnv, seed: int, folder: Path
) -> Path | None:
    """Film greedy episodes of one env, or of each task; of several policies side by side, with the same episodes."""
    fps = 1 / env.control_dt if env.control_dt else 30.0
    # Drawing is what takes the time: a GIF shows 25 pictures per second of the env's time, a film or window all.
    stride = max(1, round(fps / 25)) if render == "gif" else 1
    window = film.Window(fps) if render == "human" else None
    reels = []
    tasks = env.members or ("",)
    for (role, policy), (row, task) in itertools.product(policies.items(), enumerate(tasks)):
        name = ", ".join(filter(None, [role if len(policies) > 1 else "", task]))
        reel = []
        for frame in frames_of(policy, env, row, seed, episodes, stride, name):
            if window is None:
                reel.append(frame)
            elif not window.show(frame):
                break
        reels.append(reel)
    env.close()
    if window is not None:
        window.close()
        return None
    write = film.write_gif if render == "gif" else film.write_mp4
    return write(folder / f"film.{render}", film.side_by_side(reels), fps / stride)


@torch.no_grad()
def frames_of(
    policy: Actor, env: VecEnv, row: int, seed: int, episodes: int, stride: int, name: str
) -> Iterator[np.ndarray]:
    """Every `stride`-th frame of greedy episodes in one row, uint8 [H, W, 3].

    Frames are taken before each step: after an episode's last step the env already shows the next episode.
    """
    n, env.per_slot = env.num_envs, episodes
    viewed = ViewedEnv(env, {"policy": policy.spec.view}, seed)
    hidden, reset = policy.initial_hidden(n), torch.ones(n, dtype=torch.bool, device=env.device)
    episode, step_count, total = 1, 0, 0.0
    while episode <= episodes:
        if step_count % stride == 0:
            said = f"episode {episode}   step {step_count}   return {total:.1f}"
            yield film.caption(env.render(row), f"{name}   {said}" if name else said)
        dist, hidden = policy.step(viewed.observe("policy"), hidden, reset)
        step = viewed.step(dist.mode())
        reset = step.done
        step_count, total = step_count + 1, total + float(step.reward[row])
        if bool(step.done[row]):
            episode, step_count, total = episode + 1, 0, 0.0

"""Films of policies at work: greedy episodes drawn frame by frame, written or shown."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from tscli.envs import VecEnv
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Actor
from tscli.pictures import film

FILMS = "films"  # folder of a run with those made while it trained, each named by the units of training before it
_CELL, _GRID = 240, 960  # pixels: the least width of a picture among others, and that of a grid
_SHORT, _SHORT_FPS = 60, 15  # pictures of a short film, and how many of them a second


def make_film(
    render: str,
    episodes: int,
    policies: Mapping[str, Actor],
    env: VecEnv,
    seed: int,
    folder: Path,
    grid: tuple[int, int] | None = None,
) -> Path | None:
    """Film greedy episodes of one env, or of each task; of several policies side by side, with the same episodes.

    Args:
        render: "gif", "mp4" or "human".
        episodes: of each of the env's rows.
        policies: by role.
        env: one row; one of each task of a mixture; or as many as the grid has places.
        seed: of its episodes.
        folder: where `film.<render>` is written.
        grid: rows and columns of pictures, each of another of the env's rows.
    """
    fps = 1 / env.control_dt if env.control_dt else 30.0
    # Drawing is what takes the time: a GIF shows 25 pictures per second of the env's time, a film or window all.
    stride = max(1, round(fps / 25)) if render == "gif" else 1
    names = {
        (role, row): ", ".join(filter(None, [role if len(policies) > 1 else "", task]))
        for role in policies
        for row, task in enumerate(env.members or ("",) * env.num_envs)
    }
    if render == "human":
        _show(policies, env, seed, episodes, names, fps)
        return None
    width = max(_CELL, _GRID // grid[1]) if grid else None
    reels = []
    for role, policy in policies.items():
        mine: list[list[np.ndarray]] = [[] for _ in range(env.num_envs)]
        said = [names[role, row] for row in range(env.num_envs)]
        for row, frame in frames_of(policy, env, range(env.num_envs), seed, episodes, stride, said, width):
            mine[row].append(frame)
        reels += [film.tiled(mine, grid[1])] if grid else mine
    write = film.write_gif if render == "gif" else film.write_mp4
    return write(folder / f"film.{render}", film.tiled(reels, len(reels)), fps / stride)


def short_film(path: Path, policy: Actor, env: VecEnv, seed: int) -> Path:
    """The first seconds of a greedy episode, of the first task of a mixture, small, as a GIF."""
    fps = 1 / env.control_dt if env.control_dt else 10.0
    stride = max(1, round(fps / _SHORT_FPS))
    frames = (frame for _, frame in frames_of(policy, env, (0,), seed, 1, stride, [""], _CELL))
    return film.write_gif(path, list(itertools.islice(frames, _SHORT)), fps / stride)


def _show(
    policies: Mapping[str, Actor],
    env: VecEnv,
    seed: int,
    episodes: int,
    names: Mapping[tuple[str, int], str],
    fps: float,
) -> None:
    """One after the other in a window, until the user closes it."""
    window = film.Window(fps)
    for role, row in names:
        said = {row: names[role, row]}
        for _, frame in frames_of(policies[role], env, (row,), seed, episodes, 1, said):
            if not window.show(frame):
                break
    window.close()


@torch.no_grad()
def frames_of(
    policy: Actor,
    env: VecEnv,
    rows: Sequence[int],
    seed: int,
    episodes: int,
    stride: int,
    names: Mapping[int, str] | Sequence[str],
    width: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Row and picture, uint8 [H, W, 3], of every `stride`-th step of greedy episodes in some rows.

    Frames are taken before each step: after an episode's last step the env already shows the next episode. Pictures
    that are wider than `width` are made smaller.
    """
    n, env.per_slot = env.num_envs, episodes
    viewed = ViewedEnv(env, {"policy": policy.spec.view}, seed)
    hidden, reset = policy.initial_hidden(n), torch.ones(n, dtype=torch.bool, device=env.device)
    episode, step_count, total = dict.fromkeys(rows, 1), dict.fromkeys(rows, 0), dict.fromkeys(rows, 0.0)
    while rows := [row for row in rows if episode[row] <= episodes]:
        for row in rows:
            if step_count[row] % stride == 0:
                said = f"episode {episode[row]}   step {step_count[row]}   return {total[row]:.1f}"
                frame = film.narrowed(env.render(row), width)
                yield row, film.caption(frame, f"{names[row]}   {said}" if names[row] else said)
        dist, hidden = policy.step(viewed.observe("policy"), hidden, reset)
        step = viewed.step(dist.mode())
        reset = step.done
        for row in rows:
            step_count[row], total[row] = step_count[row] + 1, total[row] + float(step.reward[row])
            if bool(step.done[row]):
                episode[row], step_count[row], total[row] = episode[row] + 1, 0, 0.0

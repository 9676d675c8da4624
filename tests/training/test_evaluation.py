"""What policies are measured on, which is another episode each time, and a student beside its teacher."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_env import DISCRETE, GROUPS, FakeEnv
from torch import Tensor

from tscli import streams
from tscli.config import NetworkConfig, parse_view
from tscli.diagnose.diagnosis import random_policy
from tscli.envs import VecEnv
from tscli.envs.color_maze import Env as ColorMaze
from tscli.envs.views import resolve_view
from tscli.learning.episodes import run_episodes
from tscli.networks import Policy, PolicySpec
from tscli.tasks import load_task, task_names
from tscli.training import setup
from tscli.training.evaluation import beside_teacher, measure

CPU = torch.device("cpu")
KINDS = {"tiger_door": 2, "tiger_door_alt": 2, "poisoned_doors": 3}  # of starts, where there are but a few


def world(env: Any, row: int) -> bytes:
    """All that tells one start from another."""
    if env.members:
        return b"%d" % (row % len(env.members)) + world(env._envs[row % len(env.members)], row // len(env.members))
    if isinstance(env, ColorMaze):
        maze = int(env._state[2, row])
        return env._tables["number"][maze : maze + 21 * 21].tobytes()
    return env._state[:, row].tobytes()


def starts(env: VecEnv, seed: int, per_slot: int) -> list[bytes]:
    """The worlds of the episodes that count, by random actions."""
    found: list[bytes] = []
    fresh = [True] * env.num_envs

    def watch(running: Tensor) -> None:
        found.extend(world(env, row) for row in range(env.num_envs) if fresh[row] and running[row])

    step = type(env).step

    def watched(action: Tensor) -> Any:
        result = step(env, action)
        fresh[:] = (result.terminated | result.truncated).tolist()
        return result

    env.step = watched
    view = setup.resolve(load_task("cartpole"), next(iter(env.groups)), env)
    run_episodes(random_policy(view, env.action), env, seed, per_slot, greedy=False, watch=watch)
    env.close()
    return found


# Those of other simulators begin as their seeds say, which `tests/envs` see to.
OURS = [name for name in task_names() if load_task(name).env["kind"] not in ("gym", "quadruped", "drawer")]


@pytest.mark.parametrize("name", OURS)
def test_every_evaluation_episode_is_another_one_also_by_another_seed(name: str) -> None:
    task = load_task(name)
    if task.env["kind"] != "mixed":  # whose random episodes are short anyway
        few = {"num_mazes": 1} if name == "color_maze" else {}  # which is for training alone
        task = task.model_copy(update={"env": {**task.env, "max_episode_steps": 4, **few}})
    found: dict[tuple[str, int], list[bytes]] = {}
    for seed in (0, 1):
        for purpose, env in zip(("select", "report"), setup.eval_envs(task, 40, CPU), strict=True):
            found[purpose, seed] = starts(env, streams.derive(seed, purpose), 40 // env.num_envs)
        found["eval", seed] = starts(setup.task_env(task, 20, CPU, "report"), streams.derive(seed, "eval"), 3)
    assert [len(worlds) for worlds in found.values()] == [40, 40, 60] * 2
    if name in KINDS:
        assert all(len(set(worlds)) == KINDS[name] for worlds in found.values())
        assert len({tuple(worlds) for worlds in found.values()}) == len(found), "in another order each time"
        return
    assert all(len(set(worlds)) == len(worlds) for worlds in found.values())
    every = [start for worlds in found.values() for start in worlds]
    # Two seeds draw from the same quarter of all mazes, where a few coincide.
    assert len(set(every)) == len(every) if name != "color_maze" else len(set(every)) > 0.9 * len(every)


def test_what_an_evaluation_measures_is_of_the_episodes_that_it_counts() -> None:
    env = FakeEnv([[2, 2, 2], [6]])
    env.measures = lambda: {"first slot": (torch.tensor([1.0, 0.0]), torch.ones(2))}
    env.metrics = lambda: {"env/speed": 1.0}
    view = resolve_view("state", parse_view("state"), GROUPS, DISCRETE)
    found = measure({"eval": random_policy(view, env.action)}, env, 3)
    assert found["eval/first slot"] == 2 / 8 and "eval/speed" not in found


def test_a_student_with_less_than_four_fifths_of_its_teachers_gain_is_said_to_be_far_below_it() -> None:
    task = load_task("cartpole")
    env = setup.task_env(task, 8, torch.device("cpu"))
    student = Policy(PolicySpec(setup.resolve(task, "full", env), env.action, NetworkConfig(hidden=(2,))))
    before = torch.random.get_rng_state()
    found, remark = beside_teacher(student, env, 3, 100.0, 500.0)
    chance = found["untrained_return"]
    assert 10 < chance < 60, "CartPole falls soon when it is pushed at random"
    assert torch.equal(torch.random.get_rng_state(), before)
    assert remark.startswith(f"the student has {100 * (100 - chance) / (500 - chance):.0f} % of what its teacher gains")
    enough = chance + 0.81 * (500 - chance)
    assert beside_teacher(student, env, 3, enough, 500.0) == ({"teacher_return": 500.0, "untrained_return": chance}, "")
    assert beside_teacher(student, env, 3, 501.0, 500.0) == ({"teacher_return": 500.0}, "")

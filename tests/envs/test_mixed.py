"""Several tasks side by side: whose row is whose, what they have in common, and what cannot be mixed."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import pytest
import torch
import toy_envs

from tscli import streams
from tscli.config import NetworkConfig, UserError, parse_view
from tscli.envs import EnvStep, VecEnv, make_env
from tscli.envs.views import resolve_view
from tscli.learning.episodes import run_episodes
from tscli.networks import Policy, PolicySpec
from tscli.tasks import Task, load_task
from tscli.training import setup

CPU = torch.device("cpu")


def mixed(num_envs: int, **tasks: Any) -> VecEnv:
    return make_env({"kind": "mixed", "tasks": tasks}, num_envs)


def test_rows_are_of_the_tasks_in_turn_and_are_told_which() -> None:
    env = mixed(5, long="cartpole", short={"kind": "cartpole", "max_episode_steps": 200}, swapped="cartpole_swapped")
    assert env.members == ("long", "short", "swapped")
    assert env.groups["task"].fields == env.members
    assert env.observe("task").argmax(1).tolist() == [0, 1, 2, 0, 1]
    assert env.observe("task", torch.tensor([4, 2])).tolist() == [[0, 1, 0], [0, 0, 1]]
    assert env.max_episode_steps == 500 and env.has_success and env.exact_resume and env.control_dt == 0.02


def test_each_row_does_what_it_would_in_its_task_alone() -> None:
    env = mixed(5, usual="cartpole", swapped="cartpole_swapped")
    env.reset(3)
    alone = {}
    for name, size in (("usual", 3), ("swapped", 2)):
        alone[name] = make_env(load_task("cartpole" if name == "usual" else "cartpole_swapped").env, size)
        alone[name].reset(streams.derive(3, f"mixed/{name}"))
    generator = torch.Generator().manual_seed(0)
    ended = 0
    for _ in range(60):
        action = torch.randint(2, (5,), generator=generator)
        found = env.step(action)
        for j, single in enumerate(alone.values()):
            for ours, theirs in zip(found, single.step(action[j::2]), strict=True):
                assert torch.equal(ours[j::2], theirs)
            assert torch.equal(env.observe("state")[j::2], single.observe("state"))
            rows = found.terminated[j::2].nonzero()[:, 0]
            assert torch.equal(env.final_observation("state", 2 * rows + j), single.final_observation("state", rows))
            ended += len(rows)
    assert ended > 5


def test_the_tasks_rows_are_the_same_where_no_value_may_be_looked_at() -> None:
    looking, blind = (mixed(7, usual="cartpole", swapped="cartpole_swapped", third="cartpole") for _ in range(2))
    assert looking.is_native and blind.is_native
    looking.is_native = False
    rows = torch.tensor([6, 0, 5, 3, 1])
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        action = torch.randint(2, (7,), generator=generator)
        for ours, theirs in zip(looking.step(action), blind.step(action), strict=True):
            assert torch.equal(ours, theirs)
        assert torch.equal(looking.observe("state", rows), blind.observe("state", rows))
        assert torch.equal(looking.final_observation("state", rows), blind.final_observation("state", rows))


def test_each_task_measures_its_own_rows() -> None:
    env, alone = (
        mixed(5, near={"kind": "quadrotor", "num_columns": 8}, far={"kind": "quadrotor"}),
        make_env({"kind": "quadrotor"}, 2),
    )
    env.reset(3)
    alone.reset(streams.derive(3, "mixed/far"))
    action = torch.zeros(5, env.action.num_params)
    env.step(action)
    alone.step(action[:2])
    found, theirs = env.measures(), alone.measures()
    assert found.keys() == theirs.keys()
    for name, (above, below) in theirs.items():
        whole = found[name]
        assert whole[1] is not None and below is not None
        assert torch.equal(whole[0][[1, 3]], above) and torch.equal(whole[1][[1, 3]], below)
    told = env.metrics()
    assert {"env/near/speed", "env/far/speed"} <= told.keys()
    assert told["env/far/speed"] == alone.metrics()["env/speed"]


def test_rows_of_several_processes_are_others_or_refused() -> None:
    first, second, uneven = (mixed(2, usual="cartpole", swapped="cartpole_swapped") for _ in range(3))
    second.first, uneven.first = 2, 3
    second.reset(0)
    assert not torch.equal(first.observe("state"), second.observe("state"))
    with pytest.raises(UserError, match="2 envs in each process are no multiple of its 2 tasks"):
        uneven.reset(0)


def test_swapped_actions_push_the_other_way() -> None:
    usual, swapped = (make_env(load_task(name).env, 4) for name in ("cartpole", "cartpole_swapped"))
    assert usual.action.names == tuple(reversed(swapped.action.names))
    action = torch.tensor([0, 1, 1, 0])
    for _ in range(5):
        usual.step(action)
        swapped.step(1 - action)
        assert torch.equal(usual.observe("state"), swapped.observe("state"))


def test_fewer_rows_than_tasks_leave_the_last_ones_out_but_not_what_they_show() -> None:
    one, many = mixed(1, a="cartpole", b="cartpole_swapped"), mixed(4, a="cartpole", b="cartpole_swapped")
    assert one.groups == many.groups and one.members == many.members
    for env in (one, many):
        env.reset(1)
    assert torch.equal(one.observe("state"), many.observe("state")[:1])
    assert len(one.step(torch.tensor([1])).reward) == 1


def test_a_group_is_there_if_all_tasks_show_the_same_by_it() -> None:
    noisy = {"kind": "cartpole", "position_noise": 0.1}
    assert set(mixed(2, a=noisy, b="cartpole").groups) == {"state", "task"}
    assert set(mixed(2, a=noisy, b=noisy).groups) == {"state", "noisy_positions", "task"}
    # Gymnasium gives no names to the entries, so that the others' are taken.
    both = mixed(2, a={"kind": "gym", "id": "CartPole-v1"}, b="cartpole")
    assert both.groups["state"].fields == ("position", "velocity", "angle", "angular_velocity")
    assert not both.exact_resume
    both.close()


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (["cartpole"], "a mixture takes two tasks or more"),
        (["cartpole", "cartpole"], "each needs a name of its own"),
        (["cartpole", {"kind": "cartpole"}], "each needs a name of its own"),
        (["cartpole", "cartpol"], 'unknown task "cartpol": did you mean "cartpole"'),
        (["cartpole", "acrobot"], r"cartpole takes discrete actions \[2\] and acrobot discrete actions \[3\]"),
        (["pendulum", "mountain_car"], "mix tasks of the same action space"),
        (["cartpole", "mine.yaml"], "mine.yaml is a file: write its env section in its place"),
        (["cartpole", "cartpole_mixed"], "cartpole_mixed is a mixture itself"),
        ({"a": "cartpole", "b": {"kind": "cartpole", "gravity": 3}}, 'unknown setting "gravity"'),
        ({"a": "cartpole", "b": {"kind": "gym", "id": "toy_envs:toy/Dict-v0"}}, "no group has the same shape"),
        ({"a": "cartpole", "b": 3}, "tasks"),
    ],
)
def test_what_cannot_be_mixed_is_refused_in_one_line(tasks: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_env({"kind": "mixed", "tasks": tasks}, 4)
    assert "\n" not in str(caught.value)


def test_success_is_told_once_all_tasks_have_told_it() -> None:
    tells = {"kind": "gym", "id": "toy_envs:toy/Success-v0"}
    env = mixed(2, a=tells, b=tells)
    for _ in range(toy_envs.STEPS):
        assert not env.has_success, "Gymnasium's envs say it with their first ended episode"
        found = env.step(torch.tensor([1, 0]))
    last = env.final_observation("state", torch.arange(2))
    assert env.has_success and found.success.tolist() == (last[:, 0] > 0).tolist()
    env.close()


def test_where_a_task_cannot_be_saved_in_the_middle_all_start_anew() -> None:
    def make() -> VecEnv:
        return mixed(4, a="cartpole", b={"kind": "gym", "id": "CartPole-v1"})

    def inner(env: VecEnv) -> torch.Tensor:
        return env.observe("state").abs().max(1).values

    env, again, twice = make(), make(), make()
    env.reset(5)
    for _ in range(5):
        env.step(torch.ones(4, dtype=torch.int64))
    assert (inner(env) > 0.5).all()
    again.load_state_dict(env.state_dict())
    assert (inner(again) <= 0.05).all(), "as at an episode's start"
    twice.load_state_dict(again.state_dict())
    assert not torch.equal(twice.observe("state"), again.observe("state")), "other episodes each time"
    for each in (env, again, twice):
        each.close()


def test_success_is_told_where_all_tasks_tell_it() -> None:
    env = mixed(2, a={"kind": "cartpole", "max_episode_steps": 1}, b={"kind": "gym", "id": "CartPole-v1"})
    assert not env.has_success
    env.step(torch.tensor([1, 1]))
    assert not env.has_success
    env.close()


def test_what_succeeds_before_another_task_has_told_anything_counts() -> None:
    env = mixed(2, soon={"kind": "cartpole", "max_episode_steps": 1}, late={"kind": "gym", "id": "CartPole-v1"})
    late = env._playing[1][0]  # type: ignore[attr-defined]
    step = late.step

    def tells_with_its_first_end(action: torch.Tensor) -> EnvStep:
        found = step(action)
        late.has_success |= bool(found.terminated.any())
        return found

    late.step = tells_with_its_first_end
    view = resolve_view("task", parse_view("task"), env.groups, env.action)
    found = run_episodes(Policy(PolicySpec(view, env.action, NetworkConfig(hidden=(2,)))), env, 0, 3)
    env.close()
    assert found.success is not None and found.success[:3].all()


def test_episodes_may_start_part_way() -> None:
    env = mixed(40, a={"kind": "cartpole", "max_episode_steps": 6}, b={"kind": "cartpole", "max_episode_steps": 3})
    env.start_part_way(torch.Generator().manual_seed(0))
    cut = torch.stack([env.step(torch.zeros(40, dtype=torch.int64)).truncated for _ in range(3)])
    assert cut[:, 1::2].any(0).all() and cut.any(1).all() and not cut[:, 0::2].any(0).all()


def test_a_saved_state_of_another_number_of_rows_is_refused() -> None:
    few, many = (mixed(n, a="cartpole", b="cartpole_swapped") for n in (2, 3))
    with pytest.raises(UserError, match="the saved state is of 2 envs and this run has 3"):
        many.load_state_dict(few.state_dict())


def test_every_task_can_be_drawn() -> None:
    task = load_task("cartpole_mixed")
    env = setup.task_env(task, 3, CPU, "report", render=True)
    assert env.render(0).shape == env.render(1).shape == (400, 600, 3)
    assert (env.render(0) != env.render(2)).any()


def test_a_gymnasium_env_among_them_is_measured_in_a_few_copies() -> None:
    views = {"full": ["state"]}
    env = {"kind": "mixed", "tasks": {"a": "cartpole", "b": {"kind": "gym", "id": "CartPole-v1"}}}
    assert setup.most_slots(Task.model_validate({"name": "m", "env": env, "views": views})) == 16
    assert setup.most_slots(load_task("cartpole_mixed")) is None


GYM = {"kind": "gym", "id": "CartPole-v1"}


@pytest.mark.parametrize(
    ("kinds", "episodes", "slots"),
    [
        ([GYM] * 20, 100, 20),
        ([GYM] * 3, 100, 9),
        ([GYM] * 3, 34, 3),
        (["cartpole"] * 3, 100, 99),
        (["cartpole"] * 2, 100, 100),
    ],
)
def test_each_task_is_evaluated_as_often(kinds: list[Any], episodes: int, slots: int) -> None:
    tasks = {f"t{i}": kind for i, kind in enumerate(kinds)}
    task = Task.model_validate({"name": "m", "env": {"kind": "mixed", "tasks": tasks}, "views": {"full": ["state"]}})
    env, _ = setup.eval_envs(task, episodes, CPU)
    assert env.num_envs == slots and slots % len(kinds) == 0
    env.close()
    with pytest.raises(
        UserError, match=f"--eval-episodes 1: m is {len(kinds)} tasks in one: give {len(kinds)} or more"
    ):
        setup.eval_envs(task, 1, CPU)

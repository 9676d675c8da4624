"""The order of a step, values over a rollout, and episodes counted fairly."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fake_env import DISCRETE, GROUPS, FakeEnv
from torch import Tensor

from tscli.config import NetworkConfig, UserError, parse_view
from tscli.envs.spaces import ActionSpec
from tscli.envs.views import ViewSpec, resolve_view
from tscli.learning.episodes import run_episodes
from tscli.learning.record import Fields, sequences
from tscli.learning.rollout import Final, ViewedEnv, check_finite, perturb, rollout_values, take
from tscli.networks import Critic, Policy, PolicySpec

ARM = ActionSpec("continuous", low=(-1.0, -float("inf")), high=(3.0, float("inf")))


def view(text: str, name: str = "mine", action: ActionSpec = DISCRETE) -> ViewSpec:
    return resolve_view(name, parse_view(text), GROUPS, action)


def zeros(env: FakeEnv) -> Tensor:
    return torch.zeros(env.num_envs, dtype=torch.int64)


# --- an env with its views --------------------------------------------------------------------------------------------


def test_a_step_asks_for_final_observations_before_anything_of_the_next_episode() -> None:
    env = FakeEnv([[-1]])
    viewed = ViewedEnv(env, {"actor": view("goal"), "critic": view("state", "all")}, 0, final_for=("critic",))
    env.calls.clear()
    viewed.observe("actor")
    viewed.step(zeros(env))
    viewed.observe("actor")
    viewed.observe("critic")
    viewed.observe("critic")
    assert env.calls == ["observe goal", "step", "final state", "observe goal", "observe state"]


def test_finals_are_of_truncated_rows_alone() -> None:
    env = FakeEnv([[2, 9], [-2, 9], [9], [-2, 9]])
    viewed = ViewedEnv(env, {"critic": view("state")}, 0, final_for=("critic",))
    viewed.step(zeros(env))
    assert viewed.final("critic") is None
    step = viewed.step(zeros(env))
    assert step.done.tolist() == [True, True, False, True]
    final = viewed.final("critic")
    assert final is not None and final.rows.tolist() == [1, 3]
    assert final.obs["vector"].tolist() == [[1, 0, 2], [3, 0, 2]]
    viewed.step(zeros(env))
    assert viewed.final("critic") is None


def test_pictures_are_counted_as_often_as_a_camera_has_to_take_them() -> None:
    env = FakeEnv([[9], [9], [-1]])
    views = {"blind": view("state"), "seeing": view("state + camera"), "critic": view("camera", "other")}
    viewed = ViewedEnv(env, views, 0, final_for=("critic",))
    viewed.observe("blind")
    assert viewed.num_frames == 0
    viewed.observe("seeing", torch.tensor([0, 2]))
    assert viewed.num_frames == 2
    viewed.observe("seeing")
    viewed.observe("seeing")  # of the same step
    assert viewed.num_frames == 5
    viewed.record(["state", "camera"])  # which were taken
    assert viewed.num_frames == 5
    viewed.step(zeros(env))  # truncates one
    viewed.record(["state", "camera"])
    assert viewed.num_frames == 9
    again = ViewedEnv(FakeEnv([[9], [9], [-1]]), views, 0)
    again.load_state_dict(viewed.state_dict())
    assert again.num_frames == 9


def test_depths_that_come_as_numbers_are_counted_as_pictures() -> None:
    env = FakeEnv([[9], [9], [-1]])
    env.camera_vectors = ("flag",)
    viewed = ViewedEnv(env, {"blind": view("state"), "seeing": view("state + flag")}, 0, final_for=("seeing",))
    viewed.observe("blind")
    viewed.observe("seeing", torch.tensor([0, 2]))
    assert viewed.num_frames == 2
    viewed.step(zeros(env))  # truncates one
    assert viewed.num_frames == 3


def test_an_env_tells_of_the_steps_since_it_was_asked_and_of_none_without_steps() -> None:
    env = FakeEnv([[9]])
    env.metrics = lambda: {"env/speed": 2.0}
    viewed = ViewedEnv(env, {}, 0, name="env_student")
    assert viewed.tell() == {}
    viewed.step(zeros(env))
    assert viewed.tell() == {"env_student/speed": 2.0} and viewed.tell() == {}


def test_roles_that_see_the_same_share_a_view() -> None:
    env = FakeEnv([[9]])
    viewed = ViewedEnv(env, {"actor": view("state"), "critic": view("state"), "other": view("goal")}, 0)
    assert viewed.views["actor"] is viewed.views["critic"] is not viewed.views["other"]
    viewed.step(zeros(env))
    assert viewed.observe("actor")["vector"][0, 2] == 1
    late = ViewSpec("late", tuple(replace(part, delay=2) for part in view("state").parts))
    viewed = ViewedEnv(FakeEnv([[9]]), {"actor": late, "critic": late}, 0)
    for _ in range(4):
        viewed.step(zeros(viewed.env))  # type: ignore[arg-type]
    assert viewed.observe("actor")["vector"][0, 2] == 2  # advanced once per step, not once per role


def test_actions_are_executed_within_bounds() -> None:
    env = FakeEnv([[9]], ARM)
    viewed = ViewedEnv(env, {}, 0)
    for given, executed in (([-5.0, 1e6], [-1.0, 1e6]), ([5.0, -1e6], [3.0, -1e6])):
        step = viewed.step(torch.tensor([given]))
        assert step.action.tolist() == env.actions[-1].tolist() == [executed]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_policy_that_gives_no_number_is_blamed_itself_and_the_env_is_not_stepped(bad: float) -> None:
    env = FakeEnv([[9], [9]], ARM)
    viewed = ViewedEnv(env, {}, 0)
    viewed.step(torch.zeros(2, 2))
    with pytest.raises(UserError, match=rf"the policy gave {bad} as its action \(step 1\): its weights have diverged"):
        viewed.step(torch.tensor([[0.0, 0.0], [0.0, bad]]))
    assert len(env.actions) == 1


def test_noise_goes_on_where_it_was_also_in_an_env_that_begins_anew() -> None:
    noisy = ViewSpec("noisy", tuple(replace(part, noise=0.5) for part in view("goal + previous_action").parts[:1]))
    first = ViewedEnv(FakeEnv([[99]]), {"mine": noisy}, 0)
    readings = []
    for _ in range(4):
        readings.append(first.observe("mine")["vector"] - first.env.observe("goal"))
        first.step(zeros(first.env))  # type: ignore[arg-type]
    state = first.state_dict()
    after = first.observe("mine")["vector"] - first.env.observe("goal")
    env = FakeEnv([[99]])
    env.exact_resume = False
    again = ViewedEnv(env, {"mine": noisy}, 0)
    assert torch.equal(again.observe("mine")["vector"] - env.observe("goal"), readings[0])
    again.load_state_dict(state)
    torch.testing.assert_close(again.observe("mine")["vector"] - env.observe("goal"), after)
    assert again.num_steps == 4


def test_an_env_that_begins_anew_has_no_previous_action_and_no_old_readings() -> None:
    late = ViewSpec(
        "late", tuple(replace(p, delay=2 * (p.group == "goal")) for p in view("goal + previous_action").parts)
    )
    env = FakeEnv([[99]])
    env.exact_resume = False
    viewed = ViewedEnv(env, {"mine": late}, 0)
    for _ in range(5):
        viewed.observe("mine")
        viewed.step(zeros(env) + 1)
    viewed.load_state_dict(viewed.state_dict())
    now = env.observe("goal")[0].tolist()
    assert viewed.observe("mine")["vector"][0].tolist() == [*now, 0.0]  # the first reading stands for those before it


# --- values -----------------------------------------------------------------------------------------------------------


def by_hand(critic: Critic, env: FakeEnv, start: Tensor, reset: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The critic asked step by step, env by env, with its memory carried along: value, next_value, last hidden."""
    viewed = ViewedEnv(env, {"critic": view("state")}, 0)
    hidden, done = start, reset
    value, next_value = torch.zeros(steps, env.num_envs), torch.zeros(steps, env.num_envs)
    for t in range(steps):
        now, hidden = critic(take(viewed.observe("critic"), None), hidden, done[None])
        value[t] = now[0]
        done = viewed.step(zeros(env)).done
        # What it would say of the observation that this step led to, in the same episode.
        after, _ = critic({"vector": env.final.float()[None]}, hidden, torch.zeros_like(done)[None])
        next_value[t] = after[0]
    return value, next_value, hidden


@pytest.mark.parametrize("defers", [False, True])
@pytest.mark.parametrize("length", [1, 3, 12])
@pytest.mark.parametrize("kind", ["mlp", "rnn", "history"])
def test_values_of_a_rollout_are_those_of_a_slow_loop(kind: str, length: int, defers: bool) -> None:
    torch.manual_seed(0)
    lengths = [[5, -3, -1], [-4, 2], [100], [-12], [-6]]
    critic = Critic(view("state"), NetworkConfig.model_validate({"kind": kind, "hidden": (8,), "memory": 4}))
    start = torch.randn(5, critic.encoder.hidden_size)
    reset = torch.tensor([True, False, False, True, False])
    env = FakeEnv(lengths)
    with torch.no_grad():
        expected = by_hand(critic, env, start, reset, 12)
        viewed = ViewedEnv(env, {"critic": view("state")}, 0, final_for=("critic",))
        viewed.defers = defers
        obs, resets, terminated = [], [reset], []
        finals: list[Final | None] = []
        for _ in range(12):
            obs.append(viewed.observe("critic")["vector"])
            step = viewed.step(zeros(env))
            resets.append(step.done)
            terminated.append(step.terminated)
            finals.append(viewed.final("critic"))
        obs.append(viewed.observe("critic")["vector"])
        rollout = Fields({"reset": torch.stack(resets), "last_seen": finals})
        found = rollout_values(critic, {"vector": torch.stack(obs)}, rollout, start, length)
    assert sum(int(f.rows.sum()) if defers else len(f.rows) for f in finals if f is not None) == 7
    torch.testing.assert_close(found.value, expected[0])
    counts = ~torch.stack(terminated)  # a terminated step does not bootstrap
    torch.testing.assert_close(found.next_value[counts], expected[1][counts])
    torch.testing.assert_close(found.hidden, expected[2])
    assert found.hiddens.shape == (12 // length, 5, critic.encoder.hidden_size)
    # Each sequence begins with the memory that it is stored with.
    with torch.no_grad():
        parts = {"vector": sequences(torch.stack(obs)[:-1], length)}
        again, _ = critic(parts, found.hiddens.flatten(0, 1), sequences(torch.stack(resets)[:-1], length))
    torch.testing.assert_close(again, sequences(found.value, length))


def test_deferred_checks_name_the_first_step_that_was_not_finite() -> None:
    env = FakeEnv([[9], [9]])
    viewed = ViewedEnv(env, {"actor": view("state")}, 0)
    viewed.defers, env.bad_step = True, (2, 1)
    for _ in range(2):
        viewed.observe("actor")
        viewed.step(zeros(env))
    viewed.check()
    for _ in range(3):
        viewed.observe("actor")
        viewed.step(zeros(env))
    with pytest.raises(UserError, match=r"the env gave nan as reward \(env 1, its step 2\)"):
        viewed.check()


# --- episodes ---------------------------------------------------------------------------------------------------------


def make_policy(action: ActionSpec = DISCRETE, kind: str = "rnn") -> Policy:
    torch.manual_seed(0)
    config = NetworkConfig.model_validate({"kind": kind, "hidden": (4,), "memory": 4})
    policy = Policy(PolicySpec(view("state + previous_action", action=action), action, config))
    torch.nn.init.normal_(policy.head.linear.weight)
    return policy


def test_each_slot_counts_the_same_number_of_episodes() -> None:
    # Slot 1 finishes six episodes before slot 0 has finished two.
    found = run_episodes(make_policy(), FakeEnv([[9, 3], [1, -4], [2, 2, 7]]), 0, per_slot=2)
    assert found.lengths.tolist() == [9, 3, 1, 4, 2, 2]
    assert found.returns.tolist() == [9, 3, 1, 4, 2, 2]
    assert found.success is not None and found.success.tolist() == [True, True, True, False, True, True]


def test_there_is_no_success_where_the_env_does_not_tell() -> None:
    env = FakeEnv([[2]])
    env.has_success = False
    assert run_episodes(make_policy(), env, 0).success is None


@pytest.mark.parametrize("greedy", [True, False])
def test_the_same_seed_gives_the_same_actions(greedy: bool) -> None:
    runs = []
    for seed in (1, 1, 2):
        env = FakeEnv([[30], [40]])
        run_episodes(make_policy(), env, seed, greedy=greedy)
        runs.append(torch.stack(env.actions))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2]) == greedy


def test_a_policys_memory_starts_anew_with_each_episode() -> None:
    # Two slots with the same observations from some step on; one of them has an episode behind it.
    env = FakeEnv([[6]])
    policy = make_policy(ActionSpec("continuous", low=(-9.0,), high=(9.0,)))
    env.action = policy.spec.action
    env._reading = lambda group, where: torch.ones(len(where), 3) * where[:, 2:]  # type: ignore[method-assign]
    run_episodes(policy, env, 0, per_slot=2)
    first, second = torch.stack(env.actions).squeeze().split(6)
    assert torch.equal(first, second) and len(first.unique()) == 6


# --- checks and noise -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_no_number_is_refused_with_its_env_and_step(bad: float) -> None:
    obs = torch.zeros(4, 3, 2)
    obs[2, 1, 0] = bad
    values = {"reward": torch.zeros(4, 3), "camera": torch.zeros(4, 3, dtype=torch.uint8), "state": obs}
    with pytest.raises(UserError, match=rf"the env gave {bad} as state \(env 1, its step 102\)"):
        check_finite(values, 100)


def test_numbers_pass() -> None:
    check_finite({"reward": torch.full((2, 2), 1e30), "count": torch.ones(2, 2, dtype=torch.int64)}, 0)


def test_a_reward_that_is_no_number_ends_an_evaluation_at_once() -> None:
    env = FakeEnv([[9], [9]])
    env.bad_step = (3, 1)
    with pytest.raises(UserError, match=r"nan as reward \(env 1, its step 3\)"):
        run_episodes(make_policy(), env, 0)
    assert len(env.actions) == 4


def test_discrete_actions_are_replaced_as_often_as_asked() -> None:
    generator = torch.Generator().manual_seed(0)
    spec = ActionSpec("discrete", nvec=(4,))
    action = torch.full((20_000,), 2)
    found = perturb(action, spec, 0.4, generator)
    assert (found == 2).float().mean().item() == pytest.approx(0.6 + 0.1, abs=0.02)
    assert (torch.bincount(found, minlength=4) / 20_000).tolist() == pytest.approx([0.1, 0.1, 0.7, 0.1], abs=0.02)
    assert torch.equal(perturb(action, spec, 0.0, generator), action)


def test_each_choice_of_several_is_replaced_for_itself() -> None:
    spec = ActionSpec("multi_discrete", nvec=(2, 5))
    found = perturb(torch.zeros(20_000, 2, dtype=torch.int64), spec, 0.5, torch.Generator().manual_seed(0))
    changed = (found != 0).float()
    assert changed.mean(0).tolist() == pytest.approx([0.25, 0.4], abs=0.02)
    assert (changed[:, 0] * changed[:, 1]).mean().item() == pytest.approx(0.1, abs=0.02)
    assert found[:, 1].max() == 4 and found[:, 0].max() == 1


def test_continuous_actions_get_noise_in_half_ranges() -> None:
    found = perturb(torch.ones(20_000, 2), ARM, 0.1, torch.Generator().manual_seed(0))
    assert found.mean(0).tolist() == pytest.approx([1, 1], abs=0.01)
    assert found.std(0).tolist() == pytest.approx([0.2, 0.1], abs=0.01)

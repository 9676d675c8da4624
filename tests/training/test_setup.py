"""What every stage does before and after its loop."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fake_env import FakeEnv

from tscli.config import NetworkConfig, PPOConfig, StageConfig, UserError, parse_view
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import resolve_view
from tscli.learning import episodes
from tscli.networks import Policy, PolicySpec
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import setup
from tscli.training.teachers import TeacherRuns, find_pairs, find_pairs_and_teachers, find_teachers


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(runs_dir=tmp_path / "runs")


@pytest.fixture
def threads() -> Iterator[None]:
    """Put torch's number of threads back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def train(session: Session, env: FakeEnv | None = None, view: str = "state") -> Run:
    env = env or FakeEnv([[1]])
    spec = resolve_view("full", parse_view(view), env.groups, env.action)
    with session.start(StageConfig(), "train-teacher", "cartpole", role="teacher") as run:
        run.save_policy(Policy(PolicySpec(spec, env.action, NetworkConfig(hidden=(2,)))))
        return run.finish({})


def collect(session: Session, teacher: Run) -> Run:
    with session.start(StageConfig(), "collect", "cartpole", parents={"teacher": teacher}) as run:
        return run.finish({}, holds=("pairs",))


def test_threads_are_set_also_back_to_all(threads: None) -> None:
    assert setup.prepare(StageConfig(threads=1)).type == "cpu" and torch.get_num_threads() == 1
    for all_cores in (0, 1024):  # more threads than cores would wait for each other, and each takes memory
        setup.prepare(StageConfig(threads=all_cores))
        assert torch.get_num_threads() == os.cpu_count()


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there_is_one_line(threads: None, device: str) -> None:
    with pytest.raises(UserError, match=r"--device .* cannot be used here .*: use cpu, or auto") as caught:
        setup.prepare(StageConfig(device=device))
    assert "\n" not in str(caught.value)


def test_auto_always_finds_a_device(threads: None) -> None:
    assert setup.prepare(StageConfig(device="auto")).type in ("cpu", "cuda")


@pytest.mark.parametrize(
    ("bptt", "steps", "recurrent", "length"),
    [(16, 32, True, 16), (12, 24, True, 12), (99, 8, True, 8), (16, 32, False, 1)],
)
def test_training_sequences_divide_a_rollout(bptt: int, steps: int, recurrent: bool, length: int) -> None:
    assert setup.sequence_length(PPOConfig.model_validate({"bptt": bptt, "rollout_steps": steps}), recurrent) == length


def test_episode_figures_are_of_those_that_ended_in_the_rollout() -> None:
    figures = episodes.EpisodeStats(2)
    reward = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    done = torch.tensor([[0, 0], [1, 0], [0, 0]]).bool()
    assert figures.update(reward[:1], done[:1]) == {"rollout/return": None, "rollout/length": None}
    assert figures.update(reward[1:], done[1:]) == {"rollout/return": 3.0, "rollout/length": 2.0}
    state = figures.state_dict()
    again = episodes.EpisodeStats(2)
    again.load_state_dict(state)
    ends = torch.ones(1, 2).bool()
    # env 0 has 4 in its second episode, env 1 has 70 in its first
    for one in (figures, again):
        assert one.update(torch.ones(1, 2), ends) == {"rollout/return": (5 + 71) / 2, "rollout/length": (2 + 4) / 2}
        assert one.episodes == 3
        assert one.update(torch.ones(1, 2), ~ends)["rollout/return"] == 38  # the figures before are repeated


@pytest.mark.parametrize(("episodes", "slots"), [(100, 10), (256, 16), (12, 12), (1, 1), (17, 1)])
def test_evaluations_share_a_few_copies_of_a_gymnasium_env_evenly(episodes: int, slots: int) -> None:
    cpu = torch.device("cpu")
    select, report = setup.eval_envs(load_task("Pendulum-v1"), episodes, cpu)
    assert select is report and select.num_envs == slots
    select.close()
    select, _ = setup.eval_envs(load_task("cartpole"), episodes, cpu)
    assert select.num_envs == episodes  # a batched env has a slot for each


def test_copies_are_few_where_any_of_the_envs_is_a_gymnasium_one() -> None:
    gym = {"kind": "gym", "id": "Pendulum-v1"}
    native = load_task("cartpole")
    assert setup.most_slots(native) is None
    assert setup.most_slots(native.model_copy(update={"report_env": gym})) == 16
    assert setup.most_slots(native.model_copy(update={"env": {**gym, "vectorization": "async"}})) == 16
    assert setup.most_slots(native.model_copy(update={"env": {**gym, "vectorization": "vector_entry_point"}})) is None


# --- runs to continue from --------------------------------------------------------------------------------------------


def test_a_policy_acts_only_in_an_env_that_shows_it_the_same(session: Session) -> None:
    env, cpu = FakeEnv([[1]]), torch.device("cpu")
    whole, some = train(session), train(session, view="state[0,2] + camera + previous_action")
    assert setup.open_policy(whole, env, cpu).spec.view.vector_size == 3
    changes = {
        "lacks": {"goal": Group((2,))},
        "this env gives": {**env.groups, "state": Group((4,))},
    }
    for message, groups in changes.items():
        other = FakeEnv([[1]])
        other.groups = groups
        with pytest.raises(UserError, match=message):
            setup.open_policy(whole, other, cpu)
    larger = FakeEnv([[1]])
    larger.groups = {**env.groups, "state": Group((4,))}
    assert setup.open_policy(some, larger, cpu)  # the entries that it picks are there
    larger.groups = {**env.groups, "state": Group((2,))}
    with pytest.raises(UserError, match='sees the group "state"'):
        setup.open_policy(some, larger, cpu)
    larger.groups = {**env.groups, "camera": Group((9, 8, 3), dtype="uint8")}
    with pytest.raises(UserError, match=r"sees the group \"camera\" as \(8, 8, 3\), this env gives \(9, 8, 3\)"):
        setup.open_policy(some, larger, cpu)
    with pytest.raises(UserError, match=r"acts with discrete \(2,\), this env takes discrete \(3,\)"):
        setup.open_policy(whole, FakeEnv([[1]], ActionSpec("discrete", nvec=(3,))), cpu)


def test_the_teacher_of_a_run_that_trained_both_is_opened_where_a_teacher_is_asked_for(session: Session) -> None:
    env = FakeEnv([[1]])
    alone = train(session)
    with session.start(StageConfig(), "sitt", "cartpole", role="student") as run:
        for view, which in (("state", "teacher"), ("flag", "policy")):
            spec = resolve_view(view, parse_view(view), env.groups, env.action)
            run.save_policy(Policy(PolicySpec(spec, env.action, NetworkConfig(hidden=(2,)))), which)
        both = run.finish({})
    for made in (alone, both):
        assert setup.open_teacher(made, env, torch.device("cpu")).spec.view.name in ("full", "state")
    assert setup.open_policy(both, env, torch.device("cpu")).spec.view.name == "flag"
    assert find_teachers(session, "2", "", "").name == both.name
    assert find_teachers(session, "", "", "").name == both.name  # it is the newest
    assert find_teachers(session, "1", "", "").name == alone.name


def test_cloning_takes_the_newest_pairs_and_their_own_teacher(session: Session) -> None:
    first = train(session)
    pairs = collect(session, first)
    second = train(session)  # which nobody has collected from
    with session.start(StageConfig(), "distill", "cartpole", parents={"teacher": second}) as run:
        run.finish({}, holds=("pairs",))  # a student's own pairs are not what is meant by the newest
    found = find_pairs_and_teachers(session, "", "")
    assert [one.name for one in found] == [pairs.name, first.name]
    assert [one.name for one in find_pairs_and_teachers(session, "2", "1")] == [pairs.name, first.name]
    with pytest.raises(UserError, match=r"no finished run in .* holds pairs: run `tscli collect`"):
        find_pairs_and_teachers(session, "", "3")
    with pytest.raises(UserError, match="was labelled by another teacher than 0003"):
        find_pairs_and_teachers(session, "2", "3")


def test_learning_in_the_loop_begins_with_the_teachers_own_pairs_where_there_are_any(session: Session) -> None:
    first = train(session)
    ones, others = TeacherRuns((first,), "", "cartpole"), TeacherRuns((train(session),), "", "cartpole")
    assert find_pairs(session, "", ones) is None
    assert find_pairs(session, None, ones) is None
    pairs = collect(session, first)
    found = find_pairs(session, "", ones)
    assert found is not None and found.name == pairs.name
    assert find_pairs(session, "", others) is None
    assert find_pairs(session, "", replace(ones, task="cartpole_mixed")) is None


def test_a_sequence_length_that_does_not_divide_a_rollout_is_refused() -> None:
    with pytest.raises(UserError, match="--bptt 16 does not divide --rollout-steps 31"):
        setup.sequence_length(PPOConfig.model_validate({"rollout_steps": 31}), True)

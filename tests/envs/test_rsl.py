"""rsl_rl's VecEnvs as ours: what is seen, how episodes end, and that every stage runs on them."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stage_tools import COLLECT, RUNS, call, error_of, metrics_of
from torch import Tensor

from tscli.config import UserError
from tscli.envs import make_env
from tscli.envs.rsl import Env
from tscli.pairs import Pairs
from tscli.runs import list_runs

pytest.importorskip("rsl_rl.env", reason="needs rsl-rl-lib: pip install 'tscli[peers]'")
pytestmark = pytest.mark.usefixtures("no_plots")

STEPS = 6
TASK = """
env: {kind: rsl, entry_point: "rsl_toys:make_walk"}
views: {full: [critic], robot: [policy, previous_action], camera: [sensors.camera]}
teacher: full
student: robot
"""
TEACHER = (
    *("train-teacher", "walk.yaml", "--total-steps", "192", "--num-envs", "4", "--rollout-steps", "16"),
    *("--num-minibatches", "2", "--num-epochs", "2", "--network.hidden", "8", "--eval-every", "1"),
    *("--eval-episodes", "3"),
)
LEARN = ("--student.hidden", "8", "--student.memory", "8", "--eval-every", "1", "--eval-episodes", "3")


def build(name: str = "make_walk", num_envs: int = 3, **settings: Any) -> Env:
    env = make_env({"kind": "rsl", "entry_point": f"rsl_toys:{name}", **settings}, num_envs)
    assert isinstance(env, Env)
    return env


def refused(**settings: Any) -> str:
    with pytest.raises(UserError) as caught:
        build(**settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def push(env: Env, value: float) -> Tensor:
    return torch.full((env.num_envs, 2), value)


def test_groups_are_those_of_the_tensordict_with_pictures_channels_last() -> None:
    env = build(clip_actions=1.5)
    assert {name: (group.shape, group.dtype) for name, group in env.groups.items()} == {
        "policy": ((1,), "float32"),
        "critic": ((3,), "float32"),
        "sensors.camera": ((12, 10, 3), "uint8"),
    }
    for name, group in env.groups.items():
        seen = env.observe(name)
        assert seen.shape == (3, *group.shape) and seen.dtype == getattr(torch, group.dtype)
        assert torch.equal(env.observe(name, torch.tensor([2, 0])), seen[[2, 0]])
    assert env.action.low == (-1.5, -1.5) and env.action.high == (1.5, 1.5)
    assert env.control_dt == 0.02
    with pytest.raises(UserError, match='unknown observation group "critik": did you mean "critic"'):
        env.observe("critik")


def test_time_outs_truncate_and_other_ends_terminate() -> None:
    env = build()
    env.reset(1)
    for step in range(1, STEPS + 1):
        # 0.6 a step carries the first env past 2 before its time is up; the others stay.
        action = torch.stack([push(env, 2.0)[0], *push(env, 0.0)[1:]])
        result = env.step(action)
        assert result.truncated.tolist() == [False, step == STEPS, step == STEPS]
        if result.terminated[0]:
            assert 3 <= step <= 5
            break
    assert result.terminated.tolist() == [True, False, False]
    assert not result.success.any() and not env.has_success


def test_a_simulator_that_tells_no_time_outs_has_terminations_alone() -> None:
    env = build(kwargs={"tells_time_outs": False})
    env.reset(1)
    results = [env.step(push(env, 0.0)) for _ in range(STEPS)]
    assert results[-1].terminated.all() and not any(result.truncated.any() for result in results)


def test_the_final_observation_is_the_simulators_where_it_gives_one_and_else_the_one_before_the_step() -> None:
    for gives, step in ((True, STEPS), (False, STEPS - 1)):
        env = build(kwargs={"gives_final": gives})
        env.reset(1)
        for _ in range(STEPS - 1):
            env.step(push(env, 0.5))
        before = env.observe("critic").clone()
        with pytest.raises(ValueError, match="row 1 did not end"):
            env.final_observation("critic", torch.tensor([1]))
        assert env.step(push(env, 0.5)).truncated.all()
        final = env.final_observation("critic", torch.tensor([2, 0]))
        assert final[:, 2].tolist() == [step, step]  # of the episode that ended, never the next one's 0
        assert final[:, 1].tolist() == [0, 0]
        assert torch.equal(final, before[[2, 0]]) is not gives
        assert env.observe("critic")[:, 1].tolist() == [1, 1, 1]


def test_what_was_observed_stays_although_the_simulator_writes_over_its_buffers() -> None:
    env = build()
    env.reset(3)
    kept = {name: env.observe(name) for name in env.groups}
    copies = {name: value.clone() for name, value in kept.items()}
    env.step(push(env, 1.0))
    assert all(torch.equal(kept[name], copies[name]) for name in kept)
    assert not torch.equal(env.observe("critic"), kept["critic"])


def test_the_same_seed_gives_the_same_episodes_and_another_instance_in_between_changes_nothing() -> None:
    alone, disturbed, other = build(), build(), build()
    alone.reset(5)
    disturbed.reset(5)
    for step in range(4 * STEPS):
        if step % 5 == 0:
            other.reset(5)  # as an evaluation does, with the same seed every time
        assert torch.equal(alone.observe("critic"), disturbed.observe("critic"))
        other.step(push(other, 0.0))
        alone.step(push(alone, 0.1))
        disturbed.step(push(disturbed, 0.1))
    starts = alone.observe("policy").clone()
    alone.reset(6)
    assert not torch.equal(alone.observe("policy"), starts)


def test_the_global_streams_are_left_as_they_were() -> None:
    env = build()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    expected = random.random(), np.random.rand(), torch.rand(1).item()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    env.reset(9)
    env.step(push(env, 0.0))
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == expected


def test_success_is_the_entry_of_extras_that_was_named_at_an_episodes_end() -> None:
    env = build(success_key="arrived")
    env.reset(1)
    results = [env.step(torch.stack([push(env, v)[0] for v in (0.5, -0.5, 0.5)])) for _ in range(STEPS)]
    assert env.has_success
    assert [result.success.any().item() for result in results] == [False] * (STEPS - 1) + [True]
    assert results[-1].success.tolist() == [True, False, True]
    with pytest.raises(UserError, match='extras have no "arived": did you mean "arrived"'):
        wrong = build(success_key="arived")
        wrong.step(push(wrong, 0.0))


def test_episodes_can_start_part_way_so_that_they_do_not_end_together() -> None:
    env = build(num_envs=200)
    env.reset(1)
    env.start_part_way(torch.Generator().manual_seed(0))
    ends = torch.stack([env.step(push(env, 0.0)).truncated for _ in range(STEPS)])
    assert ends.sum(0).eq(1).all()
    assert ends.sum(1).min() >= 10


def test_a_resumed_simulator_starts_episodes_that_were_not_seen_before() -> None:
    env, other = build(), build()
    env.reset(1)
    first = env.observe("policy").clone()
    other.load_state_dict(env.state_dict())
    assert not torch.equal(other.observe("policy"), first)
    again = build()
    again.load_state_dict(env.state_dict())
    assert torch.equal(other.observe("policy"), again.observe("policy"))


def test_what_is_no_usable_vec_env_is_refused_in_one_line() -> None:
    assert "gave 5 envs where 3 were asked for" in refused(name="make_five")
    assert "gave a object without num_envs, num_actions" in refused(name="make_nothing")
    assert 'did you mean "make_walk"' in refused(name="make_wlak")
    assert "cannot be built with kwargs {'speed': 1}" in refused(kwargs={"speed": 1})
    assert "num_envs cannot be given here" in refused(kwargs={"num_envs": 1})
    with pytest.raises(UserError, match="module no_such_module cannot be imported"):
        make_env({"kind": "rsl", "entry_point": "no_such_module:make"}, 1)
    with pytest.raises(UserError, match="write it as module:function"):
        make_env({"kind": "rsl", "entry_point": "rsl_toys"}, 1)


def test_a_picture_is_drawn_where_the_simulator_can() -> None:
    assert build("make_screen").render(0).shape == (12, 10, 3)
    with pytest.raises(UserError, match="without render"):
        build().render(0)


def test_processes_of_their_own_give_the_same_as_this_one() -> None:
    plain = build()
    there, second = (build("make_single", own_process=True) for _ in range(2))  # a process may have one
    for env in (plain, there, second):
        env.reset(4)
    assert there.groups == plain.groups and there.max_episode_steps == plain.max_episode_steps
    for _ in range(STEPS + 2):
        for ours, theirs in zip(plain.step(push(plain, 0.4)), there.step(push(there, 0.4)), strict=True):
            assert torch.equal(ours, theirs)
        for name in plain.groups:
            assert torch.equal(plain.observe(name), there.observe(name))
    with pytest.raises(UserError, match="without render"):
        there.render(0)
    for env in (there, second):
        env.close()
        env.close()


def test_what_fails_in_the_other_process_is_said_here() -> None:
    assert "gave 5 envs where 3 were asked for" in refused(name="make_five", own_process=True)


def test_entries_are_named_after_the_managers_terms() -> None:
    env = build("make_managed")
    assert env.groups["policy"].fields == ("place",)
    assert env.groups["critic"].fields == ("place", "count_0", "count_1")
    assert env.groups["sensors.camera"].fields == () and build().groups["critic"].fields == ()
    assert env.action.names == ("push_0", "push_1")


def test_what_the_simulator_prints_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    for own_process in (False, True):
        env = build("make_managed", own_process=own_process)
        env.step(push(env, 0.0))
        env.close()
        out, err = capfd.readouterr()
        assert out == "" and "Base Environment" in err and "step" in err


def test_episodes_without_an_end_are_refused() -> None:
    assert "its episodes last 5e+10 steps, as those of a play configuration do" in refused(name="make_play")


def test_what_the_simulator_reports_becomes_metrics_once() -> None:
    env = build("make_managed")
    assert env.metrics() == {}
    for _ in range(3):
        env.step(push(env, 0.0))
    assert env.metrics() == {"env/Curriculum/steps": 2.0}  # of 1, 2 and 3
    assert env.metrics() == {}


def test_the_counter_that_curricula_go_by_survives_a_resume() -> None:
    env, other = build("make_managed"), build("make_managed")
    for _ in range(3):
        env.step(push(env, 0.0))
    other.load_state_dict(env.state_dict())
    other.step(push(other, 0.0))
    assert other.metrics() == {"env/Curriculum/steps": 4.0}
    old = {name: value for name, value in env.state_dict().items() if name != "steps"}
    build().load_state_dict(old)  # as earlier versions saved it
    assert build().state_dict()["steps"] is None


def test_an_env_that_does_not_reset_itself_shows_what_was_seen_last() -> None:
    env = build("make_managed", kwargs={"auto_reset": False})
    env.reset(1)
    for _ in range(STEPS):
        result = env.step(push(env, 0.5))
    assert result.truncated.all()
    assert env.final_observation("critic", torch.arange(3))[:, 2].tolist() == [STEPS] * 3
    assert env.observe("critic")[:, 2].tolist() == [0] * 3 and env.observe("critic")[:, 1].tolist() == [1] * 3
    assert env.metrics()["env/Episode/reward"] == 1.0


# --- the stages -------------------------------------------------------------------------------------------------------


@pytest.fixture
def task(folder: Path) -> Path:
    (folder / "walk.yaml").write_text(TASK)
    return folder


def test_the_whole_chain_runs_and_every_recorded_pair_is_of_one_step(task: Path) -> None:
    teacher = call(*TEACHER)
    assert [line["step"] for line in metrics_of(teacher)] == [64, 128, 192]
    assert teacher.metrics["eval/length"] <= STEPS

    run = call(*COLLECT)
    pairs = Pairs(run.path / "pairs")
    assert set(pairs.schema.groups) == {"policy", "critic", "sensors.camera"}
    table = pairs.episodes()
    assert len(table) == 6 and table["finished"].all() and (table["length"] <= STEPS).all()
    index = pairs.windows(1, start="tile")
    fields = ["obs/critic", "obs/policy", "truncated", "action", "reward"]
    found = pairs.gather(index[slice(0, len(index))], fields)
    critic, step = found["obs/critic"][0], 0
    for row in range(len(critic)):
        # Step numbers count up from 0 within each episode: no row shows the next episode's start in a last step.
        assert critic[row, 2] == step
        np.testing.assert_allclose(found["obs/policy"][0][row, 0], critic[row, 0] + 0.01, atol=1e-6)
        after = critic[row, 0] + 0.3 * found["action"][0][row].mean()
        np.testing.assert_allclose(found["reward"][0][row], 1 - abs(after), atol=1e-5)
        step = 0 if found["truncated"][0][row] or abs(after) > 2 else step + 1

    student = call("distill", "--method", "bc", "--student", "gru", "--num-epochs", "2", "--batch-size", "8", *LEARN)
    assert set(student.parents) == {teacher.name, run.name}
    dagger = call(
        *("distill", "--method", "dagger", "--total-steps", "64", "--num-envs", "4", "--round-steps", "8"),
        *("--updates-per-round", "1", "--batch-size", "4", "--window", "4", *LEARN),
    )
    report = call("eval", str(dagger.number), "--episodes", "4")
    assert {"eval/return", "gap"} <= report.metrics.keys()


def test_a_latent_is_learnt_in_a_simulator_by_one_stage_by_two_and_in_two_groups(task: Path) -> None:
    (task / "walk.yaml").write_text(
        'env: {kind: rsl, entry_point: "rsl_toys:make_walk"}\n'
        "views: {full: [policy, previous_action, critic], robot: [policy, previous_action]}\n"
        "teacher: full\nstudent: robot\n"
    )
    rollout = ("--num-envs", "4", "--rollout-steps", "8", "--bptt", "4", "--num-minibatches", "2", "--eval-every", "0")
    sizes = ("--student.hidden", "8", "--student.history", "3", "--eval-episodes", "4")
    for method in (("ts",), ("cts", "--student-fraction", "0.5")):
        found = call(*method, "walk.yaml", "--total-steps", "64", *rollout, "--encoder.hidden", "8", *sizes)
        # What the probe reads is what is privileged: the simulator's exact place, its episode and its step.
        assert {"latent/r2_critic_0", "latent/r2_critic_1", "latent/r2_critic_2"} <= found.metrics.keys()
        assert "latent/r2_policy_0" not in found.metrics
    call(*TEACHER, "--obs", "full", "--latent-size", "4")
    for actor in ("shared", "own"):
        student = call("distill", "--method", "latent", "--actor", actor, "--total-steps", "64", *rollout, *sizes,
                       "--teacher", "3", "--no-diagnose")  # fmt: skip
        assert student.metrics["eval/length"] <= STEPS


def test_random_starts_reach_the_simulator(task: Path) -> None:
    together, apart = (call(*TEACHER, *flags, "--rollout-steps", "4") for flags in ((), ("--random-start",)))
    assert metrics_of(together)[0]["rollout/length"] is None  # no episode of 6 steps has ended after 4
    assert metrics_of(apart)[0]["rollout/length"] is not None


def test_a_second_instance_in_one_process_is_refused_with_the_setting_that_helps(
    task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (task / "single.yaml").write_text(TASK.replace("make_walk", "make_single"))
    error = error_of(capsys, "train-teacher", "single.yaml", *TEACHER[2:])
    assert "(the simulation app is running already)" in error and "own_process: true" in error
    assert list_runs(RUNS) == []


def test_reports_of_the_simulator_stand_among_the_metrics(task: Path) -> None:
    (task / "managed.yaml").write_text(TASK.replace("make_walk", "make_managed"))
    lines = metrics_of(call(TEACHER[0], "managed.yaml", *TEACHER[2:]))
    assert [line["env/Curriculum/steps"] for line in lines] == [8.5, 24.5, 40.5]  # of 16 steps each

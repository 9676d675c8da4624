"""Evaluation: the same episodes for everyone, counted fairly, compared and filmed."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import importlib.util
import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from stage_tools import BC, COLLECT, SMALL, TEACHER, call, error_of, weights_hash

from tscli.cli.app import main
from tscli.files import file_hash
from tscli.learning import episodes
from tscli.learning.episodes import Episodes
from tscli.learning.rollout import ViewedEnv
from tscli.learning.statistics import student_mean
from tscli.networks import Policy
from tscli.pictures import maps
from tscli.runs import Run
from tscli.training import evaluation

pytestmark = pytest.mark.usefixtures("no_plots")


def report_of(run: Run) -> dict[str, Any]:
    return json.loads((run.path / "report.json").read_text())


def watch_episodes(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """For every pass over episodes: who acts in how many envs, and the first observation."""
    passes: list[dict[str, Any]] = []
    start, step = ViewedEnv.__init__, ViewedEnv.step

    def watched_start(self: ViewedEnv, env: Any, views: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        start(self, env, views, *args, **kwargs)
        passes.append({"first": env.observe("state").clone(), "envs": env.num_envs, "ends": []})

    def watched_step(self: ViewedEnv, action: torch.Tensor) -> Any:
        result = step(self, action)
        passes[-1]["ends"].append(result.done.clone())
        return result

    monkeypatch.setattr(ViewedEnv, "__init__", watched_start)
    monkeypatch.setattr(ViewedEnv, "step", watched_step)
    return passes


def test_everyone_gets_the_same_episodes_and_every_slot_the_same_number(
    student: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = watch_episodes(monkeypatch)
    run = call("eval", "--episodes", "6", "--num-envs", "4")
    # Student and teacher, greedy and sampled, the student's own states, and what it is where nothing was learnt.
    assert len(passes) == 6
    for one in passes:
        assert one["envs"] == 3  # the largest number up to 4 that divides 6
        assert torch.equal(one["first"], passes[0]["first"])
    for one in passes[:4]:
        assert torch.stack(one["ends"]).sum(0).min() == 2  # two episodes in each slot, the last one just over
    entries = report_of(run)["policies"]
    assert list(entries) == ["student", "teacher"]
    for entry in entries.values():
        assert entry["greedy"]["return"]["count"] == entry["sampled"]["length"]["count"] == 6


def test_a_number_that_no_slots_divide_is_measured_in_many_slots(student: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = watch_episodes(monkeypatch)
    run = call("eval", "--episodes", "7", "--num-envs", "5", "--no-teacher")
    for one in passes:
        assert one["envs"] == 4
        assert torch.stack(one["ends"]).sum(0).min() == 2
    found = report_of(run)
    assert found["episodes"] == found["policies"]["student"]["greedy"]["return"]["count"] == 7


def test_the_episodes_that_count_are_fixed_beforehand(student: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*args: Any, **kwargs: Any) -> Episodes:
        return Episodes(torch.arange(8.0), torch.arange(8.0), None)  # two in each of four slots

    monkeypatch.setattr("tscli.learning.episodes.run_episodes", ended)
    run = call("eval", "--episodes", "7", "--num-envs", "5", "--no-teacher")
    assert run.metrics["eval/return"] == 3.0  # of 0 to 6: without the last slot's last one


def test_without_its_teacher_a_student_can_still_be_measured(student: Run, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree("runs/0001-train-teacher-cartpole-seed1")
    error = error_of(capsys, "eval", "--episodes", "2")
    assert "0001-train-teacher-cartpole-seed1, which" in error and "--no-teacher measures the student alone" in error
    assert list(report_of(call("eval", "--episodes", "2", "--no-teacher"))["policies"]) == ["student"]


def test_the_same_seed_gives_the_same_report_and_another_seed_other_episodes(student: Run) -> None:
    one, two, other = (report_of(call("eval", "3", "--episodes", "6", "--seed", seed)) for seed in ("1", "1", "2"))
    assert one == two
    assert one["policies"] != other["policies"]


def test_a_student_that_has_learnt_all_agrees_with_its_teacher_on_its_own_states(folder: Path) -> None:
    call(*TEACHER)
    call(*COLLECT, "--episodes", "9")
    much = ("--num-epochs", "100", "--lr", "0.01", "--eval-every", "100", "--patience", "100")
    call(*BC, *much, "--obs", "full", "--student", "mlp", "--student.hidden", "32")
    run = call("eval", "--episodes", "6")
    assert run.metrics["action_agreement"] > 0.9
    assert 0 <= run.metrics["kl_teacher_student"] < 0.01
    entries = report_of(run)["policies"]
    gap = entries["teacher"]["greedy"]["return"]["mean"] - entries["student"]["greedy"]["return"]["mean"]
    assert run.metrics["gap"] == pytest.approx(gap)


def test_the_gaps_interval_is_that_of_the_differences_episode_by_episode(
    student: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hard = 100.0 * torch.arange(8)  # some episodes give much more than others, whoever acts
    lost = torch.tensor([0.0, 2.0] * 4)

    def played(policy: Policy, *args: Any, **_: Any) -> Episodes:
        returns = hard - lost * (policy.spec.view.name == "partial")
        return Episodes(returns, torch.ones(8), torch.ones(8, dtype=torch.bool))

    monkeypatch.setattr(episodes, "run_episodes", played)
    assert main(["eval", "--episodes", "8", "--json", "--quiet"]) == 0
    report = json.loads(capsys.readouterr().out)
    expected = student_mean(lost.numpy())
    assert report["gap"] == 1.0
    assert report["gap_interval"] == [expected.low, expected.high]
    assert 0 < expected.low < 1 < expected.high < 2
    success = report["policies"]["student"]["greedy"]["success_rate"]
    assert (success["mean"], success["high"]) == (1.0, 1.0) and success["low"] == pytest.approx(0.025 ** (1 / 8))


def test_a_gymnasium_env_is_measured_in_a_few_copies(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call("train-teacher", "toy_envs:toy/Multi-v0", *TEACHER[2:])
    passes = watch_episodes(monkeypatch)
    run = call("eval", "--episodes", "40")
    assert [one["envs"] for one in passes] == [14, 14]  # three episodes each
    assert report_of(run)["policies"]["teacher"]["greedy"]["return"]["count"] == 40


def test_the_interval_holds_the_mean_and_the_table_says_what_the_json_says(
    student: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--episodes", "8"]) == 0
    table = capsys.readouterr().out
    assert main(["eval", "--episodes", "8", "--json", "--quiet"]) == 0
    data = json.loads(capsys.readouterr().out)
    for entry in data["policies"].values():
        value = entry["greedy"]["return"]
        assert value["low"] <= value["mean"] <= value["high"]
        assert f"{value['mean']:.1f}" in table and f"{value['low']:.1f} to {value['high']:.1f}" in table
    low, high = data["gap_interval"]
    assert f"gap {data['gap']:.1f} ({low:.1f} to {high:.1f})" in table


def test_a_teacher_is_measured_alone_and_a_student_may_be(student: Run) -> None:
    teacher = report_of(call("eval", "1", "--episodes", "4"))
    assert list(teacher["policies"]) == ["teacher"] and "gap" not in teacher
    alone = report_of(call("eval", "--no-teacher", "--episodes", "4"))
    assert list(alone["policies"]) == ["student"] and "gap" not in alone


def test_the_best_policy_is_measured_unless_the_last_one_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = itertools.count()
    monkeypatch.setattr(evaluation, "summary", lambda found: {"eval/return": -float(next(worse)), "eval/length": 1.0})
    run = call(*TEACHER, "--eval-every", "1", "--lr", "0.05")
    hashes = [weights_hash(run.path / f"{which}.safetensors") for which in ("policy", "last")]
    assert hashes[0] != hashes[1]
    reports = [report_of(call("eval", run.name, "--episodes", "6", "--which", which)) for which in ("policy", "last")]
    assert reports[0]["policies"] != reports[1]["policies"]


def test_a_gif_shows_the_whole_episode_that_was_measured(student: Run) -> None:
    run = call("eval", "--episodes", "3", "--render", "gif", "--render-episodes", "2")
    assert report_of(run)["film"] == "film.gif"
    with Image.open(run.path / "film.gif") as film:
        assert film.n_frames > 2  # type: ignore[attr-defined]
        first = np.asarray(film.convert("RGB")).copy()
        film.seek(film.n_frames - 1)  # type: ignore[attr-defined]
        assert (np.asarray(film.convert("RGB")) != first).any()


def test_a_map_of_visits_is_drawn_where_the_env_has_one(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, torch.Tensor] = {}
    monkeypatch.setattr(maps, "draw_visits", lambda path, found, *_: drawn.update(found) or path)
    call("eval", "--episodes", "2")
    assert not drawn, "CartPole has no map"
    call("train-teacher", "color_maze", *TEACHER[2:], "--total-steps", "64", "--eval-episodes", "1")
    run = call("eval", "--episodes", "6", "--num-envs", "3")
    found = drawn["teacher"]
    assert found.shape == (21, 21) and found[19, 10] >= 1, "every episode begins at the start"
    assert float(found.sum()) == pytest.approx(report_of(run)["policies"]["teacher"]["greedy"]["length"]["mean"])


def test_a_gymnasium_env_is_filmed_by_its_own_pictures(folder: Path) -> None:
    call("train-teacher", "toy_envs:toy/Dict-v0", *TEACHER[2:], "--obs", "body")
    run = call("eval", "--episodes", "3", "--render", "gif")
    with Image.open(run.path / "film.gif") as film:
        assert film.size == (80 + 112, 96), "beside what is small stands its caption"


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="without ffmpeg there is no MP4")
def test_an_mp4_is_written_where_ffmpeg_is_there(student: Run) -> None:
    run = call("eval", "--episodes", "3", "--render", "mp4")
    assert (run.path / "film.mp4").read_bytes()[4:8] == b"ftyp"


def refuse_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*args: Any) -> None:
        raise AssertionError("an env step was made")

    monkeypatch.setattr(ViewedEnv, "step", never)


def test_a_film_that_cannot_be_made_is_refused_before_anything_is_measured(
    student: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse_steps(monkeypatch)
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.setenv("PATH", "")
    assert "--render mp4 needs the program ffmpeg" in error_of(capsys, "eval", "--render", "mp4")
    assert "--render human needs a screen" in error_of(capsys, "eval", "--render", "human")
    assert not list(Path("runs").glob("0004-*"))


@pytest.mark.skipif(importlib.util.find_spec("pygame") is not None, reason="pygame is installed")
def test_a_film_of_an_env_that_draws_by_pygame_says_that_it_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    call("train-teacher", "Pendulum-v1", *TEACHER[2:], "--total-steps", "64", "--eval-episodes", "1")
    refuse_steps(monkeypatch)
    assert "drawing Pendulum-v1 needs pygame" in error_of(capsys, "eval", "--render", "gif")
    assert len(list(Path("runs").glob("0*"))) == 1


def test_a_squashed_student_of_a_plain_teacher_is_compared_by_its_actions(folder: Path) -> None:
    call("train-teacher", "Pendulum-v1", *TEACHER[2:], "--total-steps", "64", "--eval-episodes", "1")
    call(*COLLECT, "--episodes", "2")
    call(*BC, *SMALL, "--student.squash", "--loss", "mse", "--num-epochs", "1", "--eval-episodes", "1")
    run = call("eval", "--episodes", "2")
    assert run.metrics["action_distance"] > 0
    assert "kl_teacher_student" not in run.metrics


def test_a_grid_shows_as_many_episodes_at_once(student: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run = call("eval", "--episodes", "3", "--no-teacher", "--render", "gif", "--grid", "2x3")
    with Image.open(run.path / "film.gif") as film:
        assert film.size[0] == 3 * 320 + 2 * 8
    assert "give rows x columns, each from 1 to 9, such as 3x3" in error_of(capsys, "eval", "--grid", "3")
    assert "--grid is of a film" in error_of(capsys, "eval", "--grid", "3x3")


def test_a_film_shows_others_beside_it_in_the_same_episodes(student: Run, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = student.teachers[0]
    run = call("eval", student.name, "--episodes", "1", "--render", "gif", "--beside", f"teacher, twin={teacher}")
    assert report_of(run)["film_shows"] == ["student", "teacher", "twin"]
    with Image.open(run.path / "film.gif") as film:
        assert film.size[0] == 3 * 600 + 2 * 8
        film.seek(film.n_frames // 2)  # type: ignore[attr-defined]
        frame = np.asarray(film.convert("RGB"))[60:]  # below the captions
    first, second, third = frame[:, :600], frame[:, 608:1208], frame[:, 1216:]
    assert np.array_equal(second, third) and not np.array_equal(first, second)  # one policy, twice
    assert "--beside is of a film" in error_of(capsys, "eval", "--beside", "teacher")
    alone = error_of(capsys, "eval", teacher, "--render", "gif", "--beside", "teacher")
    assert "none is measured beside" in alone
    assert "other= names no run" in error_of(capsys, "eval", "--render", "gif", "--beside", "other=")
    twice = error_of(capsys, "eval", "--render", "gif", "--beside", f"{teacher},{teacher}")
    assert 'two would be called "teacher of run 1"' in twice


def test_teachers_of_joint_runs_are_filmed_beside_each_other_and_beside_one_that_learnt_alone(
    student: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("--num-envs", "4", "--rollout-steps", "16", "--total-steps", "128", "--eval-episodes", "1")
    joint = [call("sitt", "cartpole", *settings, "--student", "none", "--seed", seed).name for seed in ("3", "4")]
    beside = f"{joint[1]},alone={student.teachers[0]}"
    run = call("eval", joint[0], "--which", "teacher", "--episodes", "1", "--render", "gif", "--beside", beside)
    assert report_of(run)["film_shows"] == ["teacher", f"teacher of run {int(joint[1][:4])}", "alone"]
    nobody = error_of(capsys, "eval", joint[0], "--which", "teacher", "--render", "gif", "--beside", student.name)
    assert "--which teacher" in nobody and "has no such policy" in nobody


def test_recorded_episodes_are_those_that_were_measured_and_the_report_says_where_the_two_part(student: Run) -> None:
    run = call("eval", "--episodes", "2", "--num-envs", "1", "--record", "2")
    with h5py.File(run.path / "episodes.h5") as file:
        returns = [np.asarray(file[name].attrs["return"]).item() for name in file]
    found = report_of(run)
    assert np.mean(returns) == found["policies"]["student"]["greedy"]["return"]["mean"]
    assert file_hash(run.path / "episodes.h5") == run.manifest["artifacts"]["episodes.h5"]
    assert found["parting"]["steps"] == sum(returns), "a step of CartPole gives 1"
    assert "velocity" in found["parting"]["over"]


def test_what_an_env_measures_is_told_and_its_settings_can_be_varied(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tscli.envs.classic.pendulum import Env

    def measures(self: Env) -> dict[str, Any]:
        one = torch.ones(self.num_envs)
        return {"twice [m]": (2 * one, one), "most": (3 * one, None), "never": (one, 0 * one)}

    monkeypatch.setattr(Env, "measures", measures)
    call(
        "train-teacher",
        "pendulum",
        "--total-steps",
        "1",
        "--rollout-steps",
        "4",
        "--num-envs",
        "4",
        "--eval-episodes",
        "2",
    )
    call("eval", "--episodes", "2", "--vary", "max_episode_steps=3,5")
    report = json.loads(next(folder.glob("runs/*eval*/report.json")).read_text())
    found = report["policies"]["teacher"]["greedy"]["measures"]
    assert found["twice [m]"]["mean"] == 2 and found["most"]["mean"] == 3 and "never" not in found
    assert [(row["setting"], row["value"]) for row in report["varied"]] == [("max_episode_steps", n) for n in (3, 5)]
    assert [row["policies"]["teacher"]["length"]["mean"] for row in report["varied"]] == [3, 5]
    assert next(folder.glob("runs/*eval*/varied.png")).stat().st_size > 1000
    assert error_of(capsys, "eval", "--vary", "friction") == (
        'error: --vary "friction": write a setting of the env and its values as friction=0.2,0.6,1'
    )

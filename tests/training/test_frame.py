"""The frame around a loop: what it measures, keeps, logs and refuses."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from stage_tools import weights_hash

from tscli.config import NetworkConfig, TrainingConfig, UserError
from tscli.networks import Policy, PolicySpec
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, Training, frame, setup

pytestmark = pytest.mark.usefixtures("no_plots")
CPU = torch.device("cpu")
eval_envs = setup.eval_envs


@pytest.fixture
def policy() -> Policy:
    task = load_task("cartpole")
    env = setup.task_env(task, 1, CPU)
    return Policy(PolicySpec(setup.resolve(task, "full", env), env.action, NetworkConfig(hidden=(2,))))


@pytest.fixture
def returns(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let greedy evaluations give these returns, one after the other, and take some steps each."""

    def give(*values: float, steps: float = 0.0) -> None:
        left = list(values)

        def measure(*args: Any) -> dict[str, float]:
            return {"eval/return": left.pop(0) if left else 0.0, "eval/steps": steps}

        monkeypatch.setattr(frame, "measure", measure)

    return give


def train(folder: Path, policy: Policy, *, as_it_is: bool = False, total: int = 60, **settings: Any) -> Run:
    """Iterations of ten steps that do nothing but change the policy's first weight to their number."""
    config = TrainingConfig.model_validate({"eval_episodes": 2, "eval_every": 1, **settings})
    session = Session(folder / "runs", command="toy")
    task, keep = load_task("cartpole"), {"policy": policy}
    with Training(session, config, task, {"policy": policy, "at": State()}, keep, "student", total, 10) as training:
        if as_it_is:
            training.keep_as_it_is()
        for iteration in training.iterations():
            with torch.no_grad():
                policy.head.linear.weight[0, 0] = float(iteration)
            training.log({"left": training.left, "due": float(training.is_due()), "loss/policy": 0.5})
        return training.report((), "toy", spent=3)


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_iterations_are_counted_in_whole_ones_and_logged_by_step(
    tmp_path: Path, policy: Policy, returns: Callable[..., None]
) -> None:
    returns()
    run = train(tmp_path, policy, total=35)
    assert [(line["step"], line["iteration"], line["left"]) for line in lines(run)] == [
        *((10, 1, 1.0), (20, 2, 0.75), (30, 3, 0.5), (40, 4, 0.25)),
    ]
    assert run.metrics["step"] == 40 and run.metrics["spent"] == 3 and run.role == "student"


def test_the_best_is_kept_and_of_equals_the_later(tmp_path: Path, policy: Policy, returns: Callable[..., None]) -> None:
    returns(1.0, 5.0, 5.0, 4.0)
    run = train(tmp_path, policy, total=40)
    kept = frame.load_policy_file(run.path / "policy.safetensors")
    assert kept.head.linear.weight[0, 0] == 2 and run.metrics["best_selection_return"] == 5
    assert frame.load_policy_file(run.path / "last.safetensors").head.linear.weight[0, 0] == 3


def test_what_came_is_kept_unless_something_is_better(
    tmp_path: Path, policy: Policy, returns: Callable[..., None]
) -> None:
    returns(5.0, 4.0, 5.0)  # the equal one is the second iteration's, whose weight is 1
    run = train(tmp_path, policy, as_it_is=True, total=20)
    assert weights_hash(run.path / "policy.safetensors") != weights_hash(run.path / "last.safetensors")
    assert frame.load_policy_file(run.path / "policy.safetensors").head.linear.weight[0, 0] < 0.5
    assert run.metrics["first_selection_return"] == run.metrics["best_selection_return"] == 5


def test_it_stops_when_the_goal_was_reached_often_enough_in_a_row(
    tmp_path: Path, policy: Policy, returns: Callable[..., None]
) -> None:
    returns(9.0, 1.0, 9.0, 9.0)
    run = train(tmp_path, policy, stop_return=8.0, stop_patience=2)
    assert [line["eval/return"] for line in lines(run)] == [9.0, 1.0, 9.0, 9.0]


@pytest.mark.parametrize(("every", "measured"), [(0, [6]), (2, [2, 4, 6]), (4, [4, 6])])
def test_evaluations_come_when_due_and_at_the_end(
    tmp_path: Path, policy: Policy, returns: Callable[..., None], every: int, measured: list[int]
) -> None:
    returns()
    run = train(tmp_path, policy, eval_every=every)
    assert [line["iteration"] for line in lines(run) if "eval/return" in line] == measured
    assert [line["iteration"] for line in lines(run) if line["due"]] == measured


def test_the_report_is_of_the_best_policy_on_episodes_that_did_not_choose_it(
    tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[float, int]] = []

    def measure(policies: dict[str, Policy], env: Any, seed: int, per_slot: int) -> dict[str, float]:
        measured.append((policies["policy"].head.linear.weight[0, 0].item(), seed))
        return {"eval/return": [0.0, 9.0, 3.0, 1.0][len(measured) - 1], "eval/steps": 0}

    monkeypatch.setattr(frame, "measure", lambda named, *args: measure({"policy": named["eval"]}, *args))
    train(tmp_path, policy, total=30)
    weights, seeds = zip(*measured, strict=True)
    assert weights == (0, 1, 2, 1) and seeds[0] == seeds[1] == seeds[2] != seeds[3]


def idle(folder: Path, policy: Policy, score: tuple[str, ...] = ("eval/return",), **options: Any) -> Run:
    """Three iterations in which nothing is learnt."""
    config = TrainingConfig.model_validate({"eval_episodes": 2, "eval_every": 1})
    frame_ = (Session(folder / "runs", command="toy"), config, load_task("cartpole"), {}, {"policy": policy}, "student")
    with Training(*frame_, 30, 10, score=score) as training:
        for _ in training.iterations():
            training.log({}, **options)
        return training.report((), "toy")


def test_the_first_metric_that_the_env_tells_chooses(tmp_path: Path, policy: Policy, monkeypatch: Any) -> None:
    left = [{"eval/return": value, "eval/success_rate": 1 - value, "eval/steps": 0} for value in (0.1, 0.5, 0.3, 0.0)]
    monkeypatch.setattr(frame, "measure", lambda *args: left.pop(0))
    score = ("eval/none", "eval/success_rate", "eval/return")
    assert idle(tmp_path, policy, score).metrics["best_selection_score"] == 0.9


def test_where_success_is_told_late_it_is_no_rival_of_the_returns_before(
    tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"eval/success_rate": 0.2}
    left = [{"eval/return": 8.0, "eval/steps": 0} | found for found in ({}, told, {"eval/success_rate": 0.1}, told)]
    monkeypatch.setattr(frame, "measure", lambda *args: left.pop(0))
    assert idle(tmp_path, policy, ("eval/success_rate", "eval/return")).metrics["best_selection_score"] == 0.2


def test_an_evaluation_can_be_put_off_but_for_the_last(tmp_path: Path, policy: Policy, monkeypatch: Any) -> None:
    monkeypatch.setattr(frame, "measure", lambda *args: {"eval/return": 1.0, "eval/steps": 0})
    run = idle(tmp_path, policy, measure=False)
    assert ["eval/return" in line for line in lines(run)] == [False, False, True]


def test_elsewhere_than_in_native_envs_evaluations_wait_until_they_take_a_fifth_of_the_steps(
    tmp_path: Path, policy: Policy, returns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    returns(steps=3)
    monkeypatch.setattr(setup, "eval_envs", eval_envs_of_others)
    run = train(tmp_path, policy, total=70)  # the first is free, and room is left for the last, which always comes
    measured = [(line["iteration"], line["eval/steps"]) for line in lines(run) if "eval/return" in line]
    assert measured == [(1, 3), (3, 6), (5, 9), (7, 12)]


def test_what_evaluations_took_is_counted_on_after_a_resume(
    tmp_path: Path, policy: Policy, returns: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    returns(steps=3)
    monkeypatch.setattr(setup, "eval_envs", eval_envs_of_others)
    saved: dict[str, Any] = {}
    monkeypatch.setattr(frame, "snapshot", lambda parts: saved.update(parts["frame"].state_dict()) or {})
    train(tmp_path, policy, total=70, checkpoint_every=0)
    assert saved["eval_steps"] == 9 and saved["latest_steps"] == 3


def eval_envs_of_others(*args: Any) -> Any:
    envs = eval_envs(*args)
    for env in envs:
        env.is_native = False
    return envs


def test_a_goal_of_success_needs_an_env_that_tells(tmp_path: Path, policy: Policy) -> None:
    session, config = Session(tmp_path), TrainingConfig.model_validate({"eval_episodes": 2, "stop_success": 0.5})
    with pytest.raises(UserError, match="--stop-success: task pendulum does not tell success"):
        Training(session, config, load_task("pendulum"), {}, {"policy": policy}, "student", 9)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_a_run_in_one_line(tmp_path: Path, policy: Policy, loss: float) -> None:
    session, config = Session(tmp_path / "runs", command="toy"), TrainingConfig.model_validate({"eval_episodes": 2})
    frame_ = Training(session, config, load_task("cartpole"), {}, {"policy": policy}, "student", 9, 3, blame="--rate")
    with frame_ as training, pytest.raises(UserError, match=rf"\(loss/value is {loss} at step 6\): lower --rate$"):
        for iteration in training.iterations():
            value = 1e30 if iteration == 0 else loss
            training.log({"loss/value": value, "loss/imitation": None, "explained_variance": math.nan}, measure=False)


def test_a_short_film_is_made_every_so_often_and_at_the_end(tmp_path: Path, policy: Policy) -> None:
    run = train(tmp_path, policy, film_every=2, total=50)
    assert sorted(path.name for path in (run.path / "films").iterdir()) == [
        "000000000020.gif",
        "000000000040.gif",
        "000000000050.gif",
    ]
    with Image.open(run.path / "films" / "000000000020.gif") as film:
        assert film.size[0] == 240 and getattr(film, "n_frames", 1) > 1
    assert not (train(tmp_path, policy).path / "films").exists()

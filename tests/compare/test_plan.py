"""What a comparison consists of: methods, sweeps, budgets and views become cells."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
from comparisons import cells_of, plan
from stage_tools import RUNS

from tscli.compare.command import describe
from tscli.compare.plan import lay_out, parse_seeds, parse_sweep
from tscli.config import UserError
from tscli.launch.methods import known_methods
from tscli.plain import read_mapping
from tscli.tasks import load_task

pytestmark = pytest.mark.usefixtures("folder")


def test_bc_and_dagger_share_their_teacher_and_its_pairs() -> None:
    layout = plan("bc,dagger,no-align,sitt")
    bc, dagger = cells_of(layout, "bc"), cells_of(layout, "dagger")
    assert [cell.script.name for cell in bc] == ["train-teacher", "collect", "distill-bc", "eval"]
    assert bc[:2] == dagger[:2] and not {*bc[2:]} & {*dagger[2:]}
    assert bc[0].serves == ["bc", "dagger"] and bc[0].takes == ()
    assert bc[1].takes == ("teacher",) and set(dagger[2].takes) == {"teacher", "pairs"} and bc[3].takes == ("run",)
    assert len(layout.cells) == 2 * (2 + 4 + 2 + 2)
    order = [cell.key for cell in layout.cells]
    assert all(order.index(cell.before.key) < order.index(cell.key) for cell in layout.cells if cell.before)
    no_align, sitt = cells_of(layout, "no-align")[0].settings, cells_of(layout, "sitt")[0].settings
    assert [no_align[name] for name in ("penalty_coef", "gradient_coef", "feature_coef")] == [0, 0, 0]
    assert sitt["penalty_coef"] > 0


@pytest.mark.parametrize("task", ["quadrotor_ablations", "history_encoders"])
def test_the_methods_of_the_benchmarks_are_such(task: str) -> None:
    file = Path(__file__).parents[2] / "benchmarks" / f"{task}.yaml"
    names = list(read_mapping(file))
    comparison = describe("quadrotor" if "quadrotor" in task else "hidden_dynamics", ",".join(names), "1", file, {})
    assert [row.variant.label for row in lay_out(comparison, RUNS).rows] == names


def test_sweeps_are_multiplied_and_leave_alone_what_makes_a_method() -> None:
    sweeps = {"sitt.penalty_coef": ("0", ".1"), "sitt.align_every": ("1", "2", "5")}
    layout = plan("bc,no-align,sitt", "1", sweeps=sweeps)
    labels = [row.variant.label for row in layout.rows]
    assert labels[0] == "bc" and labels[1:4] == [f"no-align align_every={n}" for n in (1, 2, 5)]
    assert labels[4:] == [f"sitt penalty_coef={p} align_every={n}" for p in ("0", ".1") for n in (1, 2, 5)]
    cell = cells_of(layout, "sitt penalty_coef=.1 align_every=5")[0]
    assert (cell.settings["penalty_coef"], cell.settings["align_every"]) == (0.1, 5)
    assert cells_of(layout, "no-align align_every=5")[0].settings["penalty_coef"] == 0
    assert layout.notes == ["--sweep sitt.penalty_coef: method no-align, sitt, sets it itself and stays as it is"]
    # What a sweep has made serves a plain comparison of one of its values.
    plain = plan("sitt", "1", assignments={"sitt.penalty_coef": ".1"})
    assert {cell.key for cell in plain.cells} < {cell.key for cell in layout.cells}


def test_a_setting_of_one_method_of_a_family_is_given_to_that_one() -> None:
    layout = plan("bc,dagger", "1", assignments={"distill.total_steps": "77", "distill-bc.num_epochs": "3"})
    assert "total_steps" not in cells_of(layout, "bc")[2].settings
    assert cells_of(layout, "dagger")[2].settings["total_steps"] == 77
    assert cells_of(layout, "bc")[2].settings["num_epochs"] == 3


def test_a_budget_is_that_of_everything_that_starts_from_the_task() -> None:
    layout = plan("bc,dagger,sitt,asymmetric", "1", budget=12345)
    allowed = {row.variant.label: [cell.allowed_steps for cell in row.cells] for row in layout.rows}
    assert [steps[0] for steps in allowed.values()] == [12345] * 4
    assert allowed["dagger"][2] != 12345 and allowed["bc"][2] == 0


def test_views_and_network_of_a_role_are_those_of_the_task() -> None:
    settings = cells_of(plan("asymmetric", task="cartpole"), "asymmetric")[0].settings
    assert (settings["obs"], settings["critic_obs"]) == ("partial", "full")
    assert settings["network"]["kind"] == "rnn" and settings["network"]["memory"] == 32
    without = cells_of(plan("asym", task="color_maze"), "asymmetric")[0].settings  # no other method begins so
    assert without["network"]["kind"] == "mlp"


def test_what_a_method_deploys_has_trained_where_students_train() -> None:
    task = load_task("mountain_car")
    assert task.teacher_env
    names = known_methods(task)
    layout = plan(",".join(names), "1", task="mountain_car")
    for name in names:
        trained = [cell for cell in cells_of(layout, name) if cell.script.command not in ("collect", "eval")]
        places = [cell.settings.get("train_in", "env") for cell in trained]
        assert places[-1] == "env" and places[1:].count("teacher_env") == 0, name
    ours, alone = (cells_of(layout, name)[0] for name in ("dagger", "ppo"))
    assert ours.script == alone.script and ours.key != alone.key


def test_seeds_and_sweeps_are_read() -> None:
    assert parse_seeds("3") == (0, 1, 2) and parse_seeds("3,4, 7") == (3, 4, 7) and parse_seeds("7,") == (7,)
    assert parse_sweep(["a.b=1, 2", "c.d=8,8;16"]) == {"a.b": ("1", "2"), "c.d": ("8,8", "16")}
    for text in ("", "0", "x", "-1", "1,1", "1,,2", "2147483648,", "1.5"):
        with pytest.raises(UserError, match="--seeds"):
            parse_seeds(text)
    for text in ("a.b", "a.b=", "a.b=1,1"):
        with pytest.raises(UserError, match="--sweep"):
            parse_sweep([text])

"""Cells are the same where, and only where, their results would be."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
from comparisons import LEARN, cells_of, plan
from stage_tools import RUNS

from tscli.compare.command import describe
from tscli.compare.plan import kept_task, lay_out
from tscli.tasks import load_task

pytestmark = pytest.mark.usefixtures("folder")


def test_cells_differ_where_a_setting_or_a_seed_does_and_only_from_there_on() -> None:
    before, after = plan("bc"), plan("bc", assignments={"distill.lr": "0.5"})
    same = [a.key == b.key for a, b in zip(cells_of(before, "bc"), cells_of(after, "bc"), strict=True)]
    assert same == [True, True, False, False]
    assert len({cell.key for seed in (0, 1) for cell in cells_of(before, "bc", seed)}) == 8
    assert cells_of(after, "bc")[2].settings["lr"] == 0.5
    # How often a checkpoint is written, what is said beforehand, and a value that is the default change nothing.
    for assignment in ({"distill.checkpoint_every": "7"}, {"distill.diagnose": "false"}, {"distill.loss": "kl"}):
        again = plan("bc", assignments=assignment)
        assert [cell.key for cell in again.cells] == [cell.key for cell in before.cells]


def test_the_content_of_a_tasks_file_and_the_code_of_a_script_count(toys: Path) -> None:
    def keys() -> list[str]:
        comparison = describe("mine.yaml", "weak", "1", Path("methods.yaml"), {})
        return [cell.key for cell in lay_out(comparison, RUNS).cells]

    task = toys / "mine.yaml"
    task.write_text("env: {kind: cartpole}\nviews: {full: [state]}\n")
    first = keys()
    task.write_text("about: The same.\nenv: {kind: cartpole}\nviews: {full: [state]}\n")
    assert keys() == first
    (toys / "learn.py").write_text(LEARN + "\n\n# a comment\n")
    assert keys() == first
    (toys / "learn.py").write_text(LEARN.replace("90 +", "91 +"))
    assert not {*keys()} & {*first}
    (toys / "learn.py").write_text(LEARN)
    task.write_text('env: {kind: cartpole}\nviews: {full: ["state[0]"]}\n')
    assert not {*keys()} & {*first}


def test_the_robot_and_the_code_that_an_env_names_count(toys: Path) -> None:
    (toys / "my_robot.py").write_text("def make():\n    return 1\n")
    (toys / "robot.xml").write_text("<mujoco/>")
    env = "{kind: rsl, entry_point: 'my_robot:make', kwargs: {model: robot.xml, note: cartpole}}"
    (toys / "mine.yaml").write_text(f"env: {env}\nviews: {{full: [state]}}\n")

    def keys() -> set[str]:
        comparison = describe("mine.yaml", "weak", "1", Path("methods.yaml"), {})
        return {cell.key for cell in lay_out(comparison, RUNS).cells}

    found = [keys()]
    changes = {
        "robot.xml": "<mujoco><include file='arm.xml'/></mujoco>",
        "arm.xml": "<mujoco><compiler meshdir='parts'/><asset><mesh file='hand.stl'/></asset></mujoco>",
        "parts/hand.stl": "a hand",
        "my_robot.py": "import my_motor\n\n\ndef make():\n    return 2\n",
        "my_motor.py": "from my_parts.gear import ratio\n",
        "my_parts/gear.py": "ratio = 2\n",
    }
    (toys / "parts").mkdir()
    (toys / "my_parts").mkdir()
    for name, text in changes.items():
        (toys / name).write_text(text)
        found.append(keys())
    assert len(set().union(*found)) == len(found) * len(found[0])
    (toys / "unrelated.py").write_text("")
    assert keys() == found[-1]


def test_what_a_script_imports_from_beside_it_counts(toys: Path) -> None:
    def keys() -> list[str]:
        return [cell.key for cell in lay_out(describe("cartpole", "weak", "1", Path("methods.yaml"), {}), RUNS).cells]

    (toys / "learn.py").write_text(LEARN.replace("import json\n", "import json\nimport my_loss\n"))
    (toys / "my_loss.py").write_text("WEIGHT = 1\n")
    first = keys()
    (toys / "my_loss.py").write_text("WEIGHT = 2\n")
    assert not {*keys()} & {*first}


def test_a_stage_of_another_task_is_another_cell() -> None:
    usual, other = plan("bc"), plan("bc", assignments={"eval.task": "poisoned_doors"})
    same = [a.key == b.key for a, b in zip(cells_of(usual, "bc"), cells_of(other, "bc"), strict=True)]
    assert same == [True, True, True, False]
    assert [cell.key for cell in plan("bc", assignments={"eval.task": "color_maze"}).cells] == [
        c.key for c in usual.cells
    ]


def test_the_copy_of_a_tasks_file_still_finds_what_lies_beside_the_file(toys: Path) -> None:
    (toys / "robots").mkdir()
    (toys / "robots" / "arm.xml").write_text("<mujoco/>")
    source = toys / "robots" / "mine.yaml"
    source.write_text("env: {kind: quadruped, model: arm.xml}\nviews: {full: [ang_vel]}\nabout: 1:30\nstages: {}\n")
    copy = load_task(kept_task("robots/mine.yaml", RUNS))
    assert copy.env["model"] == str(source.with_name("arm.xml"))
    assert copy.model_dump(exclude={"folder"}) == load_task(str(source)).model_dump(exclude={"folder"})
    assert copy.files() == load_task(str(source)).files() == {source.with_name("arm.xml")}

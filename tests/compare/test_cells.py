"""Cells are the same where, and only where, their results would be."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
from comparisons import LEARN, cells_of, plan
from stage_tools import RUNS

from tscli.compare.command import describe
from tscli.compare.plan import lay_out

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

    first = keys()
    (toys / "robot.xml").write_text("<mujoco model='other'/>")
    second = keys()
    (toys / "my_robot.py").write_text("def make():\n    return 2\n")
    assert len(first | second | keys()) == 3 * len(first)
    assert keys() == keys()

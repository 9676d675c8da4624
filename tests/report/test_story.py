"""What a run was told, and what has to be typed to tell it again."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import toy_runs

from tscli import tasks
from tscli.launch.scripts import find_script, light_config
from tscli.report.story import changed_settings, command_of
from tscli.runs import Session
from tscli.tasks import load_task


def test_the_command_says_what_the_task_does_not_also_where_that_is_the_default(session: Session) -> None:
    task = load_task("cartpole")
    model = light_config(find_script("train-teacher"))
    told = {"eval_every": 10, "stop_return": task.stages["train-teacher"]["stop_return"], "seed": 7}
    with session.start(model(task="cartpole", **told), "train-teacher", "cartpole") as run:  # type: ignore[call-arg]
        made = run.finish({})
    changed = {change.name: change for change in changed_settings(made, task)}
    assert (changed["eval_every"].value, changed["eval_every"].default) == ("10", "10"), "the task says another"
    assert changed["stop_return"].by_task
    words = command_of(made, task)
    assert words.startswith("tscli train-teacher cartpole --set")
    assert "--set eval_every=10" in words
    assert "--set seed=7" in words
    assert "stop_return" not in words


def test_a_path_of_this_machine_is_no_part_of_the_command(session: Session, tmp_path: Path) -> None:
    own = tmp_path / "mine.yaml"
    own.write_text((Path(tasks.__file__).parent / "color_maze.yaml").read_text())
    teacher = toy_runs.teacher(session)
    model = light_config(find_script("sitt"))
    with session.start(
        model(task=str(own), teacher=str(teacher.path)),  # type: ignore[call-arg]
        "sitt",
        str(own),
        parents={"start": teacher},
    ) as run:
        made = run.finish({})
    words = command_of(made, load_task(made.task))
    assert words.startswith(f"tscli sitt mine.yaml --teacher {teacher.name} --set")
    assert str(tmp_path) not in words and "teacher=" not in words

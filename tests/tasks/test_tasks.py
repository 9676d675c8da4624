"""Tasks: the bundled ones, a user's file, any Gymnasium id."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tscli.config import UserError, ViewPart
from tscli.envs import make_env
from tscli.envs.views import resolve_view
from tscli.tasks import Task, load_task, task_names
from tscli.training.setup import task_env


def env_of(task: Task):
    try:
        return make_env(task.env, 1)
    except UserError as error:
        if "pip install" in str(error):
            pytest.skip(str(error))
        raise


@pytest.mark.parametrize("name", task_names())
def test_every_bundled_tasks_views_fit_its_env(name: str) -> None:
    task = load_task(name)
    assert task.name == name and task.about.endswith(".")
    env = env_of(task)
    for view, parts in task.views.items():
        spec = resolve_view(view, parts, env.groups, env.action)
        assert spec.vector_size or spec.images
    student = resolve_view("student", task.views[task.student], env.groups, env.action)
    assert not any(env.groups[group].privileged for group in student.groups)
    env.close()


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_users_file_is_a_task(tmp_path: Path) -> None:
    text = """
    env: {kind: cartpole, max_episode_steps: 100}
    views:
      full: state
      noisy:
        - {group: state, index: [0, angle], noise: 0.1, delay: 2}
        - previous_action
      range: ["state[0:2] + previous_action"]
    teacher: full
    student: noisy
    """
    task = load_task(write(tmp_path, text))
    assert task.name == "mine" and task.env["max_episode_steps"] == 100
    noisy = ViewPart(group="state", index=("0", "angle"), noise=0.1, delay=2)
    assert task.view("noisy") == (noisy, ViewPart(group="previous_action"))
    assert task.view("range") == task.view("state[0:2] + previous_action")
    assert task.view("full") == (ViewPart(group="state"),)


GOOD = "env: {kind: cartpole}\nviews: {full: [state]}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no mapping"),
        ("[1, 2]", "holds no mapping"),
        ("a: [", "is not valid YAML"),
        ("views: {full: [state]}", "env is required"),
        (GOOD + "studnet: full", 'unknown setting "studnet": did you mean "student"?'),
        (GOOD + "student: ful", 'student: there is no view "ful": did you mean "full"?'),
        ("env: {kind: cartpole}\nviews: [state]", "views is a mapping from a name"),
        ("env: {kind: cartpole}\nviews: {full: 3}", 'view "full" is a list of parts'),
        ("env: {kind: cartpole}\nviews: {full: ['state[']}", 'view "state[" cannot be read'),
        ("env: {kind: cartpole}\nviews: {full: [{group: state, nois: 1}]}", 'did you mean "noise"?'),
        ("env: {kind: cartpole}\nviews: {full: [{group: state, delay: -1}]}", "delay"),
    ],
)
def test_a_faulty_file_is_one_line_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_task(write(tmp_path, text))
    assert message in str(caught.value) and "mine.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_may_extend_a_bundled_task_key_by_key(tmp_path: Path) -> None:
    base = load_task("color_maze")
    task = load_task(write(tmp_path, "extends: color_maze\nenv: {encoding: numeric}\nstages: {sitt: {lr: 0.5}}\n"))
    assert task.name == "mine" and task.views == base.views
    assert task.env == {**base.env, "encoding": "numeric"} and task.eval_env == base.eval_env
    assert task.stages["sitt"] == {**base.stages["sitt"], "lr": 0.5}
    assert task.stages["train-teacher"] == base.stages["train-teacher"]
    with pytest.raises(UserError, match=r'extends: no task "color_mace" comes with tscli: did you mean "color_maze"'):
        load_task(write(tmp_path, "extends: color_mace\n"))


def test_a_base_may_extend_another_task_itself(tmp_path: Path) -> None:
    text = "extends: popgym_noisy_cartpole_hard\nenv: {max_episode_steps: 40}\n"
    task = load_task(write(tmp_path, text))
    easy = load_task("popgym_cartpole_easy")
    assert task.env == {**easy.env, "position_noise": 0.3, "max_episode_steps": 40}
    assert task.stages["train-teacher"]["total_steps"] == easy.stages["train-teacher"]["total_steps"]


def test_a_missing_or_binary_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*none.yaml: No such file"):
        load_task(str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(UserError, match="is not valid YAML"):
        load_task(str(tmp_path / "binary.yaml"))


@pytest.mark.parametrize(
    ("name", "hint"),
    [("cartpol", '"cartpole"'), ("Pendulm-v1", '"Pendulum-v1"'), ("zzz", "a YAML file, or any Gymnasium id")],
)
def test_an_unknown_task_names_the_closest(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=f'unknown task "{name}"') as caught:
        load_task(name)
    assert hint in str(caught.value) and "\n" not in str(caught.value)


def test_a_misspelt_view_is_not_taken_for_a_group() -> None:
    task = load_task("cartpole")
    with pytest.raises(UserError, match='task cartpole has no view "partal": did you mean "partial"'):
        task.view("partal")
    assert task.view("state") == (ViewPart(group="state"),)  # a group that a view uses
    assert task.view("previous_action + 0") == (ViewPart(group="previous_action"), ViewPart(group="", index=("0",)))


def test_any_gymnasium_id_is_a_task_of_all_its_groups() -> None:
    task = load_task("MountainCarContinuous-v0")
    assert task.name == "MountainCarContinuous-v0" and task.teacher == task.student == "full"
    env = env_of(task)
    assert resolve_view("full", task.views["full"], env.groups, env.action).vector_size == 2
    env.close()


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_an_id_means_gymnasiums_own_env_also_where_a_bundled_task_is_its_native_twin(env_id: str) -> None:
    task = load_task(env_id)
    assert task.env == {"kind": "gym", "id": env_id} and list(task.views) == ["full"]


def test_a_file_of_an_env_alone_shows_all_of_its_groups(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, "env: {kind: gym, id: CartPole-v1, max_episode_steps: 9}\n"))
    assert task.views == load_task("CartPole-v1").views and task.env["max_episode_steps"] == 9


def test_a_module_beside_the_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    source = "import gymnasium\nclass Half(gymnasium.wrappers.TimeLimit):\n    pass\n"
    (tmp_path / "half_beside.py").write_text(source, encoding="utf-8")
    wrappers = "[{half_beside.Half: {max_episode_steps: 3}}]"
    task = load_task(write(tmp_path, f"env: {{kind: gym, id: CartPole-v1, wrappers: {wrappers}}}\n"), named=True)
    env = env_of(task)
    ends = [bool(env.step(torch.ones(1, dtype=torch.int64)).truncated) for _ in range(3)]
    assert ends == [False, False, True]


def test_a_teacher_may_train_in_an_env_of_its_own(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, "extends: cartpole\nteacher_env: {max_episode_steps: 77}\n"))
    steps = {
        purpose: task_env(task, 1, torch.device("cpu"), purpose).max_episode_steps
        for purpose in ("teacher", "train", "select", "report")
    }
    assert steps == {"teacher": 77, "train": 500, "select": 500, "report": 500}

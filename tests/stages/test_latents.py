"""Latents, made of what is privileged and inferred from what is sensed: `ts`, `cts`, and `distill --method latent`."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from stage_tools import LATENT, LATENT_TEACHER, TINY_LATENT, call, error_of, metrics_of

from tscli.cli.pages import next_step
from tscli.networks import Policy
from tscli.networks.files import load_policy_file
from tscli.runs import Run

pytestmark = pytest.mark.usefixtures("no_plots")


def policies_of(run: Run, *names: str) -> list[Policy]:
    return [load_policy_file(run.path / f"{name}.safetensors") for name in names]


def same(a: Policy, b: Policy, module: str) -> bool:
    ours, theirs = (policy.get_submodule(module).state_dict() for policy in (a, b))
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("stage", ["ts", "cts"])
def test_student_and_teacher_are_one_actor_with_two_ways_to_its_latent(folder: Path, stage: str) -> None:
    run = call(stage, *TINY_LATENT)
    assert (run.command, run.role, run.teacher_policy) == (stage, "student", "teacher")
    student, teacher = policies_of(run, "policy", "teacher")
    assert same(student, teacher, "encoder.body") and same(student, teacher, "head")
    assert teacher.spec.latent is not None and student.encoder.norm is not None and teacher.encoder.norm is not None
    own = list(teacher.spec.latent.own)
    assert own == [0, 1, 2, 3] and teacher.spec.latent.reads == (4, 5, 6, 7, 8)
    assert torch.equal(student.encoder.norm.mean, teacher.encoder.norm.mean[own])
    assert run.metrics.keys() >= {"latent/mse", "latent/r2_mass", "latent/r2_teacher_delay", "eval_teacher/return"}
    assert all(line["loss/latent"] > 0 for line in metrics_of(run))
    report = json.loads((call("eval", "--episodes", "4").path / "report.json").read_text())
    assert report["policies"].keys() == {"student", "teacher"}


@pytest.mark.parametrize("option", [(), ("--student-rl-gradient",)])
def test_rewards_reach_the_students_encoder_only_where_that_is_asked_for(folder: Path, option: tuple[str, ...]) -> None:
    runs = [
        call("cts", *TINY_LATENT, "--encoder-epochs", "0", *option, "--total-steps", steps) for steps in ("64", "192")
    ]
    (short,), (long,) = (policies_of(run, "last") for run in runs)
    learnt = not same(short, long, "encoder.inner")
    assert learnt == bool(option)
    assert not same(short, long, "encoder.body")  # the actor learns either way


def test_rma_keeps_the_teachers_actor_and_lee_moves_a_copy_of_it(folder: Path) -> None:
    made = call(*LATENT_TEACHER)
    assert next_step([made]) == "tscli distill --method latent"
    (teacher,) = policies_of(made, "policy")
    for actor in ("shared", "own"):
        run = call(*LATENT, "--actor", actor, "--teacher", "1")
        (student,) = policies_of(run, "last")
        assert same(student, teacher, "encoder.body") == same(student, teacher, "head") == (actor == "shared")
        first, last = metrics_of(run)[0], metrics_of(run)[-1]
        assert last["loss/latent"] < first["loss/latent"]
        assert ("loss/action" in last) == (actor == "own")
        assert run.teachers[0].startswith("0001") and run.metrics["latent/mse"] > 0


def test_what_is_not_the_method_fits_into_forty_lines() -> None:
    import re

    path = Path(__file__).parents[2] / "stages" / "ts.py"
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    # Counted are the imports, what sets the stage up, what is handed to the frame and asked of it, and the last block,
    # which makes it a program.
    plumbing = r"setup\.(prepare|task_env|resolve)\(|load_task\(|(parts|frame)\b|.*\bTraining\(|.*\btraining\."
    block = lines.index('if __name__ == "__main__":')
    others = [line for line in lines[:block] if re.match(rf"(from|import) |(.* = )?({plumbing})", line)]
    assert len(others) + len(lines[block:]) <= 40


def test_latents_that_cannot_be_are_refused_before_any_work(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "has nothing that the student's view" in error_of(capsys, "ts", *TINY_LATENT, "--student-obs", "full")
    assert "does not show" in error_of(capsys, "ts", *TINY_LATENT, "--obs", "state + dynamics")
    assert "needs no memory" in error_of(capsys, "cts", *TINY_LATENT, "--encoder", "gru")
    assert "leaves one of the two without an env" in error_of(capsys, "cts", *TINY_LATENT, "--student-fraction", "0.01")
    assert "does not divide the student's" in error_of(capsys, "cts", *TINY_LATENT, "--num-minibatches", "8")
    teacher = call(*LATENT_TEACHER, "--latent-size", "0")
    assert next_step([teacher]) == "tscli collect"
    assert "has no latent to be inferred: train it with --latent-size" in error_of(capsys, *LATENT)

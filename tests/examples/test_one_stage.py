"""The example of an own method: its student acts by the teacher's actor, with a latent of its own."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from stage_tools import call

from tscli.networks.files import load_policy_file

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "one_stage.py"
TASK = """
extends: cartpole_mixed
views: {full: [state, previous_action, task], own: [state, previous_action]}
teacher: full
student: own
"""
TINY = (
    *("--total-steps", "128", "--num-envs", "4", "--rollout-steps", "16", "--num-minibatches", "2"),
    *("--num-epochs", "1", "--eval-every", "1", "--eval-episodes", "4", "--network.hidden", "8"),
    *("--encoder.hidden", "8", "--history.hidden", "8", "--history.history", "3", "--latent-size", "2"),
)


def test_its_student_acts_by_the_teachers_actor_from_a_latent_of_its_own(folder: Path, no_plots: None) -> None:
    (folder / "hidden.yaml").write_text(TASK)
    run = call("run", str(EXAMPLE), "hidden.yaml", *TINY)
    assert (run.command, run.role, run.teacher_policy) == ("one-stage", "student", "teacher")
    student, teacher = (load_policy_file(run.path / f"{name}.safetensors") for name in ("policy", "teacher"))
    for module in ("encoder.body", "head"):
        ours, theirs = (policy.get_submodule(module).state_dict() for policy in (student, teacher))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    generator = torch.Generator().manual_seed(1)
    seen = torch.randn(1, 6, teacher.spec.view.vector_size, generator=generator)
    first = torch.ones(1, 6, dtype=torch.bool)
    by_history, _ = student.encoder.latent(
        {"vector": seen[..., : student.spec.view.vector_size]}, student.initial_hidden(6), first
    )
    by_encoder, _ = teacher.encoder.latent({"vector": seen}, teacher.initial_hidden(6), first)
    assert by_history.shape == by_encoder.shape == (1, 6, 2) and not torch.allclose(by_history, by_encoder)

    report = json.loads((call("eval", "--episodes", "4").path / "report.json").read_text())
    assert report["policies"].keys() == {"student", "teacher"}


def test_what_is_not_the_method_fits_into_forty_lines() -> None:
    lines = [line.strip() for line in EXAMPLE.read_text().splitlines() if line.strip()]
    # Counted are the imports, what sets the stage up, what is handed to the frame and asked of it, the report with its
    # panels, and the last block, which makes it a program.
    plumbing = r"setup\.(prepare|task_env|resolve)\(|load_task\(|(parts|frame|panels)\b|.*\bTraining\(|.*\btraining\."
    block = lines.index('if __name__ == "__main__":')
    others = [line for line in lines[:block] if re.match(rf"(from|import) |(.* = )?({plumbing})", line)]
    assert len(others) + len(lines[block:]) <= 40

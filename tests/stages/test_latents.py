"""Latents, made of what is privileged and inferred from what is sensed: `ts`, `cts`, and `distill --method latent`."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from stage_tools import LATENT, LATENT_TEACHER, RUNS, TINY_LATENT, Remember, call, error_of, metrics_of
from updates import TINY, Watch, make_teacher, no_gradient, short_task

from tscli.learning.imitation import imitation_loss
from tscli.networks import Policy
from tscli.networks.files import load_policy_file
from tscli.runs import Run, list_runs
from tscli.training import frame, setup

pytestmark = pytest.mark.usefixtures("no_plots")
OWN = "state[angle, position]"  # not in the teacher's order
PARTIAL = (
    *("--student-obs", OWN, "--latent-size", "2", "--encoder-epochs", "2", "--encoder-lr", "0.01"),
    *("--network.hidden", "8", "--encoder.hidden", "8", "--student.hidden", "8"),
)


@pytest.fixture
def no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what is asked of the latents at the end."""
    monkeypatch.setattr(frame, "understood", lambda *args: {})


def make_latent_teacher() -> None:
    """It acts by what its task's student sees, and a latent of the rest."""
    task = Path(short_task())
    views = f'{{full: [state], own: "{OWN}"}}\nstudent: own'
    task.write_text(task.read_text().replace("{full: [state]}\nstudent: full", views))
    call("train-teacher", str(task), *TINY, "--network.hidden", "8", "--latent-size", "2")


def policies_of(run: Run, *names: str) -> list[Policy]:
    return [load_policy_file(run.path / f"{name}.safetensors") for name in names]


def same(a: Policy, b: Policy, module: str) -> bool:
    ours, theirs = (policy.get_submodule(module).state_dict() for policy in (a, b))
    assert ours.keys() == theirs.keys()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("stage", ["ts", "cts"])
def test_student_and_teacher_are_one_actor_with_two_ways_to_its_latent(folder: Path, stage: str) -> None:
    Path("joint.yaml").write_text("extends: hidden_dynamics\nenv: {max_episode_steps: 12}\n")
    run = call(stage, "joint.yaml", *TINY_LATENT[1:])
    assert (run.command, run.role, run.teacher_policy) == (stage, "student", "teacher")
    student, teacher = policies_of(run, "policy", "teacher")
    assert same(student, teacher, "encoder.body") and same(student, teacher, "head")
    assert teacher.spec.latent is not None and student.encoder.norm is not None and teacher.encoder.norm is not None
    own = list(teacher.spec.latent.own)
    assert own == [0, 1, 2, 3] and teacher.spec.latent.reads == (4, 5, 6, 7, 8)
    assert torch.equal(student.encoder.norm.mean, teacher.encoder.norm.mean[own])
    assert run.metrics.keys() >= {"latent/mse", "latent/r2_mass", "latent/r2_teacher_delay", "eval_teacher/return"}
    ours, theirs = ([run.metrics[f"latent/r2_{of}{name}"] for name in ("mass", "delay")] for of in ("", "teacher_"))
    assert ours != theirs
    assert all(line["loss/latent"] > 0 for line in metrics_of(run))
    report = json.loads((call("eval", "--episodes", "4").path / "report.json").read_text())
    assert report["policies"].keys() == {"student", "teacher"}


def follow(watch: Watch) -> torch.Tensor:
    """The loss of the student's encoder on the minibatch at hand: how far its latent is from the teacher's."""
    part, student = watch.part, watch.parts["student"]
    assert not part.goal.requires_grad
    return (student.encoder.latent(part.student_obs, part.hidden, part.reset)[0] - part.goal).square().mean()


def goal_of(watch: Watch) -> torch.Tensor:
    teacher = watch.parts["teacher"]
    return teacher.encoder.latent(watch.part.obs, teacher.initial_hidden(1), None)[0]


@pytest.mark.parametrize("kind", ["history", "gru"])
def test_one_stage_is_ppo_of_the_teacher_and_an_encoder_that_follows_its_latent(
    folder: Path, monkeypatch: pytest.MonkeyPatch, no_probe: None, kind: str
) -> None:
    before, known = torch.zeros(0), 0

    def check(watch: Watch, name: str) -> None:
        nonlocal before, known
        part, student = watch.part, watch.parts["student"]
        if name == "optimizer":
            dist, _ = watch.parts["teacher"](part.obs, part.hidden, part.reset)
            value, _ = watch.parts["critic"](part.value_obs, part.critic_hidden, part.reset)
            watch.assert_first_is_as_it_acted(name, dist, value)
            entropy = watch.config.entropy_coef * dist.entropy().mean()
            return watch.assert_gradient(name, watch.surrogate(dist) + watch.value_loss(value) - entropy)
        if known < watch.rollouts:  # its memory is carried through what the teacher did
            before = before if known else student.initial_hidden(4)[:, : student.encoder.inner_size]
            obs = {"vector": watch.rollout.student_obs["vector"]}
            before = student.encoder.latent(obs, before, watch.rollout.reset[:-1])[1].detach()
            torch.testing.assert_close(watch.parts["at"].student_hidden, before)
            known = watch.rollouts
        torch.testing.assert_close(part.goal, goal_of(watch))
        return watch.assert_gradient(name, follow(watch))

    watch = Watch(monkeypatch, check)
    call("ts", short_task(), *TINY, *PARTIAL, "--student", kind, "--student.memory", "8")
    assert watch.updates == {"optimizer": 12, "student_optimizer": 12}
    assert_normalisers_are_one(watch)


@pytest.mark.parametrize("option", [(), ("--student-rl-gradient",)], ids=["inferred", "learnt"])
def test_both_groups_move_one_actor_and_rewards_reach_the_students_encoder_only_where_that_is_asked_for(
    folder: Path, monkeypatch: pytest.MonkeyPatch, no_probe: None, option: tuple[str, ...]
) -> None:
    def check(watch: Watch, name: str) -> None:
        if name == "student_optimizer":
            if not (option and watch.updates["optimizer"] - updates[-1]):
                torch.testing.assert_close(watch.part.goal, goal_of(watch))
                return watch.assert_gradient(name, follow(watch))
            updates.append(watch.updates["optimizer"])  # that gradient was looked at before the actor's step
            return None
        loss = torch.zeros(())
        for policy, part, share in (("student", watch.former, 0.25), ("teacher", watch.part, 0.75)):
            watch.part = part
            seen = part.obs if policy == "teacher" else part.student_obs
            encoder, head = watch.parts[policy].encoder, watch.parts[policy].head
            with torch.set_grad_enabled(policy == "teacher" or bool(option)):
                code, _ = encoder.latent(seen, part.hidden, part.reset)
            dist = head(encoder.behind(code, seen, part.hidden[:, encoder.inner_size :], part.reset)[0])
            value, _ = watch.parts["critic"](part.value_obs, part.critic_hidden, part.reset)
            watch.assert_first_is_as_it_acted(name, dist, value)
            entropy = watch.config.entropy_coef * dist.entropy().mean()
            loss = loss + share * (watch.surrogate(dist) + watch.value_loss(value) - entropy)
        student = watch.parts["student"]  # whose encoder has no gradient unless asked for
        learning = [watch.parts["teacher"], watch.parts["critic"], student.encoder.inner, student.encoder.to_latent]
        return watch.assert_gradient(name, loss, torch.nn.ModuleList(learning))

    updates = [0]
    watch = Watch(monkeypatch, check)
    call("cts", short_task(), *TINY, *PARTIAL, "--student.history", "3", *option)
    assert watch.updates == {"optimizer": 12, "student_optimizer": 24 if option else 12}
    assert_normalisers_are_one(watch)


def assert_normalisers_are_one(watch: Watch) -> None:
    counts = [dict.fromkeys(("teacher", "student", "critic"), 32 * i) for i in range(4)]
    assert [*watch.norms, watch.counts()] == counts
    student, teacher = (watch.parts[name].encoder.norm for name in ("student", "teacher"))
    assert torch.equal(student.mean, teacher.mean[[2, 0]])


def test_lee_learns_latents_and_actions_where_the_student_goes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, no_probe: None
) -> None:
    make_latent_teacher()
    monkeypatch.setattr(setup, "open_policy", remember := Remember(setup.open_policy))

    def check(watch: Watch, name: str) -> None:
        (teacher, before), part, student = remember.opened[0], watch.part, watch.parts["student"]
        assert all(torch.equal(before[key], value) for key, value in teacher.state_dict().items())
        if not watch.updates:  # it has not moved since it acted
            acted, _ = student(watch.rollout.obs, student.initial_hidden(4), watch.rollout.reset)
            assert torch.equal(acted.mode(), torch.stack(watch.actions))
        start = teacher.initial_hidden(part.reset.shape[1])
        torch.testing.assert_close(part.goal, teacher.encoder.latent(part.teacher_obs, start, None)[0])
        wanted, _ = teacher(part.teacher_obs, start, None)
        dist, _ = student(part.obs, part.hidden, part.reset)
        guess, _ = student.encoder.latent(part.obs, part.hidden, part.reset)
        apart = imitation_loss(dist, no_gradient(wanted), wanted.mode(), "kl").mean()
        watch.assert_gradient(name, (guess - part.goal).square().mean() + 0.3 * apart)

    watch = Watch(monkeypatch, check)
    options = ("--actor", "own", "--loss", "kl", "--action-coef", "0.3")
    run = call(*LATENT, "--total-steps", "64", *options)
    assert watch.updates == {"optimizer": 4}
    assert "loss/action" in metrics_of(run)[-1]


def test_rma_keeps_the_teachers_actor(folder: Path, no_probe: None) -> None:
    make_latent_teacher()
    (teacher,) = policies_of(list_runs(RUNS)[-1], "policy")
    run = call(*LATENT, "--actor", "shared")
    (student,) = policies_of(run, "last")
    assert same(student, teacher, "encoder.body") and same(student, teacher, "head")
    assert student.encoder.norm is not None and teacher.encoder.norm is not None
    assert torch.equal(student.encoder.norm.mean, teacher.encoder.norm.mean[[2, 0]])
    first, last = metrics_of(run)[0], metrics_of(run)[-1]
    assert last["loss/latent"] < first["loss/latent"] and "loss/action" not in last
    assert run.teachers[0].startswith("0001")


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
    one = ("--num-envs", "8", "--rollout-steps", "4", "--num-minibatches", "4", "--student-fraction", "0.125")
    assert "leaves the student minibatches of one step" in error_of(
        capsys, "cts", *TINY_LATENT, *one, "--student", "mlp"
    )
    assert "needs no memory" in error_of(capsys, *LATENT_TEACHER, "--encoder", "gru")
    make_teacher()
    assert "has no latent to be inferred: train it with --latent-size" in error_of(capsys, *LATENT)

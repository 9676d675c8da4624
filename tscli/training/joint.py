"""The networks of a teacher and a student that learn together, and where the teacher's may begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from tscli import ranks, streams
from tscli.config import JointConfig, UserError
from tscli.envs import VecEnv
from tscli.envs.views import ViewSpec
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Critic, Policy, PolicySpec
from tscli.runs import Run, newest_run
from tscli.runs.session import Session
from tscli.tasks import Task
from tscli.training import setup


def networks(
    config: JointConfig, teacher_view: ViewSpec, student_view: ViewSpec, env: VecEnv, shared_head: bool
) -> tuple[Policy, Critic, Policy, Policy]:
    """Teacher (F_T and A), critic, student (F_S) and its proxy in the teacher's view, with one head A if it is shared.

    Raises:
        UserError: a shared head, and latents that differ in size.
    """
    seed, device = config.seed, env.device
    teacher_spec = PolicySpec(teacher_view, env.action, config.network)
    student_spec = PolicySpec(student_view, env.action, config.student or config.network)
    with streams.seeded_init(seed, "teacher"):
        teacher = Policy(teacher_spec).to(device)
    with streams.seeded_init(seed, "critic"):
        critic = Critic(teacher_view, config.network).to(device)
    with streams.seeded_init(seed, "student"):
        student, proxy = Policy(student_spec).to(device), Policy(teacher_spec).to(device)
    if shared_head:
        sizes = teacher.encoder.output_size, student.encoder.output_size
        if sizes[0] != sizes[1]:
            raise UserError(
                f"a shared head needs latents of one size: the teacher's is {sizes[0]}, the student's {sizes[1]}: make "
                "them equal, or give --no-shared-head"
            )
        student.head = proxy.head = teacher.head
    return teacher, critic, student, proxy


def begin_from(teacher: Policy, name: str, session: Session, env: VecEnv) -> dict[str, Run]:
    """Give a teacher the weights of a finished one; the run that they are from, by its role, or none without a name.

    Raises:
        UserError: no such run, or another view or network.
    """
    if not name:
        return {}
    run = newest_run(session.runs_dir, name, "policy", "--teacher", "teacher")
    start = setup.open_teacher(run, env, teacher.head.linear.weight.device)
    if _wherever_its_encoder(start.spec) != _wherever_its_encoder(teacher.spec):
        raise UserError(
            f"--teacher {name}: {run.name} has another view or network than this teacher would: give --obs and "
            "--network as they were there"
        )
    teacher.load_state_dict(start.state_dict())
    return {"start": run}


def _wherever_its_encoder(spec: PolicySpec) -> PolicySpec:
    """A policy brings a frozen encoder along, which is known by its hash."""
    image = spec.network.image.model_copy(update={"path": ""})
    return replace(spec, network=spec.network.model_copy(update={"image": image}))


def practice(
    task: Task,
    num_envs: int,
    views: Mapping[str, ViewSpec],
    seed: int,
    device: torch.device,
    start: torch.Generator | None,
) -> ViewedEnv | None:
    """Envs in which the student itself acts, as begun some steps ago where there is `start`; None if it is given none.

    Raises:
        UserError: fewer of them than processes.
    """
    if not num_envs:
        return None
    env = setup.task_env(task, ranks.share(num_envs, "--student-envs"), device)
    return ViewedEnv(env, views, streams.derive(seed, "practice"), start=start, name="env_student")

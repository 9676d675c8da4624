"""Tell what would keep a student from learning: how good the teacher is, and what the student can know.

It answers "my loss does not fall, what is wrong?" in sentences: the teacher beside random actions, its normaliser and
its actions' bounds; whether the stored labels come out again; inputs that never change or are very large; and how well
the teacher's action can be guessed from the student's view, against from its own. What it finds is no error, and no run
is written. `tscli distill` makes the cheap ones of these checks itself.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from rich.markup import escape

from tscli import streams
from tscli.config import Config as BaseConfig
from tscli.config import Network, StageConfig, UserError
from tscli.diagnose import diagnosis
from tscli.diagnose.probe import Effort
from tscli.diagnose.sample import Sample, read_sample, roll_out, steps_within
from tscli.envs.views import ViewSpec
from tscli.pairs import Pairs
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import setup
from tscli.training.teachers import TeacherRuns, find_pairs, find_teachers

ORDER = 25
ENVS = 64
PICTURES = 64.0  # MB
EFFORT = Effort(fit_rows=4000, test_rows=1000, units=256, updates=400, hurry=False)


class Config(BaseConfig):
    """Whom to look at."""

    teacher: str = Field(
        "", description="Run of the teacher: number, name, path, task or best; empty goes on from the newest."
    )
    pairs: str | None = Field(
        "", description="Run of collected pairs; empty takes this teacher's newest, none rolls the teacher out instead."
    )
    obs: str = Field("", description="View of the student; empty takes the task's student view.")
    student: Network | None = Field(
        None, description="Body of the student; none takes that of the task's settings for distill."
    )
    episodes: int = Field(
        100, ge=2, le=1_000_000, description="Episodes of the teacher, and as many of random actions."
    )
    steps: int = Field(20_000, ge=100, description="Steps with the teacher's labels that are looked at.")
    seed: int = Field(1, ge=0, lt=2**31, description="Seed of the episodes and of the choice of steps.")
    threads: int = Field(1, ge=0, le=1024, description="CPU threads of torch; 0 takes all.")
    device: str = Field("cpu", description="Where the teacher acts: cpu, cuda, cuda:1, or auto.")


def main(config: Config, session: Session) -> None:
    """Look at the teacher, then at steps with its labels, and say what was found."""
    device = setup.prepare(StageConfig(device=config.device, threads=config.threads))
    teachers = find_teachers(session, config.teacher, "", "", config.pairs)
    if len(teachers.runs) != 1:
        raise UserError(f"several teachers ({teachers.name}) are looked at one by one: give --teacher one of them")
    task = load_task(teachers.task)
    env = setup.task_env(task, setup.slots_within(task, ENVS), device)
    (teacher_run,) = teachers.runs
    teacher = setup.open_teacher(teacher_run, env, device)
    view = setup.resolve(task, config.obs or task.student, env)
    network = config.student or diagnosis.students_network(task)
    pairs_run = usable_pairs(session, config.pairs, teachers, (teacher.spec.view, view))
    session.say(f"teacher: {teacher_run.name}; pairs: {pairs_run.name if pairs_run else 'none, it is rolled out'}")

    seed = streams.derive(config.seed, "diagnose")
    wanted = steps_within(config.steps, (teacher.spec.view, view), PICTURES)
    if pairs_run is not None:
        pairs = Pairs(pairs_run.path / "pairs", verify="size")
        sample: Sample = read_sample(pairs, teacher.spec.view, view, wanted, seed)
    else:
        sample = roll_out(teacher, env, view, wanted, seed)
    env.close()
    recorded = pairs_run is not None
    findings = [
        diagnosis.how_good(teacher, task, config.episodes, seed, device),
        *diagnosis.sample_findings(teacher, sample, recorded, network, EFFORT, seed, diagnosis.students_window(task)),
    ]
    data: dict[str, Any] = {"task": task.name, "teacher": teacher_run.name, "view": view.name}
    data |= {"pairs": pairs_run.name if pairs_run else None, "steps": sample.num_steps}
    session.show(diagnosis.findings_table(findings), data | {"findings": [finding.to_json() for finding in findings]})


def usable_pairs(
    session: Session, ref: str | None, teachers: TeacherRuns, views: tuple[ViewSpec, ViewSpec]
) -> Run | None:
    """The pairs to look at; None where there are none, or where those that nobody named lack a group of a view.

    Raises:
        UserError: the named pairs are of another teacher, or lack a group.
    """
    run = find_pairs(session, ref, teachers)
    if run is None:
        return None
    try:
        for view in views:
            setup.check_pairs_view([run.path / "pairs"], view)
    except UserError as error:
        if ref:
            raise
        session.say(escape(str(error)))
        return None
    return run


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

"""Find out what the robot must sense: distill one teacher into students that see less and less.

Probes say first how much of the teacher's action each sensor tells, now and with the past. Then students are distilled
by backward elimination, once with memory and once without: from all sensors downwards, the ones that the probes miss
least go first, as long as the return stays; every student is measured on the same episodes. Of the smallest set that
loses nothing it is tried how much noise, delay and dropout of each sensor its student bears. Pairs record every group,
so one teacher and its pairs serve them all. The students are cells, as those of `tscli compare`: what is finished is
never made again.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from tscli import streams
from tscli.compare.cells import Cell
from tscli.config import Network, NetworkConfig, StageConfig, UserError, positional
from tscli.diagnose.diagnosis import students_network
from tscli.diagnose.sample import read_sample, steps_within
from tscli.pairs import Pairs
from tscli.report.story import command_of
from tscli.report.write import announce_page
from tscli.runs import Run, list_runs, newest_run, read_run, task_stem
from tscli.runs.folder import FINISHED
from tscli.runs.session import Session
from tscli.sensors import picture, words
from tscli.sensors.bearing import find_bearings
from tscli.sensors.knowing import ask_probes
from tscli.sensors.results import Results
from tscli.sensors.search import Measured, Scale, kept, wanted
from tscli.sensors.sets import Candidate, find_sensors, parse_costs, sensor_view
from tscli.sensors.students import Measure, Workshop
from tscli.tasks import load_task
from tscli.training import setup
from tscli.training.teachers import TeacherRuns, find_pairs

ORDER = 26
STAGES = ("train-teacher", "collect", "distill")
PICTURES = 64.0  # MB that the probes may look at


class Config(StageConfig):
    """What to choose from, and how thoroughly."""

    task: str = positional(description="A task's name, a task's YAML file, or any Gymnasium id.")
    teacher: str | None = Field(
        "", description="Run of the teacher; empty takes the task's newest, or trains one; none trains one."
    )
    pairs: str | None = Field("", description="Run of its pairs; empty takes the newest, or collects; none collects.")
    sensors: str = Field(
        "", description="A view, each part of which is a sensor; empty: all entries, or groups, that the roles see."
    )
    cost: tuple[str, ...] = Field((), description="What sensors or groups cost, such as camera=10; 1 each otherwise.")
    memory: Network | None = Field(
        None, description="Body of the students with memory; none takes that of the task's distill, or rnn."
    )
    memoryless: Network = Field(NetworkConfig(), description="Body of those without.")
    modes: tuple[Literal["memory", "memoryless"], ...] = Field(
        ("memory", "memoryless"), min_length=1, description="Whether to try students with memory, without, or both."
    )
    distill: Literal["dagger", "bc"] = Field("dagger", description="How they are distilled.")
    stages: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the stages: --set stages.distill.total_steps=20000."
    )
    loss: float = Field(
        0.05, gt=0, lt=1, description="Share of the return that may be lost, or of its gain over random actions."
    )
    width: int = Field(
        2, ge=1, description="Candidates distilled at a time, before checking whether one of them loses nothing."
    )
    seeds: int = Field(1, ge=1, description="Students of each candidate, with seeds from --seed on.")
    episodes: int = Field(500, ge=2, le=1_000_000, description="Episodes that each policy is measured on.")
    num_envs: int = Field(500, ge=1, description="Env slots at the most in which they are played.")
    steps: int = Field(20_000, ge=100, description="Steps of the pairs that the probes look at.")
    bearing: bool = Field(True, description="Try how much noise, delay and dropout the kept sensors bear.")
    jobs: int | None = Field(None, ge=1, description="Processes at a time; none: one per CPU.")

    @field_validator("stages")
    @classmethod
    def _are_stages(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, setting in value.items():
            stage, dot, _ = key.partition(".")
            if stage not in STAGES or not (dot or isinstance(setting, dict)):
                raise ValueError(f'"{key}": write stage.key, of the stages {", ".join(STAGES)}')
        return value


def main(config: Config, session: Session) -> Run:
    """Ask the probes, distill less and less, try what is kept, and say what was found."""
    device = setup.prepare(config)
    task = load_task(config.task)
    env = setup.task_env(task, setup.slots_within(task, min(config.episodes, config.num_envs)), device, "report")
    sensors = find_sensors(config.sensors, parse_costs(config.cost), task, env.groups, env.action)
    remembering = config.memory or students_network(task)
    remembering = remembering if remembering.kind != "mlp" else NetworkConfig(kind="rnn")
    bodies = {True: remembering, False: config.memoryless}
    full = [Candidate(sensors, mode == "memory") for mode in dict.fromkeys(config.modes)]
    teacher_run, pairs_run = find_source(config, session)
    parents = {role: run for role, run in (("teacher", teacher_run), ("pairs", pairs_run)) if run is not None}
    named = {role: str(run.path.resolve()) for role, run in parents.items()}
    where = {"device": config.device, **named}

    shop = Workshop(session, task, config.jobs, config.stages)
    source: Cell | None = None  # the last cell that teacher and pairs come from, where they are not there yet
    if teacher_run is None:
        source = shop.cell(shop.step("train-teacher", device=config.device), config.seed, None, "the teacher")
    if pairs_run is None:
        source = shop.cell(shop.step("collect", **where), config.seed, source, "its pairs")

    def students(candidate: Candidate) -> list[Cell]:
        body = bodies[candidate.memory].model_dump(mode="json")
        settings = {"obs": candidate.view, "student": body, "diagnose": False, **where}
        step = shop.step("distill", config.distill, **settings)
        return [shop.cell(step, config.seed + i, source, words.of(candidate)) for i in range(config.seeds)]

    for candidate in full:
        students(candidate)  # a mistake in any setting is told before a run is begun

    with session.start(config, "sensors", config.task, parents=parents, checkpoints=False) as run:
        # --- teacher and pairs ----------------------------------------------------------------------------------------
        if source is not None:
            shop.make(run, [source], "the teacher and its pairs")
            made = [cell.finished_run() for cell in source.chain]
            teacher_run, pairs_run = teacher_run or made[0], pairs_run or made[-1]
        assert teacher_run is not None and pairs_run is not None
        teacher = setup.open_teacher(teacher_run, env, device)
        measure = Measure(env, streams.derive(config.seed, "eval"), config.episodes)
        chance, reached = measure.of_chance(teacher), measure.of_policy(teacher)
        scale = Scale(float(chance.mean()), float(reached.mean()), config.loss)
        session.say(f"teacher: {teacher_run.name}, return {scale.teacher:.4g}, of random actions {scale.chance:.4g}")

        # --- what the probes say --------------------------------------------------------------------------------------
        view, seed = sensor_view(sensors, env.groups, env.action), streams.derive(config.seed, "sensors")
        for each in (view, teacher.spec.view):
            setup.check_pairs_view([pairs_run.path / "pairs"], each)
        pairs = Pairs(pairs_run.path / "pairs", verify="size")
        steps = steps_within(config.steps, (view, teacher.spec.view), PICTURES)
        knowing = ask_probes(read_sample(pairs, teacher.spec.view, view, steps, seed), sensors, seed)
        if knowing is None:
            raise UserError(f"{pairs_run.name} holds one episode alone: collect more")

        # --- backward elimination -------------------------------------------------------------------------------------
        found: dict[Candidate, Measured] = {}
        while todo := [c for one in full for c in wanted(one, found, scale, knowing.score, config.width)]:
            cells = [cell for candidate in todo for cell in students(candidate)]
            shop.make(run, cells, f"{len(found)} sets tried, {len(todo)} more to try")
            for candidate in todo:
                found[candidate] = measure.of_cells(students(candidate))
                figures = {"sensors": len(candidate.sensors), "eval/return": found[candidate].mean}
                run.log({"candidates": len(found), **figures})
                session.say(words.result_line(candidate, found[candidate], scale))

        # --- what the kept ones bear ----------------------------------------------------------------------------------
        sets = [full[0], *(kept(one, found, scale) for one in full if scale.is_hopeful(found[one].mean))]
        bearings = {}
        for candidate in sets[1:] if config.bearing else ():
            session.note(f"how much noise, delay and dropout is borne by {words.of(candidate)}")
            bearings[candidate] = find_bearings(candidate, students(candidate), measure, scale, knowing.sample)

        kinds = {memory: str(network.kind) for memory, network in bodies.items()}
        results = Results(task.name, sensors, full, kinds, scale, found, knowing.told(sets), bearings)
        command = command_of(read_run(run.path), task)
        words.write_files(results, command, run.path)
        picture.draw(results, run.path)
        session.show(words.screen(results), words.plain(results, command))
        best = results.best
        figures = {"eval/return": found[best].mean, "sensors": len(best.sensors), "sensors_left": results.left(best)}
        following = words.next_command(results, teacher_run.name if "teacher" in named else str(teacher_run.path))
        made_run = run.finish(figures, holds=("report",), next=following)
    env.close()
    announce_page(made_run, session)
    return made_run


def find_source(config: Config, session: Session) -> tuple[Run | None, Run | None]:
    """The teacher's run and its pairs; None for what has to be made."""
    resumed = session.resume.manifest["parents"] if session.resume is not None else None
    if config.teacher is None or (resumed is not None and "teacher" not in resumed):
        return None, None
    if config.teacher:
        teacher = newest_run(session.runs_dir, config.teacher, "policy", "teacher", role="teacher", task=config.task)
    else:
        name = task_stem(config.task)
        finished = [run for run in list_runs(session.runs_dir) if run.status == FINISHED and run.task_name == name]
        with_one = [run for run in finished if run.role == "teacher" or run.teacher_policy is not None]
        teacher = with_one[-1] if with_one else None
    if teacher is None or (resumed is not None and "pairs" not in resumed):
        return teacher, None
    return teacher, find_pairs(session, config.pairs, TeacherRuns((teacher,), "", config.task))


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

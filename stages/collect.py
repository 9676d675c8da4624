"""Roll out a frozen teacher and record paired observations into an HDF5 dataset.

Every step records all groups of observations, the action taken, and what the teacher would do there (its greedy action
and its whole distribution), so that any student view can be distilled from the data later. A student may share the
acting (`--student`, `--beta`), as DAgger's mixture does (Ross et al. 2011), so that states which only a student reaches
are labelled too.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator

from tscli import streams
from tscli.config import NumEnvs, StageConfig, UserError
from tscli.learning.rollout import ViewedEnv, perturb
from tscli.pairs import PairsWriter, Selection
from tscli.runs import Run, newest_run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import State, setup
from tscli.training.state import restore, resume_note, snapshot
from tscli.training.teachers import find_teachers

ORDER = 20


class Config(StageConfig):
    """What to record, and who acts."""

    teacher: str = Field(
        "",
        description="Run of the teacher: number, name, path, task or best; several: 1,2; empty: the newest run's.",
    )
    teacher_by: str = Field(
        "", description="Of several teachers: group whose largest entry, or index, tells whose a row is; empty: task."
    )
    task: str = Field("", description="Where to act; empty takes the teacher's task.")
    episodes: int | None = Field(None, ge=1, description="Episodes to record, the same number in each env; none: 100.")
    steps: int | None = Field(None, ge=1, description="Env steps to record, over all envs; goes before --episodes.")
    num_envs: NumEnvs = 50
    groups: tuple[str, ...] = Field((), description="Groups to record; empty records all.")
    act: Literal["sample", "greedy"] = Field("sample", description="How the acting policy picks from its distribution.")
    noise: float = Field(
        0.0, ge=0, le=1, description="Discrete: share of random actions; continuous: deviation in half ranges. 0: none."
    )
    student: str = Field("", description="Run of a student that shares the acting; empty leaves it to the teacher.")
    only_successful: bool = Field(False, description="Keep episodes that succeeded alone; drop the others whole.")
    min_return: float | None = Field(
        None, allow_inf_nan=False, description="Keep episodes of this return or more alone; none keeps all."
    )
    beta: float = Field(1.0, ge=0, le=1, description="Probability that the teacher acts in a step; 1 leaves it alone.")
    shard_mb: float = Field(256.0, gt=0, description="Size of a file of the dataset, in MiB, at the most.")

    @model_validator(mode="after")
    def _one_measure(self) -> Config:
        if self.student and self.beta == 1:
            raise ValueError("--student acts only where the teacher does not: give --beta below 1 as well")
        if self.beta < 1 and not self.student:
            raise ValueError(f"--beta {self.beta} needs a student to share the acting: name its run with --student")
        return self


def main(config: Config, session: Session) -> Run:
    """Step, label, append; a finished file is safe whatever happens next."""
    device = setup.prepare(config)
    teachers = find_teachers(session, config.teacher, config.teacher_by, config.task)
    session.say(f"teacher: {teachers.name}")
    task = load_task(teachers.task)
    by_steps = config.steps is not None
    episodes = config.episodes or 100
    num_envs = config.num_envs if by_steps else min(config.num_envs, episodes)
    env = setup.task_env(task, num_envs, device)
    teacher = teachers.open(env, device)
    student_run = newest_run(session.runs_dir, config.student, "policy", "student") if config.student else None
    student = setup.open_policy(student_run, env, device) if student_run else None
    groups = setup.recorded(task, env, config.groups)
    if config.only_successful and not env.has_success:
        raise UserError(
            f"--only-successful: the env of {task.name} tells no success: choose --min-return, or say in its task file "
            "where it stands (success_key)"
        )

    # Slots get equal shares, the first ones one episode more where it does not divide.
    quota = torch.zeros(num_envs, dtype=torch.int64)
    if not by_steps:
        quota = torch.tensor([episodes // num_envs + (i < episodes % num_envs) for i in range(num_envs)])
    total = config.steps or int(quota.sum())
    views = {"teacher": teacher.spec.view} | ({"student": student.spec.view} if student else {})
    viewed = ViewedEnv(env, views, config.seed)
    act_stream = streams.generator(config.seed, "collect/act", device)
    mix_stream = streams.generator(config.seed, "collect/mix", device)
    at = State(
        reset=torch.ones(num_envs, dtype=torch.bool, device=device),
        hidden=teacher.initial_hidden(num_envs),
        student_hidden=student.initial_hidden(num_envs) if student else None,
        count=torch.zeros(num_envs, dtype=torch.int64),  # episodes of each env
    )
    schema = teachers.schema(env, groups, teacher, config.seed)
    selection = None
    if config.only_successful or config.min_return is not None:
        selection = Selection(schema, num_envs, config.only_successful, config.min_return)
    parts = {"viewed": viewed, "act": act_stream, "mix": mix_stream, "at": at, "selection": selection}
    parents = teachers.parents | ({"student": student_run} if student_run else {})

    with (
        session.start(config, "collect", teachers.task, parents=parents) as run,
        session.progress(total, "steps" if by_steps else "episodes") as progress,
    ):
        if run.state is None:
            expected = -(-total // num_envs) if by_steps else setup.expected_steps(env, int(quota.max()))
            writer = PairsWriter(run.fresh_folder("pairs"), schema, num_envs, int(config.shard_mb * 2**20), expected)
        else:
            restore(run.state, parts, device)
            writer = PairsWriter.resume(run.path / "pairs", run.state["parts"]["writer"])
        parts["writer"] = records = writer
        if selection is not None:
            selection.writer, records = writer, selection
        if run.state is not None:
            if not env.exact_resume:
                records.restart()
                at.restart()
            session.say(resume_note(run.name, f"step {writer.num_steps}", env.exact_resume))

        while (records.num_steps < total) if by_steps else bool((at.count < quota).any()):
            with torch.no_grad():
                dist, at.hidden = teacher.step(viewed.observe("teacher"), at.hidden, at.reset)
                action = dist.sample(act_stream) if config.act == "sample" else dist.mode()
                actor = torch.ones(num_envs, dtype=torch.uint8, device=device)
                if student is not None:
                    # The student's memory goes on also where the teacher acts.
                    own, at.student_hidden = student.step(viewed.observe("student"), at.student_hidden, at.reset)
                    own_action = own.sample(act_stream) if config.act == "sample" else own.mode()
                    acts = torch.empty(num_envs, device=device).uniform_(generator=mix_stream) < config.beta
                    action = torch.where(acts.reshape(-1, *[1] * (action.dim() - 1)), action, own_action)
                    actor = acts.to(torch.uint8)
                if config.noise:
                    action = perturb(action, env.action, config.noise, mix_stream)
            obs = viewed.record(groups)
            step = viewed.step(action)
            label, params = dist.mode().cpu(), {k: v.cpu() for k, v in dist.params().items()}
            keep = None if by_steps else at.count < quota
            ends = (step.reward.cpu(), step.terminated.cpu(), step.truncated.cpu())
            success = step.success.cpu() if env.has_success else None
            ended = records.append(obs, step.action.cpu(), label, params, *ends, actor.cpu(), success, keep)
            at.count += torch.from_numpy(ended)
            at.reset = step.done
            progress.update(records.num_steps if by_steps else int(at.count.sum()), {"transitions": records.num_steps})
            run.save_if_due(lambda: snapshot(parts), config.checkpoint_every)
        records.close()

        summary = setup.pairs_summary(run.path / "pairs") | {"env_steps": viewed.num_steps * env.num_envs}
        if viewed.num_frames:
            summary["frames"] = viewed.num_frames
        if selection is not None:
            session.say(f"kept {selection.kept} episodes, dropped {selection.dropped}")
            summary |= {"kept": selection.kept, "dropped": selection.dropped}
        result = run.finish(summary, holds=("pairs",), **teachers.details)
    env.close()
    return result


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

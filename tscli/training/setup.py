"""What every stage does the same before and after its loop."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from tscli import ranks
from tscli.config import RolloutConfig, StageConfig, UserError, did_you_mean
from tscli.envs import ActionSpec, VecEnv, make_env, mixed
from tscli.envs.views import PREVIOUS_ACTION, ViewSpec, resolve_view
from tscli.networks import Policy, PolicySpec
from tscli.networks.files import load_policy_file
from tscli.pairs import Pairs
from tscli.pairs.folder import read_header
from tscli.pictures import film
from tscli.runs import Run
from tscli.tasks import Task

# What the loops were made for and are tried on: others lack float64, or a generator of their own.
_DEVICES = ("cpu", "cuda")

# Each copy of a Gymnasium env is an object of Python or a process, so that a hundred of them are no gain.
_MOST_COPIES = 16


def prepare(config: StageConfig) -> torch.device:
    """Set the number of threads and find the device, for a stage that works in one process.

    Raises:
        UserError: no such device here, or one of a kind that is not supported; several processes.
    """
    if ranks.size() > 1:
        raise UserError("this stage works in one process: leave out --num-processes, or start it without torchrun")
    return _device(config)


def join(config: StageConfig, num_envs: int) -> tuple[torch.device, int]:
    """The same for a stage that several processes may share, with this one's part of `--num-envs`.

    Raises:
        UserError: no such device here, or one of a kind that is not supported; envs that cannot be shared out evenly.
    """
    return _device(config), ranks.share(num_envs, "--num-envs")


def _device(config: StageConfig) -> torch.device:
    # Always: an earlier stage of the same process may have set another number.
    # With more threads than cores each waits for the others, and processes on one machine share its cores.
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", ranks.size())) if ranks.size() > 1 else 1
    cores = max(1, (os.cpu_count() or 1) // beside)
    torch.set_num_threads(min(config.threads or cores, cores))
    # Denormals make a CPU step several times slower when weights decay to nothing.
    torch.set_flush_denormal(True)
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if name == "cuda" and ranks.size() > 1 else name
    try:
        device = torch.device(name)
        if device.type not in _DEVICES:
            raise RuntimeError(f"only {' and '.join(_DEVICES)} are supported")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f'--device "{config.device}" cannot be used here ({reason}): use cpu, or auto') from None
    if ranks.size() > 1:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        ranks.begin(device)
    return device


def task_env(
    task: Task,
    num_envs: int,
    device: torch.device,
    purpose: Literal["train", "teacher", "select", "report"] = "train",
    render: bool = False,
    short: int | None = None,
) -> VecEnv:
    """The task's env, num_envs times.

    Args:
        task: whose `env` it is.
        num_envs: N.
        device: where its tensors live.
        purpose: to train in, to train a teacher in (the task's `teacher_env` overlays its `env`), to choose a policy by
            (the task's `eval_env` does: unseen mazes, say), or to report on the chosen one (its `report_env` overlays
            that: other mazes again).
        render: it will be drawn, which Gymnasium's envs must be told when they are made.
        short: episodes are cut to this many steps.

    Raises:
        UserError: a mistake in its settings, or `short` for an env whose episodes cannot be cut.
    """
    settings = dict(task.env)
    if purpose == "teacher":
        settings |= task.teacher_env
    elif purpose != "train":
        settings |= task.eval_env
    if purpose == "report":
        settings |= task.report_env
    if render and settings.get("kind") in ("gym", "mixed"):
        settings["render"] = True
    if short is None:
        return make_env(settings, num_envs, device)
    try:
        return make_env(settings | {"max_episode_steps": short}, num_envs, device)
    except UserError as error:
        raise UserError(f"episodes of {task.name} cannot be cut to {short} steps: {error}") from None


def eval_envs(task: Task, episodes: int, device: torch.device) -> tuple[VecEnv, VecEnv]:
    """The envs to choose a policy by and to report on it; one and the same where the task makes no difference.

    Each slot plays `episodes // num_envs` episodes. There are as many slots as `most_slots` allows that leave none of
    them over; in a mixture of tasks each is played as often, and a few may be left over.

    Raises:
        UserError: fewer episodes than tasks.
    """
    tasks = number_of_tasks(task)
    if episodes < tasks:
        raise UserError(f"--eval-episodes {episodes}: {task.name} is {tasks} tasks in one: give {tasks} or more")
    slots = max(range(tasks, slots_within(task, episodes) + 1, tasks), key=lambda n: (episodes // n * n, n))
    select = task_env(task, slots, device, "select")
    return select, task_env(task, slots, device, "report") if task.report_env else select


def slots_within(task: Task, most: int) -> int:
    """Slots to evaluate in, `most` or fewer; but in a mixture of tasks as many for each, and one for each at least."""
    tasks = number_of_tasks(task)
    return max(min(most, most_slots(task) or most) // tasks, 1) * tasks


def number_of_tasks(task: Task) -> int:
    """How many tasks stand side by side in a mixture; 1 elsewhere."""
    return len(_members(task))


def _members(task: Task) -> list[dict[str, Any]]:
    settings = task.env | task.eval_env | task.report_env
    return list(mixed.member_settings(settings).values()) if settings.get("kind") == "mixed" else [settings]


def most_slots(task: Task) -> int | None:
    """Slots to evaluate in at the most; None where one more costs next to nothing, since the env is batched."""
    members = _members(task)
    single = [one.get("kind") == "gym" and one.get("vectorization") != "vector_entry_point" for one in members]
    return _MOST_COPIES if any(single) else None


def film_env(task: Task, render: str, device: torch.device | str = "cpu", rows: int = 1) -> VecEnv | None:
    """One env to be filmed, or a row of each task, with all that `render` needs checked by drawing it once.

    Args:
        task: whose env it is.
        render: "none", "gif", "mp4" or "human".
        device: where its tensors live.
        rows: how many envs are drawn, for a grid.

    Raises:
        UserError: a package, a program or the screen is missing; a grid of a mixture.
    """
    if render == "none":
        return None
    if render == "mp4":
        film.require_ffmpeg()
    elif render == "human":
        film.require_screen()
    tasks = number_of_tasks(task)
    if tasks > 1 and rows > 1:
        raise UserError(f"--grid: {task.name} is {tasks} tasks in one, which are filmed side by side anyway")
    env = task_env(task, max(rows, tasks), torch.device(device), "report", render=True)
    for row in range(env.num_envs):
        env.render(row)
    return env


def resolve(task: Task, expression: str, env: VecEnv) -> ViewSpec:
    """A view of the task, by name or written out, checked against the env's groups."""
    return resolve_view(expression, task.view(expression), env.groups, env.action, owner=f"task {task.name}")


def resolve_for_evaluation(task: Task, expression: str, device: torch.device) -> tuple[ViewSpec, ActionSpec]:
    """A view as `resolve` gives it, and the action space, for a stage that has no env of its own to train in."""
    env = task_env(task, number_of_tasks(task), device, "select")
    view = resolve(task, expression, env)
    env.close()
    return view, env.action


def open_policy(run: Run, env: VecEnv, device: torch.device, which: str = "policy") -> Policy:
    """A finished run's policy, frozen, checked against the env it is to act in.

    Raises:
        UserError: the file has changed, or the env lacks what the policy sees or does other actions.
    """
    policy = load_policy_file(run.policy_path(which), device)
    check_fits(policy.spec, env, run.name)
    return policy


def check_fits(spec: PolicySpec, env: VecEnv, name: str) -> None:
    """Refuse a policy that cannot act in an env.

    Raises:
        UserError: the env lacks what the policy sees or does other actions.
    """
    for part in spec.view.parts:
        if part.group == PREVIOUS_ACTION:
            continue
        if part.group not in env.groups:
            raise UserError(
                f'{name} sees the group "{part.group}", which this env lacks: {did_you_mean(part.group, env.groups)}'
            )
        group = env.groups[part.group]
        needed = part.size if part.index is None else max(part.index) + 1
        fits = group.shape == part.shape if part.is_image else group.size >= needed
        if not fits or (part.index is None and not part.is_image and group.size != part.size):
            raise UserError(
                f'{name} sees the group "{part.group}" as {part.shape}, this env gives {group.shape}: '
                "use the env that it was trained on"
            )
    if (spec.action.kind, spec.action.shape, spec.action.nvec) != (env.action.kind, env.action.shape, env.action.nvec):
        raise UserError(
            f"{name} acts with {spec.action.kind} {spec.action.nvec or spec.action.shape}, this env takes "
            f"{env.action.kind} {env.action.nvec or env.action.shape}: use the env that it was trained on"
        )


def open_teacher(run: Run, env: VecEnv, device: torch.device) -> Policy:
    """`open_policy` of a run's teacher, also of one that was trained together with its student."""
    return open_policy(run, env, device, run.teacher_policy or "policy")


def recorded(task: Task, env: VecEnv, names: Sequence[str], view: ViewSpec | None = None) -> tuple[str, ...]:
    """The groups to record: all of the env, or where `--groups` names some those and what a view reads.

    Raises:
        UserError: the env has no such group.
    """
    for name in names:
        if name not in env.groups:
            raise UserError(f'--groups: task {task.name} has no group "{name}": {did_you_mean(name, env.groups)}')
    return tuple(dict.fromkeys((*names, *(view.groups if view else ()))) if names else env.groups)


def check_pairs_view(folders: Sequence[Path], view: ViewSpec) -> None:
    """Refuse a view of groups that a dataset did not record.

    Raises:
        UserError: names the missing group and those at hand.
    """
    for folder in folders:
        groups = read_header(folder)[0].groups
        for name in view.groups:
            if name not in groups:
                raise UserError(
                    f'view "{view.name}" needs the group "{name}", which {folder} did not record '
                    f"(it has {', '.join(groups)}): collect again with that group"
                )


def expected_steps(env: VecEnv, episodes: int) -> int | None:
    """Steps that a slot needs for that many episodes at the most, where the env has a limit."""
    return None if env.max_episode_steps is None else episodes * env.max_episode_steps


def pairs_summary(folder: Path) -> dict[str, float]:
    """Figures of a finished dataset for its run's manifest."""
    pairs = Pairs(folder, verify="size")
    table = pairs.episodes()
    done = table[table["finished"]]
    out: dict[str, float] = {"steps": pairs.num_steps, "episodes": len(done)}
    if len(done):
        out |= {"return_mean": float(done["return"].mean()), "return_sd": float(done["return"].std())}
        out["length_mean"] = float(done["length"].mean())
        if pairs.schema.has_success:
            out["success_rate"] = float(done["success"].mean())
    return out


def sequence_length(config: RolloutConfig, has_memory: bool) -> int:
    """Steps of a training sequence: 1 without memory, else `bptt`, or all steps of a shorter rollout.

    Raises:
        UserError: it does not divide the rollout, or sequences cannot be shared out evenly over minibatches.
    """
    steps = config.rollout_steps
    length = min(config.bptt, steps) if has_memory else 1
    if steps % length:
        raise UserError(
            f"--bptt {config.bptt} does not divide --rollout-steps {steps}, so a sequence would be cut: choose one "
            "that does"
        )
    sequences = ranks.share(config.num_envs, "--num-envs") * steps // length
    if sequences % config.num_minibatches:
        raise UserError(
            f"--num-minibatches {config.num_minibatches} does not divide the {sequences} sequences of {length} steps "
            "in a rollout: choose one that does, or another --bptt"
        )
    return length

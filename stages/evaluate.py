"""Measure a policy on fixed seeds, a student beside its teacher, and film it.

The same number of episodes is counted in each env slot, so that short episodes are not over-counted. A student is
measured on the seeds of its teacher; while it acts, the teacher says what it would have done, which gives the share of
equal actions and KL(teacher || student) on the states that the student itself reaches.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from rich.table import Table

from tscli import film, stage, stats, streams
from tscli.config import StageConfig, positional
from tscli.distributions import kl
from tscli.envs import VecEnv
from tscli.files import atomic_write
from tscli.networks import Policy
from tscli.rollout import Episodes, ViewedEnv, run_episodes
from tscli.runs import Run, Session, newest_run
from tscli.tasks import load_task

COMMAND = "eval"
ORDER = 40


class Config(StageConfig):
    """What to measure, and whether to film it."""

    run: str = positional("", description="Run whose policy is measured: number, name or path; empty: the newest.")
    task: str = Field("", description="Measure on another task of the same groups and actions; empty: the run's own.")
    episodes: int = Field(100, ge=1, description="Episodes per policy and mode.")
    num_envs: int = Field(100, ge=1, description="Env slots at the most; each counts the same number of episodes.")
    teacher: bool = Field(True, description="Measure a student's teacher beside it.")
    which: Literal["policy", "last", "teacher"] = Field(
        "policy", description="The run's best policy, its last, or the teacher that was trained with a student."
    )
    render: Literal["none", "gif", "mp4", "human"] = Field(
        "none", description="Film the greedy policy, or show it live."
    )
    render_episodes: int = Field(1, ge=1, description="Episodes in the film.")


def main(config: Config, session: Session) -> Run:
    """Measure, compare, film, report."""
    device = stage.prepare(config)
    policy_run = newest_run(session.runs_dir, config.run, "policy", "")
    session.say(f"policy: {policy_run.name}")
    task = load_task(config.task or policy_run.task)
    slots = max(n for n in range(1, min(config.num_envs, config.episodes) + 1) if config.episodes % n == 0)
    env = stage.task_env(task, slots, device, evaluation=True)
    # What a film needs is looked for now, not after everything has been measured.
    film_env = stage.film_env(task, config.render, device)
    main_role = "teacher" if config.which == "teacher" else policy_run.role or "policy"
    policies = {main_role: stage.open_policy(policy_run, env, device, config.which)}
    runs = {main_role: policy_run}
    if main_role == "student" and config.teacher:
        jointly = "teacher.safetensors" in policy_run.manifest["artifacts"]
        runs["teacher"] = policy_run if jointly else policy_run.parent("teacher")
        policies["teacher"] = stage.open_policy(runs["teacher"], env, device, "teacher" if jointly else "policy")

    parents = {"policy": policy_run}
    with session.start(config, COMMAND, config.task or policy_run.task, parents=parents, checkpoints=False) as run:
        # Not the seed itself: a policy trained with it has seen those episodes.
        seed = streams.derive(config.seed, "eval")
        report: dict[str, Any] = {"task": task.name, "episodes": config.episodes, "seed": config.seed, "policies": {}}
        for role, policy in policies.items():
            entry: dict[str, Any] = {"run": runs[role].name, "view": policy.spec.view.name}
            for mode in ("greedy", "sampled"):
                found = run_episodes(policy, env, seed, config.episodes // slots, greedy=mode == "greedy")
                entry[mode] = figures(found)
            report["policies"][role] = entry
        if len(policies) == 2:
            pair = policies["student"], policies["teacher"]
            report["student_states"] = compare_on_student_states(*pair, env, seed)
            means = [report["policies"][role]["greedy"]["return"]["mean"] for role in ("student", "teacher")]
            report["gap"] = means[1] - means[0]
        if film_env is not None:
            path = make_film(config, policies[main_role], film_env, seed, run.path)
            if path is not None:
                report["film"] = path.name
                session.say(f"film: {path}")
        atomic_write(run.path / "report.json", json.dumps(report, indent=1))
        main_entry = report["policies"][main_role]["greedy"]
        metrics = {"eval/return": main_entry["return"]["mean"], "eval/length": main_entry["length"]["mean"]}
        if "success_rate" in main_entry:
            metrics["eval/success_rate"] = main_entry["success_rate"]["mean"]
        metrics |= {"gap": report["gap"], **report["student_states"]} if len(policies) == 2 else {}
        result = run.finish(metrics, holds=("report",))
    env.close()
    session.show(eval_table(report), report)
    return result


def figures(found: Episodes) -> dict[str, Any]:
    """Mean, deviation and 95 % bootstrap interval of return, length and (where the env tells) success."""
    values = {"return": found.returns, "length": found.lengths}
    if found.success is not None:
        values["success_rate"] = found.success.float()
    return {name: stats.bootstrap_mean(value.cpu().numpy())._asdict() for name, value in values.items()}


@torch.no_grad()
def compare_on_student_states(student: Policy, teacher: Policy, env: VecEnv, seed: int) -> dict[str, float]:
    """Agreement and KL over the steps of one greedy student episode per slot."""
    n = env.num_envs
    viewed = ViewedEnv(env, {"student": student.spec.view, "teacher": teacher.spec.view}, seed)
    hidden, teacher_hidden = student.initial_hidden(n), teacher.initial_hidden(n)
    reset = torch.ones(n, dtype=torch.bool, device=env.device)
    running, steps = ~torch.zeros_like(reset), 0
    same, distance, divergence = 0.0, 0.0, 0.0
    # No closed form compares a squashed Gaussian with a plain one.
    comparable = not env.action.is_continuous or student.spec.network.squash == teacher.spec.network.squash
    while bool(running.any()):
        dist, hidden = student.step(viewed.observe("student"), hidden, reset)
        label, teacher_hidden = teacher.step(viewed.observe("teacher"), teacher_hidden, reset)
        action, wanted = dist.mode(), label.mode()
        if env.action.is_continuous:
            distance += float((action - wanted).abs().mean(-1)[running].sum())
        else:
            equal = action == wanted
            same += float((equal if equal.dim() == 1 else equal.all(-1))[running].sum())
        if comparable:
            divergence += float(kl(label, dist)[running].sum())
        steps += int(running.sum())
        reset = viewed.step(action).done
        running = running & ~reset
    out = {"action_distance": distance / steps} if env.action.is_continuous else {"action_agreement": same / steps}
    return {**out, "kl_teacher_student": divergence / steps} if comparable else out


@torch.no_grad()
def make_film(config: Config, policy: Policy, env: VecEnv, seed: int, folder: Path) -> Path | None:
    """Film greedy episodes of one env.

    Frames are taken before each step: after an episode's last step the env already shows the next episode.
    """
    viewed = ViewedEnv(env, {"policy": policy.spec.view}, seed)
    hidden, reset = policy.initial_hidden(1), torch.ones(1, dtype=torch.bool, device=env.device)
    fps = 1 / env.control_dt if env.control_dt else 30.0
    # Drawing is what takes the time: a GIF shows 25 pictures per second of the env's time, a film or window all.
    stride = max(1, round(fps / 25)) if config.render == "gif" else 1
    frames, episode, step_count, total = [], 1, 0, 0.0
    window = film.Window(fps) if config.render == "human" else None
    while episode <= config.render_episodes:
        if step_count % stride == 0:
            frame = film.caption(env.render(0), f"episode {episode}   step {step_count}   return {total:.1f}")
            if window is None:
                frames.append(frame)
            elif not window.show(frame):
                break
        dist, hidden = policy.step(viewed.observe("policy"), hidden, reset)
        step = viewed.step(dist.mode())
        reset = step.done
        step_count, total = step_count + 1, total + float(step.reward[0])
        if bool(step.done[0]):
            episode, step_count, total = episode + 1, 0, 0.0
    env.close()
    if window is not None:
        window.close()
        return None
    write = film.write_gif if config.render == "gif" else film.write_mp4
    return write(folder / f"film.{config.render}", frames, fps / stride)


def eval_table(report: dict[str, Any]) -> Table:
    """The report as a table: one row per policy and mode."""
    title = f"{report['task']}: {report['episodes']} episodes, seed {report['seed']}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2), header_style="bold", pad_edge=False)
    entries = report["policies"]
    has_success = any("success_rate" in entry["greedy"] for entry in entries.values())
    heads = ["policy", "view", "acts", "return", "95 % interval", "sd", *(["success"] if has_success else []), "length"]
    for head in heads:
        table.add_column(head, justify="left" if head in ("policy", "view", "acts") else "right")
    for role, entry in entries.items():
        for mode in ("greedy", "sampled"):
            found = entry[mode]
            value = found["return"]
            cells = [role, entry["view"], mode, f"[bold]{value['mean']:.1f}[/]"]
            cells += [f"{value['low']:.1f} to {value['high']:.1f}", f"{value['sd']:.1f}"]
            cells += [f"{100 * found['success_rate']['mean']:.0f} %"] if has_success else []
            table.add_row(*cells, f"{found['length']['mean']:.0f}")
    if "gap" in report:
        states = report["student_states"]
        same = states.get("action_agreement")
        near = f"actions equal {100 * same:.1f} %" if same is not None else f"distance {states['action_distance']:.3g}"
        if "kl_teacher_student" in states:
            near += f", KL {states['kl_teacher_student']:.3g}"
        table.caption = f"gap {report['gap']:.1f}; on the student's states: {near}"
        table.caption_justify = "left"
    return table


if __name__ == "__main__":
    from tscli.cli import run_script

    run_script(__file__)

"""Measuring policies: the same episodes for each, counted fairly, in figures with their intervals."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tscli import streams
from tscli.config import UserError
from tscli.envs import VecEnv
from tscli.learning import statistics
from tscli.learning.episodes import Episodes, Tally, run_episodes
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Actor, Policy
from tscli.networks.distributions import kl
from tscli.terminal.tables import decimals
from tscli.training.parting import Parting

# Share of its teacher's gain over chance below which a student is said to have failed.
FAR_BELOW = 0.8


def measure(policies: Mapping[str, Policy], env: VecEnv, seed: int, per_slot: int = 1) -> dict[str, float]:
    """`summary` of several policies on the same episodes, under "<role>/return" and so on.

    And "eval/steps", those of all slots of the env for all of the policies; and what the env measures or else tells,
    which is of all of these steps, without its "env/".
    """
    out: dict[str, float] = {"eval/steps": 0.0}
    for role, policy in policies.items():
        env.metrics()  # of earlier steps
        tally = Tally(env)
        found = run_episodes(policy, env, seed, per_slot, tally=tally)
        told = {name: figure.mean for name, figure in tally.figures().items()}
        told = told or {name.removeprefix("env/"): value for name, value in env.metrics().items()}
        out |= {f"{role}/{name}": value for name, value in told.items()}
        out |= {key.replace("eval/", f"{role}/"): value for key, value in summary(found).items()}
        # Every slot steps on until the last one has played all of its episodes.
        out["eval/steps"] += env.num_envs * float(found.lengths.view(-1, per_slot).sum(1).max())
    return out


def summary(episodes: Episodes) -> dict[str, float]:
    """`eval/return`, `eval/length` and, where the env tells, `eval/success_rate`."""
    out = {"eval/return": float(episodes.returns.mean()), "eval/length": float(episodes.lengths.mean())}
    if episodes.success is not None:
        out["eval/success_rate"] = float(episodes.success.float().mean())
    return out


def figures(found: Episodes, count: int) -> dict[str, Any]:
    """Mean, deviation and 95 % interval of return, length (Student's) and, where the env tells, success (exact).

    Of the first `count` episodes. They stand in the order of the slots, so what is left out are the last slot's last
    ones, whatever became of them.
    """
    values = {"return": found.returns, "length": found.lengths}
    out = {name: statistics.student_mean(value[:count].cpu().numpy()) for name, value in values.items()}
    if found.success is not None:
        out["success_rate"] = statistics.share(found.success[:count].cpu().numpy())
    return {name: estimate._asdict() for name, estimate in out.items()}


def beside_teacher(student: Actor, env: VecEnv, seed: int, reached: float, goal: float) -> tuple[dict[str, float], str]:
    """Figures of a student beside its teacher's return, and what is to be said of one that is far below it, or "".

    Far is less than `FAR_BELOW` of what the teacher gains over chance: over such a policy with its initial weights,
    whose actions are drawn, in one episode per slot. It is measured only where the student is below its teacher.
    """
    found = {"teacher_return": goal}
    if reached >= goal:
        return found, ""
    with streams.seeded_init(seed, "untrained"):
        untrained = Policy(student.spec).to(env.device).eval()
    try:
        chance = float(run_episodes(untrained, env, seed, greedy=False).returns.mean())
    except UserError:  # its episodes do not end
        return found, ""
    found["untrained_return"] = chance
    share = (reached - chance) / (goal - chance) if goal > chance else 1.0
    if share >= FAR_BELOW:
        return found, ""
    places = decimals(max(abs(reached), abs(goal), abs(chance)))
    remembers = student.initial_hidden(1).numel() > 0
    memory = "a longer memory or longer windows" if remembers else "memory (--student history or rnn)"
    return found, (
        f"the student has {100 * max(share, 0):.0f} % of what its teacher gains over an untrained policy (returns "
        f"{reached:.{places}f}, {goal:.{places}f} and {chance:.{places}f}): distill it with more steps, with {memory}, "
        "or see what `tscli diagnose` finds"
    )


def task_figures(found: Episodes, count: int, env: VecEnv) -> dict[str, Any]:
    """In a mixture of tasks, under "tasks": the figures of each task that has an episode among the first `count`."""
    if not env.members:
        return {}
    per_slot = len(found.returns) // env.num_envs
    task = torch.arange(count) // per_slot % len(env.members)
    by_task = {}
    for number, name in enumerate(env.members):
        mine = (task == number).nonzero()[:, 0].to(found.returns.device)
        if len(mine):
            success = None if found.success is None else found.success[mine]
            by_task[name] = figures(Episodes(found.returns[mine], found.lengths[mine], success), len(mine))
    return {"tasks": by_task}


def read_varied(text: str) -> list[tuple[str, list[Any]]]:
    """`friction=0.2,0.6 terrain=flat` -> `[("friction", [0.2, 0.6]), ("terrain", ["flat"])]`.

    Raises:
        UserError: it is written in another way.
    """
    found = []
    for word in text.split():
        name, _, values = word.partition("=")
        if not (name.isidentifier() and all(values.split(","))):
            raise UserError(f'--vary "{word}": write a setting of the env and its values as friction=0.2,0.6,1')
        found.append((name, [_number_or_word(value) for value in values.split(",")]))
    return found


def _number_or_word(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def varied(
    policies: Mapping[str, Actor], envs: Mapping[tuple[str, Any], VecEnv], seed: int, per_slot: int, count: int
) -> list[dict[str, Any]]:
    """Greedy returns, and what the env measures, with one setting of the env after the other at each of its values.

    Args:
        policies: by role.
        envs: of each setting and value; they are closed.
        seed, per_slot: of the episodes, the same everywhere.
        count: episodes that count.
    """
    rows = []
    for (name, value), env in envs.items():
        row: dict[str, Any] = {"setting": name, "value": value, "policies": {}}
        for role, policy in policies.items():
            tally = Tally(env)
            found = figures(run_episodes(policy, env, seed, per_slot, tally=tally), count)
            row["policies"][role] = found | measured(tally)
        env.close()
        rows.append(row)
    return rows


def measured(tally: Tally) -> dict[str, Any]:
    """What the env has measured, under "measures"; nothing where it measures nothing."""
    found = {name: estimate._asdict() for name, estimate in tally.figures().items()}
    return {"measures": found} if found else {}


@torch.no_grad()
def compare_on_student_states(
    student: Actor, teacher: Actor, env: VecEnv, seed: int, per_slot: int, watch: Parting | None = None
) -> dict[str, float]:
    """Agreement, or distance with its 99th percentile, and KL over all steps of the greedy student.

    Of its first `per_slot` episodes in each slot.

    `watch` is called before each step with what both see and how far they are apart there.
    """
    n, env.per_slot = env.num_envs, per_slot
    viewed = ViewedEnv(env, {"student": student.spec.view, "teacher": teacher.spec.view}, seed)
    hidden, teacher_hidden = student.initial_hidden(n), teacher.initial_hidden(n)
    reset = torch.ones(n, dtype=torch.bool, device=env.device)
    running, steps = ~torch.zeros_like(reset), 0
    count = torch.zeros(n, dtype=torch.int64, device=env.device)
    same, divergence = 0.0, 0.0
    distances: list[Tensor] = []
    # No closed form compares a squashed Gaussian with a plain one, or with a Beta.
    kinds = {policy.spec.network.head_kind for policy in (student, teacher)}
    comparable = not env.action.is_continuous or len(kinds) == 1
    while bool(running.any()):
        seen = {role: viewed.observe(role) for role in ("student", "teacher")}
        dist, hidden = student.step(seen["student"], hidden, reset)
        label, teacher_hidden = teacher.step(seen["teacher"], teacher_hidden, reset)
        action, wanted = dist.mode(), label.mode()
        apart: dict[str, Tensor] = {}
        if env.action.is_continuous:
            apart["action_distance"] = (action - wanted).abs().mean(-1)
            distances.append(apart["action_distance"][running])
        else:
            equal = action == wanted
            equal = equal if equal.dim() == 1 else equal.all(-1)
            apart["action_agreement"] = equal
            same += float(equal[running].sum())
        if comparable:
            apart["kl_teacher_student"] = kl(label, dist)
            divergence += float(apart["kl_teacher_student"][running].sum())
        if watch is not None:
            watch(seen, apart, reset, running)
        steps += int(running.sum())
        reset = viewed.step(action).done
        count += reset & running
        running = count < per_slot
    out = {"action_agreement": same / steps}
    if env.action.is_continuous:
        apart_by = torch.cat(distances).double().cpu().numpy()
        out = {"action_distance": float(apart_by.mean()), "action_distance_p99": float(np.quantile(apart_by, 0.99))}
    return {**out, "kl_teacher_student": divergence / steps} if comparable else out

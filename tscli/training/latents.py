"""One actor and two ways to its latent: what is privileged makes it, or what has been sensed infers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tscli import streams
from tscli.config import LatentConfig, NetworkConfig, UserError
from tscli.envs import VecEnv
from tscli.envs.entries import entries_named, told_apart
from tscli.envs.views import ViewSpec, entries_of
from tscli.learning.optim import FlatAdam
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Critic, LatentSpec, Policy, PolicySpec
from tscli.networks.bodies import build_body
from tscli.networks.normalize import ReturnScale
from tscli.pictures.curves import INK, new_figure, save_png, style_axis
from tscli.tasks import Task
from tscli.training import setup


@dataclass(frozen=True)
class OneStage:
    """Who learns where teacher, student and critic learn in one loop, and by what; `parts` of them are resumed."""

    teacher: Policy
    student: Policy
    critic: Critic
    optimizer: FlatAdam  # of the teacher and the critic
    student_optimizer: FlatAdam  # of the student's own: the encoder of its history
    act_stream: torch.Generator
    shuffle_stream: torch.Generator
    reward_scale: ReturnScale | None
    viewed: ViewedEnv

    def parts(self) -> dict[str, Any]:
        """By their names in a checkpoint."""
        parts = {"teacher": self.teacher, "student": self.student, "critic": self.critic, "viewed": self.viewed}
        parts |= {"optimizer": self.optimizer, "student_optimizer": self.student_optimizer}
        return parts | {"scale": self.reward_scale, "act": self.act_stream, "shuffle": self.shuffle_stream}

    @property
    def are_recurrent(self) -> bool:
        """Whether the teacher or the critic has a memory."""
        return self.teacher.is_recurrent or self.critic.is_recurrent


def one_stage(config: LatentConfig, task: Task, env: VecEnv) -> OneStage:
    """A teacher that acts through a privileged encoder, the student that shares its actor, and a critic.

    Raises:
        UserError: views that do not fit each other, or a body that does not suit its place.
    """
    device, seed = env.device, config.seed
    view = setup.resolve(task, config.obs or task.teacher, env)
    own_view = setup.resolve(task, config.student_obs or task.student, env)
    critic_view = setup.resolve(task, config.critic_obs, env) if config.critic_obs else view
    latent = privileged_latent(view, own_view, config.encoder, config.latent_size)
    with streams.seeded_init(seed, "teacher"):
        teacher = Policy(PolicySpec(view, env.action, config.network, latent)).to(device)
    student = inferring_policy(teacher, own_view, config.student, seed)
    with streams.seeded_init(seed, "critic"):
        critic = Critic(critic_view, config.critic or config.network).to(device)
    inferring = [*student.encoder.inner.parameters(), *student.encoder.to_latent.parameters()]
    return OneStage(
        teacher=teacher,
        student=student,
        critic=critic,
        optimizer=FlatAdam([*teacher.parameters(), *critic.parameters()], config.lr, config.max_grad_norm),
        student_optimizer=FlatAdam(inferring, config.encoder_lr, config.max_grad_norm),
        act_stream=streams.generator(seed, "teacher/act", device),
        shuffle_stream=streams.generator(seed, "teacher/shuffle"),
        reward_scale=ReturnScale(env.num_envs, config.gamma, device) if config.normalize_reward else None,
        viewed=ViewedEnv(env, {"teacher": view, "student": own_view, "critic": critic_view}, seed, ("critic",)),
    )


def privileged_latent(view: ViewSpec, own_view: ViewSpec, encoder: NetworkConfig, size: int) -> LatentSpec:
    """The teacher's: what its view has beside the student's makes the latent.

    Raises:
        UserError: the student's view is no part of the teacher's, or all of it, or shows other pictures; or the body
            remembers.
    """
    _check_pictures(view, own_view)
    own = entries_of(view, own_view)
    reads = tuple(sorted(set(range(view.vector_size)) - set(own)))
    if not reads:
        raise UserError(
            f'the teacher\'s view "{view.name}" has nothing that the student\'s view "{own_view.name}" lacks, so there '
            "is nothing to infer: give the teacher a view that sees more"
        )
    if build_body(len(reads), encoder).hidden_size:
        raise UserError(f"--encoder.kind {encoder.kind}: what is privileged needs no memory: give it mlp")
    return LatentSpec(own, reads, encoder, size)


def _check_pictures(view: ViewSpec, own_view: ViewSpec) -> None:
    if own_view.images != view.images:
        raise UserError(
            f'the actor is shared, and view "{own_view.name}" does not show the same pictures as view '
            f'"{view.name}": a picture cannot be what is privileged'
        )


def inferring_policy(teacher: Policy, own_view: ViewSpec, network: NetworkConfig, seed: int) -> Policy:
    """A student that acts by the teacher's own actor, with a latent that `network` makes of all that it senses.

    Raises:
        UserError: it does not see what the teacher's actor does, in the same order.
    """
    spec = teacher.spec
    if spec.latent is None:
        raise UserError("the teacher has no latent to be inferred: train it with --latent-size")
    if entries_of(spec.view, own_view) != spec.latent.own:
        raise UserError(
            f"the teacher's actor does not see just what the student's view \"{own_view.name}\" shows: give --obs the "
            "view that the teacher was trained with"
        )
    _check_pictures(spec.view, own_view)
    everything = tuple(range(own_view.vector_size))
    latent = LatentSpec(everything, everything, network, spec.latent.size)
    with streams.seeded_init(seed, "student"):
        student = Policy(PolicySpec(own_view, spec.action, spec.network, latent)).to(teacher.head.linear.weight.device)
    student.encoder.images, student.encoder.body = teacher.encoder.images, teacher.encoder.body
    student.head = teacher.head
    take_normalizer(student, teacher)
    return student


def take_normalizer(student: Policy, teacher: Policy) -> None:
    """Let the student see its entries as the teacher's actor does, which they share."""
    ours, theirs, latent = student.encoder.norm, teacher.encoder.norm, teacher.spec.latent
    if ours is not None and theirs is not None and latent is not None:
        own = list(latent.own)
        ours.load_state_dict({"mean": theirs.mean[own], "var": theirs.var[own], "count": theirs.count})


@torch.no_grad()
def understood(
    student: Policy, teacher: Policy, env: VecEnv, seed: int, path: Path, steps: int = 200
) -> dict[str, float]:
    """What the student has understood of what is privileged: linear probes on its latent, as a picture and figures.

    The greedy student acts; from the latents of half of the envs each privileged entry is predicted linearly, and
    scored on the other half, over the second half of the steps. So is it from the teacher's latents, for what they hold
    at all.

    Args:
        student, teacher: policies with a latent.
        env: at least 4 slots, to say much; of a single one nothing is, and `{}` is given.
        seed: of its episodes.
        path: PNG file to write.
        steps: to play, at the most an episode.

    Returns:
        `latent/mse`, the mean squared distance of the two latents, `latent/r2_<entry>`, and `latent/r2_teacher_<entry>`
        (1: all of its variance is explained; 0: none).
    """
    n, latent = env.num_envs, teacher.spec.latent
    assert latent is not None
    if n < 2:
        return {}
    viewed = ViewedEnv(env, {"student": student.spec.view, "teacher": teacher.spec.view}, seed)
    hidden, start = student.initial_hidden(n), teacher.initial_hidden(n)
    reset = torch.ones(n, dtype=torch.bool, device=env.device)
    steps = min(steps, env.max_episode_steps or steps)
    inferred, known, truth = [], [], []
    for t in range(steps):
        obs, seen = viewed.observe("student"), viewed.observe("teacher")
        if t >= steps // 2:
            # What is privileged has no memory.
            for out, policy, one, state in ((inferred, student, obs, hidden), (known, teacher, seen, start)):
                alone = {"vector": one["vector"].unsqueeze(0)}
                out.append(policy.encoder.latent(alone, state, reset.unsqueeze(0))[0][0])
            truth.append(seen["vector"][:, list(latent.reads)])
        dist, hidden = student.step(obs, hidden, reset)
        reset = viewed.step(dist.mode()).done
    by_student, by_teacher, wanted = (torch.stack(x).double() for x in (inferred, known, truth))
    entries = entries_named(teacher.spec.view, env.groups)
    names = numbered(told_apart([entries[entry] for entry in latent.reads]))
    found = {name: dict(zip(names, _probe(x, wanted).tolist(), strict=True)) for name, x in
             (("student", by_student), ("teacher", by_teacher))}  # fmt: skip
    _draw(path, found)
    out = {"latent/mse": float((by_student - by_teacher).square().mean())}
    out |= {f"latent/r2_{name}": value for name, value in found["student"].items()}
    return out | {f"latent/r2_teacher_{name}": value for name, value in found["teacher"].items()}


def numbered(names: list[str]) -> list[str]:
    """Each once: where one comes again it gets a number, from 2 on."""
    return [f"{name} {again}" if (again := names[: i + 1].count(name)) > 1 else name for i, name in enumerate(names)]


def _probe(latent: Tensor, wanted: Tensor) -> Tensor:
    """R2 of each of K entries by ridge regression, [T, N, L] and [T, N, K] -> [K]; half of the envs are held out."""
    ones = torch.ones_like(latent[..., :1])
    x, half = torch.cat([latent, ones], -1), latent.shape[1] // 2
    fit, y = x[:, :half].flatten(0, 1), wanted[:, :half].flatten(0, 1)
    ridge = 1e-6 * len(fit) * torch.eye(fit.shape[-1], dtype=fit.dtype, device=fit.device)
    weights = torch.linalg.solve(fit.T @ fit + ridge, fit.T @ y)
    rest, target = x[:, half:].flatten(0, 1), wanted[:, half:].flatten(0, 1)
    left, spread = (target - rest @ weights).square().mean(0), target.var(0, correction=0)
    return torch.where(spread > 1e-12, 1 - left / spread.clamp(min=1e-12), 0.0).clamp(min=-1.0)


def _draw(path: Path, found: Mapping[str, Mapping[str, float]]) -> None:
    names = list(found["student"])
    figure = new_figure(7.0, 1.0 + 0.34 * len(names))
    axis = figure.add_axes((0.24, 0.62 / figure.get_figheight(), 0.72, 1 - 1.1 / figure.get_figheight()))
    for shift, role, color in ((-0.2, "teacher", "#9ca3af"), (0.2, "student", "#2563eb")):
        values = [max(value, 0.0) for value in found[role].values()]
        axis.barh([i + shift for i in range(len(names))], values, height=0.36, color=color, label=f"{role}'s latent")
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    style_axis(axis, 8)
    axis.set_xlabel("share of its variance that a linear probe reads from the latent (R2)", fontsize=8, color=INK)
    axis.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncol=2, frameon=False)
    axis.set_title("What the latents hold", fontsize=10, color=INK, loc="left")
    save_png(path, figure)

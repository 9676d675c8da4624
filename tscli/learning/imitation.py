"""From recorded windows to a student's loss: the part of behaviour cloning and DAgger that has one right answer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user expects
from torch import Tensor

from tscli.config import UserError
from tscli.envs.views import Obs, ViewSpec
from tscli.networks import Policy, PolicySpec
from tscli.networks.distributions import (
    Beta,
    Categorical,
    Distribution,
    Gaussian,
    MultiCategorical,
    certain,
    from_params,
    kl,
)
from tscli.pairs import Pairs, PairsSchema
from tscli.pairs.loading import read_view
from tscli.pairs.windows import Windows
from tscli.streams import generator as stream

_READ_BYTES = 2**20  # that `read_batches` reads at once: far more than a small batch, and well within a cache


class Batch(NamedTuple):
    """Windows of T steps, B of them. For a student without memory the time axis may be left out: [B] for [T, B].

    obs: what the student sees, dict of [T, B, ...].
    teacher: distribution over [T, B]; `label` [T, B, ...] is its greedy action, and all of it where no more is known.
    weight: [T, B], 1 where a step counts: not padding, and not what only builds up a history.
    """

    obs: Obs
    teacher: Distribution
    label: Tensor
    weight: Tensor


def read_batch(
    pairs: Pairs,
    windows: Windows,
    view: ViewSpec,
    burn_in: np.ndarray | None = None,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
) -> Batch:
    """Read windows as a student with this view would have seen them.

    Args:
        pairs: the dataset.
        windows: drawn from it.
        view: the student's.
        burn_in: [B], first steps of each window that only build up memory and do not count; None: all count.
        generator: of the view's noise and dropout.
        device: to place it on.
    """
    schema = pairs.schema
    labels = [f"teacher_{name}" for name in schema.teacher_fields]
    obs, raw = read_view(pairs, windows, view, ["teacher_action", *labels], generator, device)
    params = {name: raw[f"teacher_{name}"] for name in schema.teacher_fields}
    label, weight = raw["teacher_action"], raw["valid"]
    if burn_in is not None:
        weight = weight & (torch.arange(len(weight))[:, None] >= torch.from_numpy(burn_in)).to(weight.device)
    return Batch(
        obs,
        from_params(params, schema.action, squash=bool(schema.extra.get("squash")))
        if params
        else certain(label, schema.action),
        label,
        weight.to(torch.float32),
    )


def read_batches(
    pairs: Pairs,
    windows: Windows,
    size: int,
    view: ViewSpec,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    flat: bool = False,
) -> Iterator[Batch]:
    """Read windows as one batch after the other, `size` windows each, the last one with what is left.

    It reads several small batches at a time: most of a read's time is per call. The other arguments are those of
    `read_batch`.

    Args:
        flat: windows are of one step each, and their time axis is left out. A linear layer is then a node of the
            gradient's graph instead of three.
    """
    step_bytes = 4 * view.vector_size + sum(math.prod(shape) for shape in view.images.values())
    at_once = size * max(1, _READ_BYTES // (size * windows.length * step_bytes))
    action, squash = pairs.schema.action, bool(pairs.schema.extra.get("squash"))
    for begin in range(0, len(windows), at_once):
        found = read_batch(pairs, windows.part(slice(begin, begin + at_once)), view, None, generator, device)
        obs, params = found.obs, found.teacher.params()
        columns = [*obs.values(), *params.values(), found.label, found.weight]
        parts = [value.squeeze(0).split(size) if flat else value.split(size, dim=1) for value in columns]
        for *values, label, weight in zip(*parts, strict=True):
            teacher = from_params(dict(zip(params, values[len(obs) :], strict=True)), action, squash)
            yield Batch(dict(zip(obs, values[: len(obs)], strict=True)), teacher, label, weight)


def check_loss(kind: str, student: PolicySpec, teacher_kind: tuple[str, bool]) -> None:
    """Refuse the KL between distributions of two kinds, which has no closed form.

    Args:
        kind: the loss.
        student: who is to learn.
        teacher_kind: its teacher's `head_kind`.

    Raises:
        UserError: names the flag that makes the student like its teacher.
    """
    if kind != "kl" or not student.action.is_continuous:
        return
    distribution, squash = teacher_kind
    if student.network.distribution != distribution:
        raise UserError(
            f"--loss kl: there is no KL between a teacher's {distribution} and a student's "
            f"{student.network.distribution} distribution: use --student.distribution {distribution}, or --loss mse"
        )
    if student.network.squash != squash:
        flag = "--student.squash" if squash else "--no-student.squash"
        raise UserError(f"--loss kl needs a student whose actions are squashed as its teacher's: use {flag}")


def check_labels(kind: str, schema: PairsSchema, name: str) -> None:
    """Refuse the KL where the labels are actions alone; `name` is that of the dataset's run.

    Raises:
        UserError: names the losses that need no more.
    """
    if kind == "kl" and not schema.teacher_fields:
        raise UserError(
            f"--loss kl needs the teacher's distribution, and {name} has its actions alone: use --loss cross_entropy, "
            "or mse"
        )


def batch_loss(student: Policy, batch: Batch, kind: str) -> Tensor:
    """Mean imitation loss over the steps that count; hidden state zero at the windows' starts."""
    return carried_loss(student, batch, student.initial_hidden(batch.weight.shape[-1]), kind)[0]


def carried_loss(student: Policy, batch: Batch, hidden: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Mean imitation loss over the steps that count, and the hidden state behind the windows' last step.

    `hidden` [B, S] is the one before their first, which is that of the episode where a window begins with one.
    """
    loss, hidden = _summed_loss(student, batch, hidden, kind)
    return loss / batch.weight.sum().clamp(min=1.0), hidden


def _summed_loss(student: Policy, batch: Batch, hidden: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    # A window lies within one episode, so its only reset can be at its start, where hidden is zero anyway.
    dist, hidden = student(batch.obs, hidden, None)
    return (imitation_loss(dist, batch.teacher, batch.label, kind) * batch.weight).sum(), hidden


@torch.no_grad()
def mean_loss(
    student: Policy, pairs: Pairs, episodes: np.ndarray, kind: str, most: int = 16384, chunk: int = 2048
) -> float:
    """Mean loss on the given episodes, over at most about `most` steps, spread evenly and always the same.

    A student without memory is shown single steps, one with memory whole segments of episodes. About `chunk` steps are
    read at a time: all of them at once would take gigabytes where there are pictures.
    """
    length = 1
    if student.is_recurrent:
        lengths = pairs.windows(2**31, start="tile", episodes=episodes)[:].valid_length
        length = int(lengths.max(initial=1))
    index = pairs.windows(length, start="tile", episodes=episodes)
    numbers = np.unique(np.linspace(0, len(index) - 1, min(max(1, most // length), len(index))).astype(np.int64))
    device = next(student.parameters()).device
    noise = stream(0, "imitation/mean_loss", device)
    loss, weight = torch.zeros((), device=device), torch.zeros((), device=device)
    at_once = max(1, chunk // length)
    for begin in range(0, len(numbers), at_once):
        windows = index[numbers[begin : begin + at_once]]
        burn_in = np.where(windows.step == 0, 0, student.encoder.lookback)
        batch = read_batch(pairs, windows, student.spec.view, burn_in, noise, device)
        loss += _summed_loss(student, batch, student.initial_hidden(len(windows)), kind)[0]
        weight += batch.weight.sum()
    return float(loss / weight.clamp(min=1.0))


def fit_normalizer(student: Policy, pairs: Pairs, chunk: int = 4096) -> None:
    """Let the student's normaliser take in every recorded step once, `chunk` at a time. Pictures are not read."""
    if student.encoder.norm is None:
        return
    device = next(student.parameters()).device
    noise = stream(0, "imitation/fit_normalizer", device)
    view = student.spec.view
    view = replace(view, parts=tuple(part for part in view.parts if not part.is_image))
    index = pairs.windows(1, start="tile")
    for begin in range(0, len(index), chunk):
        batch = read_batch(pairs, index[slice(begin, begin + chunk)], view, generator=noise, device=device)
        student.encoder.update_normalizer(batch.obs)


def match_std(student: Policy, pairs: Pairs) -> None:
    """Let a Gaussian student begin with its teacher's deviation.

    A state-independent deviation moves slowly by gradients, and until it has arrived KL(teacher || student) weighs the
    means' distance by the wrong scale.
    """
    if "std" in pairs.schema.teacher_fields:
        index = pairs.windows(1, start="tile")
        numbers = np.unique(np.linspace(0, len(index) - 1, min(1024, len(index))).astype(np.int64))
        std = pairs.gather(index[numbers], ["teacher_std"])["teacher_std"]
        student.head.start_from_std(torch.from_numpy(std.reshape(-1, std.shape[-1]).mean(0)))


def imitation_loss(student: Distribution, teacher: Distribution, teacher_action: Tensor, kind: str) -> Tensor:
    """Loss per sample, [...]: how far the student is from the teacher's label.

    Args:
        student, teacher: distributions over the same batch.
        teacher_action: the label, [...] or [..., D]; used by "cross_entropy".
        kind: "cross_entropy" (-log student(label)), "kl" (KL(teacher || student), all of the teacher's distribution),
            "mse" or "huber", linear from 1 on (between the greedy actions; for discrete actions between probabilities).
    """
    if kind == "cross_entropy":
        return -student.log_prob(teacher_action)
    if kind == "kl":
        return kl(teacher, student)
    if isinstance(student, (Beta, Gaussian)):
        difference = student.mode() - teacher.mode()
    else:
        difference = _probabilities(student) - _probabilities(teacher)
    if kind == "mse":
        return difference.square().mean(-1)
    return F.huber_loss(difference, torch.zeros_like(difference), reduction="none").mean(-1)


def _probabilities(dist: Distribution) -> Tensor:
    if isinstance(dist, MultiCategorical):
        return torch.cat([part.log_p.exp() for part in dist.parts], dim=-1)
    assert isinstance(dist, Categorical)
    return dist.log_p.exp()

"""How well the teacher's action can be told from what a role sees: quick probes on held-out episodes.

A student can be no better than what its view tells of the teacher's action. Cheap predictors (the nearest neighbour,
the vote of the ten nearest, ridge regression, the same on random features, a small network) are fitted on some episodes
and tried on others, for the teacher's own view, for the student's, and for the student's last observations; the best of
them counts. How far the student's stays behind estimates the imitation gap (Weihs et al. 2021, "Bridging the Imitation
Gap by Adaptive Insubordination").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that every torch user expects
from torch import Tensor, nn

from tscli import streams
from tscli.diagnose.sample import Sample
from tscli.envs.spaces import ActionSpec, action_scale
from tscli.envs.views import Obs
from tscli.learning.optim import FlatAdam

HISTORY = 8  # observations, the current one included
LITTLE = 0.1  # share of what there is to know; probes are no closer than that
_CHANCE = 0.02  # difference of two scores
_SIDE = 12  # of a picture as the probes see it
_NEIGHBOURS = 10
_BATCH, _PASSES = 256, 25  # of the network, whose updates are fewer where there is little to see
_HELD_OUT = 0.2  # of the episodes
_CLEAR = 0.95  # a score with which one in a hurry is content for the teacher's own view


class Effort(NamedTuple):
    """How much the probes may cost."""

    fit_rows: int  # steps to fit them on
    test_rows: int  # steps to try them on
    units: int  # random features of the one
    updates: int  # gradient steps of the network
    hurry: bool  # leave out the network, which takes the longest, where the others do well enough without it


@dataclass(frozen=True)
class Gap:
    """Scores on held-out episodes.

    A score is the share of steps in which the action was told right (discrete), or the share of the actions' variance
    that was explained (continuous).
    """

    own: float  # from the teacher's view, and its last observations where the teacher has memory
    student: float  # from the student's view
    history: float  # from the student's last `HISTORY` observations and actions
    base: float  # from nothing: that of the commonest action, or of the mean
    rows: int  # steps that it was tried on

    def lost(self, score: float) -> float:
        """Share of what the teacher's own view tells that a score is behind; 0 within 2 %, which is chance."""
        behind = self.own - score
        return behind / (self.own - self.base) if behind > _CHANCE else 0.0


def _enough(own: float, base: float) -> float:
    """The score from which on nothing worth mentioning is lost."""
    return own - max(_CHANCE, LITTLE * (own - base))


class Probes:
    """Scores of what is seen, all fitted on the same episodes of a sample and tried on the same others."""

    def __init__(self, sample: Sample, effort: Effort, seed: int, fit: Tensor, test: Tensor) -> None:
        self._sample, self._effort, self._seed, self._fit, self._test = sample, effort, seed, fit, test
        self._target = _target(sample.label, sample.action)

    @property
    def rows(self) -> int:
        """Steps that they are tried on."""
        return int(self._test.sum())

    @property
    def base(self) -> float:
        """The score from nothing: that of the commonest action, or of the mean."""
        target = self._target[self._test]
        return _score(self._target[self._fit].mean(0).expand_as(target), target, self._sample.action)

    def score(self, x: Tensor, enough: float = 1.0) -> float:
        """That of the best probe from x [T, B, F]; one in a hurry is content with `enough`."""
        data = (x[self._fit], self._target[self._fit], x[self._test], self._target[self._test])
        return predictability(*data, self._sample.action, self._effort, self._seed, enough)

    def remembered(self, x: Tensor, before: float, enough: float = 1.0, longest: int = HISTORY) -> float:
        """That from the last observations and actions, or `before`, which x alone gave, where that is better."""
        best = before
        for steps in (2, longest):  # the less there is to read, the less it takes to learn what matters
            if best < enough or not self._effort.hurry:
                best = max(best, self.score(self.past(x, steps), enough))
        return best

    def past(self, x: Tensor, steps: int) -> Tensor:
        """`x` with the observations and actions before it, see `with_history`."""
        return with_history(x, self._sample.previous, self._sample.reset, steps)


def make_probes(sample: Sample, effort: Effort, seed: int) -> Probes | None:
    """Probes of a sample; None where there is but one episode and so none to hold out."""
    chosen = _split(sample, effort, streams.generator(seed, "diagnose/split"))
    return None if chosen is None else Probes(sample, effort, seed, *chosen)


def imitation_gap(sample: Sample, recurrent: bool, effort: Effort, seed: int) -> Gap | None:
    """Scores of the probes, or None where there is but one episode and so none to hold out.

    `recurrent`: the teacher has memory. `seed`: of the choice of episodes and rows, and of the probes.
    """
    probes = make_probes(sample, effort, seed)
    if probes is None:
        return None
    base = probes.base
    own = probes.score(features(sample.teacher), _CLEAR)
    if recurrent:
        own = probes.remembered(features(sample.teacher), own, _CLEAR)
    if sample.views[0].parts == sample.views[1].parts:
        return Gap(own, own, own, base, probes.rows)
    enough, seen = _enough(own, base), features(sample.student)
    alone = probes.score(seen, enough)
    return Gap(own, alone, probes.remembered(seen, alone, enough), base, probes.rows)


def _split(sample: Sample, effort: Effort, generator: torch.Generator) -> tuple[Tensor, Tensor] | None:
    """Masks [T, B] of the rows to fit on and to try on, which lie in different episodes."""
    numbers = sample.episode
    present = sample.rows(numbers).unique()
    if len(present) < 2:
        return None
    shuffled = present[torch.randperm(len(present), generator=generator)]
    held_out = torch.isin(numbers, shuffled[: max(1, int(_HELD_OUT * len(present)))])

    def some(mask: Tensor, most: int) -> Tensor:
        places = (mask & sample.valid).flatten().nonzero().squeeze(1)
        chosen = torch.zeros(mask.numel(), dtype=torch.bool)
        chosen[places[torch.randperm(len(places), generator=generator)[:most]]] = True
        return chosen.reshape(mask.shape)

    return some(~held_out, effort.fit_rows), some(held_out, effort.test_rows)


def features(obs: Obs) -> Tensor:
    """An observation as one vector, [T, B, F]: of pictures their grey values, averaged down to 12 x 12."""
    parts = [obs["vector"].to(torch.float32)] if "vector" in obs else []
    for image in (value for name, value in obs.items() if name != "vector"):
        grey = image.to(torch.float32).mean(-1).flatten(0, 1).unsqueeze(1) / 255
        size = (min(_SIDE, grey.shape[-2]), min(_SIDE, grey.shape[-1]))
        parts.append(F.adaptive_avg_pool2d(grey, size).flatten(1).unflatten(0, image.shape[:2]))
    return torch.cat(parts, dim=-1)


def with_history(x: Tensor, previous: Tensor, reset: Tensor, steps: int) -> Tensor:
    """The last observations and executed actions: [T, B, F] and [T, B, A] -> [T, B, min(steps, T) * (F + A)].

    Earlier observations stand there as differences from one to the next, which a small probe reads more easily; zeros
    stand for what was before the episode. reset: [T, B] bool, True at an episode's first step.
    """
    step = torch.arange(len(x))[:, None].expand(reset.shape)
    age = step - torch.where(reset, step, -1).cummax(0).values
    parts = [x, previous]
    for k in range(1, min(steps, len(x))):  # nobody has a longer past
        there = (age >= k).unsqueeze(-1)
        change = torch.zeros_like(x)
        change[k:] = x[1 : len(x) - k + 1] - x[: len(x) - k]
        earlier = torch.zeros_like(previous)
        earlier[k:] = previous[: len(x) - k]
        parts += [change * there, earlier * there]
    return torch.cat(parts, dim=-1)


def _target(label: Tensor, action: ActionSpec) -> Tensor:
    """What a probe predicts, [..., K]: a one-hot per discrete dimension, or the action within its bounds."""
    if action.is_continuous:
        low, high = (torch.tensor(side, dtype=torch.float32) for side in (action.low, action.high))
        center, half = action_scale(action)
        return (torch.minimum(torch.maximum(label, low), high) - center) / half
    columns = label.unsqueeze(-1) if action.kind == "discrete" else label
    coded = [F.one_hot(columns[..., i], n).to(torch.float32) for i, n in enumerate(action.nvec)]
    return torch.cat(coded, dim=-1)


def _score(found: Tensor, target: Tensor, action: ActionSpec) -> float:
    """Share of rows [R, K] in which every choice is right, or of the variance that is explained, at least 0."""
    if not action.is_continuous:
        pairs = zip(found.split(action.nvec, -1), target.split(action.nvec, -1), strict=True)
        right = torch.stack([a.argmax(-1) == b.argmax(-1) for a, b in pairs]).all(0)
        return float(right.float().mean())
    spread = (target - target.mean(0)).square().sum(0)
    moves = spread > 1e-8 * len(target)  # a dimension that never moves explains nothing
    if not bool(moves.any()):
        return 1.0
    return float((1 - (found - target).square().sum(0) / spread.clamp(min=1e-30))[moves].mean().clamp(min=0))


def predictability(
    fit_x: Tensor,
    fit_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    action: ActionSpec,
    effort: Effort,
    seed: int,
    enough: float = 1.0,
) -> float:
    """The score of the best probe.

    Args:
        fit_x, fit_y: inputs [R, F] and targets [R, K] to fit on.
        test_x, test_y: to try it on.
        action, effort: what the targets stand for, and what a probe may cost.
        seed: of random weights and minibatches.
        enough: the score with which one in a hurry is content.
    """
    mean, scale = fit_x.mean(0), fit_x.std(0)
    scale = torch.where(scale > 1e-6, scale, torch.ones_like(scale))
    fit_x, test_x = (fit_x - mean) / scale, (test_x - mean) / scale
    near = torch.cdist(test_x, fit_x).topk(min(_NEIGHBOURS, len(fit_x)), largest=False).indices
    found = [fit_y[near[:, 0]], fit_y[near].mean(1), _ridge(fit_x, fit_y, test_x)]
    found.append(_random_features(fit_x, fit_y, test_x, effort.units, seed))
    best = max(_score(y, test_y, action) for y in found)
    if effort.hurry and best >= enough:
        return best
    return max(best, _score(_network(fit_x, fit_y, test_x, action, effort.updates, seed), test_y, action))


def _ridge(fit_x: Tensor, fit_y: Tensor, test_x: Tensor) -> Tensor:
    """Linear regression with a small penalty, which only keeps equal columns apart."""
    x = F.pad(fit_x, (0, 1), value=1.0).double()
    gram = x.T @ x + 1e-4 * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, x.T @ fit_y.double())
    return (F.pad(test_x, (0, 1), value=1.0).double() @ weight).float()


def _random_features(fit_x: Tensor, fit_y: Tensor, test_x: Tensor, units: int, seed: int) -> Tensor:
    """Linear regression on the inputs and random tanh units of them (Rahimi and Recht 2008)."""
    generator = streams.generator(seed, "diagnose/features")
    weight = torch.randn(fit_x.shape[1], units, generator=generator) * 2 / math.sqrt(fit_x.shape[1])
    bias = torch.randn(units, generator=generator)
    wide = [torch.cat([x, torch.tanh(x @ weight + bias)], dim=1) for x in (fit_x, test_x)]
    return _ridge(wide[0], fit_y, wide[1])


@torch.enable_grad()
def _network(fit_x: Tensor, fit_y: Tensor, test_x: Tensor, action: ActionSpec, updates: int, seed: int) -> Tensor:
    """A network of 64 tanh units: minibatches, Adam with a rate that falls from .01 to 0."""
    generator = streams.generator(seed, "diagnose/network")
    with streams.seeded_init(seed, "diagnose"):
        model = nn.Sequential(nn.Linear(fit_x.shape[1], 64), nn.Tanh(), nn.Linear(64, fit_y.shape[1]))
    optimizer = FlatAdam(model.parameters(), 0.01)
    updates = min(updates, max(50, _PASSES * len(fit_x) // _BATCH))
    for update in range(updates):
        optimizer.lr = 0.01 * (1 - update / updates)
        index = torch.randint(len(fit_x), (_BATCH,), generator=generator)
        out, wanted = model(fit_x[index]), fit_y[index]
        if action.is_continuous:
            loss = (out - wanted).square().mean()
        else:
            parts = zip(out.split(action.nvec, -1), wanted.split(action.nvec, -1), strict=True)
            loss = torch.stack([F.cross_entropy(a, b) for a, b in parts]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model(test_x).detach()

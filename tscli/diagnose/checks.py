"""The checks of `tscli diagnose`: each a function of what is at hand that gives one `Finding`, in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from tscli.diagnose.probe import HISTORY, LITTLE, Gap
from tscli.diagnose.sample import Sample
from tscli.envs.spaces import ActionSpec, action_scale
from tscli.envs.views import ViewSpec
from tscli.learning.rollout import columns
from tscli.learning.statistics import Estimate
from tscli.networks import Policy
from tscli.networks.distributions import Distribution, Gaussian

Level = Literal["fine", "note", "problem"]

# Largest difference between a stored distribution and the same one computed again: rounding differs between machines.
_SAME = 0.01
_LARGE = 1e3  # of an input
_FAR = 8.0  # deviations of the normaliser's
_MUCH = 0.3  # of what the teacher's view tells, hidden from the student
_ALWAYS = 0.99  # of the steps
_CHUNK = 4096  # steps that the teacher labels at a time


@dataclass(frozen=True)
class Finding:
    """What one check has found."""

    level: Level  # "problem": a student will hardly learn; "note": worth knowing; "fine"
    about: str  # the check, in a word or two
    what: str  # a sentence
    advice: str = ""  # what to do about it; "" where there is nothing to do
    figures: dict[str, float] = field(default_factory=dict)  # the numbers behind it

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        figures = {name: value if math.isfinite(value) else None for name, value in self.figures.items()}
        return {**asdict(self), "figures": figures}


# --- the teacher ------------------------------------------------------------------------------------------------------


def teacher_is_good(found: Estimate, random: Estimate | None, goal: float | None, success: float | None) -> Finding:
    """Its greedy return beside that of random actions and of the goal that the task names, and its success.

    Args:
        found: return of the greedy teacher.
        random: return of random actions; None where they were not tried.
        goal: a return at which the task's settings are content; None where they name none.
        success: share of the teacher's episodes that succeed; None where the env does not tell.
    """
    figures = {"return": found.mean}
    words = f"The greedy teacher's return is {found.mean:.4g}"
    advice = "Train it longer or with other settings, and look at its curves.png: a student copies what it does."
    start = 0.0
    if random is not None:
        figures["random_return"] = start = random.mean
        words += f" over {found.count} episodes, that of random actions {start:.4g}"
        margin = 2 * math.sqrt(found.sd**2 / found.count + random.sd**2 / random.count)
        if found.mean - start <= margin:
            return Finding("problem", "teacher", f"{words}: it is no better.", advice, figures)
    level: Level = "fine"
    if goal is not None:
        figures["goal"] = goal
        words += f"; the task's goal is {goal:.4g}"
        reached = (found.mean - start) / (goal - start) if goal > start else 1.0
        level = "problem" if reached < 0.5 else "note" if reached < 0.9 else level
    if success is not None:
        figures["success_rate"] = success
        words += f"; {_percent(success)} of its episodes succeed"
        level = "problem" if success < 0.5 else "note" if success < 0.9 and level == "fine" else level
    return Finding(level, "teacher", f"{words}.", "" if level == "fine" else advice, figures)


def normaliser_fits(teacher: Policy, sample: Sample | None) -> Finding:
    """Whether the teacher's normaliser has seen anything, and where there is a sample, whether it was this."""
    norm = teacher.encoder.norm
    if norm is None:
        return Finding("fine", "normaliser", "The teacher takes its observations as they are.")
    figures = {"count": float(norm.count)}
    if figures["count"] == 0:
        what = "The teacher's normaliser was never updated: it has seen no observation, and so it scales nothing."
        advice = "Train the teacher again, or import it together with its normaliser's mean and deviation."
        return Finding("problem", "normaliser", what, advice, figures)
    words = f"The teacher's normaliser has seen {figures['count']:.3g} observations"
    if sample is None:
        return Finding("fine", "normaliser", f"{words}.", figures=figures)
    seen = sample.rows(sample.teacher["vector"])
    away = (seen - norm.mean.cpu()).abs() * norm.scale.cpu()
    # What is seldom on is far from its mean wherever it is on: that says nothing.
    switch = ((seen == 0) | (seen == 1)).all(0)
    far = torch.where(switch, 0.0, away.median(0).values)
    figures["deviations"] = farthest = float(far.max())
    if farthest <= _FAR:
        return Finding("fine", "normaliser", f"{words}, like those of these steps.", figures=figures)
    names = [name for name, value in zip(_vector_names(sample), far.tolist(), strict=True) if value > _FAR]
    lies = f"{_some(names)} of these steps lies {farthest:.3g} deviations away from the normaliser's mean"
    advice = "Compare the env's units, settings and order of entries with those that the teacher was trained in."
    what = f"The teacher was trained on other observations: {lies}."
    return Finding("problem", "normaliser", what, advice, figures)


def action_bounds(label: Tensor, action: ActionSpec) -> Finding:
    """How often the greedy action lies outside what the env takes. label: [R, D], or [R] of choices."""
    if not action.is_continuous:
        return Finding("fine", "actions", "Actions are choices: none can be out of bounds.")
    low, high = (torch.tensor(side, dtype=torch.float32) for side in (action.low, action.high))
    _, half = action_scale(action)
    beyond = (torch.maximum(low - label, label - high) / half).clamp(min=0).amax(-1)
    share = float((beyond > 1e-4).float().mean())
    figures = {"outside": share, "beyond": float(beyond.max())}
    if share == 0:
        return Finding("fine", "actions", "The teacher's greedy actions lie within their bounds.", figures=figures)
    what = (
        f"The teacher's greedy action is out of bounds in {_percent(share)} of the steps, by up to "
        f"{figures['beyond']:.2g} half ranges"
    )
    if share <= 0.2:  # as that of most teachers with an unbounded distribution
        return Finding("fine", "actions", f"{what}.", figures=figures)
    what += ": the env cuts it off, but the student learns how far out it is."
    advice = "If the student lags behind, train the teacher with --network.squash or --network.distribution beta."
    return Finding("problem" if share > 0.5 else "note", "actions", what, advice, figures)


# --- labels and inputs ------------------------------------------------------------------------------------------------


@torch.no_grad()
def labels_come_out_again(teacher: Policy, sample: Sample) -> Finding:
    """Whether the teacher still says what the dataset holds, given the stored groups from the episode's start.

    The difference is that of probabilities (discrete), or of means in deviations.
    """
    if any(part.noise or part.dropout for part in teacher.spec.view.parts):
        text = "The teacher's view is noisy, and what it saw is not stored: its labels cannot be checked."
        return Finding("note", "labels", text)
    device = teacher.head.linear.weight.device
    differences = []
    params = sample.dist.params()
    per_chunk = max(1, _CHUNK // len(sample.valid))
    for index in torch.arange(sample.valid.shape[1]).split(per_chunk):
        obs = {name: value.to(device) for name, value in columns(sample.teacher, index).items()}
        reset = sample.reset[:, index].to(device)
        dist, _ = teacher(obs, teacher.initial_hidden(len(index)), reset)
        differences.append(_difference(dist, columns(params, index), sample.action))
    difference = torch.cat(differences, dim=1)
    # The stored action must be the mode of the stored distribution as well.
    wrong = sample.rows(~(difference <= _SAME) | ~_same_action(sample.dist.mode(), sample.label, sample.action))
    share, largest = float(wrong.float().mean()), float(sample.rows(difference).max())
    figures = {"wrong": share, "largest_difference": largest, "steps": float(sample.num_steps)}
    if share == 0:
        text = f"The labels of {sample.num_steps} stored steps come out again (largest difference {largest:.1g})."
        return Finding("fine", "labels", text, figures=figures)
    return Finding(
        "problem",
        "labels",
        f"In {_percent(share)} of {sample.num_steps} stored steps the label is not what the teacher says to the stored "
        f"observation (largest difference {largest:.2g}).",
        "Collect again: the pairs were changed, or recorded from another teacher or with other groups.",
        figures,
    )


def _difference(found: Distribution, stored: dict[str, Tensor], action: ActionSpec) -> Tensor:
    """[T, B]: how far a distribution is from stored parameters, at the worst entry."""
    params = {name: value.cpu() for name, value in found.params().items()}
    if not action.is_continuous:
        pairs = zip(*(p["logits"].split(action.nvec, -1) for p in (params, stored)), strict=True)
        worst = [(a.softmax(-1) - b.softmax(-1)).abs().amax(-1) for a, b in pairs]
        return torch.stack(worst).amax(0)
    if isinstance(found, Gaussian):
        mean = (params["mean"] - stored["mean"]) / stored["std"]
        return torch.maximum(mean.abs(), (params["std"] / stored["std"]).log().abs()).amax(-1)
    return torch.stack([(params[name] / stored[name]).log().abs() for name in stored]).amax(0).amax(-1)


def _same_action(a: Tensor, b: Tensor, action: ActionSpec) -> Tensor:
    """[T, B] bool."""
    if action.is_continuous:
        _, half = action_scale(action)
        return ((a - b).abs() <= 1e-3 * half).all(-1)
    return a == b if action.kind == "discrete" else (a == b).all(-1)


def constant_inputs(sample: Sample) -> Finding:
    """Which entries of the views never change.

    Entries of zeros and ones, such as a colour that is never met, may well stay as they are; a whole group of them not.
    """
    names = sorted({name for view in sample.views for name in _still(sample, view)})
    student = sample.views[1]
    vector = sample.rows(sample.student["vector"]) if not student.images else None
    if vector is not None and bool((vector == vector[0]).all()):
        return Finding(
            "problem",
            "inputs",
            f'Nothing that the student sees ("{student.name}") changes while the teacher acts: it can learn one action '
            "at the most.",
            "Look at the view; if it is right, rewards must teach: `--method advisor`, `tscli gpo`, `tscli sitt`.",
            {"constant": float(vector.shape[1])},
        )
    if not names:
        return Finding("fine", "inputs", "Every group that teacher and student see changes.")
    text = f"{_some(names)} {'is' if len(names) == 1 else 'are'} the same in all of {sample.num_steps} steps"
    text += ": nothing can be learnt from what never changes."
    advice = "Is it meant to be constant, or does the env not fill it in?"
    return Finding("note", "inputs", text, advice, {"constant": float(len(names))})


def _still(sample: Sample, view: ViewSpec) -> Iterable[str]:
    for part in view.parts:
        if part.group not in sample.groups:  # the previous action
            continue
        group = sample.env_groups[part.group]
        values = sample.rows(sample.groups[part.group])
        if part.is_image:
            if bool((values == values[0]).all()):
                yield part.group
            continue
        values = values.reshape(len(values), -1)[:, list(part.index or range(group.size))]
        low, high = values.amin(0), values.amax(0)
        same = high - low <= 1e-6 * torch.maximum(low.abs(), high.abs()).clamp(min=1)
        if bool(same.all()):
            yield part.group
        elif not bool(((values == 0) | (values == 1)).all()):
            yield from (_entry(sample, part.group, part.index, i) for i in same.nonzero().flatten().tolist())


def large_inputs(sample: Sample, normalised: bool) -> Finding:
    """Which inputs are very large, or beyond the bounds that their group states.

    `normalised`: the student has a normaliser, to which a large number is as good as any other.
    """
    large: dict[str, float] = {}
    outside: list[str] = []
    for name, values in sample.groups.items():
        group = sample.env_groups[name]
        rows = sample.rows(values).to(torch.float32)
        if not group.is_image:
            most = rows.abs().reshape(len(rows), -1).amax(0).tolist()
            large |= {_entry(sample, name, None, i): value for i, value in enumerate(most) if value > _LARGE}
        slack = 1e-4 * max([1.0, *(abs(side) for side in (group.low, group.high) if math.isfinite(side))])
        low, high = float(rows.min()), float(rows.max())
        if low < group.low - slack or high > group.high + slack:
            outside.append(f"{name} ({low:.3g} to {high:.3g})")
    figures = {"large": float(len(large)), "outside": float(len(outside))}
    if large:
        known = "The normalisers make up for it" if normalised else "The student has no normaliser to make up for it"
        what = f"{_some(large)} reach {max(large.values()):.3g}. {known}."
        advice = "Give it in larger units, or clip it in the env." + ("" if normalised else " Or: --student.normalize.")
        return Finding("note" if normalised else "problem", "range", what, advice, figures)
    if outside:
        what = f"{_some(outside)} leaves the bounds that the env states."
        return Finding("note", "range", what, "Correct the bounds, or the observation.", figures)
    return Finding("fine", "range", "No input is very large or out of its stated bounds.", figures=figures)


# --- what the student can know ----------------------------------------------------------------------------------------


def from_student_view(gap: Gap | None, sample: Sample, memory: bool) -> Finding:
    """Whether what the student sees tells what the teacher does.

    `gap` was found on `sample` (None: too few episodes); `memory`: the student is going to have memory.
    """
    if gap is None:
        return Finding("note", "view", "One episode is too little to tell what the student can know.", "Collect more.")
    figures = {"own": gap.own, "student": gap.student, "history": gap.history, "base": gap.base}
    teacher, student = sample.views
    now, past = _shares(gap, sample.action.is_continuous)
    if gap.base > _ALWAYS:
        what = f"The teacher does the same in {_percent(gap.base)} of these steps: there is hardly anything to learn."
        return Finding("note", "view", what, "Look at what it does: `tscli eval --render gif`.", figures)
    if teacher.parts == student.parts:
        return Finding("fine", "view", "The student sees what the teacher sees.", figures=figures)
    if _is_rough(gap):
        advice = "`tscli distill --obs` with the teacher's view shows what can be reached at the best."
        return Finding("note", "view", f"{now}: too rough a guess to tell what the student can know.", advice, figures)
    if gap.lost(gap.student) <= LITTLE:
        return Finding("fine", "view", f"{now}.", figures=figures)
    lost, remember = gap.lost(gap.history), "" if memory else "Give it memory: --student rnn (or gru, history)."
    if lost <= LITTLE and memory:
        return Finding("fine", "view", f"{past}; it has memory.", figures=figures)
    if lost <= LITTLE:
        return Finding("note", "view", f"{past}.", remember, figures)
    if student.images:
        advice = "The guess is made from 12 x 12 grey values; a network sees more. Try it."
        return Finding("note", "view", f"{past}.", f"{remember} {advice}".strip(), figures)
    teach = (
        "show it more (--obs), let rewards teach (`tscli distill --method advisor`, `tscli finetune`), or train a "
        "teacher that it can follow (`tscli sitt`, `tscli gpo`)"
    )
    if lost <= _MUCH:
        advice = f"{remember} If it lags behind, {teach}."
        return Finding("note", "view", f"{past}: a part may be hidden from it.", advice.strip(), figures)
    what = f"{past}: the student cannot tell apart states in which the teacher acts differently."
    return Finding("problem", "view", what, f"{teach[0].upper()}{teach[1:]}.", figures)


def memory_within_window(gap: Gap | None, sample: Sample, kind: str, window: tuple[str, int]) -> Finding:
    """Whether the steps through which a student's memory learns reach as far back as it seems to have to remember.

    `gap` was found on `sample`; `kind` of the student's body; `window`: these steps, behind the name of their setting.
    """
    name, steps = window
    ends = kind not in ("rnn", "gru", "mingru")  # or it is as long as what the body is shown
    if gap is None or ends or _is_rough(gap) or gap.lost(gap.student) <= LITTLE:
        return Finding("fine", "memory", "Nothing says that it has to remember what it cannot learn to.")
    longest = int(torch.bincount(sample.rows(sample.episode)).max())
    needed = min(longest, HISTORY) if gap.lost(gap.history) <= LITTLE else longest
    figures = {"window": float(steps), "needed": float(needed)}
    if steps >= needed:
        return Finding(
            "fine", "memory", f"It learns through {steps} steps, and has to remember {needed}.", figures=figures
        )
    what = f"Its memory learns through {steps} steps, and what it does not see may lie up to {needed} steps back."
    advice = f"Try --{name} {min(4 * steps, needed)}, or --student history --student.history {min(HISTORY, needed)}."
    return Finding("note", "memory", what, advice, figures)


def _is_rough(gap: Gap) -> bool:
    return gap.own - gap.base < 0.5 * (1 - gap.base)


def _shares(gap: Gap, continuous: bool) -> tuple[str, str]:
    """What can be guessed of the teacher's action, without and with the student's past."""
    own, alone, past = (_percent(score) for score in (gap.own, gap.student, gap.history))
    if continuous:
        now = f"The teacher's view explains {own} of the variance of its action, the student's {alone}"
        return now, f"{now}, the student's last {HISTORY} observations and actions {past}"
    now = f"From its own view the teacher's action can be told in {own} of the steps, from the student's in {alone}"
    return now, f"{now}, from the student's last {HISTORY} observations and actions in {past}"


def _percent(share: float) -> str:
    """97 %; of what is almost nothing or almost all one digit more."""
    digits = 0 if 0.01 <= share <= 0.99 or share in (0, 1) else 1
    return f"{100 * share:.{digits}f} %"


def _some(names: Iterable[str], most: int = 4) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


def _entry(sample: Sample, group: str, index: tuple[int, ...] | None, i: int) -> str:
    """`state[angle]`, `state[2]`, or `state` where it has one entry."""
    spec, number = sample.env_groups[group], i if index is None else index[i]
    return group if spec.size == 1 else f"{group}[{spec.fields[number] if spec.fields else number}]"


def _vector_names(sample: Sample) -> list[str]:
    """The entries of the teacher's vector, in order."""
    return [
        _entry(sample, part.group, part.index, i) if part.group in sample.env_groups else f"{part.group}[{i}]"
        for part in sample.views[0].parts
        if not part.is_image
        for i in range(part.size)
    ]

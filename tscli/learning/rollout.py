"""Views and an env in step with each other, and what a critic makes of a rollout."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tscli import devices, ranks
from tscli.config import UserError
from tscli.envs import VecEnv
from tscli.envs.spaces import ActionSpec, action_scale
from tscli.envs.views import Obs, View, ViewSpec
from tscli.learning.record import Fields
from tscli.networks import Critic


class Step(NamedTuple):
    """One step of every env; [N] each. `action` is what was executed, within bounds."""

    action: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    done: Tensor
    success: Tensor


class Final(NamedTuple):
    """What a role saw last in episodes that a step truncated.

    `rows` are their numbers [K], and `obs` is [K, ...]; or where numbers would have to be waited for, `rows` is a mask
    [N] bool and `obs` of all rows [N, ...].
    """

    rows: Tensor
    obs: Obs


class ViewedEnv:
    """An env with the views of the roles that take part; it keeps the order of a step.

    First env.step, then the final observations of truncated rows, then each view advances once; the next `observe` is
    of the new state. Views are pulled: a role that is not asked costs nothing. NaN and infinity are refused wherever
    they come from the env, before anyone acts on them.

    Attributes:
        num_steps: calls of `step` so far, those before a resume included.
        num_frames: pictures that were asked for so far, which a camera had to take.
        defers: NaN and infinity are looked for in `check`, once per rollout; nothing in a step waits for the device.

    Args:
        env: already built; it is reset here.
        views: role -> view.
        seed: of the env's episodes and the views' noise.
        final_for: roles whose final observations are wanted (to bootstrap truncated episodes).
        start: draws how long ago first episodes count as begun, so that their time limits are spread out; None: now.
        name: under which metrics tell of the env.
    """

    def __init__(
        self,
        env: VecEnv,
        views: Mapping[str, ViewSpec],
        seed: int,
        final_for: Iterable[str] = (),
        start: torch.Generator | None = None,
        name: str = "env",
    ):
        self.env, self._start, self._name = env, start, name
        self.defers = env.is_native and not devices.host_may_look(env.device)
        env.first = ranks.rank() * env.num_envs
        env.reset(seed)
        if start is not None:
            env.start_part_way(start)
        # Roles that see the same share one view, so that it is read once.
        distinct: dict[ViewSpec, View] = {}
        for spec in views.values():
            if spec not in distinct:
                distinct[spec] = View(spec, env.action, env, seed)
        self.views = {role: distinct[spec] for role, spec in views.items()}
        self._distinct = list(distinct.values())
        self._final_for = tuple(final_for)
        self._checked: set[View] = set()  # in this step
        self._cameras = {name for name, group in env.groups.items() if group.is_image} | set(env.camera_vectors)
        self._pictures = {role: self._cameras & {p.group for p in spec.parts} for role, spec in views.items()}
        self._taken: set[str] = set()  # pictures of all envs, in this step
        self.num_steps = self.num_frames = self._told = 0
        self._finals: dict[str, Final] = {}
        self._unchecked: list[tuple[int, ViewSpec | str, Obs]] = []
        self._bounded = env.action.is_continuous
        if self._bounded:
            self._low = torch.tensor(env.action.low, dtype=torch.float32, device=env.device)
            self._high = torch.tensor(env.action.high, dtype=torch.float32, device=env.device)

    def observe(self, role: str, rows: Tensor | None = None) -> Obs:
        """What a role sees now: dict of [N, ...], or of those rows."""
        view = self.views[role]
        obs = view.observe(rows)
        self._count(self._pictures[role], None if rows is None else len(rows))
        if view not in self._checked:
            self._check(view.spec, obs, rows)
            if rows is None:
                self._checked.add(view)
        return obs

    def final(self, role: str) -> Final | None:
        """What a role saw last in the episodes that the latest step truncated, if there are any."""
        return self._finals.get(role)

    def record(self, groups: Iterable[str]) -> dict[str, Tensor]:
        """The groups as they are now, [N, ...] on the CPU, to be kept."""
        values = {group: self.env.observe(group).cpu() for group in groups}
        self._count(self._cameras.intersection(groups))
        check_finite({group: value.unsqueeze(0) for group, value in values.items()}, self.num_steps)
        return values

    def _count(self, images: Iterable[str], rows: int | None = None) -> None:
        for group in images:
            self.num_frames += rows if rows is not None else self.env.num_envs * (group not in self._taken)
            self._taken |= {group} if rows is None else set()

    def step(self, action: Tensor) -> Step:
        """Act in every env.

        Raises:
            UserError: NaN or infinity as continuous action, reward or last observation.
        """
        if self._bounded:
            if not self.defers:
                _check_action(action, self.num_steps)
            # A squashed policy draws in float64, for its own sake.
            action = torch.minimum(torch.maximum(action.to(self._low.dtype), self._low), self._high)
        for view in self._distinct:
            if view.spec.has_memory:
                view.observe()  # a delayed reading must be taken at every step, whoever asks for it
        reward, terminated, truncated, success = self.env.step(action)
        self._check("reward", {"reward": reward})
        done = terminated | truncated
        self._finals = {}
        if self._final_for and self.defers:
            every = torch.arange(self.env.num_envs, device=self.env.device)
            self._finals = {role: Final(truncated, self.views[role].final(every, action)) for role in self._final_for}
        elif self._final_for and bool(truncated.any()):
            rows = truncated.nonzero().squeeze(1)
            self._finals = {role: Final(rows, self.views[role].final(rows, action)) for role in self._final_for}
            for role, final in self._finals.items():
                self._check(self.views[role].spec, final.obs, rows)
        for role, final in self._finals.items():
            self.num_frames += len(next(iter(final.obs.values()))) * len(self._pictures[role])
        for view in self._distinct:
            view.advance(action, done)
        self._checked.clear()
        self._taken.clear()
        self.num_steps += 1
        return Step(action, reward, terminated, truncated, done, success)

    def tell(self) -> dict[str, float]:
        """What the env tells of the steps since this was asked last; nothing where there were none."""
        found, steps, self._told = self.env.metrics(), self.num_steps - self._told, self.num_steps
        return {f"{self._name}/{key.removeprefix('env/')}": value for key, value in found.items()} if steps else {}

    def check(self) -> None:
        """Where checks are deferred: refuse NaN and infinity among all that the env gave since the last call.

        Raises:
            UserError: names the first of them.
        """
        values = [value for _, _, obs in self._unchecked for value in obs.values() if value.is_floating_point()]
        if values and not bool(torch.isfinite(torch.stack([value.sum() for value in values])).all()):
            for step, what, obs in self._unchecked:
                _refuse(what, obs, step)
        self._unchecked.clear()

    def _check(self, what: ViewSpec | str, obs: Obs, rows: Tensor | None = None) -> None:
        if self.defers:
            self._unchecked.append((self.num_steps, what, obs))
        else:
            _refuse(what, obs, self.num_steps, rows)

    def state_dict(self) -> dict[str, Any]:
        """The env and its views, for exact resume."""
        views = [view.state_dict() for view in self._distinct]
        counts = {"num_steps": self.num_steps, "num_frames": self.num_frames}
        return {"env": self.env.state_dict(), "views": views, **counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`. Where the env cannot (`exact_resume` is False), its episodes start anew."""
        self.env.load_state_dict(state["env"])
        self.num_steps, self.num_frames = state["num_steps"], state.get("num_frames", 0)
        self._told = self.num_steps
        self._checked.clear()
        self._taken.clear()
        for view, saved in zip(self._distinct, state["views"], strict=True):
            if self.env.exact_resume:
                view.load_state_dict(saved)
            else:
                view.restart(saved)
        if self._start is not None and not self.env.exact_resume:
            self.env.start_part_way(self._start)


@torch.no_grad()
def states_before(
    run: Callable[[Obs, Tensor, Tensor], tuple[Tensor, Tensor]], obs: Obs, hidden: Tensor, reset: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """Run an encoder, or a latent's, over a rollout in sequences of `length` steps.

    Args:
        run: of observations, hidden state and resets of a sequence; gives what comes out, and the hidden state after.
        obs: [T, N, ...].
        hidden: before obs[0], [N, S].
        reset: [T, N] bool.
        length: it divides T.

    Returns:
        its hidden states before each sequence [T / length, N, S], and after the last step [N, S].
    """
    if not hidden.shape[1]:  # nothing to be carried on
        return hidden.expand(len(reset) // length, *hidden.shape), hidden
    states = []
    for t in range(0, len(reset), length):
        states.append(hidden)
        part = slice(t, t + length)
        _, hidden = run(take(obs, part), hidden, reset[part])
    return torch.stack(states), hidden


class Values(NamedTuple):
    """What one critic pass over a rollout gives.

    value: [T, N], V(obs[t]).
    next_value: [T, N], V of the observation after step t, before any reset. Where an episode terminated it is V of the
        next episode's start, which `compute_gae` ignores.
    hiddens: [T / length, N, S], the critic's hidden state before each sequence of `length` steps.
    hidden: [N, S], the critic's hidden state after the rollout.
    """

    value: Tensor
    next_value: Tensor
    hiddens: Tensor
    hidden: Tensor


@torch.no_grad()
def rollout_values(critic: Critic, obs: Obs, rollout: Fields, hidden: Tensor, length: int) -> Values:
    """One critic pass per rollout.

    Args:
        critic: V.
        obs: [T + 1, N, ...], the observation after the last step included.
        rollout: its `reset` [T + 1, N] bool, and `last_seen`: for each step what `ViewedEnv.final` gave.
        hidden: critic's hidden state before obs[0].
        length: steps of a training sequence; it divides T.
    """
    reset = rollout.reset
    steps, finals = len(reset) - 1, _by_step(rollout.last_seen)
    if not critic.is_recurrent:
        value, _ = critic(obs, hidden, None)
        hiddens = hidden.expand(steps // length, *hidden.shape)
    else:
        values, states = [], []
        for t in range(0, steps, length):
            states.append(hidden)
            part = slice(t, t + length)
            values.append(critic(take(obs, part), hidden, reset[part]))
            hidden = values[-1][1]
        last, _ = critic(take(obs, slice(steps, None)), hidden, reset[steps:])
        value, hiddens = torch.cat([*[v for v, _ in values], last]), torch.stack(states)
    next_value = value[1:].clone()
    if finals and not critic.is_recurrent:
        batch = {k: torch.cat([final.obs[k] for _, final in finals]).unsqueeze(0) for k in finals[0][1].obs}
        found = critic(batch, hidden[:0], None)[0][0].split([len(final.rows) for _, final in finals])
        for (t, final), part in zip(finals, found, strict=True):
            next_value[t, final.rows] = part
    elif finals:
        # With memory, the value of a last observation depends on the steps before it: run those columns again with
        # the last observation in the place of the next episode's first.
        for t, final in finals:
            column = {k: torch.cat([obs[k][: t + 1, final.rows], final.obs[k].unsqueeze(0)]) for k in obs}
            going_on = torch.zeros(1, len(final.rows), dtype=torch.bool, device=reset.device)
            column_reset = torch.cat([reset[: t + 1, final.rows], going_on])
            next_value[t, final.rows] = critic(column, hiddens[0, final.rows], column_reset)[0][-1]
    return Values(value[:-1], next_value, hiddens, hidden)


def _by_step(last_seen: Sequence[Final | None]) -> list[tuple[int, Final]]:
    """Step and final observations of the truncated episodes alone; masks are read once for all steps."""
    finals = [(t, final) for t, final in enumerate(last_seen) if final is not None]
    if not finals or finals[0][1].rows.dtype != torch.bool:
        return finals
    at, rows = torch.stack([final.rows for _, final in finals]).nonzero(as_tuple=True)
    counts = torch.bincount(at, minlength=len(finals)).tolist()
    by_step = zip(finals, rows.split(counts), strict=True)
    return [(t, Final(r, take(final.obs, r))) for (t, final), r in by_step if len(r)]


def perturb(action: Tensor, spec: ActionSpec, noise: float, generator: torch.Generator) -> Tensor:
    """Disturb actions [N, ...].

    Discrete ones are random with probability `noise`, each dimension for itself; continuous ones get Gaussian noise of
    `noise` half ranges (of 1 where unbounded).
    """
    if spec.is_continuous:
        _, half = action_scale(spec, action.device)
        return action + noise * half * torch.empty_like(action).normal_(generator=generator)
    shape, device = action.shape, action.device
    draws = [torch.randint(n, shape[:1], generator=generator, device=device) for n in spec.nvec]
    random = draws[0] if spec.kind == "discrete" else torch.stack(draws, dim=-1)
    replace = torch.empty(shape, device=device).uniform_(generator=generator) < noise
    return torch.where(replace, random, action)


def take(obs: Obs, index: Any) -> Obs:
    """Index every entry of an observation."""
    return {k: v[index] for k, v in obs.items()}


def columns(obs: Obs, index: Tensor) -> Obs:
    """Columns of every entry: [L, B, ...] and index [K] -> [L, K, ...]. A quarter of the time that indexing takes."""
    return {k: v.index_select(1, index) for k, v in obs.items()}


def check_finite(values: Mapping[str, Tensor], first_step: int, rows: Tensor | None = None) -> None:
    """Refuse NaN and infinity from an env.

    Args:
        values: what to check, [T, N, ...] each, by the name that the user knows.
        first_step: number of the first of those steps, to name the bad one.
        rows: numbers of the N envs, where they are not all.

    Raises:
        UserError: names the quantity, the env and the step.
    """
    for name, value in values.items():
        if _is_finite(value):
            continue
        t, n = (~torch.isfinite(value)).nonzero()[0, :2].tolist()
        bad = value[t, n].flatten()
        bad = bad[~torch.isfinite(bad)][0].item()
        n = n if rows is None else int(rows[n])
        raise UserError(
            f"the env gave {bad} as {name} (env {n}, its step {first_step + t}), which would ruin all that comes of "
            "it: mend the env, or clip what it returns"
        )


def _check_action(action: Tensor, step: int) -> None:
    """Refuse NaN and infinity from a policy, [N, D], before an env is given it and blamed for what comes of it."""
    if not _is_finite(action):
        bad = action[~torch.isfinite(action)][0].item()
        raise UserError(
            f"the policy gave {bad} as its action (step {step}): its weights have diverged, so lower --lr and train it "
            "again"
        )


def _is_finite(value: Tensor) -> bool:
    # The sum is by far the cheapest test; only where it overflows must the entries be looked at.
    if not value.dtype.is_floating_point or math.isfinite(float(value.sum())):
        return True
    return bool(torch.isfinite(value).all())


def _refuse(what: ViewSpec | str, obs: Obs, step: int, rows: Tensor | None = None) -> None:
    """Refuse NaN and infinity in a reward or in what a role sees, [N, ...]; only then is it taken apart for a name."""
    if all(map(_is_finite, obs.values())):
        return
    if isinstance(what, str):
        return check_finite({what: obs[what].unsqueeze(0)}, step, rows)
    spec = what
    parts = [part for part in spec.parts if not part.is_image]
    pieces = obs["vector"].split([part.size for part in parts], dim=-1)
    named = {part.group: piece.unsqueeze(0) for part, piece in zip(parts, pieces, strict=True) if not _is_finite(piece)}
    check_finite(named, step, rows)

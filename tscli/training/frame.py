"""The frame around a training loop: what every stage does before, between and after its iterations.

A stage makes its parts, opens the frame, and writes its loop:

    at = State(reset=..., hidden=...)  # what one iteration hands to the next
    parts = {"policy": policy, "optimizer": optimizer, "viewed": viewed, "at": at, "act": act_stream}
    with Training(session, config, task, parts, {"policy": policy}, ...) as training:
        for _ in training.iterations():
            ...  # roll out, learn: the method
            training.log({"loss/policy": ...})
        return training.report(CURVES, "CartPole: PPO")

The frame restores and saves the parts, keeps the clock, measures the kept policies when that is due and saves the best
of them, stops early, and reports the best on episodes that did not choose it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal

from torch import nn

from tscli import ranks, streams
from tscli.config import TrainingConfig, UserError
from tscli.envs import VecEnv
from tscli.learning.episodes import EpisodeStats
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy
from tscli.networks.files import check_loadable, load_policy_file
from tscli.pictures import curves
from tscli.runs import Run, teacher_roles
from tscli.runs.session import Session
from tscli.tasks import Task
from tscli.training import setup
from tscli.training.evaluation import beside_teacher, measure
from tscli.training.filming import FILMS, short_film
from tscli.training.latents import understood
from tscli.training.state import Clock, State, restore, resume_note, snapshot

# Of the env steps of training: what evaluations may take. Steps are counted, not seconds, so that a resumed run skips
# the same evaluations.
_EVAL_SHARE = 0.2


class Training:
    """See the module's docstring. Leaving the `with` block closes the envs of all parts.

    Attributes:
        run: the run folder in the making.
        resumed: whether the parts were brought back from a checkpoint.
        num_iterations, per_iteration: of the whole training, and units in each.
        clock: seconds of the loop; `with training.clock:` leaves something out of them.

    Args:
        session, config, task: as the stage has them.
        parts: by name, all that an iteration depends on: modules, optimisers, views in step with envs, generators,
            `State`s. None is left out. One that has `restart()` is told where an env cannot be restored.
        keep: file's name -> policy to be measured and kept, the student or only policy first, under "policy". Its
            figures are "eval/...", those of another "eval_<name>/...".
        role: "teacher" or "student": what the kept policy is.
        total: units of training, rounded up to whole iterations.
        per_iteration: units that an iteration takes, of this process's envs.
        parents: runs that this one is made from.
        unit: "step" of all envs of all processes, or "epoch".
        count: name under which iterations are logged; left out where an iteration is an epoch.
        unit_steps: env steps, or recorded ones, that a unit stands for.
        score: the metric that chooses the best; of several the first that the env tells.
        details: more for the manifest.
        blame: the setting to lower when the losses diverge.
    """

    def __init__(
        self,
        session: Session,
        config: TrainingConfig,
        task: Task,
        parts: Mapping[str, Any],
        keep: Mapping[str, Policy],
        role: str,
        total: int,
        per_iteration: int = 1,
        *,
        parents: dict[str, Run] | None = None,
        unit: Literal["step", "epoch"] = "step",
        count: str = "iteration",
        unit_steps: int = 1,
        score: Sequence[str] = ("eval/return",),
        details: Mapping[str, Any] | None = None,
        blame: str = "--lr",
    ) -> None:
        per_iteration *= ranks.size() if unit == "step" else 1
        self._task = task
        self._session, self._config, self._parts, self._keep = session, config, dict(parts), dict(keep)
        named = {"command": session.command, "method": session.method, "task": task.source}
        self._start = {**named, "role": role, "parents": parents}
        self._total, self.per_iteration, self._unit = total, per_iteration, unit
        self._count, self._unit_steps = "epoch" if unit == "epoch" else count, unit_steps
        self._score, self._details, self._blame = score, details or {}, blame
        self.num_iterations = -(-total // per_iteration)
        for policy in keep.values():
            check_loadable(policy)
        self._viewed = [part for part in parts.values() if isinstance(part, ViewedEnv)]
        self._device = next(keep["policy"].parameters()).device
        self._envs = setup.eval_envs(task, config.eval_episodes, self._device)
        if config.stop_success is not None and not self._envs[0].has_success:
            raise UserError(f"--stop-success: task {task.name} does not tell success, give --stop-return instead")
        self._film_env = setup.film_env(task, "gif" if config.film_every else "none", self._device)
        # A row of a native env costs next to nothing, and its tasks stop early by what evaluations say.
        self._spares = not self._envs[0].is_native
        self._now = State(
            iteration=0,
            best=-math.inf,
            score_name="",
            streak=0,
            seconds=0.0,
            first=None,
            eval_steps=0.0,
            latest_steps=0.0,
        )

    def __enter__(self) -> Training:
        self._stack = ExitStack()
        for env in {*(viewed.env for viewed in self._viewed), *self._envs, self._film_env}:
            if env is not None:
                self._stack.callback(env.close)
        self.run = self._stack.enter_context(self._session.start(self._config, **self._start))
        self._line = self._stack.enter_context(self._session.progress(self._total, f"{self._unit}s"))
        self.resumed = self.run.state is not None
        self._exact = all(viewed.env.exact_resume for viewed in self._viewed)
        if self.run.state is not None:
            restore(self.run.state, {**self._parts, "frame": self._now}, self._device)
            if not self._exact:
                self._restart(self._parts)
            where = f"{self._count} {self._now.iteration} of {self.num_iterations}"
            self._session.say(resume_note(self.run.name, where, self._exact))
        ranks.same_weights(part for part in self._parts.values() if isinstance(part, nn.Module))
        self.clock = Clock(self._now.seconds)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def add(self, name: str, part: Any) -> None:
        """One more part, which has been brought back already: one that lives in the run's folder."""
        self._parts[name] = part
        if self.resumed and not self._exact:
            self._restart({name: part})

    def _restart(self, parts: Mapping[str, Any]) -> None:
        for part in parts.values():
            if hasattr(part, "restart"):
                part.restart()

    def keep_as_it_is(self) -> None:
        """Measure and save the policies before they learn; only what is better than that will replace them."""
        if not self.resumed:
            self._now.first = self._now.best = self._score_of(self._select())
            self._save()
            self._session.say(f"the student as it is: return {self._now.first:.1f}")
            self.clock = Clock()

    def iterations(self) -> Iterator[int]:
        """Numbers of the iterations that are left, from 0; ends early when the goal is reached."""
        now = self._now
        for iteration in range(now.iteration, self.num_iterations):
            now.iteration, self._done = iteration + 1, False
            yield iteration
            if self._done:
                break
            now.seconds = self.clock.seconds
            self.run.save_if_due(
                lambda: snapshot({**self._parts, "frame": now}), self._config.checkpoint_every, self._exact
            )
        now.seconds = self.clock.seconds

    @property
    def left(self) -> float:
        """Share of the training that is left, 1 in the first iteration: for schedules."""
        return 1 - (self._now.iteration - 1) / self.num_iterations

    @property
    def done(self) -> int:
        """Units of training when this iteration ends."""
        return self._now.iteration * self.per_iteration

    def is_due(self, last: bool = False) -> bool:
        """Whether this iteration ends with an evaluation; the last one always does.

        In an env that is not native others wait until all of them, with one more, take no more than a fifth of the
        steps of training. One more is as long as the episodes of training are, or as the latest evaluation was.
        """
        config, now = self._config, self._now
        if last or now.iteration == self.num_iterations:
            return True
        if not config.eval_every or now.iteration % config.eval_every:
            return False
        lengths = [stats.latest["rollout/length"] for stats in self._parts.values() if isinstance(stats, EpisodeStats)]
        played = len(self._keep) * config.eval_episodes
        expected = played * lengths[0] if lengths and lengths[0] else now.latest_steps
        # The one at the end has to find room as well.
        room = min(self.done * _EVAL_SHARE * self._unit_steps, self._total * _EVAL_SHARE * self._unit_steps - expected)
        return not self._spares or now.eval_steps + expected <= room

    def log(
        self,
        metrics: Mapping[str, Any],
        show: Sequence[str] = (),
        last: bool = False,
        measure: bool = True,
        end: float | None = None,
    ) -> None:
        """One iteration's metrics; when an evaluation is due its figures join them, and the best policies are saved.

        Args:
            metrics: by name; those named "loss/..." must be finite.
            show: metrics to show in the line of progress, besides the return.
            last: there is nothing left to learn from.
            measure: False puts a due evaluation off, but for the last one.
            end: unit at which the training is expected to end, where that is before the total.
        """
        now, config, seconds = self._now, self._config, self.clock.seconds
        for viewed in self._viewed:
            viewed.check()
        told = {name: value for viewed in self._viewed for name, value in viewed.tell().items()}
        metrics = ranks.mean_of({**metrics, **told})
        line = {self._unit: self.done, self._count: now.iteration, **metrics, **self._frames(), "loop_seconds": seconds}
        if self._unit == "step":
            line["steps_per_second"] = self.done / seconds
        self._check_divergence(line)
        last = last or now.iteration == self.num_iterations
        if last or (measure and self.is_due()):
            with self.clock:
                found = self._select()
            line |= {**found, "eval/steps": now.eval_steps}
            score = self._score_of(found)
            # Among equals the later one has seen more; but what was kept as it was is not left for an equal.
            if score >= now.best if now.first is None else score > now.best:
                now.best = score
                self._save()
            goals = ("eval/return", config.stop_return), ("eval/success_rate", config.stop_success)
            reached = any(goal is not None and found[name] >= goal for name, goal in goals)
            now.streak = now.streak + 1 if reached else 0
        if config.film_every and (last or now.iteration % config.film_every == 0):
            with self.clock:
                self._film()
        self.run.log(line)
        shown = {name.split("/")[-1]: line.get(name) for name in ("rollout/return", *show)}
        self._line.update(self.done, {**shown, "best greedy": now.best}, end, self.clock.paused)
        self._done = last or now.streak >= config.stop_patience

    def report(
        self,
        panels: Sequence[curves.Panel],
        title: str,
        also: Mapping[str, Policy] | None = None,
        holds: tuple[str, ...] = (),
        **figures: Any,
    ) -> Run:
        """Measure the kept policies on episodes that did not choose them, draw the curves, close the run.

        Args:
            panels, title: of the picture of curves.
            also: other policies to measure beside them. Where student and "teacher" have latents, these are probed.
            holds: what the run holds besides policies.
            **figures: more of the run's final metrics.
        """
        if ranks.rank():
            return self.run.finish({})
        self.run.save_policy(self._keep["policy"], "last")
        kept = {name: load_policy_file(self.run.path / f"{name}.safetensors", self._device) for name in self._keep}
        measured = {**kept, **(also or {})}
        final: dict[str, Any] = self._measure(measured, self._envs[1], "report")
        del final["eval/steps"]
        student, teacher = measured["policy"], measured.get("teacher")
        if teacher is not None and student.spec.latent and teacher.spec.latent:
            seed = streams.derive(self._config.seed, "probe")
            final |= understood(student, teacher, self._envs[1], seed, self.run.path / "latents.png")
        beside: dict[str, tuple[str, float]] = {}
        goal = self._teachers_return(final)
        if goal is not None:
            beside["eval/return"] = "teacher", goal
            seed = streams.derive(self._config.seed, "untrained")
            gains, remark = beside_teacher(student, self._envs[1], seed, final["eval/return"], goal)
            final |= gains
            if remark:
                self._session.say(remark)
        curves.draw_curves(self.run.path / "curves.png", self.run.read_metrics(), panels, title, None, beside)
        chosen_by = self._score[0].split("/")[1].removesuffix("_rate") if len(self._score) == 1 else "score"
        final |= {self._unit: self.done, **self._frames(), **figures, "loop_seconds": self._now.seconds}
        final[f"best_selection_{chosen_by}"] = self._now.best
        if self._now.first is not None:
            final[f"first_selection_{chosen_by}"] = self._now.first
        return self.run.finish(final, holds, **self._details)

    def _frames(self) -> dict[str, int]:
        """How many pictures all processes had taken to train; nothing where nobody sees with a camera."""
        frames = sum(viewed.num_frames for viewed in self._viewed) * ranks.size()
        return {"frames": frames} if frames else {}

    def _teachers_return(self, final: Mapping[str, float]) -> float | None:
        """What the student's teacher reached in this task; None where there is no student, or not one such figure."""
        parents = self._start["parents"] or {}
        teachers = {parents[role].name: parents[role] for role in teacher_roles(parents)}  # also one named twice
        alone = next(iter(teachers.values())) if len(teachers) == 1 else None
        if self._start["role"] != "student":
            return None
        if alone is not None and alone.task_name == self._task.name:
            return alone.teacher_metric("return")
        return final.get("eval_teacher/return")

    def _select(self) -> dict[str, float]:
        """Figures that choose the best, with the steps that they took counted."""
        found, now = self._measure(self._keep, self._envs[0], "select"), self._now
        now.latest_steps = found.pop("eval/steps")
        now.eval_steps += now.latest_steps
        return found

    def _measure(self, policies: Mapping[str, Policy], env: VecEnv, purpose: str) -> dict[str, float]:
        named = {"eval" if name == "policy" else f"eval_{name}": policy for name, policy in policies.items()}
        per_slot, seed = self._config.eval_episodes // env.num_envs, streams.derive(self._config.seed, purpose)
        found = measure(named, env, seed, per_slot) if ranks.rank() == 0 else {}
        return ranks.agree(found) if purpose == "select" else found

    def _score_of(self, found: Mapping[str, float]) -> float:
        name = next(name for name in self._score if name in found)
        if self._now.score_name not in ("", name):  # an env may tell success late: what was chosen before is no rival
            self._now.best = -math.inf
        self._now.score_name = name
        return found[name]

    def _film(self) -> None:
        """What the policy does by now, in the same episode each time."""
        if self._film_env is None or ranks.rank():
            return
        folder = self.run.path / FILMS
        folder.mkdir(exist_ok=True)
        seed = streams.derive(self._config.seed, "film")
        short_film(folder / f"{self.done:012d}.gif", self._keep["policy"], self._film_env, seed)

    def _save(self) -> None:
        for name, policy in reversed(self._keep.items()):  # "policy" last: later stages ask for it
            self.run.save_policy(policy, name)

    def _check_divergence(self, line: Mapping[str, Any]) -> None:
        """End a run whose losses are no longer numbers: nothing can come of it but a policy of NaN.

        Raises:
            UserError: names the loss.
        """
        for name, value in line.items():
            if name.startswith("loss/") and value is not None and not math.isfinite(value):
                where = f"{self._unit} {self.done}"
                raise UserError(f"training has diverged ({name} is {value} at {where}): lower {self._blame}")

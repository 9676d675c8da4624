"""The teacher, its pairs and the students of a search: made in cells, as a comparison's are, and measured here."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tscli.compare.board import Board
from tscli.compare.cells import Cell, Step, make_cell, make_step, note_cells
from tscli.compare.crew import CellsStopped, Crew, default_jobs
from tscli.compare.plan import kept_task
from tscli.config import UserError
from tscli.diagnose.diagnosis import random_policy
from tscli.envs import VecEnv
from tscli.envs.views import Part
from tscli.files import atomic_write
from tscli.launch.scripts import find_script, light_config
from tscli.launch.settings import build_config
from tscli.launch.start import Place, plan
from tscli.learning.episodes import run_episodes
from tscli.networks import Policy
from tscli.networks.files import load_policy_file
from tscli.plain import read_json
from tscli.runs import RunWriter, Session, Stopped
from tscli.sensors.search import Measured
from tscli.tasks import Task
from tscli.training import setup

RETURNS = "returns.json"  # in a cell's folder: of its policy, by what it was measured on

Disturbed = Mapping[int, tuple[Part, ...]]  # what stands in the place of a part of a view


@dataclass
class Workshop:
    """Makes what a search needs, each thing once.

    Attributes:
        session: of `tscli sensors`.
        task: whose env it is.
        jobs: processes at a time; None takes as many as there are CPUs for.
        settings: of the stages, by `stage.key` or by stage.
    """

    session: Session
    task: Task
    jobs: int | None
    settings: Mapping[str, Any]
    cells: list[Cell] = field(default_factory=list)

    def step(self, command: str, method: str | None = None, **settings: Any) -> Step:
        """A stage with its settings: the task's, these, then the user's.

        Raises:
            UserError: a mistake in any of them.
        """
        script, where = find_script(command, method), self.session.runs_dir
        model, name = light_config(script), kept_task(self.task.source, where)
        places: list[Place] = [("", {"task": name})] if "task" in model.model_fields else []
        places.append((f"sensors, {script.name}", settings))
        for key, value in self.settings.items():  # `distill.lr` on the command line, also `distill: {lr: ...}` in YAML
            stage, _, name_of = key.partition(".")
            if stage == command:
                places.append(("stages of sensors", {name_of: value} if name_of else value))
        what = plan(script, places, runs_dir=where, task=name)
        return make_step(script, build_config(model, what.layers, script.command), self.task, where)

    def cell(self, step: Step, seed: int, before: Cell | None, serves: str) -> Cell:
        """The cell of a step."""
        made = make_cell(step, seed, before, self.session.runs_dir)
        made.serves.append(serves)
        return made

    def make(self, run: RunWriter, cells: Sequence[Cell], title: str) -> None:
        """Run those that are not finished yet, each after the one before it; `run` is the search's.

        Raises:
            UserError: one has failed.
            Stopped: after Ctrl-C or SIGTERM.
        """
        wanted = list({one.key: one for cell in cells for one in cell.chain}.values())
        self.cells = list({one.key: one for one in [*self.cells, *wanted]}.values())
        note_cells(run.path, self.cells)
        if all(cell.finished_run() is not None for cell in wanted):
            return
        self.session.say(title)
        jobs = self.jobs or default_jobs(wanted)
        board = Board(None if self.session.quiet else self.session.log, jobs)
        crew = Crew(wanted, jobs, self.session.say, board.show)
        try:
            with board:
                crew.run()
        except CellsStopped:
            raise Stopped(run.name) from None
        for key, reason in crew.failed.items():
            cell = next(cell for cell in wanted if cell.key == key)
            raise UserError(f"{cell.title} failed: {reason}: see {cell.log}; the same command tries again")


@dataclass
class Measure:
    """Measures policies on the same episodes, and keeps what it has measured beside a cell's run.

    Attributes:
        env: where; the one that reports are made in.
        seed: of the episodes.
        episodes: for each policy.
    """

    env: VecEnv
    seed: int
    episodes: int

    def of_policy(self, policy: Policy, greedy: bool = True) -> np.ndarray:
        """Returns [E] of a policy."""
        per_slot = -(-self.episodes // self.env.num_envs)
        found = run_episodes(policy, self.env, self.seed, per_slot, greedy=greedy)
        return found.returns[: self.episodes].double().cpu().numpy()

    def of_cells(self, cells: Sequence[Cell], disturbed: Disturbed | None = None) -> Measured:
        """Returns of the policies of cells, one per seed.

        Args:
            cells: finished ones.
            disturbed: parts that stand in the place of some of their views' parts, by number.
        """
        return Measured(np.stack([self._of_cell(cell, disturbed or {}) for cell in cells]))

    def _of_cell(self, cell: Cell, disturbed: Disturbed) -> np.ndarray:
        run = cell.finished_run()
        assert run is not None, f"{cell.name} comes first"
        path, parts = cell.folder / RETURNS, repr(sorted(disturbed.items()))
        what = [run.manifest["artifacts"], self.seed, self.episodes, self.env.num_envs, parts]
        key = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
        known = read_json(path) if path.exists() else {}
        if key not in known:
            policy = load_policy_file(run.policy_path(), self.env.device)
            setup.check_fits(policy.spec, self.env, run.name)
            known[key] = self.of_policy(seen_through(policy, disturbed)).tolist()
            atomic_write(path, json.dumps(known))
        return np.array(known[key])

    def of_chance(self, policy: Policy) -> np.ndarray:
        """Returns [E] of random actions; `policy` says which there are."""
        chance = random_policy(policy.spec.view, policy.spec.action).to(self.env.device)
        return self.of_policy(chance, greedy=False)


def seen_through(policy: Policy, disturbed: Disturbed) -> Policy:
    """The policy with other parts in its view, of the same sizes."""
    if not disturbed:
        return policy
    parts = [one for i, part in enumerate(policy.spec.view.parts) for one in disturbed.get(i, (part,))]
    other = copy.copy(policy)  # the same weights
    other.spec = replace(policy.spec, view=replace(policy.spec.view, parts=tuple(parts)))
    return other

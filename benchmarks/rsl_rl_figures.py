"""Online distillation beside rsl_rl's: the same CartPole, teacher, student network, rollouts and number of env steps.

    pip install -c constraints.txt -e ".[bench]"
    python benchmarks/rsl_rl_figures.py --seeds 3

For each seed it trains a teacher with `tscli train-teacher cartpole`, and distils it into a student that sees position,
angle and its previous action, with an LSTM and without memory, in turns by:

    tscli online     stages/distill_online.py with rsl_rl's settings: 256 envs x 60 steps, windows of 15, lr 1e-3
    rsl_rl           rsl_rl's own Distillation, storage and models in the loop of its runner, the same settings
    tscli            stages/distill_dagger.py as the task has it: what `tscli distill` does

rsl_rl has no discrete actions: its student regresses the teacher's two logits (mse), and the larger one acts. Its
teacher is given the very weights of ours. All run on one thread in this process; evaluations (100 greedy episodes)
are not timed. "to 475" is when the first three evaluations in a row at 475 or more began, in seconds of the loop;
"kept" says whether all later ones were as good.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rsl_rl.algorithms import Distillation  # pyright: ignore[reportMissingImports] - an extra
from rsl_rl.env import VecEnv as RslVecEnv  # pyright: ignore[reportMissingImports]
from tensordict import TensorDict  # pyright: ignore[reportMissingImports]
from torch import Tensor

from tscli.config import NetworkConfig
from tscli.launch.scripts import find_script, load_script
from tscli.learning.rollout import ViewedEnv
from tscli.networks import Policy
from tscli.networks.files import load_policy_file
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import setup

train_teacher = load_script(find_script("train-teacher"))
distill_online = load_script(find_script("distill", "online"))
distill_dagger = load_script(find_script("distill", "dagger"))

ENVS, STEPS, GRADIENT_LENGTH, LR, NOISE = 256, 60, 15, 1e-3, 0.1
BAR, EPISODES, LIMIT, EVAL_EVERY = 475.0, 100, 500, 2
BODIES = {
    "LSTM": NetworkConfig(kind="rnn", hidden=(), memory=32, hidden_after=(32,), activation="elu"),
    "MLP": NetworkConfig(kind="mlp", hidden=(64, 64), activation="elu"),
}


class Curve(NamedTuple):
    """One student: env steps per second of its loop, and (loop seconds, greedy return) of its evaluations."""

    speed: float
    points: list[tuple[float, float]]

    def held_from(self) -> float:
        """Loop seconds at which three evaluations in a row at the bar began; nan where that never was."""
        for i in range(len(self.points) - 2):
            if all(value >= BAR for _, value in self.points[i : i + 3]):
                return self.points[i][0]
        return float("nan")

    def kept(self) -> str:
        """Whether every evaluation after those was as good: yes, no, or a dash where there were none."""
        start = self.held_from()
        later = [value >= BAR for seconds, value in self.points if seconds >= start]
        return ("yes" if all(later) else "no") if later else "-"


class CartPoles(RslVecEnv):  # pyright: ignore[reportUntypedBaseClass]
    """Our CartPole and views behind rsl_rl's interface: two logits in, of which the larger one acts."""

    def __init__(self, teacher_run: Run, num_envs: int, seed: int) -> None:
        self.task = load_task(teacher_run.task)
        env = setup.task_env(self.task, num_envs, torch.device("cpu"))
        views = {name: setup.resolve(self.task, getattr(self.task, name), env) for name in ("teacher", "student")}
        self.viewed = ViewedEnv(env, views, seed)
        self.num_envs, self.num_actions, self.device, self.cfg = num_envs, 2, torch.device("cpu"), {}
        self.max_episode_length = LIMIT
        self.episode_length_buf = torch.zeros(num_envs, dtype=torch.long)

    def get_observations(self) -> TensorDict:
        """The two roles' vectors."""
        return TensorDict(
            {name: self.viewed.observe(name)["vector"] for name in ("teacher", "student")}, [self.num_envs]
        )

    def step(self, actions: Tensor) -> tuple[TensorDict, Tensor, Tensor, dict[str, Any]]:
        """Act by the larger logit."""
        step = self.viewed.step(actions.argmax(-1))
        return self.get_observations(), step.reward, step.done, {"time_outs": step.truncated}


def run_stage(stage: Any, config: Any, session: Session) -> Run:
    """Run a script's `main`, under its own name."""
    session.command, session.method = getattr(stage, "COMMAND", "train-teacher"), getattr(stage, "METHOD", None)
    return stage.main(config, session)


def rsl_teacher_weights(policy: Policy) -> dict[str, Tensor]:
    """Our teacher under the names of rsl_rl's MLPModel."""
    layers = [m for m in policy.encoder.body.modules() if isinstance(m, torch.nn.Linear)] + [policy.head.linear]
    weights = {f"mlp.{2 * i}.{name}": getattr(m, name) for i, m in enumerate(layers) for name in ("weight", "bias")}
    norm = policy.encoder.norm
    if norm is not None:
        std = 1 / norm.scale
        weights["obs_normalizer._mean"], weights["obs_normalizer._std"] = norm.mean.float()[None], std[None] - 1e-2
        weights["obs_normalizer._var"] = std.square()[None]
        weights["obs_normalizer.count"] = torch.tensor(1)
    return {name: value.detach().clone() for name, value in weights.items()}


def rsl_rl(teacher_run: Run, body: str, seed: int, iterations: int) -> Curve:
    """rsl_rl's algorithm in its runner's loop."""
    torch.manual_seed(seed)
    teacher = load_policy_file(teacher_run.path / "policy.safetensors", torch.device("cpu"))
    network = teacher.spec.network
    gaussian = {"class_name": "GaussianDistribution", "init_std": NOISE}
    student = {"hidden_dims": [32], "activation": "elu", "obs_normalization": True, "distribution_cfg": gaussian}
    if body == "LSTM":
        student |= {"class_name": "RNNModel", "rnn_type": "lstm", "rnn_hidden_dim": 32}
    else:
        student |= {"class_name": "MLPModel", "hidden_dims": [64, 64]}
    config: dict[str, Any] = {
        "num_steps_per_env": STEPS,
        "obs_groups": {"student": ["student"], "teacher": ["teacher"]},
        "multi_gpu": None,
        "student": student,
        "teacher": {
            "class_name": "MLPModel",
            "hidden_dims": list(network.hidden),
            "activation": network.activation,
            "obs_normalization": network.normalize,
        },
        "algorithm": {
            "class_name": "Distillation",
            "gradient_length": GRADIENT_LENGTH,
            "learning_rate": LR,
            "max_grad_norm": 1.0,
        },
    }
    env = CartPoles(teacher_run, ENVS, seed)
    obs = env.get_observations()
    with contextlib.redirect_stdout(io.StringIO()):
        algorithm = Distillation.construct_algorithm(obs, env, config, "cpu")
    algorithm.load({"actor_state_dict": rsl_teacher_weights(teacher)}, None, True)
    check_teacher(algorithm, teacher, obs)
    algorithm.train_mode()
    seconds, points = 0.0, []
    for iteration in range(iterations):
        start = time.perf_counter()
        with torch.inference_mode():
            for _ in range(STEPS):
                obs, reward, done, extras = env.step(algorithm.act(obs))
                algorithm.process_env_step(obs, reward, done, extras)
            algorithm.compute_returns(obs)
        algorithm.update()
        seconds += time.perf_counter() - start
        if (iteration + 1) % EVAL_EVERY == 0:
            points.append((seconds, rsl_return(algorithm.student, teacher_run)))
    return Curve(iterations * ENVS * STEPS / seconds, points)


def check_teacher(algorithm: Distillation, teacher: Policy, obs: TensorDict) -> None:
    """Both libraries must act by the same teacher."""
    theirs = algorithm.teacher(obs)
    ours = teacher.step({"vector": obs["teacher"]}, teacher.initial_hidden(ENVS), torch.ones(ENVS, dtype=torch.bool))
    torch.testing.assert_close(theirs, ours[0].params()["logits"], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def rsl_return(student: Any, teacher_run: Run) -> float:
    """Mean return of a greedy episode in each of as many envs."""
    env = CartPoles(teacher_run, EPISODES, seed=987_654)
    kept = student.get_hidden_state()
    student.reset()
    obs, total, alive = env.get_observations(), torch.zeros(EPISODES), torch.ones(EPISODES)
    for _ in range(LIMIT):
        obs, reward, done, _ = env.step(student(obs))
        student.reset(done)
        total += reward * alive
        alive *= ~done
        if not alive.any():
            break
    student.reset(hidden_state=kept)
    return float(total.mean())


def curve(run: Run) -> Curve:
    """Read one of our runs."""
    entries = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    points = [(e["loop_seconds"], e["eval/return"]) for e in entries if e.get("eval/return") is not None]
    timed = [e for e in entries if "loop_seconds" in e]
    return Curve(timed[-1]["step"] / timed[-1]["loop_seconds"], points)


def online(teacher_run: Run, body: str, seed: int, iterations: int, session: Session) -> Curve:
    """Our loop with rsl_rl's settings."""
    config = distill_online.Config(
        teacher=str(teacher_run.path),
        student=BODIES[body],
        seed=seed,
        num_envs=ENVS,
        rollout_steps=STEPS,
        gradient_length=GRADIENT_LENGTH,
        lr=LR,
        noise=NOISE,
        total_steps=iterations * ENVS * STEPS,
        eval_every=EVAL_EVERY,
        eval_episodes=EPISODES,
        threads=1,
    )
    return curve(run_stage(distill_online, config, session))


def teacher_config(seed: int) -> Any:
    """CartPole as `tscli train-teacher cartpole` takes it."""
    values = load_task("cartpole").stages["train-teacher"]
    return train_teacher.Config(**{"task": "cartpole", **values, "seed": seed, "threads": 1})


def dagger(teacher_run: Run, body: str, seed: int, session: Session) -> Curve:
    """What `tscli distill` does, without its early stop."""
    task = load_task(teacher_run.task)
    values = {**task.stages.get("distill", {}), **task.stages.get("distill-dagger", {})}
    values |= {
        "stop_return": None,
        "teacher": str(teacher_run.path),
        "seed": seed,
        "threads": 1,
        "student": BODIES[body],
    }
    return curve(run_stage(distill_dagger, distill_dagger.Config(**values), session))


def one(name: str, teacher: Run, body: str, seed: int, iterations: int, session: Session) -> Curve:
    """A student of that name."""
    if name == "rsl_rl":
        return rsl_rl(teacher, body, seed, iterations)
    if name == "tscli":
        return dagger(teacher, body, seed, session)
    return online(teacher, body, seed, iterations, session)


def median(values: Iterable[float]) -> float:
    """Of those that are numbers."""
    found = [v for v in values if v == v]
    return statistics.median(found) if found else float("nan")


def main() -> None:
    """Run all and print rows, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=60, help="rollouts of 15360 env steps")
    parser.add_argument("--processor-time", action="store_true", help="which a busy machine disturbs less")
    args = parser.parse_args()
    clock = "process_time" if args.processor_time else "perf_counter"
    time.perf_counter = getattr(time, clock)  # what our stages measure their loops by
    torch.set_num_threads(1)
    print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"rsl-rl-lib {metadata.version('rsl-rl-lib')}"
    )
    print(f"{'student':8}{'seed':>5} {'method':14}{'steps/s':>9}{'to 475':>9}{'best':>7}{'last':>7}  kept")
    found: dict[tuple[str, str], list[Curve]] = {}
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder), quiet=True)
        for seed in range(1, args.seeds + 1):
            teacher = run_stage(train_teacher, teacher_config(seed), session)
            for body in BODIES:
                for name in ("tscli online", "rsl_rl", "tscli"):
                    result = one(name, teacher, body, seed, args.iterations, session)
                    found.setdefault((body, name), []).append(result)
                    values = [value for _, value in result.points]
                    print(
                        f"{body:8}{seed:5} {name:14}{result.speed:9.0f}{result.held_from():9.2f}{max(values):7.1f}"
                        f"{values[-1]:7.1f}  {result.kept()}",
                        flush=True,
                    )
    for body in BODIES:
        ratios = [
            ours.speed / theirs.speed
            for ours, theirs in zip(found[body, "tscli online"], found[body, "rsl_rl"], strict=True)
        ]
        print(f"{body}: env steps/s over rsl_rl's, median of seeds: {statistics.median(ratios):.2f}")
        theirs = median(c.held_from() for c in found[body, "rsl_rl"])
        for name in ("tscli online", "tscli"):
            ours = median(c.held_from() for c in found[body, name])
            print(f"{body}: median loop time to 475, {name}: {ours:.2f} s, rsl_rl {theirs:.2f} s")


if __name__ == "__main__":
    main()

"""Cloning and DAgger beside the `imitation` library: full-observation CartPole, the same demonstrations and network.

`imitation` 1.0.1 pins an older Gymnasium than tscli needs, so it lives in an environment of its own:

    python -m venv peer && peer/bin/pip install -c constraints.txt torch
    peer/bin/pip install imitation==1.0.1
    python benchmarks/imitation_figures.py --peer-python peer/bin/python --seeds 3

For each seed it trains a teacher with `tscli train-teacher cartpole`, records `--episodes` episodes of it with `tscli
collect`, and clones its greedy actions in turns by

    imitation            its BC as it comes: two layers of 32 with tanh, Adam at 1e-3, batches of 32, entropy bonus
    tscli, the same      stages/distill_bc.py with that network, rate and batch, cross-entropy, nothing normalised
    tscli                stages/distill_bc.py with its own defaults

and, without those episodes, by

    imitation DAgger     its SimpleDAggerTrainer with all defaults, in 8 envs, asking our teacher's very weights
    tscli DAgger         stages/distill_dagger.py as the task has it: what `tscli distill --pairs none` does

on one thread each, `imitation` in a process of its own. "to 500" is the time spent in the training loop when the greedy
policy first had the full return in every one of 100 episodes; evaluations are not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from tscli import streams
from tscli.config import NetworkConfig, StageConfig
from tscli.launch.scripts import find_script, load_script
from tscli.learning.episodes import run_episodes
from tscli.networks import Policy, PolicySpec
from tscli.networks.files import load_policy_file
from tscli.pairs import Pairs
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import evaluation, setup

train_teacher = load_script(find_script("train-teacher"))
collect = load_script(find_script("collect"))
distill_bc = load_script(find_script("distill", "bc"))
distill_dagger = load_script(find_script("distill", "dagger"))

FULL, EPISODES = 500.0, 100
THEIR_NETWORK = NetworkConfig(hidden=(32, 32), activation="tanh", normalize=False)
SAME: dict[str, Any] = {"student": THEIR_NETWORK, "loss": "cross_entropy", "lr": 1e-3, "batch_size": 32}


class Curve(NamedTuple):
    """One student: samples per second of its loop, seconds in it until the full return, and the last return."""

    speed: float
    to_full: float
    last: float


def run_stage(stage: Any, config: Any, session: Session) -> Run:
    """Run a script's `main`, under its own name."""
    session.command, session.method = getattr(stage, "COMMAND", "train-teacher"), getattr(stage, "METHOD", None)
    return stage.main(config, session)


def demonstrations(teacher_config: StageConfig, episodes: int, session: Session) -> tuple[Run, Run]:
    """A teacher and its recorded episodes."""
    teacher = run_stage(train_teacher, teacher_config, session)
    config = collect.Config(teacher=str(teacher.path), episodes=episodes, seed=teacher_config.seed, threads=1)
    return teacher, run_stage(collect, config, session)


def write_demonstrations(pairs: Run, path: Path) -> int:
    """The same steps for the other library; gives their number."""
    episodes = [episode.rows for episode in Pairs(pairs.path / "pairs").iter_episodes(["obs/state", "teacher_action"])]
    obs, acts = (np.concatenate([rows[name] for rows in episodes]) for name in ("obs/state", "teacher_action"))
    np.savez(path, obs=obs, acts=acts, length=np.array([len(rows["obs/state"]) for rows in episodes]))
    return len(acts)


def imitation(python: str, folder: Path, seed: int, clock: str, *source: str) -> tuple[Curve, str]:
    """The other library in a process of its own; its policies are measured here."""
    curve, script = folder / "curve.pt", Path(__file__).with_name("imitation_peer.py")
    command = [python, str(script), str(curve), "--seed", str(seed), "--clock", clock, *source]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
    found = torch.load(curve, weights_only=True)
    to_full = next((seconds for seconds, weights in found["points"] if greedy_return(weights) >= FULL), float("nan"))
    last = greedy_return(found["points"][-1][1])
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return Curve(found["samples_per_second"], to_full, last), versions


def greedy_return(weights: list[torch.Tensor]) -> float:
    """Mean return of the other library's network, in our env and on the episodes that choose our students."""
    task = load_task("cartpole")
    env, _ = setup.eval_envs(task, EPISODES, torch.device("cpu"))
    policy = Policy(PolicySpec(setup.resolve(task, task.teacher, env), env.action, THEIR_NETWORK))
    with torch.no_grad():
        for parameter, value in zip(policy.parameters(), weights, strict=True):
            parameter.copy_(value)
    found = run_episodes(policy, env, streams.derive(0, "select"), EPISODES // env.num_envs)
    return evaluation.summary(found)["eval/return"]


def write_expert(teacher: Run, path: Path) -> None:
    """The teacher's three layers, with its normaliser in the first (which never clips here)."""
    policy = load_policy_file(teacher.path / "policy.safetensors", torch.device("cpu"))
    layers = [*(m for m in policy.encoder.body.modules() if isinstance(m, torch.nn.Linear)), policy.head.linear]
    weights = [parameter.detach().clone() for layer in layers for parameter in (layer.weight, layer.bias)]
    norm = policy.encoder.norm
    if norm is not None:
        weights[0] *= norm.scale
        weights[1] -= weights[0] @ norm.mean.float()
    torch.save(weights, path)


def read(run: Run, speed: str) -> Curve:
    """One of our runs; `speed` is the metric that tells it."""
    points = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    measured = [(p["loop_seconds"], p["eval/return"]) for p in points if p.get("eval/return") is not None]
    to_full = next((seconds for seconds, value in measured if value >= FULL), float("nan"))
    return Curve(points[-1].get(speed, float("nan")), to_full, measured[-1][1])


def clone(teacher: Run, pairs: Run, epochs: int, session: Session, **settings: Any) -> Curve:
    """Our stage, evaluated after every epoch; it never stops early."""
    config = distill_bc.Config(
        teacher=str(teacher.path),
        pairs=str(pairs.path),
        obs="full",
        num_epochs=epochs,
        patience=epochs,
        eval_every=1,
        eval_episodes=EPISODES,
        threads=1,
        **settings,
    )
    return read(run_stage(distill_bc, config, session), "samples_per_second")


def dagger(teacher: Run, seed: int, session: Session) -> Curve:
    """What `tscli distill --pairs none` does with the full view and no memory, without its early stop."""
    stages = load_task("cartpole").stages
    values = {**stages["distill"], **stages["distill-dagger"], "student": NetworkConfig(), "stop_return": None}
    values |= {"teacher": str(teacher.path), "pairs": "none", "obs": "full", "seed": seed, "threads": 1}
    config = distill_dagger.Config(**values, eval_every=1, eval_episodes=EPISODES)
    return read(run_stage(distill_dagger, config, session), "")


def main() -> None:
    """Run all and print rows, then medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="python of the environment that has imitation")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=50, help="episodes of the teacher to clone")
    parser.add_argument("--epochs", type=int, default=12, help="passes over them")
    parser.add_argument("--processor-time", action="store_true", help="which a busy machine disturbs less")
    args = parser.parse_args()
    clock = "process_time" if args.processor_time else "perf_counter"
    time.perf_counter = getattr(time, clock)  # what our stages measure their loops by
    torch.set_num_threads(1)
    print(f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}")
    print(f"{'seed':>4} {'':18}{'samples/s':>10}{'to 500':>9}{'last':>8}")
    found: dict[str, list[Curve]] = {}
    versions = ""
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder) / "runs", quiet=True)
        for seed in range(1, args.seeds + 1):
            settings = load_task("cartpole").stages["train-teacher"]
            config = train_teacher.Config(**{"task": "cartpole", **settings, "seed": seed, "threads": 1})
            teacher, pairs = demonstrations(config, args.episodes, session)
            demos, expert = Path(folder) / "demonstrations.npz", Path(folder) / "expert.pt"
            batches = write_demonstrations(pairs, demos) * args.epochs // 32
            write_expert(teacher, expert)
            peer = (args.peer_python, Path(folder), seed, clock)
            cloned, versions = imitation(*peer, "--demonstrations", str(demos), "--batches", str(batches))
            curves = {
                "imitation": cloned,
                "tscli, the same": clone(teacher, pairs, args.epochs, session, seed=seed, **SAME),
                "tscli": clone(teacher, pairs, args.epochs, session, seed=seed),
                "imitation DAgger": imitation(*peer, "--expert", str(expert))[0],
                "tscli DAgger": dagger(teacher, seed, session),
            }
            for name, curve in curves.items():
                found.setdefault(name, []).append(curve)
                rate = "" if "DAgger" in name else f"{curve.speed:.0f}"
                print(f"{seed:4} {name:18}{rate:>10}{curve.to_full:9.2f}{curve.last:8.1f}", flush=True)
    print(versions)
    for name, curves in found.items():
        theirs = found["imitation DAgger" if "DAgger" in name else "imitation"]
        speeds = statistics.median(c.speed / t.speed for c, t in zip(curves, theirs, strict=True))
        times = statistics.median(c.to_full / t.to_full for c, t in zip(curves, theirs, strict=True))
        speed, to_full = (statistics.median(getattr(c, key) for c in curves) for key in ("speed", "to_full"))
        rate = "" if "DAgger" in name else f"{speed:.0f} samples/s ({speeds:.1f}x), "
        print(f"median {name:18} {rate}{to_full:.2f} s to 500 ({times:.2f} of it)")


if __name__ == "__main__":
    main()

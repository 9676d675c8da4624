"""Export a policy as an ONNX or TorchScript file that a robot runs without tscli.

The file holds one step of the greedy policy with its normaliser: observations and hidden state go in, action (within
its bounds), the distribution's parameters and the next hidden state come out. What the inputs mean, the action space
and the control rate are in the file as JSON. Before it is handed over, it replays observations recorded in the policy's
own env, and must give what the original gave.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.markup import escape

from tscli import streams
from tscli.config import StageConfig, UserError, positional
from tscli.files import atomic_write, file_hash
from tscli.interop import export, onnx, torchscript
from tscli.runs import Run, check_target, newest_run
from tscli.runs.session import Session
from tscli.tasks import load_task
from tscli.training import setup

ORDER = 55
TOLERANCE = 1e-5
SUFFIX = {"onnx": "onnx", "torchscript": "pt"}


class Config(StageConfig):
    """What to export, and how it is checked."""

    run: str = positional("", description="Run whose policy is exported: number, name or path; empty: the newest.")
    format: Literal["onnx", "torchscript"] = Field("onnx", description="Kind of file.")
    which: Literal["policy", "last", "teacher"] = Field(
        "policy", description="The run's best policy, its last, or the teacher that was trained with a student."
    )
    output: str = Field("", description="Also copy the file to this path; empty leaves it in the run's folder alone.")
    force: bool = Field(False, description="Overwrite what is at that path.")
    check_steps: int = Field(
        200, ge=1, le=1_000_000, description="Recorded steps per env that the file must reproduce."
    )
    check_envs: int = Field(4, ge=1, le=2**20, description="Envs that they are recorded in.")


def main(config: Config, session: Session) -> Run:
    """Export, check, measure."""
    device = setup.prepare(config)
    if config.format == "onnx":
        onnx.require()
    output = check_output(config)
    policy_run = newest_run(session.runs_dir, config.run, "policy", "", say=session.note)
    session.say(f"policy: {policy_run.name}")
    task = load_task(policy_run.task)
    env = setup.task_env(task, config.check_envs, device, "report")
    policy = setup.open_policy(policy_run, env, device, config.which)
    actor = export.Actor(policy)
    about = export.describe(
        policy,
        env,
        run=policy_run.name,
        task=task.name,
        role="teacher" if config.which == "teacher" else policy_run.role,
        which=config.which,
        policy_sha256=policy_run.manifest["artifacts"][f"{config.which}.safetensors"],
    )

    parents = {"policy": policy_run}
    with session.start(config, "export", policy_run.task, parents=parents, checkpoints=False) as run:
        path = run.path / f"policy.{SUFFIX[config.format]}"
        if config.format == "onnx":
            onnx.write(actor, path, about)
            exported = onnx.load(path, config.threads)
        else:
            torchscript.write(actor, path, about)
            exported = torchscript.load(path)
        recording = export.record(policy, env, streams.derive(config.seed, "export"), config.check_steps)
        error = export.max_error(actor, recording, exported)
        if not error <= TOLERANCE:
            path.unlink()
            other = next(name for name in SUFFIX if name != config.format)
            raise UserError(
                f"the {config.format} file differs from {policy_run.name} by {error:.2g} on recorded observations, "
                f"more than {TOLERANCE:g}: use --format {other}, and report it"
            )
        latency = export.latency_of(exported, [value.numpy() for value in actor.example(1)])
        report: dict[str, Any] = {
            "file": str(output or path),
            "format": config.format,
            "run": policy_run.name,
            "bytes": path.stat().st_size,
            "sha256": file_hash(path),
            "max_error": error,
            "checked_steps": config.check_steps * config.check_envs,
            "latency_us": latency._asdict(),
            "metadata": about,
        }
        if output is not None:
            shutil.copyfile(path, output)
        atomic_write(run.path / "report.json", json.dumps(report, indent=1))
        run.manifest["artifacts"][path.name] = report["sha256"]
        metrics = {"max_error": error, "latency_us_median": latency.median, "latency_us_p95": latency.p95}
        result = run.finish(metrics, holds=("report",))
    env.close()
    session.show(summary(report), report)
    return result


def check_output(config: Config) -> Path | None:
    """The path to copy the file to, looked at before anything is computed.

    Raises:
        UserError: its ending is the other format's, or see `check_target`.
    """
    if not config.output:
        return None
    path = Path(config.output)
    others = {suffix: name for name, suffix in SUFFIX.items() if name != config.format}
    if path.suffix[1:] in others:
        raise UserError(
            f"--output {path} would hold {config.format}: end it in .{SUFFIX[config.format]}, or "
            f"use --format {others[path.suffix[1:]]}"
        )
    check_target("--output", path, config.force)
    return path


def summary(report: dict[str, Any]) -> str:
    """The report in a few lines."""
    about, latency = report["metadata"], report["latency_us"]

    def line(entries: list[dict[str, Any]]) -> str:
        return escape(", ".join(f"{entry['name']} {entry['shape'][1:]}" for entry in entries))

    rate = about["control_rate_hz"]
    return (
        f"[bold]{escape(report['file'])}[/]  {report['bytes'] / 1000:.0f} kB\n"
        f"in:  {line(about['inputs'])}\nout: {line(about['outputs'])}\n"
        f"max error {report['max_error']:.1e} over {report['checked_steps']} recorded steps\n"
        f"latency {latency['median']:.0f} us median, {latency['p95']:.0f} us 95th percentile (CPU, batch 1)"
        f"{f'; control at {rate:.0f} Hz' if rate else ''}"
    )


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

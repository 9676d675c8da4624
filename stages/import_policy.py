"""Import a policy of Stable-Baselines3, rsl_rl or cleanrl as a teacher.

Read are the weights of an actor of linear layers, an LSTM or GRU before them, a normaliser, and the deviation; nothing
in the file is executed. Their sizes are checked against the task's view and actions. What comes of it is a teacher's
run like any other, for `tscli collect`, `distill` and `eval`. TorchScript and ONNX files with such weights are run
beside the imported policy, which must give the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from tscli import streams
from tscli.config import StageConfig, UserError, positional
from tscli.envs import VecEnv
from tscli.envs.spaces import action_scale
from tscli.envs.views import ViewSpec
from tscli.files import file_hash
from tscli.interop import sb3, weights
from tscli.interop.source import Source, read_policy, settle_activation
from tscli.learning.episodes import Episodes, run_episodes
from tscli.networks import Policy
from tscli.runs import Run
from tscli.runs.session import Session
from tscli.tasks import Task, load_task
from tscli.training import evaluation, setup

COMMAND = "import"
ORDER = 56


class Config(StageConfig):
    """Which file, and what it does not say itself."""

    file: str = positional(
        description="A policy's .zip (Stable-Baselines3), .pt, .cleanrl_model, .safetensors or .onnx."
    )
    task: str = Field(description="What it acts in: a task's name, a task's YAML file, or any Gymnasium id.")
    obs: str = Field(
        "", description="View that it was trained on, parts in order; empty takes the task's teacher view."
    )
    activation: Literal["tanh", "relu", "elu", "silu"] | None = Field(
        None, description="Non-linearity between its layers, where the file does not say; none asks the file."
    )
    normalizer: str = Field("", description="Observation statistics: SB3's VecNormalize, or an .npz of mean and var.")
    trust_pickle: bool = Field(False, description="Read a normaliser that is a pickle.")
    std: float = Field(
        0.1, gt=0, description="Deviation of its actions, in half ranges, where the file has none that can be used."
    )
    eval_episodes: int = Field(20, ge=0, le=1_000_000, description="Episodes that tell how well it does; 0: none.")


def main(config: Config, session: Session) -> Run:
    """Read, check, build, measure."""
    device = setup.prepare(config)
    path = Path(config.file)
    source = read_policy(path)
    task = load_task(config.task)
    episodes = config.eval_episodes or setup.number_of_tasks(task)
    spare, env = setup.eval_envs(task, episodes, device)  # its figures are what the task reports on
    view = setup.resolve(task, config.obs or task.teacher, env)
    policy = ours(config, source, task, env, view) if source.policy is None else source.policy
    if source.policy is not None:
        for name in ("obs", "activation", "normalizer", "std"):
            if getattr(config, name) != Config.model_fields[name].default:
                raise UserError(
                    f"--{name} {getattr(config, name)}: {path} was exported by tscli and says it: leave it out"
                )
        setup.check_fits(policy.spec, env, path.name)
    name = source.found.name if source.found else "tscli"
    session.note(f"{path}: {name}, {describe(policy)}")
    found = None
    if config.eval_episodes:
        seed, per_slot = streams.derive(config.seed, "report"), config.eval_episodes // env.num_envs
        found = run_episodes(policy.to(device), env, seed, per_slot)
        if source.is_untold:
            session.say(compare_activations(policy, found, lambda other: run_episodes(other, env, seed, per_slot)))
    elif source.is_untold:
        session.say(f"nothing says that {policy.spec.network.activation} is right: see what `tscli eval` returns")

    with session.start(config, COMMAND, config.task, role="teacher", checkpoints=False) as run:
        run.save_policy(policy)
        metrics = evaluation.summary(found) if found else {}
        origin = {"file": path.name, "sha256": file_hash(path), "layout": name}
        result = run.finish(metrics, imported=origin)
    env.close()
    spare.close()
    return result


def ours(config: Config, source: Source, task: Task, env: VecEnv, view: ViewSpec) -> Policy:
    """The policy that the file's weights make, its sizes checked against view and actions.

    Raises:
        UserError: they do not fit, or the file does not say enough.
    """
    path, found = source.path, source.found
    assert found is not None
    if view.images:
        raise UserError(f'--obs: view "{view.name}" has images, and policies of vectors alone can be imported')
    if found.num_inputs != view.vector_size:
        sizes = {name: setup.resolve(task, name, env) for name in task.views}
        known = ", ".join(f"{name} ({spec.vector_size})" for name, spec in sizes.items() if not spec.images)
        raise UserError(
            f'{path} takes {found.num_inputs} numbers and view "{view.name}" of {task.name} has {view.vector_size}: '
            f"name the view that it was trained on with --obs ({known}, or parts joined by +)"
        )
    if found.num_outputs != env.action.num_params or (found.squash and not env.action.is_continuous):
        twice = found.num_outputs == 2 * env.action.num_params and env.action.is_continuous
        reason = "a deviation that depends on the state, or a Beta, cannot be imported" if twice else "another task's?"
        raise UserError(
            f"{path} ({found.name}) gives {found.num_outputs} numbers and {task.name} takes {env.action.num_params} "
            f"({env.action.kind}): {reason}"
        )
    if found.bounds is not None:
        ends = zip(found.bounds, action_scale(env.action), strict=True)
        if not all(torch.allclose(theirs.float(), here, atol=1e-5) for theirs, here in ends):
            raise UserError(f"{path} was trained with other action bounds than {task.name} has: name its own task")
    if config.normalizer:
        normalizer = sb3.read_normalizer(Path(config.normalizer), config.trust_pickle)
        if len(normalizer.mean) != found.num_inputs:
            size = f"is of {len(normalizer.mean)} numbers"
            raise UserError(f"--normalizer {config.normalizer} {size}, {path} takes {found.num_inputs}")
        found = replace(found, normalizer=normalizer)
    return settle_activation(
        source, config.activation, lambda name: weights.build(found, view, env.action, name, config.std)
    )


def compare_activations(policy: Policy, found: Episodes, run: Callable[[Policy], Episodes]) -> str:
    """Where nothing but the user says which activation it is, the returns with the others, in a line.

    Raises:
        UserError: with another one the same weights do far better: by over 4 standard errors, and by a tenth.
    """
    given = policy.spec.network.activation
    returns = {given: found.returns.double()}
    for name in weights.ACTIVATIONS:
        if name != given:
            network = policy.spec.network.model_copy(update={"activation": name})
            other = Policy(replace(policy.spec, network=network)).to(found.returns.device)
            other.load_state_dict(policy.state_dict())
            returns[name] = run(other.eval()).returns.double()
    means = {name: float(value.mean()) for name, value in returns.items()}
    best = max(means, key=lambda name: means[name])
    error = sum(float(returns[name].var(correction=0)) / len(found.returns) for name in (given, best)) ** 0.5
    if means[best] - means[given] > max(4 * error, 0.1 * max(abs(means[best]), abs(means[given]))):
        raise UserError(
            f"--activation {given}: its return is {means[given]:.1f}, and {means[best]:.1f} with {best}: name that one "
            "(or import it unmeasured, --eval-episodes 0)"
        )
    others = ", ".join(f"{name} {mean:.1f}" for name, mean in means.items() if name != given)
    return f"nothing but the return says that {given} is right: {means[given]:.1f} (with {others}); see `tscli eval`"


def describe(policy: Policy) -> str:
    """Its shape in a few words."""
    network = policy.spec.network
    size = sum(parameter.numel() for parameter in policy.parameters())
    memory = "" if not policy.is_recurrent else f" {network.memory} x {network.memory_layers}"
    return f"{network.kind}{memory} {list(network.hidden or network.hidden_after)} {network.activation}, {size} weights"


if __name__ == "__main__":
    from tscli.cli.app import run_script

    run_script(__file__)

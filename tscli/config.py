"""What a configuration is: pydantic base classes, the errors a user sees, and how strings become values.

This module is imported to build `--help`, so it needs the standard library and pydantic alone.
"""

from __future__ import annotations

import difflib
import re
import types
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

__all__ = [
    "Config",
    "DistillConfig",
    "EvalEvery",
    "Falling",
    "JointConfig",
    "LearningRate",
    "Network",
    "NetworkConfig",
    "NumEnvs",
    "NumMinibatches",
    "PPOConfig",
    "Patience",
    "RandomStart",
    "RolloutSteps",
    "Share",
    "StageConfig",
    "Steps",
    "StudentConfig",
    "TrainingConfig",
    "UserError",
    "ViewPart",
    "WindowsConfig",
    "did_you_mean",
    "is_yaml",
    "merge_nested",
    "one_line",
    "parse_view",
    "positional",
]


class UserError(Exception):
    """Bad input. The message is one line: what was given, why it cannot be used, and what to do instead.

    The command line prints it without a traceback and exits with code 2.
    """


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """The end of an error line: the closest option, or all of them when none is close."""
    names = sorted(set(options))
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{close[0]}"?'
    return f"choose from: {', '.join(names)}" if names else "there is none to choose from"


def is_yaml(name: str) -> bool:
    """Whether a word that may be a task's name is the path of a YAML file instead."""
    return name.endswith((".yaml", ".yml"))


def positional(default: Any = ..., **kwargs: Any) -> Any:
    """A pydantic field that the command line takes without a flag: `tscli train-teacher cartpole`."""
    return Field(default, json_schema_extra={"positional": True}, **kwargs)


def _is_optional(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def _is_sequence(annotation: Any) -> bool:
    if get_origin(annotation) in (Union, types.UnionType):
        return any(_is_sequence(arg) for arg in get_args(annotation))
    return get_origin(annotation) in (tuple, list)


class Config(BaseModel):
    """Base of every configuration: frozen, unknown keys refused, strings from a command line understood.

    `"none"` means None where None is allowed, and `"64,64"` means (64, 64) where a sequence is expected; all
    else that is a string is left to pydantic, so that the command line and YAML are validated alike.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _from_string(cls, value: Any, info: Any) -> Any:
        if not isinstance(value, str):
            return value
        annotation = cls.model_fields[info.field_name].annotation
        if value.lower() == "none" and _is_optional(annotation):
            return None
        if _is_sequence(annotation):
            return [part.strip() for part in value.strip("[]()").split(",") if part.strip()]
        return value


def merge_nested(low: dict[str, Any], high: dict[str, Any]) -> dict[str, Any]:
    """Both as one nested dict; where a key stands in both, `high` wins, key by key."""
    result = dict(low)
    for name, value in high.items():
        below = result.get(name)
        result[name] = merge_nested(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def one_line(error: ValidationError, model: type[BaseModel] | None = None, prefix: str = "--") -> str:
    """The first problem of a pydantic error as one line, named as the user would write it (`--student.hidden`)."""
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"] if not isinstance(part, int)]
    name = ".".join(path).replace("_", "-") if prefix else ".".join(path)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        owner = _model_at(model, path[:-1]) if model is not None else None
        hint = did_you_mean(path[-1], owner.model_fields) if owner is not None else "it is not a setting"
        return f'unknown setting "{name}": {hint}{more}'
    if problem["type"] == "missing":
        return f"{prefix}{name} is required{more}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    # A model-level check has no field of its own: its message already names the settings.
    if not path:
        return f"{message}{more}"
    return f"{prefix}{name} {problem['input']!r}: {message}{more}"


def _model_at(model: type[BaseModel] | None, path: list[str]) -> type[BaseModel] | None:
    for name in path:
        # What is no field is a key of the mapping that the field before holds.
        if model is not None and name in model.model_fields:
            model = _model_in(model.model_fields[name].annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that an annotation names, however deep: in `Network | None`, in `dict[str, tuple[ViewPart, ...]]`."""
    arguments = get_args(annotation)
    if not arguments and isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in arguments if (found := _model_in(argument)) is not None), None)


def _kind_shorthand(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class NetworkConfig(Config):
    """The body of a policy or critic: what stands between a view and the action head."""

    kind: Literal["mlp", "rnn", "gru", "history"] = Field(
        default="mlp",
        description="Memory: mlp has none, rnn is an LSTM, gru a GRU, history stacks the last observations.",
    )
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(64, 64), description="Width of each feed-forward layer; for rnn and gru they come before the memory."
    )
    activation: Literal["tanh", "relu", "elu", "silu"] = Field(
        default="tanh", description="Non-linearity between layers."
    )
    memory: int = Field(default=64, ge=1, description="Width of the LSTM or GRU.")
    memory_layers: int = Field(default=1, ge=1, le=4, description="Number of stacked LSTM or GRU layers.")
    hidden_after: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="Width of each feed-forward layer between the memory of rnn and gru and the head."
    )
    history: int = Field(
        default=8, ge=2, description="Observations that the history network sees, the current one included."
    )
    normalize: bool = Field(default=True, description="Normalise vector observations by running mean and deviation.")
    normalize_clip: float | None = Field(
        default=10.0, gt=0, description="Deviations at which normalised observations are cut off; none cuts nothing."
    )
    std: Literal["state_independent", "network"] = Field(
        default="state_independent",
        description="Where a Gaussian policy's deviation comes from: one parameter or the network.",
    )
    init_std: float = Field(
        default=1.0, gt=0, description="Initial deviation of a Gaussian policy, 1 = half the action range."
    )
    squash: bool = Field(
        default=False, description="Pass Gaussian actions through tanh, so that they never leave their bounds."
    )

    distribution: Literal["gaussian", "beta"] = Field(
        default="gaussian",
        description="Of continuous actions; beta needs bounds, never leaves them, and has no use for std or init_std.",
    )

    @model_validator(mode="after")
    def _a_beta_is_within_its_bounds(self) -> NetworkConfig:
        if self.distribution == "beta" and self.squash:
            raise ValueError("squash is for gaussian actions, and a beta's are within their bounds: leave it out")
        return self

    @property
    def head_kind(self) -> tuple[str, bool]:
        """`distribution` and `squash`: the KL compares continuous actions of policies that are alike in both."""
        return self.distribution, self.squash

    @field_validator("kind", mode="before")
    @classmethod
    def _known_by_another_name(cls, value: Any) -> Any:
        if isinstance(value, str) and value.lower() == "lstm":
            raise ValueError("the LSTM is called rnn here")
        return value


# `--student rnn` and `student: rnn` are short for `--student.kind rnn`.
Network = Annotated[NetworkConfig, BeforeValidator(_kind_shorthand)]


class ViewPart(Config):
    """One ingredient of a view: a group of observations, or the previous action, and what a sensor does to it."""

    group: str = Field(description='Name of an observation group, or "previous_action".')
    index: tuple[str, ...] = Field(
        default=(), description="Entries to keep: numbers, ranges (0:3) or names; empty keeps all."
    )
    noise: float = Field(default=0.0, ge=0, description="Deviation of Gaussian noise on each entry; 0 adds none.")
    delay: int = Field(default=0, ge=0, description="Control steps that the reading is old; 0 is fresh.")
    dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a reading is lost and reads as zeros."
    )


_PART = re.compile(r"\s*(?P<group>[\w.\-/]+)\s*(\[(?P<index>[^\]]*)\])?\s*")
_BARE_INDEX = re.compile(r"\s*[\d:]+(\s*,\s*[\d:]+)*\s*")


def parse_view(text: str) -> tuple[ViewPart, ...]:
    """Read a view's expression: parts joined by `+`, each a group with optional entries in brackets.

    `state[0,2] + previous_action`, `state[position, angle]`, `camera`; bare numbers (`0,2`) are entries of the only
    group, whose name is then "".

    Raises:
        UserError: not an expression of that form.
    """
    parts = []
    for piece in text.split("+"):
        if _BARE_INDEX.fullmatch(piece):
            parts.append(ViewPart(group="", index=tuple(p.strip() for p in piece.split(","))))
            continue
        match = _PART.fullmatch(piece)
        if match is None:
            raise UserError(f'view "{text}" cannot be read: write it like "0,2" or "state[0,2] + previous_action"')
        index = tuple(p.strip() for p in (match["index"] or "").split(",") if p.strip())
        parts.append(ViewPart(group=match["group"], index=index))
    return tuple(parts)


class StageConfig(Config):
    """Settings that every stage has."""

    seed: int = Field(default=1, ge=0, lt=2**31, description="Seed of every random stream in this run.")
    device: str = Field(default="cpu", description="cpu, cuda, cuda:1, or auto (cuda where there is one).")
    threads: int = Field(
        default=1, ge=0, description="CPU threads of torch; 1 is the fastest for small networks, 0 takes all."
    )
    checkpoint_every: float = Field(
        default=20.0, ge=0, description="Seconds between checkpoints for --resume; 0 writes one every iteration."
    )


# A setting whose default differs between stages: the text and the bounds stand here, the value in the stage.
Steps = Annotated[int, Field(ge=1, description="Env steps over all envs, rounded up to whole iterations.")]
NumEnvs = Annotated[int, Field(ge=1, description="Envs that step together.")]
RolloutSteps = Annotated[int, Field(ge=1, description="Steps per env between updates.")]
NumMinibatches = Annotated[int, Field(ge=1, description="NumMinibatches per epoch.")]
RandomStart = Annotated[
    bool, Field(description="Let first episodes count as begun some steps ago, so that time limits are spread out.")
]
LearningRate = Annotated[float, Field(gt=0, description="Adam's learning rate at the start.")]
Falling = Annotated[
    Literal["constant", "linear"], Field(description="Whether the learning rate falls to 0 over the training.")
]
EvalEvery = Annotated[
    int, Field(ge=0, description="Iterations between greedy evaluations that choose the best; 0: only at the end.")
]
Patience = Annotated[int, Field(ge=1, description="Evaluations in a row that must reach the goal.")]
Share = Annotated[float, Field(ge=0, lt=1, description="Share of episodes held out to measure; 0 holds out none.")]


class TrainingConfig(StageConfig):
    """Settings of every stage that trains: how often it measures, and when it stops early."""

    eval_every: EvalEvery = 10
    eval_episodes: int = Field(100, ge=1, description="Episodes of such an evaluation, and of the final one.")
    stop_return: float | None = Field(None, description="Stop once greedy evaluations reach this return.")
    stop_success: float | None = Field(None, gt=0, le=1, description="Stop once greedy evaluations succeed this often.")
    stop_patience: Patience = 1


class PPOConfig(TrainingConfig):
    """Proximal policy optimisation's settings, for all stages that are made of it."""

    total_steps: Steps = 500_000
    num_envs: NumEnvs = 64
    rollout_steps: RolloutSteps = 32
    bptt: int = Field(16, ge=1, description="Steps through which the gradient of a network with memory flows.")
    num_minibatches: NumMinibatches = 4
    num_epochs: int = Field(4, ge=1, description="Passes over each rollout.")
    lr: LearningRate = 1e-3
    lr_schedule: Falling = "linear"
    gamma: float = Field(0.99, ge=0, le=1, description="Discount.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Weight of longer returns in the advantage.")
    clip_coef: float = Field(0.2, gt=0, description="How far the probability ratio may move.")
    clip_value: bool = Field(False, description="Clip the value's movement as well, by clip_coef.")
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the entropy bonus; 0 gives none.")
    value_coef: float = Field(0.5, ge=0, description="Weight of the value loss; 0 leaves the critic untrained.")
    max_grad_norm: float = Field(0.5, gt=0, description="Norm to which gradients are clipped.")
    normalize_reward: bool = Field(False, description="Divide rewards by the running deviation of the return.")

    @model_validator(mode="after")
    def _batch_divides(self) -> PPOConfig:
        batch = self.num_envs * self.rollout_steps
        if batch % self.num_minibatches:
            raise ValueError(
                f"--num-minibatches {self.num_minibatches} does not divide --num-envs x --rollout-steps "
                f"({self.num_envs} x {self.rollout_steps} = {batch}): choose one that does"
            )
        if batch == self.num_minibatches and getattr(self, "normalize_advantage", True):
            raise ValueError(
                f"--num-minibatches {self.num_minibatches} leaves a minibatch of one step, which has no deviation to "
                "normalize its advantage by: choose fewer"
            )
        return self

    @property
    def value_clip(self) -> float | None:
        """How far a value may move without a loss; None: as far as it likes."""
        return self.clip_coef if self.clip_value else None


class JointConfig(PPOConfig):
    """Settings of the loops that train a teacher and a student together by PPO."""

    task: str = positional(description="A task's name, or a task's YAML file.")
    obs: str = Field("", description="View of the teacher and of the critic; empty takes the task's teacher view.")
    student_obs: str = Field("", description="View of the student; empty takes the task's student view.")
    network: Network = Field(NetworkConfig(), description="Body of the teacher and of the critic.")
    student: Network | None = Field(None, description="Body of the student; none makes it like the teacher's.")

    @model_validator(mode="after")
    def _both_act_alike(self) -> JointConfig:
        if (self.student or self.network).head_kind != self.network.head_kind:
            raise ValueError(
                "--student.distribution and .squash must equal those of --network: the KL compares like with like"
            )
        return self


class StudentConfig(TrainingConfig):
    """Settings of every stage in which a student learns from a frozen teacher."""

    teacher: str = Field(
        "", description="Run of the teacher: number, name or path, or several as in 1,2; empty takes the newest."
    )
    obs: str = Field("", description="View of the student; empty takes the task's student view.")
    student: Network = Field(NetworkConfig(), description="Body of the student.")
    diagnose: bool = Field(True, description="Say first what may keep the student from learning; costs a second.")


class DistillConfig(StudentConfig):
    """Those in which it acts while it learns."""

    teacher_by: str = Field(
        "", description="Of several teachers: group whose largest entry, or index, tells whose a row is; empty: task."
    )
    task: str = Field("", description="What the student learns; empty takes the teacher's task.")


class WindowsConfig(TrainingConfig):
    """Settings of supervised learning on windows of recorded pairs."""

    loss: Literal["kl", "cross_entropy", "mse", "huber"] = Field(
        "kl", description="KL(teacher || student), cross-entropy to its greedy action, or distance of greedy actions."
    )
    lr: LearningRate = 1e-3
    lr_schedule: Falling = "constant"
    batch_size: int = Field(128, ge=1, description="Windows per gradient step.")
    window: int = Field(16, ge=1, description="Steps of a window for a student with memory; without memory it is 1.")
    burn_in: int = Field(
        0,
        ge=0,
        description="Steps before a window that build up memory and carry no loss; 0: memory starts empty. A history "
        "network has one less than its length at the least.",
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which gradients are clipped.")
    validation_fraction: Share = 0.1
    eval_every: EvalEvery = 5
    stop_patience: Patience = 2

"""Settings that many stages have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tscli.config.base import Config, positional
from tscli.config.network import Network, NetworkConfig


class StageConfig(Config):
    """Settings that every stage has."""

    seed: int = Field(default=1, ge=0, lt=2**31, description="Seed of every random stream in this run.")
    device: str = Field(default="cpu", description="cpu, cuda, cuda:1, or auto (cuda where there is one).")
    threads: int = Field(
        default=1,
        ge=0,
        le=1024,
        description="CPU threads of torch, at most one per core; 1 is the fastest for small networks, 0 takes all.",
    )
    checkpoint_every: float = Field(
        default=20.0, ge=0, description="Seconds between checkpoints for --resume; 0 writes one every iteration."
    )


# A setting whose default differs between stages: the text and the bounds stand here, the value in the stage.
Steps = Annotated[int, Field(ge=1, description="Env steps over all envs, rounded up to whole iterations.")]
NumEnvs = Annotated[int, Field(ge=1, le=2**20, description="Envs that step together.")]
RolloutSteps = Annotated[int, Field(ge=1, le=65_536, description="Steps per env between updates.")]
NumMinibatches = Annotated[int, Field(ge=1, description="Minibatches per epoch.")]
RandomStart = Annotated[
    bool, Field(description="Give first episodes random ages, so that not all envs reach their time limit at once.")
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


class AugmentConfig(Config):
    """What pictures go through while a student learns from them, and never while it acts."""

    shift: int = Field(
        default=0, ge=0, le=64, description="Pixels that a picture is moved at most, each way (DrQ: 4); 0: not."
    )
    brightness: float = Field(
        default=0.0, ge=0, le=1, description="Share by which its brightness is scaled at most; 0: not."
    )
    contrast: float = Field(
        default=0.0, ge=0, le=1, description="Share by which its contrast is scaled at most; 0: not."
    )

    @property
    def given(self) -> tuple[str, ...]:
        """Names of those that are on."""
        return tuple(name for name, value in self if value)


Augment = Annotated[AugmentConfig, Field(description="What pictures go through while a student learns from them.")]
LatentSize = Annotated[int, Field(ge=1, description="Length of the latent.")]
Encoder = Annotated[Network, Field(description="Body that makes the latent of what is privileged.")]
History = Annotated[Network, Field(description="Body that infers the latent from what the student has sensed.")]


class TrainingConfig(StageConfig):
    """Settings of every stage that trains: how often it measures, and when it stops early."""

    eval_every: EvalEvery = 10
    eval_episodes: int = Field(100, ge=1, le=1_000_000, description="Episodes per evaluation, the final one included.")
    stop_return: float | None = Field(None, description="Stop once greedy evaluations reach this return.")
    stop_success: float | None = Field(None, gt=0, le=1, description="Stop once greedy evaluations succeed this often.")
    stop_patience: Patience = 1
    film_every: int = Field(0, ge=0, description="Iterations between short films of the greedy policy; 0: none.")


class RolloutConfig(TrainingConfig):
    """Settings of a loop that rolls out and learns in passes of minibatches."""

    total_steps: Steps = 500_000
    num_envs: NumEnvs = 64
    rollout_steps: RolloutSteps = 32
    bptt: int = Field(16, ge=1, description="Steps through which the gradient of a network with memory flows.")
    num_minibatches: NumMinibatches = 4
    num_epochs: int = Field(4, ge=1, description="Passes over each rollout.")


class PPOConfig(RolloutConfig):
    """Proximal policy optimisation's settings, for all stages that are made of it."""

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


class PenaltyConfig(JointConfig):
    """Settings of those in which the teacher pays for where its student cannot follow."""

    lr_schedule: Literal["constant", "linear", "adaptive"] = Field(
        "linear", description="Linear falls to 0 over total_steps; adaptive keeps each update near desired_kl."
    )
    desired_kl: float = Field(
        0.01,
        gt=0,
        description="KL(old || new) that adaptive aims at: above twice this lr falls, below half of it lr rises.",
    )
    penalty_coef: float = Field(0.2, description="lambda1, weight of the KL taken off the reward; 0: none.")
    penalty_start: int = Field(
        0, ge=0, description="Env steps before there is a penalty, so that a student can follow before it is judged."
    )
    penalty_warmup: int = Field(0, ge=0, description="Env steps in which the penalty grows to full weight; 0: at once.")
    penalty_std: float | None = Field(
        None,
        gt=0,
        description="Fixed deviation, in half ranges, for the KL of Gaussians in penalty and gradient; none takes the "
        "policies' own, so that a surer teacher pays more for the same difference.",
    )
    penalty_cap: float | None = Field(None, gt=0, description="Most nats that a step is charged for; none: no bound.")
    penalty_failure: bool = Field(
        False,
        description="Charge a failed episode the mean penalty for the time it cut off: failing early saves nothing.",
    )
    gradient_coef: float = Field(0.1, ge=0, description="lambda2, weight of the KL in the teacher's loss; 0: none.")
    gradient_warmup: int = Field(0, ge=0, description="Env steps in which lambda2 grows to full weight; 0: at once.")
    kl_direction: Literal["teacher_proxy", "proxy_teacher"] = Field(
        "teacher_proxy", description="KL(teacher || proxy), or the other way round, in penalty and gradient."
    )

    @model_validator(mode="after")
    def _a_failure_has_a_price(self) -> PenaltyConfig:
        if self.penalty_failure and self.gamma == 1:
            raise ValueError("--penalty-failure discounts the time that a failure cuts off: give --gamma below 1")
        return self


class LatentConfig(PPOConfig):
    """Settings of the loops in which a student infers the latent that is privileged to its teacher."""

    task: str = positional(description="A task's name, or a task's YAML file.")
    obs: str = Field("", description="View of the teacher; empty takes the task's teacher view.")
    student_obs: str = Field("", description="View of the student, part of the teacher's; empty takes the task's.")
    critic_obs: str = Field("", description="View of the critic; empty takes the teacher's. One without noise helps.")
    network: Network = Field(NetworkConfig(), description="Body of the actor, which teacher and student share.")
    critic: Network | None = Field(None, description="Body of the critic; none makes it like the actor's.")
    latent_size: LatentSize = 8
    encoder: Encoder = NetworkConfig(hidden=(64,))
    student: History = NetworkConfig(kind="history", hidden=(128, 64), history=20)
    encoder_lr: float = Field(1e-3, gt=0, description="Adam's learning rate for the student's encoder.")
    encoder_epochs: int = Field(2, ge=0, description="Passes over each rollout for it; 0 teaches it nothing.")


class StudentConfig(TrainingConfig):
    """Settings of every stage in which a student learns from a frozen teacher."""

    teacher: str = Field(
        "",
        description="Run of the teacher: number, name, path, task or best; several: 1,2; empty: the newest run's.",
    )
    obs: str = Field("", description="View of the student; empty takes the task's student view.")
    student: Network = Field(NetworkConfig(), description="Body of the student.")
    diagnose: bool = Field(True, description="Say first what may keep the student from learning; costs a second.")


class DistillConfig(StudentConfig):
    """Those in which it acts while it learns."""

    teacher_by: str = Field(
        "", description="Of several teachers: group that says whose a row is, by largest entry or index; empty: task."
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
    window: int = Field(
        16, ge=1, description="Steps through which the gradient of a student's memory flows; without memory it is 1."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Norm to which gradients are clipped.")
    validation_fraction: Share = 0.1
    eval_every: EvalEvery = 5
    stop_patience: Patience = 2
    augment: Augment = AugmentConfig()

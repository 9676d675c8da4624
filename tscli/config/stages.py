"""Settings that many stages have."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tscli.config.base import Config

__all__ = ["PPOConfig", "StageConfig"]


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


class PPOConfig(StageConfig):
    """Proximal policy optimisation's own settings, for stages that are made of it."""

    total_steps: int = Field(500_000, ge=1, description="Env steps over all envs, rounded up to whole iterations.")
    num_envs: int = Field(64, ge=1, description="Envs that step together.")
    rollout_steps: int = Field(32, ge=1, description="Steps per env between updates.")
    bptt: int = Field(16, ge=1, description="Steps through which the gradient of a network with memory flows.")
    num_minibatches: int = Field(4, ge=1, description="Minibatches per epoch.")
    num_epochs: int = Field(4, ge=1, description="Passes over each rollout.")
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate at the start.")
    lr_schedule: Literal["constant", "linear"] = Field("linear", description="Whether it falls to 0 over total_steps.")
    gamma: float = Field(0.99, ge=0, le=1, description="Discount.")
    gae_lambda: float = Field(0.95, ge=0, le=1, description="Weight of longer returns in the advantage.")
    clip_coef: float = Field(0.2, gt=0, description="How far the probability ratio may move.")
    entropy_coef: float = Field(0.0, ge=0, description="Weight of the entropy bonus; 0 gives none.")
    value_coef: float = Field(0.5, ge=0, description="Weight of the value loss; 0 leaves the critic untrained.")
    max_grad_norm: float = Field(0.5, gt=0, description="Norm to which gradients are clipped.")
    normalize_reward: bool = Field(False, description="Divide rewards by the running deviation of the return.")
    eval_every: int = Field(10, ge=1, description="Iterations between greedy evaluations that choose the best.")
    eval_episodes: int = Field(100, ge=1, description="Episodes of such an evaluation, and of the final one.")
    stop_return: float | None = Field(None, description="Stop once greedy evaluations reach this return.")
    stop_patience: int = Field(1, ge=1, description="That many times in a row.")

    @model_validator(mode="after")
    def _a_minibatch_has_a_deviation(self) -> PPOConfig:
        if self.num_envs * self.rollout_steps == self.num_minibatches:
            raise ValueError(
                f"--num-minibatches {self.num_minibatches} leaves a minibatch of one step, which has no deviation to "
                "normalize its advantage by: choose fewer"
            )
        return self

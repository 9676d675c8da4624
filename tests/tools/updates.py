"""Watches a stage learn, so that a test can compute each gradient step again from what the step was made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stage_tools import call
from torch import Tensor

from tscli.learning import ppo
from tscli.learning.optim import FlatOptimizer
from tscli.learning.record import Minibatches, Recorder
from tscli.learning.rollout import Step, ViewedEnv
from tscli.networks import Policy
from tscli.networks.distributions import Categorical, Distribution
from tscli.networks.normalize import ReturnScale
from tscli.training import Training

MEMORY = ("--network", "gru", "--network.hidden", "8", "--network.memory", "8")
# Whose learning rate it is, of the optimisers that have one of their own.
_RATES = {
    "critic_optimizer": ["critic_lr"],
    "student_optimizer": ["align_lr", "encoder_lr"],
    "proxy_optimizer": ["align_lr"],
}
# Three iterations of 4 envs x 8 steps, of episodes that are cut off after five: quick, and with ends of every kind.
TINY = (
    *("--total-steps", "96", "--num-envs", "4", "--rollout-steps", "8", "--num-minibatches", "2", "--num-epochs", "2"),
    *(
        "--debug",
        "--bptt",
        "4",
        "--gamma",
        "0.9",
        "--gae-lambda",
        "0.7",
        "--clip-coef",
        "0.1",
        "--entropy-coef",
        "0.05",
    ),
    *("--value-coef", "0.3", "--lr", "0.02", "--lr-schedule", "linear", "--eval-every", "0", "--eval-episodes", "2"),
)


def short_task(env: str = "max_episode_steps: 5") -> str:
    """CartPole in short episodes, as a file in the folder to stand in."""
    Path("short.yaml").write_text(f"extends: cartpole\nenv: {{{env}}}\nviews: {{full: [state]}}\nstudent: full\n")
    return "short.yaml"


class Watch:
    """Put around a run; `check` is called before every step of an optimiser, while the gradient is at hand.

    Attributes:
        config, parts: the run's.
        rollout: the latest, as recorded.
        part, index: the minibatch at hand, and its sequences' numbers.
        former: the minibatch before it.
        length: steps of its sequences.
        updates: optimisers' steps so far, by the part's name.
        rollouts: finished so far.
        rewards: before they were scaled, rollout by rollout.
        actions: what the env was given, step by step.
        norms: what the normalisers had taken in when each rollout was finished.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, check: Callable[[Watch, str], None]) -> None:
        self.config: Any = None
        self.parts: dict[str, Any] = {}
        self.rollout: Any = None
        self.part: Any = None
        self.former: Any = None
        self.index, self.length = torch.zeros(0), 0
        self.updates: dict[str, int] = {}
        self.rollouts = 0
        self.norms: list[dict[str, int]] = []
        self.actions: list[Tensor] = []
        self.rewards: list[Tensor] = []
        self._steps: list[tuple[Step, Any]] = []
        self._reset = torch.ones(0, dtype=torch.bool)
        self._memory = torch.zeros(0)  # the critic's, after the rollout before
        self._scaled: tuple[Tensor, Tensor] = torch.zeros(0), torch.zeros(0)
        self._patch(monkeypatch, check)

    def _patch(self, monkeypatch: pytest.MonkeyPatch, check: Callable[[Watch, str], None]) -> None:
        def begin(original: Any, this: Training, session: Any, config: Any, task: Any, parts: Any, *a: Any, **k: Any):
            self.config, self.parts = config, parts
            original(this, session, config, task, parts, *a, **k)
            self._check_parameters()

        def stack(original: Any, this: Recorder) -> Any:
            self.rollout = original(this)
            return self.rollout

        def cut(original: Any, this: Minibatches, index: Tensor) -> Any:
            self.former = self.part
            self.part, self.index, self.length = original(this, index), index, this._length
            return self.part

        def act(original: Any, this: ViewedEnv, action: Tensor) -> Step:
            step = original(this, action)
            if this is self.parts.get("viewed"):
                self.actions.append(step.action)
                self._steps.append((step, next(iter(this._finals.values()), None)))
            return step

        def scale(original: Any, this: ReturnScale, reward: Tensor, done: Tensor) -> Tensor:
            self._scaled = reward, original(this, reward, done)
            return self._scaled[1]

        def move(original: Any, this: FlatOptimizer) -> None:
            name = next(name for name, part in self.parts.items() if part is this)
            if self.rollouts:
                given = next(vars(self.config)[rate] for rate in _RATES.get(name, ["lr"]) if rate in vars(self.config))
                assert this.lr == pytest.approx(given * (1 - (self.rollouts - 1) / 3)), "it falls to 0 over the run"
            check(self, name)
            self.updates[name] = self.updates.get(name, 0) + 1
            original(this)

        patches = ((Training, "__init__", begin), (Recorder, "stack", stack), (Minibatches, "part", cut))
        patches = (*patches, (ReturnScale, "__call__", scale), (ViewedEnv, "step", act), (FlatOptimizer, "step", move))
        for owner, name, function in patches:
            _wrap(monkeypatch, owner, name, function)
        gae = ppo.compute_gae

        def advantages(*args: Any) -> Any:
            self._check_rollout(*args)
            return gae(*args)

        monkeypatch.setattr(ppo, "compute_gae", advantages)

    def _check_parameters(self) -> None:
        """Every weight of the run is moved by one optimiser, and by one alone."""
        moved = [parameter for part in self.parts.values() for parameter in getattr(part, "_parameters", ())]
        modules = [part for part in self.parts.values() if isinstance(part, torch.nn.Module)]
        learnt = {parameter for module in modules for parameter in module.parameters()}
        moved = [parameter for parameter in moved if isinstance(parameter, Tensor)]  # a module's own are names
        assert len(moved) == len(set(moved)) and set(moved) == learnt

    def _check_rollout(
        self, reward: Tensor, value: Tensor, next_value: Tensor, ends: Tensor, done: Tensor, gamma: float, lam: float
    ) -> None:
        """What PPO makes its advantages of is what the env said and what the critic says of it."""
        steps, finals = [step for step, _ in self._steps], [final for _, final in self._steps]
        self._steps = []
        assert (gamma, lam) == (self.config.gamma, self.config.gae_lambda)
        assert torch.equal(ends, torch.stack([step.terminated for step in steps]))
        assert torch.equal(done, torch.stack([step.done for step in steps]))
        assert torch.equal(self.rollout.reward, torch.stack([step.reward for step in steps]))
        assert torch.equal(self.rollout.action, torch.stack([step.action for step in steps]))
        first = self._reset if self.rollouts else torch.ones_like(done[0])
        assert torch.equal(self.rollout.reset, torch.cat([first[None], done]))
        self._reset = done[-1]
        scales = self.parts["scale"] is not None
        assert not scales or torch.equal(reward, self._scaled[1])
        self.rewards.append(self._scaled[0] if scales else reward)
        assert "proxy" in self.parts or torch.equal(self.rewards[-1], self.rollout.reward)
        self.norms.append(self.counts())
        critic, obs = self.parts["critic"], getattr(self.rollout, "value_obs" if self._has("value_obs") else "obs")
        if not critic.is_recurrent:
            with torch.no_grad():
                said = critic(obs, critic.initial_hidden(done.shape[1]))[0]
                expected = said[1:].clone()
                for t, (step, final) in enumerate(zip(steps, finals, strict=True)):
                    if step.truncated.any():
                        expected[t, final.rows] = critic(final.obs, critic.initial_hidden(1))[0]
            torch.testing.assert_close(value, said[:-1])
            torch.testing.assert_close(next_value, expected)
        else:
            before = self._memory if self.rollouts else critic.initial_hidden(done.shape[1])
            with torch.no_grad():
                said, self._memory = critic({"vector": obs["vector"][:-1]}, before, self.rollout.reset[:-1])
            torch.testing.assert_close(value, said)
            torch.testing.assert_close(self.parts["at"].critic_hidden, self._memory)
        self.rollouts += 1

    def _has(self, name: str) -> bool:
        return name in vars(self.rollout)

    def counts(self) -> dict[str, int]:
        """Observations that each normaliser has taken in."""
        modules = {name: part.encoder.norm for name, part in self.parts.items() if hasattr(part, "encoder")}
        return {name: int(norm.count) for name, norm in modules.items() if norm is not None}

    def assert_gradient(self, name: str, loss: Tensor, only: torch.nn.Module | None = None) -> None:
        """The gradient at hand of an optimiser's parameters, or of a module's, is that of `loss`, and not all zero."""
        parameters = list(only.parameters()) if only is not None else self.parts[name]._parameters
        expected = torch.autograd.grad(loss, parameters, allow_unused=True)
        for parameter, wanted in zip(parameters, expected, strict=True):
            found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            wanted = torch.zeros_like(parameter) if wanted is None else wanted
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-7)
        assert any(bool(wanted.abs().max() > 1e-5) for wanted in expected if wanted is not None)

    def surrogate(self, dist: Distribution, weight: Tensor | float = 1.0) -> Tensor:
        """PPO's policy loss on the minibatch at hand (Schulman et al. 2017, eq. 7)."""
        part, clip = self.part, self.config.clip_coef
        advantage = (part.advantage - part.advantage.mean()) / (part.advantage.std() + 1e-8)
        ratio = (dist.log_prob(part.action) - part.log_prob).exp()
        return -(torch.min(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)) * weight).mean()

    def value_loss(self, value: Tensor) -> Tensor:
        """The critic's part of the loss."""
        return 0.5 * self.config.value_coef * (value - self.part.returns).square().mean()

    def assert_first_is_as_it_acted(self, name: str, dist: Distribution, value: Tensor) -> None:
        """In an update's first minibatch the ratio is 1 and the values are those that the advantages were made of."""
        each = self.config.num_epochs * self.config.num_minibatches
        if self.updates.get(name, 0) % each == 0:
            torch.testing.assert_close(dist.log_prob(self.part.action), self.part.log_prob, rtol=0, atol=3e-6)
            torch.testing.assert_close(value, self.part.value, rtol=1e-4, atol=1e-5)


def _wrap(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, function: Callable[..., Any]) -> None:
    original = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda this, *args, **kwargs: function(original, this, *args, **kwargs))


def no_gradient(dist: Distribution) -> Distribution:
    """The same discrete actions, cut off from what they were made of."""
    return Categorical(dist.params()["logits"].detach())


class Memory:
    """Follows a policy's hidden state over the rollouts, from what it saw in them."""

    def __init__(self, obs: str, state: str):
        self.obs, self.state, self.rollouts = obs, state, 0
        self.before = self.after = self.logits = torch.zeros(0)

    def check(self, watch: Watch, policy: Policy) -> None:
        """What the loop hands on to its next iteration is what one pass after the other gives."""
        if self.rollouts == watch.rollouts:
            return
        self.before = self.after if self.rollouts else policy.initial_hidden(4)
        obs, resets = getattr(watch.rollout, self.obs)["vector"][:8], watch.rollout.reset[:8]
        with torch.no_grad():
            dist, self.after = policy({"vector": obs}, self.before, resets)
        self.logits = dist.params()["logits"]
        self.rollouts = watch.rollouts
        torch.testing.assert_close(getattr(watch.parts["at"], self.state), self.after)
        assert self.after.any() == policy.is_recurrent


def said(policy: Policy, part: Any, obs: str, hidden: str) -> Distribution:
    """What a policy says in a minibatch."""
    return policy(getattr(part, obs), getattr(part, hidden), part.reset)[0]


def make_teacher(*more: str) -> None:
    """A teacher of the short task."""
    call("train-teacher", short_task(), *TINY, "--network.hidden", "8", *more)

"""ADVISOR's gradient steps, each computed again by its equation: imitation and reinforcement, by their weight."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stage_tools import SMALL, Remember, call
from updates import MEMORY, TINY, Memory, Watch, make_teacher

from tscli.learning.imitation import imitation_loss
from tscli.learning.record import sequences
from tscli.networks.distributions import Categorical
from tscli.training import setup

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.mark.parametrize(
    ("teacher", "settings"),
    [((), ("--student", "mlp", "--normalize-reward")), (MEMORY, ("--student", "gru", "--loss", "kl"))],
    ids=["plain", "memory"],
)
def test_advisor_imitates_where_it_can_and_explores_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch, teacher: tuple[str, ...], settings: tuple[str, ...]
) -> None:
    make_teacher(*teacher)
    monkeypatch.setattr(setup, "open_policy", remember := Remember(setup.open_policy))
    memory = Memory("teacher_obs", "teacher_hidden")

    def check(watch: Watch, name: str) -> None:
        ((advice, _),) = remember.opened
        part, policy, kind = watch.part, watch.parts["policy"], watch.config.loss or "cross_entropy"
        memory.check(watch, advice)
        logits = sequences(memory.logits, watch.length)[:, watch.index]
        torch.testing.assert_close(part.labels["logits"], logits)
        assert torch.equal(part.label, logits.argmax(-1))
        wanted = Categorical(logits)
        latent, _ = policy.encoder(part.obs, part.hidden, part.reset)
        dist, guess = policy.head(latent), watch.parts["auxiliary"](latent)
        value, _ = watch.parts["critic"](part.value_obs, part.critic_hidden, part.reset)
        watch.assert_first_is_as_it_acted(name, dist, value)
        far = imitation_loss(guess, wanted, part.label, kind)
        # The first of three rollouts is the warm-up.
        weight = (-watch.config.alpha * far.detach()).exp() if watch.updates.get(name, 0) >= 4 else torch.tensor(1.0)
        loss = (weight * imitation_loss(dist, wanted, part.label, kind)).mean() + far.mean()
        loss = loss - watch.config.entropy_coef * ((1 - weight) * dist.entropy()).mean()
        watch.assert_gradient(name, loss + watch.surrogate(dist, 1 - weight) + watch.value_loss(value))

    watch = Watch(monkeypatch, check)
    more = ("--entropy-coef", "0.5", "--alpha", "3", "--warmup", "32", "--no-diagnose")
    call("distill", "--method", "advisor", *TINY, *SMALL, *settings, *more)
    assert watch.updates == {"optimizer": 12}
    assert [*watch.norms, watch.counts()] == [{"policy": 32 * i, "critic": 32 * i} for i in range(4)]

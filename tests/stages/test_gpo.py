"""GPO's gradient steps, each computed again by its equation: who pulls whom."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stage_tools import call
from updates import MEMORY, TINY, Memory, Watch, no_gradient, said, short_task

from tscli.networks.distributions import Distribution, kl

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.mark.parametrize(("pull", "settings"), [("penalty", MEMORY), ("clip", ())], ids=["memory", "plain"])
def test_guider_and_learner_pull_each_other_and_each_by_its_own_gradient(
    folder: Path, monkeypatch: pytest.MonkeyPatch, pull: str, settings: tuple[str, ...]
) -> None:
    guiding: list[Distribution] = []
    memory = Memory("student_obs", "learner_hidden")
    left_once: list[bool] = []

    def check(watch: Watch, name: str) -> None:
        part, config, beta = watch.part, watch.config, watch.parts["at"].beta
        told = said(watch.parts["learner"], part, "student_obs", "learner_hidden")
        if name == "learner_optimizer":  # after the guider's step, but of the guider before it
            weight = beta if pull == "penalty" else 1.5
            loss = kl(guiding[0], told).mean() + weight * watch.surrogate(told)
            return watch.assert_gradient(name, loss)
        memory.check(watch, watch.parts["learner"])
        starts = (watch.index < 4).nonzero()[:, 0]  # the rollout's first sequences of each env
        assert torch.equal(part.learner_hidden[starts], memory.before[watch.index[starts]])
        dist = said(watch.parts["guider"], part, "obs", "hidden")
        value, _ = watch.parts["critic"](part.obs, part.critic_hidden, part.reset)
        watch.assert_first_is_as_it_acted(name, dist, value)
        guiding[:] = [no_gradient(dist)]
        loss = watch.value_loss(value) - config.entropy_coef * dist.entropy().mean()
        away = kl(dist, no_gradient(told))
        if pull == "penalty":
            epochs = watch.updates.get(name, 0) // 2
            assert beta == pytest.approx(0.1 * 1.2**epochs if epochs else 0.0)
            loss = loss + watch.surrogate(dist) + beta * away.mean()
        else:
            log_prob, other = dist.log_prob(part.action), told.log_prob(part.action).detach()
            advantage = (part.advantage - part.advantage.mean()) / (part.advantage.std() + 1e-8)
            near = (log_prob - other).exp().clamp(0.995, 1.005) * (other - part.log_prob).exp()
            ratio = (log_prob - part.log_prob).exp()
            loss = loss - torch.min(advantage * ratio, advantage * near.clamp(0.9, 1.1)).mean()
            left = ((log_prob - other).exp() - 1).abs() > 0.005
            left_once.extend([bool(left.any()), not left.all()])
            loss = loss + (away * left).mean()
        return watch.assert_gradient(name, loss)

    watch = Watch(monkeypatch, check)
    steer = ("--target-kl", "1e-12", "--delta", "0.005", "--learner-rl-coef", "1.5", "--pull", pull)
    call(
        "gpo",
        short_task(),
        *TINY,
        "--network.hidden",
        "8",
        "--student",
        "none",
        "--normalize-reward",
        *steer,
        *settings,
    )
    assert watch.updates == {"optimizer": 12, "learner_optimizer": 12}
    assert [*watch.norms, watch.counts()] == [dict.fromkeys(("guider", "learner", "critic"), 32 * i) for i in range(4)]
    assert pull == "penalty" or (any(left_once[::2]) and any(left_once[1::2]))

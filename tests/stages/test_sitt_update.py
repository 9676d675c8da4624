"""SITT's gradient steps, each computed again by its equation: who learns from what, and who stands still."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stage_tools import call, metrics_of
from torch import Tensor
from torch.func import functional_call
from updates import MEMORY, TINY, Watch, short_task

from tscli.networks import Head
from tscli.networks.distributions import Distribution, kl

pytestmark = pytest.mark.usefixtures("no_plots")

SITT = (
    *TINY,
    *("--network.hidden", "8", "--student", "none", "--align-updates", "3", "--align-batch", "8", "--align-lr", "0.02"),
    *("--stop-success", "none", "--penalty-coef", "5", "--gradient-coef", "20", "--feature-coef", "0.3"),
    *("--latent-coef", "0.7"),
)
WHOLE = (*MEMORY, "--paired", "envs", "--align-batch", "32")


def frozen(head: Head, latent: Tensor) -> Distribution:
    """What a head says, while none of its weights learns."""
    return functional_call(head, {name: value.detach() for name, value in head.named_parameters()}, latent)


def distance(head: Any, latent: Tensor, goal: Tensor, goal_head: Head) -> Tensor:
    """.7 |F - F'| + |A F - A' F'| of discrete actions."""
    said, wanted = head(latent).params()["logits"], goal_head(goal).params()["logits"]
    return 0.7 * (latent - goal.detach()).abs().mean() + (said - wanted.detach()).abs().mean()


@pytest.mark.parametrize(
    "settings",
    [
        ("--gradient-warmup", "64", "--paired-fraction", "0.5"),
        ("--kl-direction", "proxy_teacher", "--no-shared-head", "--paired-fraction", "1"),
        (*WHOLE, "--paired-fraction", "0.5"),
    ],
    ids=["shared", "apart", "memory"],
)
def test_every_gradient_step_is_that_of_its_equation(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    drawn: list[Tensor] = []
    goal: list[Tensor] = []

    def check(watch: Watch, name: str) -> None:
        teacher, student, proxy, critic = (watch.parts[key] for key in ("teacher", "student", "proxy", "critic"))
        part, config = watch.part, watch.config
        if name == "optimizer":
            latent, _ = teacher.encoder(part.obs, part.hidden, part.reset)
            value, _ = critic(part.obs, part.critic_hidden, part.reset)
            dist = teacher.head(latent)
            watch.assert_first_is_as_it_acted(name, dist, value)
            if not proxy.is_recurrent:
                torch.testing.assert_close(part.proxy_latent, proxy.encoder(part.obs, part.hidden, None)[0].detach())
            pair = frozen(teacher.head, latent), frozen(proxy.head, part.proxy_latent)
            pull = kl(*(pair if config.kl_direction == "teacher_proxy" else pair[::-1])).mean()
            loss = watch.surrogate(dist) + watch.value_loss(value) - config.entropy_coef * dist.entropy().mean()
            grown = min(1.0, watch.rollouts / 2) if config.gradient_warmup else 1.0
            loss = loss + config.gradient_coef * grown * pull
            watch.assert_gradient(name, loss + config.feature_coef * (latent - part.proxy_latent).abs().mean())
            return
        drawn.append(watch.index)
        if name == "student_optimizer":
            told, _ = teacher.encoder(part.paired_obs, part.hidden, part.paired_reset)
            latent, _ = student.encoder(part.student_obs, part.student_hidden, part.paired_reset)
            goal[:] = [latent.detach()]
            loss = distance(student.head, latent, told, teacher.head)
            watch.assert_gradient(name, loss, student.encoder if config.shared_head else None)
        else:
            latent, _ = proxy.encoder(part.paired_obs, part.proxy_hidden, part.paired_reset)
            loss = distance(proxy.head, latent, goal[0], student.head)
            watch.assert_gradient(name, loss, proxy.encoder if config.shared_head else None)

    watch = Watch(monkeypatch, check)
    run = call("sitt", short_task(), *SITT, *settings)
    assert watch.updates == {"optimizer": 12, "student_optimizer": 9, "proxy_optimizer": 9}
    share = float(settings[-1])
    counts = [{"teacher": 32 * i, "critic": 32 * i, "student": int(32 * share) * i, "proxy": 32 * i} for i in range(4)]
    assert [*watch.norms, watch.counts()] == counts
    # The last minibatch of an alignment is what was held out of it: none of it was learnt from.
    assert not set(watch.index.tolist()) & set(torch.cat(drawn[-6:]).tolist())
    # And what is said of it is of the policies as they are at the end.
    part = watch.part
    with torch.no_grad():
        teacher, _ = watch.parts["teacher"].encoder(part.paired_obs, part.hidden, part.paired_reset)
        student, _ = watch.parts["student"](part.student_obs, part.student_hidden, part.paired_reset)
        proxy, _ = watch.parts["proxy"](part.paired_obs, part.proxy_hidden, part.paired_reset)
        teacher = watch.parts["teacher"].head(teacher)
    last = metrics_of(run)[-1]
    for name, said in (("kl_teacher_student", teacher), ("kl_proxy_student", proxy)):
        assert last[name] == pytest.approx(float(kl(said, student).mean()), rel=1e-3)


@pytest.mark.parametrize("settings", [(), WHOLE], ids=["steps", "envs"])
def test_pairs_are_of_the_same_rows_and_the_proxys_memory_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    hiddens = [torch.zeros(4, 8)]
    differ: list[bool] = []

    def check(watch: Watch, name: str) -> None:
        rollout = watch.rollout
        assert torch.equal(rollout.paired_obs["vector"], rollout.student_obs["vector"]), "both see all there is"
        resets = torch.stack([rollout.reset[t, rows] for t, rows in enumerate(rollout.rows)])
        assert torch.equal(rollout.paired_reset, resets)
        whole = {tuple(sorted(rows.tolist())) for rows in rollout.rows}
        assert (len(whole) > 1) == (not settings), "those who remember are paired in the same envs at every step"
        differ.append(bool((rollout.reset.any(1) & ~rollout.reset.all(1)).any()))
        if name == "optimizer" and watch.updates.get(name, 0) % 4 == 0 and watch.parts["proxy"].is_recurrent:
            obs = {"vector": rollout.obs["vector"][:-1]}
            with torch.no_grad():
                _, expected = watch.parts["proxy"].encoder(obs, hiddens[-1], rollout.reset[:-1])
            hiddens.append(watch.parts["at"].proxy_hidden)
            torch.testing.assert_close(hiddens[-1], expected)

    Watch(monkeypatch, check)
    # Envs whose episodes end at different times.
    tasks = ", ".join(f"{name}: {{kind: cartpole, max_episode_steps: {n}}}" for name, n in (("a", 3), ("b", 5)))
    Path("two.yaml").write_text(f"env: {{kind: mixed, tasks: {{{tasks}}}}}\nviews: {{full: [state]}}\n")
    call("sitt", "two.yaml", *SITT, *settings, "--paired-fraction", "0.5")
    assert any(differ)
    assert len(hiddens) == (4 if settings else 1) and hiddens[-1].any() == bool(settings)


def test_the_penalty_comes_off_the_reward_before_it_is_scaled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch, lambda watch, name: None)
    lines = metrics_of(call("sitt", short_task(), *SITT, "--normalize-reward", "--penalty-coef", "500"))
    # Cartpole pays 1 per step, so the rest is the penalty.
    assert [1 - float(reward.mean()) for reward in watch.rewards] == pytest.approx(
        [line["penalty"] for line in lines], rel=1e-4
    )
    assert all(line["penalty"] > 1e-3 for line in lines)

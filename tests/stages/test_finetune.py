"""Fine-tuning's gradient steps, each computed again by its equation: the critic first, then the student."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
from stage_tools import ONLINE, SMALL, Remember, call, metrics_of
from updates import MEMORY, TINY, Memory, Watch, make_teacher, said

from tscli.learning.record import sequences
from tscli.networks.distributions import Categorical, kl
from tscli.training import setup

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.mark.parametrize("teacher", [(), MEMORY], ids=["plain", "memory"])
def test_a_fine_tuned_student_learns_by_ppo_near_its_teacher_once_the_critic_is_warm(
    folder: Path, monkeypatch: pytest.MonkeyPatch, teacher: tuple[str, ...]
) -> None:
    make_teacher(*teacher)
    call(*ONLINE, *SMALL, "--student", "gru" if teacher else "mlp", "--eval-every", "0", "--no-diagnose")
    monkeypatch.setattr(setup, "open_policy", remember := Remember(setup.open_policy))
    memory = Memory("teacher_obs", "teacher_hidden")

    def check(watch: Watch, name: str) -> None:
        part, policy, advice = watch.part, watch.parts["policy"], remember.opened[1][0]
        memory.check(watch, advice)
        value, _ = watch.parts["critic"](part.value_obs, part.critic_hidden, part.reset)
        dist = said(policy, part, "obs", "hidden")
        if name == "critic_optimizer":
            if watch.updates.get(name, 0) < 4:
                assert all(parameter.grad is None for parameter in policy.parameters())
            watch.assert_first_is_as_it_acted(name, dist, value)
            return watch.assert_gradient(name, watch.value_loss(value))
        wanted = Categorical(sequences(memory.logits, watch.length)[:, watch.index])
        loss = watch.surrogate(dist) - watch.config.entropy_coef * dist.entropy().mean()
        return watch.assert_gradient(name, loss + 20 * kl(wanted, dist).mean())

    watch = Watch(monkeypatch, check)
    more = (
        "--critic.hidden",
        "8",
        "--critic-lr",
        "0.02",
        "--critic-warmup",
        "32",
        "--teacher-kl-coef",
        "20",
        "--normalize-reward",
        *("--eval-every", "1"),
    )
    run = call("finetune", *TINY, *more, "--update-normalizer")
    assert watch.updates == {"critic_optimizer": 12, "optimizer": 8}
    assert [counts["critic"] for counts in (*watch.norms, watch.counts())] == [0, 32, 64, 96]
    before = watch.norms[0]["policy"]
    assert [counts["policy"] - before for counts in (*watch.norms, watch.counts())] == [0, 0, 32, 64]
    lines = metrics_of(run)
    assert lines[-1]["kl_teacher"] > 0
    assert ["eval/return" in line for line in lines] == [False, True, True], "there is nothing new to measure at first"

"""PPO's gradient steps, each computed again by its equation."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stage_tools import call
from updates import MEMORY, TINY, Watch, said, short_task

pytestmark = pytest.mark.usefixtures("no_plots")


@pytest.mark.parametrize(
    "settings",
    [("--network.hidden", "8"), (*MEMORY, "--clip-value"), ("--normalize-reward", "--no-normalize-advantage")],
    ids=["plain", "memory", "scaled"],
)
def test_a_teachers_steps_are_ppos(folder: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]) -> None:
    def check(watch: Watch, name: str) -> None:
        part, config, critic = watch.part, watch.config, watch.parts["critic"]
        dist = said(watch.parts["policy"], part, "obs", "hidden")
        value, _ = critic(part.value_obs, part.critic_hidden, part.reset)
        watch.assert_first_is_as_it_acted(name, dist, value)
        if not config.normalize_advantage:
            ratio = (dist.log_prob(part.action) - part.log_prob).exp()
            gain = torch.min(part.advantage * ratio, part.advantage * ratio.clamp(0.9, 1.1)).mean()
        else:
            gain = -watch.surrogate(dist)
        value_loss = watch.value_loss(value)
        if config.clip_value:
            near = part.value + (value - part.value).clamp(-0.1, 0.1)
            worse = torch.max((value - part.returns).square(), (near - part.returns).square())
            value_loss = 0.5 * config.value_coef * worse.mean()
        watch.assert_gradient(name, value_loss - gain - config.entropy_coef * dist.entropy().mean())

    watch = Watch(monkeypatch, check)
    call("train-teacher", short_task(), *TINY, *settings)
    assert watch.updates == {"optimizer": 12}
    assert [*watch.norms, watch.counts()] == [{"policy": 32 * i, "critic": 32 * i} for i in range(4)]

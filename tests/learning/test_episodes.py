"""Episodes that end while a policy trains: counted once each, whole ones alone."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import torch

from tscli.learning.episodes import EpisodeStats


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values)[:, None]


def test_returns_and_lengths_are_means_over_the_episodes_that_ended() -> None:
    stats = EpisodeStats(2)
    reward = torch.tensor([[1.0, 10.0], [2.0, 10.0], [4.0, 10.0]])
    done = torch.tensor([[0, 0], [1, 0], [1, 0]]).bool()
    # Env 0's end after 1 + 2 and after 4; env 1's goes on.
    assert stats.update(reward, done) == {"rollout/return": 3.5, "rollout/length": 1.5}
    assert stats.episodes == 2
    # Where none ended the figures before are repeated; then the one that had gone on ends, whole.
    assert stats.update(reward[:1], done[:1]) == {"rollout/return": 3.5, "rollout/length": 1.5}
    found = stats.update(torch.tensor([[0.0, 5.0]]), torch.tensor([[False, True]]))
    assert found == {"rollout/return": 45.0, "rollout/length": 5.0} and stats.episodes == 3


def test_before_the_first_end_there_are_no_figures() -> None:
    found = EpisodeStats(1).update(column(1.0), column(0).bool())
    assert found == {"rollout/return": None, "rollout/length": None}


def test_a_restart_forgets_the_episodes_under_way_and_a_resume_does_not() -> None:
    for restarts, expected in ((True, (2.0, 1.0)), (False, (9.0, 2.0))):
        stats = EpisodeStats(1)
        stats.update(column(7.0), column(0).bool())
        again = EpisodeStats(1)
        again.load_state_dict(stats.state_dict())
        if restarts:
            again.restart()
        found = again.update(column(2.0), column(1).bool())
        assert (found["rollout/return"], found["rollout/length"]) == expected

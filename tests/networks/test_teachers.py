"""Several teachers behind the face of one: whose word counts in which row."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

from typing import Any

import pytest
import torch
from fake_env import DISCRETE, GROUPS

from tscli.config import NetworkConfig, UserError, parse_view
from tscli.envs.spaces import ActionSpec, Group
from tscli.envs.views import Obs, ViewSpec, resolve_view
from tscli.networks import LatentSpec, Policy, PolicySpec, Teachers

ALL = {**GROUPS, "task": Group((2,), fields=("left", "right")), "number": Group((1,))}
ARM = ActionSpec("continuous", low=(-1.0,), high=(1.0,))


def view(text: str, name: str = "mine") -> ViewSpec:
    return resolve_view(name, parse_view(text), ALL, DISCRETE)


def policy(text: str, seed: int, action: ActionSpec = DISCRETE, latent: str = "", **network: Any) -> Policy:
    torch.manual_seed(seed)
    inner = LatentSpec((0,), (0,), NetworkConfig(kind=latent, hidden=(4,), memory=3), 2) if latent else None
    made = Policy(PolicySpec(view(text), action, NetworkConfig(hidden=(4,), memory=3, **network), inner))
    made.head.linear.weight.data.normal_()
    return made.eval().requires_grad_(False)


def joined(teachers: Teachers, seen: list[Obs], by: torch.Tensor) -> Obs:
    """What `ViewedEnv` would hand them, of what each sees alone."""
    assert teachers.spec.view.vector_size == sum(o["vector"].shape[-1] for o in seen if "vector" in o) + by.shape[-1]
    vectors = [o["vector"] for o in seen if "vector" in o]
    return {**{k: v for o in seen for k, v in o.items() if k != "vector"}, "vector": torch.cat([*vectors, by], -1)}


@pytest.mark.parametrize(
    "kinds", [("mlp", "mlp"), ("rnn", "gru"), ("mlp", "history"), ("gru", "mlp/rnn")], ids="-".join
)
@pytest.mark.parametrize("action", [DISCRETE, ARM], ids=["discrete", "continuous"])
def test_each_row_has_the_labels_of_its_own_teacher_also_where_it_changes_hands(
    kinds: tuple[Any, Any], action: ActionSpec
) -> None:
    kind, _, latent = kinds[1].partition("/")
    ones = [policy("state", 1, action, kind=kinds[0]), policy("state[0] + camera", 2, action, latent, kind=kind)]
    both = Teachers(ones, ["1", "2"], view("task", "task"))
    steps, n = 6, 4
    camera = torch.randint(256, (steps, n, 8, 8, 3), dtype=torch.uint8)
    seen: list[Obs] = [
        {"vector": torch.randn(steps, n, 3)},
        {"vector": torch.randn(steps, n, 1), "camera": camera},
    ]
    which = torch.tensor([0, 1, 1, 0]).expand(steps, n).clone()
    which[3:, 3] = 1
    obs = joined(both, seen, torch.nn.functional.one_hot(which, 2).float())
    reset = torch.rand(steps, n) < 0.2
    hidden = both.initial_hidden(n)
    assert hidden.shape == (n, sum(one.encoder.hidden_size for one in ones))
    said = [one(o, one.initial_hidden(n), reset) for one, o in zip(ones, seen, strict=True)]
    dist, last = both(obs, hidden, reset)
    for name, value in dist.params().items():
        for k, (alone, _) in enumerate(said):
            assert torch.equal(value[which == k], alone.params()[name][which == k])
    assert torch.equal(last, torch.cat([h for _, h in said], 1))
    assert not torch.allclose(said[0][0].mode().float(), said[1][0].mode().float())
    for t in range(steps):
        one, hidden = both.step({k: v[t] for k, v in obs.items()}, hidden, reset[t])
        assert torch.allclose(one.params()[name], dist.params()[name][t], atol=1e-6)
    assert torch.allclose(hidden, last, atol=1e-6)


def test_one_number_counts_the_teachers_from_0_on_and_any_other_is_refused() -> None:
    both = Teachers([policy("state", 1), policy("state", 2)], ["1", "2"], view("number", "terrain"))
    assert both.teacher_of(torch.tensor([[[1.0], [0.0]]])).tolist() == [[1, 0]]
    for wrong in (2.0, -1.0, 0.5):
        with pytest.raises(UserError, match=f"--teacher-by terrain: a row says {wrong:g}, and the 2 teachers are"):
            both.teacher_of(torch.tensor([[0.0], [wrong]]))


@pytest.mark.parametrize(("by", "message"), [("state", "it has 3 entries and there are 2"), ("camera", "a picture")])
def test_what_does_not_tell_as_many_apart_is_refused(by: str, message: str) -> None:
    with pytest.raises(UserError, match=f"--teacher-by {by}: .*{message}") as caught:
        Teachers([policy("state", 1), policy("state", 2)], ["1", "2"], view(by, by))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", [{"distribution": "beta"}, {"squash": True}])
def test_teachers_with_distributions_of_two_kinds_are_refused(other: dict[str, Any]) -> None:
    ones = [policy("state", 1, ARM), policy("state", 2, ARM, **other)]
    with pytest.raises(UserError, match=r"a acts by a gaussian distribution and b by a .* one: .* the same kind"):
        Teachers(ones, ["a", "b"], view("task"))
    Teachers([policy("state", 1), policy("state", 2, squash=True)], ["a", "b"], view("task"))  # not with discrete ones


def test_a_picture_that_teachers_see_in_two_ways_is_refused() -> None:
    ones = [policy("camera", 1), policy("camera", 2)]
    both = Teachers(ones, ["a", "b"], view("task"))
    assert list(both.spec.view.images) == ["camera"] and both.spec.view.vector_size == 2
    part = parse_view("camera")[0].model_copy(update={"dropout": 0.5})
    lossy = Policy(PolicySpec(resolve_view("lossy", (part,), ALL, DISCRETE), DISCRETE, NetworkConfig(hidden=(4,))))
    with pytest.raises(UserError, match='see the picture "camera" in different ways'):
        Teachers([ones[0], lossy], ["a", "b"], view("task"))

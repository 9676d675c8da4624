"""Augmented pictures: shifts and colours computed by hand, who shares a draw, and that nothing else changes."""

# ruff: noqa: D103 - tests say in their names what they show

from __future__ import annotations

import numpy as np
import pytest
import torch
from policies import make, sequence
from torch import Tensor

from tscli.config import AugmentConfig, UserError
from tscli.learning.augment import Augmentation, relight, shift


def augmentation(kind: str = "mlp", seed: int = 0, text: str = "state + camera", **settings: float) -> Augmentation:
    config = AugmentConfig.model_validate(settings)
    return Augmentation(config, make(kind, text), torch.Generator().manual_seed(seed))


def test_a_shift_is_a_crop_of_the_picture_padded_by_its_border() -> None:
    image = sequence(1, 25, "camera")["camera"][0]
    down, right = torch.arange(5.0).repeat_interleave(5) + 0.9, torch.arange(5.0).repeat(5)
    found = shift(image, down, right, 2)
    padded = np.pad(image.numpy(), ((0, 0), (2, 2), (2, 2), (0, 0)), mode="edge")
    for i in range(25):
        expected = padded[i, i // 5 : i // 5 + 9, i % 5 : i % 5 + 12]
        np.testing.assert_array_equal(found[i].numpy(), expected)
    assert torch.equal(found[12], image[12])


def test_a_shift_further_than_the_picture_is_wide_shows_its_border() -> None:
    image = torch.arange(4, dtype=torch.uint8).reshape(1, 2, 2, 1)
    assert shift(image, torch.zeros(1), torch.zeros(1), 9).flatten().tolist() == [0, 0, 0, 0]
    assert shift(image, torch.full((1,), 18.0), torch.full((1,), 9.0), 9).flatten().tolist() == [2, 3, 2, 3]


def test_brightness_scales_and_contrast_scales_the_distance_from_the_mean() -> None:
    image = torch.tensor([[10, 20], [30, 200]], dtype=torch.uint8).reshape(1, 2, 2, 1).repeat(4, 1, 1, 1)
    found = relight(image, torch.tensor([1.0, 0.5, 1.0, 2.0]), torch.tensor([1.0, 1.0, 0.5, 1.5]))
    mean = 65
    expected = [[10, 20, 30, 200], [5, 10, 15, 100]]
    expected.append([round(mean + (x - mean) / 2) for x in (10, 20, 30, 200)])
    expected.append([round(min(max(2 * (mean + (x - mean) * 1.5), 0), 255)) for x in (10, 20, 30, 200)])
    assert found.flatten(1).tolist() == expected and found.dtype == torch.uint8


def moves(before: Tensor, after: Tensor) -> Tensor:
    """[...], which of the nine shifts by a pixel at most each of some pictures went through."""
    before, batch = before.flatten(0, -4), before.shape[:-3]
    places = [torch.full((2, len(before)), 0.0) + torch.tensor([[i // 3], [i % 3]]) for i in range(9)]
    alike = [(shift(before, place[0], place[1], 1) == after.flatten(0, -4)).flatten(1).all(1) for place in places]
    assert bool((torch.stack(alike).sum(0) == 1).all())
    return torch.stack(alike).int().argmax(0).unflatten(0, batch)


@pytest.mark.parametrize("kind", ["mlp", "gru"])
def test_each_picture_is_moved_for_itself_and_those_of_a_memory_as_one(kind: str) -> None:
    obs = sequence(6, 40, "state + camera")
    found = augmentation(kind, shift=1)(obs)
    by_step = moves(obs["camera"], found["camera"])
    assert bool((by_step == by_step[0]).all()) == (kind == "gru")
    assert len(set(by_step[0].tolist())) == 9, "all moves are drawn"
    assert found["vector"] is obs["vector"] and found["camera"].dtype == torch.uint8


def test_a_batch_may_come_without_a_time_axis() -> None:
    obs = {name: value[0] for name, value in sequence(1, 8, "state + camera").items()}
    found = augmentation(shift=1, brightness=0.5)(obs)
    assert found["camera"].shape == obs["camera"].shape and not torch.equal(found["camera"], obs["camera"])


def test_the_same_stream_gives_the_same_pictures_and_goes_on() -> None:
    obs = sequence(2, 3, "state + camera")
    one, other = augmentation(shift=3, contrast=0.5), augmentation(shift=3, contrast=0.5)
    first = one(obs)["camera"]
    assert torch.equal(first, other(obs)["camera"])
    assert one.stream is not None and other.stream is not None
    other.stream.set_state(one.stream.get_state())
    second = one(obs)["camera"]
    assert torch.equal(second, other(obs)["camera"]) and not torch.equal(first, second)


def test_off_it_draws_nothing_and_gives_what_it_got() -> None:
    obs = sequence(2, 3, "state + camera")
    off = augmentation()
    assert off(obs) is obs and off.stream is None
    assert augmentation(text="state")(obs) is obs


def test_a_student_without_pictures_is_refused() -> None:
    with pytest.raises(UserError, match=r'^--augment.shift: the student sees no picture in its view "mine": leave it'):
        augmentation(text="state", shift=4)

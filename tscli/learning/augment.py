"""Pictures that are shifted and lit otherwise while a student learns from them, and never while it acts."""

from __future__ import annotations

import torch
from torch import Tensor

from tscli.config import AugmentConfig, UserError
from tscli.envs.views import Obs
from tscli.networks import Policy


class Augmentation:
    """Random shifts (DrQ, Kostrikov et al. 2021) and colours of a batch's pictures; nothing else is touched.

    Each picture has draws of its own; those of a sequence, which a student with memory sees as one, have the same.

    Attributes:
        stream: what it draws from, a part of a loop's state; None where there is nothing to do.
    """

    def __init__(self, config: AugmentConfig, student: Policy, stream: torch.Generator) -> None:
        """Begin.

        Args:
            config: how much.
            student: whose pictures they are.
            stream: on the device where the batches are.

        Raises:
            UserError: the student sees no pictures, or through an encoder whose features are made once for each.
        """
        self._config, self._alike = config, student.is_recurrent
        self._names = tuple(student.spec.view.images)
        self.stream = stream if config.given else None
        if config.given and not self._names:
            raise UserError(
                f'--augment.{config.given[0]}: the student sees no picture in its view "{student.spec.view.name}": '
                "leave it out, or give a view with one"
            )

        if config.given and student.encoder.frozen:
            raise UserError(
                f"--augment.{config.given[0]}: a frozen encoder's features are made once for each picture: leave "
                "it out, or use image.kind cnn"
            )

    def __call__(self, obs: Obs) -> Obs:
        """obs: [T, B, ...], or [B, ...] -> the same with other pictures, uint8 as before."""
        if self.stream is None:
            return obs
        return obs | {name: self._changed(obs[name]) for name in self._names}

    def _changed(self, image: Tensor) -> Tensor:
        config, batch = self._config, image.shape[:-3]
        down, right, light, power = self._drawn(batch)
        flat = image.flatten(0, -4)
        if config.shift:
            places = 2 * config.shift + 1
            flat = shift(flat, places * down, places * right, config.shift)
        if config.brightness or config.contrast:
            flat = relight(flat, 1 + (2 * light - 1) * config.brightness, 1 + (2 * power - 1) * config.contrast)
        return flat.unflatten(0, batch)

    def _drawn(self, batch: torch.Size) -> Tensor:
        """[4, all of the batch], uniform in [0, 1)."""
        assert self.stream is not None
        shape = (4, *[1] * (len(batch) - 1), batch[-1]) if self._alike else (4, *batch)
        drawn = torch.rand(shape, generator=self.stream, device=self.stream.device)
        return drawn.expand(4, *batch).flatten(1)


def shift(image: Tensor, down: Tensor, right: Tensor, pad: int) -> Tensor:
    """Pad with the border's pixels, and crop: [B, H, W, C] -> the same.

    Args:
        image: of any dtype.
        down, right: [B], where a crop begins, 0 to 2 x `pad`, cut down to integers; `pad` changes nothing.
        pad: pixels at each side.
    """
    num, height, width, channels = image.shape
    padded = image.new_empty(num, height + 2 * pad, width + 2 * pad, channels)
    middle = padded[:, pad : pad + height]
    middle[:, :, pad : pad + width] = image
    middle[:, :, :pad], middle[:, :, pad + width :] = image[:, :, :1], image[:, :, -1:]
    padded[:, :pad], padded[:, pad + height :] = middle[:, :1], middle[:, -1:]
    # Each row of a crop as one item of a view over all rows that could be: an eighth of the time of indexing pixels.
    rows = padded.as_strided((padded.numel() // channels - width + 1, width * channels), (channels, 1))
    top = torch.arange(num, device=image.device) * padded.shape[1] + down.long()
    first = (top[:, None] + torch.arange(height, device=image.device)) * padded.shape[2] + right.long()[:, None]
    return rows.index_select(0, first.flatten()).view_as(image)


def relight(image: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Scale each picture by `brightness`, then its distance from its own mean by `contrast`: uint8 [B, H, W, C].

    Args:
        image: of which the mean is taken over all pixels and channels.
        brightness, contrast: [B], factors; 1 changes nothing.
    """
    x = image.to(torch.float32)
    mean = x.mean((1, 2, 3), keepdim=True)
    scale, power = (value[:, None, None, None] for value in (brightness, contrast))
    return ((x - mean) * power + mean).mul_(scale).round_().clamp_(0, 255).to(torch.uint8)

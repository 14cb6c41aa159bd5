"""Damage that happens to scans, to see whether a prior's likelihood notices it."""

from collections.abc import Callable

import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

NOISE = 0.05  # standard deviation where images have a peak of 1
BLUR = 1.5  # pixels, standard deviation of the Gaussian
MOVED = 4  # pixels between two positions of the head
BLOCK = 16  # side of the missing square as a part of the image's: 1 / BLOCK


def noise(image: Tensor, generator: torch.Generator) -> Tensor:
    """White noise."""
    return image + NOISE * torch.randn(image.shape, generator=generator, dtype=image.dtype)


def blur(image: Tensor, generator: torch.Generator) -> Tensor:
    """A Gaussian blur."""
    return torch.from_numpy(gaussian_filter(image.numpy(), (0, BLUR, BLUR))).to(image)


def ghost(image: Tensor, generator: torch.Generator) -> Tensor:
    """Ghosts of a head that moved: half of the lines of k-space are of the shifted image."""
    lines = torch.rand(image.shape[-2], generator=generator) < 0.5
    still, moved = (torch.fft.fft2(x) for x in (image, image.roll(MOVED, -2)))
    return torch.fft.ifft2(torch.where(lines[:, None], moved, still)).abs().to(image)


def block(image: Tensor, generator: torch.Generator) -> Tensor:
    """A black square in the middle."""
    height, width = image.shape[-2:]
    tall, wide = height // BLOCK, width // BLOCK
    damaged = image.clone()
    top, left = (height - tall) // 2, (width - wide) // 2
    damaged[..., top : top + tall, left : left + wide] = 0
    return damaged


def rows(image: Tensor, generator: torch.Generator) -> Tensor:
    """The rows of the middle quarter in a random order."""
    height = image.shape[-2]
    first, count = height * 3 // 8, height // 4
    order = torch.arange(height)
    order[first : first + count] = first + torch.randperm(count, generator=generator)
    return image[..., order, :]


# name -> function of a real image ``(1, H, W)`` and a generator
DAMAGE: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "noise": noise,
    "blur": blur,
    "ghost": ghost,
    "block": block,
    "rows": rows,
}

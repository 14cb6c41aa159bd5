"""Effective receptive fields: how much each pixel of the input changes a pixel of the output."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from operators.batch import BatchGenerator, derive_seed, expand
from sde import Score

LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
SHARES = (0.5, 0.8, 0.95)  # of the energy
STUDY_LEVELS = (0.0, 10.0)  # of which the study draws its noise levels
STUDY_SHARE = 0.8  # of the sum of its field, in its bounding box


class Field(NamedTuple):
    """Effective receptive field of a denoiser at one noise level.

    Attributes:
        sigma: the noise level.
        energy: mean squared gradient by offset from the pixel, ``(2 H - 1, 2 W - 1)``; the pixel is
            in the middle.
        radii: of the discs around the pixel that hold `SHARES` of the energy, in pixels.
    """

    sigma: float
    energy: np.ndarray
    radii: tuple[float, ...]


def denoiser_field(score: Score, images: Tensor, sigma: float, *, pixels: int, seed: int) -> Field:
    """Effective receptive field of x -> E[x_0 | x] on noisy images, at one noise level.

    The gradient of x + sigma^2 s(x, sigma) at a pixel with respect to x, squared, averaged over
    images and pixels of their central halves. It takes `pixels` network calls with derivative.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        images: ``(B, 1, H, W)`` clean images.
        sigma: the noise level.
        pixels: number of pixels of each image.
        seed: seed of noise and pixels.
    """
    height, width = images.shape[-2:]
    level = torch.full((len(images),), sigma, device=images.device)
    seeds = [derive_seed(seed, "receptive field", b) for b in range(len(images))]
    rng = BatchGenerator(seeds)
    energy = torch.zeros(2 * height - 1, 2 * width - 1, dtype=torch.float64)
    for _ in range(pixels):
        rows, columns = (
            [n // 4 + int(torch.randint(max(n // 2, 1), (1,), generator=g)) for g in rng.generators]
            for n in (height, width)
        )
        x = (images + sigma * rng.normal_like(images)).requires_grad_()
        with torch.enable_grad():
            clean = x + expand(level, x) ** 2 * score(x, level)
            chosen = clean[range(len(x)), 0, rows, columns]
            (gradient,) = torch.autograd.grad(chosen.sum(), x)
        for row, column, own in zip(rows, columns, gradient[:, 0].cpu().double(), strict=True):
            top, left = height - 1 - row, width - 1 - column
            energy[top : top + height, left : left + width] += own.square()
    mean = (energy / (pixels * len(images))).numpy()
    return Field(sigma, mean, radii_of(mean, SHARES))


def radii_of(energy: np.ndarray, shares: Sequence[float]) -> tuple[float, ...]:
    """Radii in pixels of the smallest discs around the middle that hold shares of the energy.

    Args:
        energy: ``(2 H - 1, 2 W - 1)``, not negative.
        shares: in (0, 1).
    """
    y, x = (np.arange(n) - n // 2 for n in energy.shape)
    squares = (y[:, None] ** 2 + x**2).ravel()
    by_radius = np.bincount(squares, weights=energy.ravel())  # index: squared radius
    reached = np.cumsum(by_radius) / by_radius.sum()
    # rounding must not push the radius of an exact share outwards
    return tuple(float(np.sqrt(np.argmax(reached >= share - 1e-12))) for share in shares)


def outside(energy: np.ndarray, field: int | None) -> float:
    """Share of the energy outside a theoretical receptive field of so many pixels a side.

    What GroupNorm and rounding let through; 0 for an unlimited field (None).
    """
    if field is None:
        return 0.0
    y, x = (np.abs(np.arange(n) - n // 2) for n in energy.shape)
    inside = np.maximum(y[:, None], x) <= field // 2
    return float(energy[~inside].sum() / energy.sum())


def study_field(score: Score, side: int, *, repetitions: int, seed: int, device=None) -> np.ndarray:
    """The study's effective receptive field of the score: ``(side, side)`` from 0 to 1.

    The mean, over repetitions, of the absolute gradient of the middle pixel of the score with
    respect to an input of white noise of standard deviation 1, at a noise level uniform in (0, 10)
    which has nothing to do with that; minus its minimum, over its maximum. The small levels decide,
    as the score is divided by them.

    Args:
        score: ``(x, sigma) -> grad_x log p_sigma(x)``.
        side: pixels a side.
        repetitions: number of inputs; the study has 1000.
        seed: seed of inputs and levels.
        device: of the network.
    """
    total = torch.zeros(side, side, dtype=torch.float64)
    low, high = STUDY_LEVELS
    for number in range(repetitions):
        rng = BatchGenerator([derive_seed(seed, "study's receptive field", number)])
        x = rng.normal((1, 1, side, side), device=device).requires_grad_()
        sigma = low + (high - low) * torch.rand(1, generator=rng.generators[0])
        with torch.enable_grad():
            pixel = score(x, sigma.to(x))[0, 0, side // 2, side // 2]
            (gradient,) = torch.autograd.grad(pixel, x)
        total += gradient[0, 0].abs().cpu().double()
    field = (total - total.min()).numpy()
    return field / max(field.max(), np.finfo(float).tiny)


def study_diameter(field: np.ndarray, share: float = STUDY_SHARE) -> float:
    """The study's effective diameter: of the box around the largest pixels that hold a share.

    The mean of both sides, each the last pixel's number minus the first one's.
    """
    order = np.argsort(field, axis=None)[::-1]
    reached = np.cumsum(field.ravel()[order]) / field.sum()
    chosen = order[: int(np.argmax(reached >= share - 1e-12)) + 1]
    rows, columns = np.unravel_index(chosen, field.shape)
    return float((np.ptp(rows) + np.ptp(columns)) / 2)

"""How noisy a measurement is, from the measurement alone."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

RINGS = 32  # of k-space, between its centre and its corner
LEAST = 64  # measured positions of a ring, rays through an object
MEDIAN_SPREAD = 1 / (2 * math.log(2))  # of n Rayleigh numbers' median: this / sqrt(n), relative
CHANCE = 2  # standard deviations that are no difference
AIR = 0.05  # of the largest line integral: less is next to nothing
ORDER = 4  # of the differences along the detector
NORMAL_MEDIAN = 0.6745  # of the magnitude of a standard normal number
RAYLEIGH_MEDIAN = math.sqrt(2 * math.log(2))  # of a complex one, parts of variance 1


def rings(height: int, width: int) -> Tensor:
    """Number of the ring that each position of centred k-space lies in: ``(H W,)`` int64."""
    vertical = (torch.arange(height) - height // 2) / height  # cycles a pixel, (H,)
    horizontal = (torch.arange(width) - width // 2) / width  # (W,)
    radius = torch.hypot(vertical[:, None], horizontal[None])  # (H, W)
    return (radius * math.sqrt(2) * RINGS).long().clamp(max=RINGS - 1).flatten()  # (H W,)


def kspace_noise(kspace: Tensor) -> Tensor:
    """Standard deviation of real and imaginary part: ``(B,)``, in the unit of `kspace`.

    That of the quietest rings of k-space, commonly the outermost, where an image has the least
    energy: the median over their measured positions, of which outliers (edges of the image along an
    axis) are no part, averaged over the coils that measured anything. One half of the positions
    chooses the rings and the other half measures, and the other way round: the quietest of many
    rings is so by chance, too, and would measure too little. What image there is counts as noise,
    so that the estimate is too large for a measurement with less noise than that. Rings with few
    measured positions are joined with the next ones inside; a sample with fewer than `LEAST`
    altogether gets 0, as there is nothing to tell noise from image by.

    White noise is meant: interpolated or filtered k-space has less where it is quietest.

    Args:
        kspace: complex ``(B, C, H, W)``, centred; exactly 0 in all coils where not measured.
    """
    ring = rings(*kspace.shape[-2:]).to(kspace.device)  # (H W,)
    return torch.stack([_quietest(sample, ring) for sample in kspace.abs().flatten(2)])


def _quietest(size: Tensor, ring: Tensor) -> Tensor:
    """Noise of one sample's magnitudes ``(C, H W)``."""
    alive = size[(size > 0).any(1)]
    groups = list(_joined_rings((size > 0).any(0), ring))
    if not groups:
        return size.new_zeros(())
    halves = [[here[first::2] for here in groups] for first in (0, 1)]
    levels = [
        _level(alive, torch.cat([measures[g] for g in _quiet(alive, chooses)]))
        for chooses, measures in (halves, halves[::-1])
    ]
    return (torch.stack(levels).square().mean().sqrt() / RAYLEIGH_MEDIAN).to(size.dtype)


def _quiet(size: Tensor, groups: list[Tensor]) -> list[int]:
    """The groups of positions that are no louder than the quietest one, but for chance."""
    level = torch.stack([_level(size, here) for here in groups])
    count = torch.tensor([len(here) * len(size) for here in groups]).to(level)
    spread = MEDIAN_SPREAD / count.sqrt()  # relative
    quietest = (level * (1 + CHANCE * spread)).argmin()
    most = level[quietest] * (1 + CHANCE * torch.hypot(spread, spread[quietest]))
    return (level <= most).nonzero()[:, 0].tolist()


def _level(size: Tensor, here: Tensor) -> Tensor:
    """Median magnitude at some positions, the root mean square over coils, float64."""
    values = size[:, here]
    middle = (values.median(1).values - (-values).median(1).values) / 2  # of an even number, too
    return middle.double().square().mean().sqrt()


def _joined_rings(measured: Tensor, ring: Tensor) -> Iterator[Tensor]:
    """`LEAST` or more measured positions ``(n,)`` of neighbouring rings, from outside inwards."""
    group = ring.new_zeros(0)
    for number in reversed(range(RINGS)):
        group = torch.cat([group, (measured & (ring == number)).nonzero()[:, 0]])
        if len(group) >= LEAST:
            yield group
            group = group[:0]


def sinogram_noise(sinogram: Tensor) -> Tensor:
    """Standard deviation of the median ray through the object: ``(B,)``, in the unit of `sinogram`.

    Neighbouring rays hardly differ but for noise: the median magnitude of fourth differences along
    the detector. Photons are noisier the more are absorbed: rays through air, however many the
    detector has, say nothing about those that the image is made of. Differences that are exactly 0
    (padded detectors, missing views) are no measurement of it, either.

    Args:
        sinogram: real ``(B, 1, views, bins)``.

    Raises:
        ValueError: fewer bins than a difference needs.
    """
    if sinogram.shape[-1] <= ORDER:
        raise ValueError(
            f"expected sinograms of at least {ORDER + 1} bins, to estimate their noise, got "
            f"{sinogram.shape[-1]}; sinograms are (views, bins)"
        )
    size = torch.diff(sinogram, n=ORDER, dim=-1).abs()  # (B, 1, V, R - 4)
    average = F.avg_pool1d(sinogram[:, 0], ORDER + 1, stride=1)[:, None]  # of the same rays
    inside = average > AIR * average.amax((1, 2, 3), keepdim=True)
    median = torch.stack(list(map(_median_inside, size, inside)))
    # the differences' coefficients are binomial: variance is the sum of their squares
    return median / (NORMAL_MEDIAN * math.sqrt(math.comb(2 * ORDER, ORDER)))


def _median_inside(values: Tensor, inside: Tensor) -> Tensor:
    """Of those above 0, where there are enough `inside`."""
    chosen = values[inside & (values > 0)]
    positive = chosen if len(chosen) >= LEAST else values[values > 0]
    return positive.median() if len(positive) else values.new_zeros(())

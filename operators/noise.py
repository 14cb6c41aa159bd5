"""Noise level of a measurement, estimated from the measurement alone."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

RINGS = 32  # number of rings of k-space between its centre and its corner
LEAST = 64  # smallest number of measured positions in a ring, or of rays through an object
# relative standard deviation of the median of n Rayleigh numbers, times sqrt(n)
MEDIAN_SPREAD = 1 / (2 * math.log(2))
CHANCE = 2  # standard deviations within which two levels count as equal
AIR = 0.05  # of the largest line integral: smaller ones count as air
ORDER = 4  # order of the differences along the detector
NORMAL_MEDIAN = 0.6745  # median magnitude of a standard normal number
RAYLEIGH_MEDIAN = math.sqrt(2 * math.log(2))  # likewise, complex with parts of variance 1


def rings(height: int, width: int) -> Tensor:
    """Index of the ring of each position of centred k-space: int64 ``(H W,)``."""
    vertical = (torch.arange(height) - height // 2) / height  # cycles per pixel, (H,)
    horizontal = (torch.arange(width) - width // 2) / width  # (W,)
    radius = torch.hypot(vertical[:, None], horizontal[None])  # (H, W)
    return (radius * math.sqrt(2) * RINGS).long().clamp(max=RINGS - 1).flatten()  # (H W,)


def kspace_noise(kspace: Tensor) -> Tensor:
    """Standard deviation of the noise of k-space, of the real and of the imaginary part.

    The noise is measured in the quietest rings of k-space, usually the outermost, where an image
    has the least energy. It is computed from the median magnitude over their measured positions,
    which outliers (edges of the image along an axis) do not change, and averaged over the coils
    that hold data. One half of the positions selects the rings and the other half measures, and
    vice versa, as the quietest of many rings is low by chance and would bias the estimate.

    Image energy in these rings counts as noise, so that the estimate is too large for measurements
    with little noise. The noise is assumed to be white: interpolated or filtered k-space has less
    of it in the outer rings. Rings with few measured positions are joined with the next ones
    inside; a sample with fewer than 64 measured positions gets 0.

    Args:
        kspace: complex ``(B, C, H, W)``, centred; exactly 0 in all coils where not measured.

    Returns:
        ``(B,)`` in units of `kspace`.
    """
    ring = rings(*kspace.shape[-2:]).to(kspace.device)  # (H W,)
    return torch.stack([_quietest(sample, ring) for sample in kspace.abs().flatten(2)])


def _quietest(size: Tensor, ring: Tensor) -> Tensor:
    """Noise of one sample from the magnitudes ``(C, H W)`` of its k-space."""
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
    """Indices of the groups of positions that are not significantly louder than the quietest."""
    level = torch.stack([_level(size, here) for here in groups])
    count = torch.tensor([len(here) * len(size) for here in groups]).to(level)
    spread = MEDIAN_SPREAD / count.sqrt()  # relative
    quietest = (level * (1 + CHANCE * spread)).argmin()
    most = level[quietest] * (1 + CHANCE * torch.hypot(spread, spread[quietest]))
    return (level <= most).nonzero()[:, 0].tolist()


def _level(size: Tensor, here: Tensor) -> Tensor:
    """Median magnitude at the positions `here`, root mean square over coils, float64."""
    values = size[:, here]
    # torch's median is the lower middle value; the mean of both is right for even counts as well
    middle = (values.median(1).values - (-values).median(1).values) / 2
    return middle.double().square().mean().sqrt()


def _joined_rings(measured: Tensor, ring: Tensor) -> Iterator[Tensor]:
    """Groups of at least `LEAST` measured positions ``(n,)``, ring by ring from outside inwards."""
    group = ring.new_zeros(0)
    for number in reversed(range(RINGS)):
        group = torch.cat([group, (measured & (ring == number)).nonzero()[:, 0]])
        if len(group) >= LEAST:
            yield group
            group = group[:0]


def sinogram_noise(sinogram: Tensor) -> Tensor:
    """Standard deviation of the noise of the median ray through the object.

    It is computed from the median magnitude of fourth differences along the detector, as
    neighbouring rays differ by little but noise. Only rays through the object count, because the
    noise of a line integral grows with the absorption. Differences that are exactly 0 (padded
    detectors, missing views) are left out.

    Args:
        sinogram: real ``(B, 1, views, bins)`` line integrals.

    Returns:
        ``(B,)`` in units of `sinogram`.

    Raises:
        ValueError: fewer than 5 bins, too few for a fourth difference.
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
    # the coefficients are binomial; the sum of their squares scales the variance
    return median / (NORMAL_MEDIAN * math.sqrt(math.comb(2 * ORDER, ORDER)))


def _median_inside(values: Tensor, inside: Tensor) -> Tensor:
    """Median of the positive values `inside`; of all positive ones if there are too few inside."""
    chosen = values[inside & (values > 0)]
    positive = chosen if len(chosen) >= LEAST else values[values > 0]
    return positive.median() if len(positive) else values.new_zeros(())

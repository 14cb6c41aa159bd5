"""Noise level of a measurement, estimated from the measurement alone."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from operators.fourier import ifftc

RINGS = 32  # number of rings of k-space between its centre and its corner
LEAST = 64  # smallest number of measured positions in a ring, or of rays through an object
# relative standard deviation of the median of n Rayleigh numbers, times sqrt(n)
MEDIAN_SPREAD = 1 / (2 * math.log(2))
READOUT_EDGE = 1 / 16  # of a readout at either end, where a scanner's filter may take noise away
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

    The noise is measured where there is least else: in the quietest rings of k-space, usually the
    outermost; and, where lines are measured from end to end, at the quietest places of the readout,
    usually in the air beside the body, after a Fourier transform along it. The lower of the two
    counts, as image energy is all that raises them. Each is computed from the median magnitude,
    which outliers (edges of the image along an axis) do not change, and averaged over the coils
    that hold data. One half of the positions selects the rings or places and the other half
    measures, and vice versa, as the quietest of many is low by chance and would bias the estimate.

    For a body that fills the readout, or points that are measured one by one, the estimate is too
    large if there is little noise. The noise is assumed to be white: interpolated or filtered
    k-space has less of it in the outer rings. Rings with few measured positions are joined with the
    next ones inside; a sample with fewer than 64 measured positions gets 0.

    Args:
        kspace: complex ``(B, C, H, W)``, centred; exactly 0 in all coils where not measured.

    Returns:
        ``(B,)`` in units of `kspace`.
    """
    return torch.stack([_sample_noise(sample) for sample in kspace])


def level_by_groups(samples: Tensor, groups: list[Tensor]) -> Tensor:
    """Standard deviation of noise in the quietest groups of positions, as in `kspace_noise`.

    Args:
        samples: complex ``(B, C, M)``.
        groups: indices of positions; those with the least energy tell the noise.

    Returns:
        ``(B,)`` that of the real and of the imaginary part.
    """
    return torch.stack([_quietest(sample.abs(), groups) for sample in samples])


def line_noise(samples: Tensor) -> Tensor | None:
    """Standard deviation of noise from the quietest frequencies along lines of any trajectory.

    A line that is sampled more densely than the image needs has frequencies where there is no
    image; along a spoke they are the places beside it. A window keeps the ends of a line, of which
    one may be the peak of k-space, from leaking there.

    Args:
        samples: complex ``(B, C, L, N)``.

    Returns:
        ``(B,)`` that of the real and of the imaginary part; None for lines that are too short.
    """
    lines, count = samples.shape[-2:]
    groups = _joined_places(count, lines)
    if count < LEAST or not groups:
        return None
    window = torch.hann_window(count, periodic=False, dtype=samples.real.dtype)
    window = (window / window.square().mean().sqrt()).to(samples.device)
    places = ifftc(samples * window, dim=3).movedim(3, 2)  # (B, C, N, L)
    groups = [group.to(samples.device) for group in groups]
    return torch.stack([_quietest(sample.abs().flatten(1), groups) for sample in places])


def _sample_noise(kspace: Tensor) -> Tensor:
    """Noise of the k-space ``(C, H, W)`` of one sample."""
    measured = (kspace != 0).any(0)  # (H, W)
    ring = rings(*measured.shape).to(kspace.device)  # (H W,)
    found = [_quietest(kspace.abs().flatten(1), list(_joined_rings(measured.flatten(), ring)))]
    for axis in (0, 1):
        lines = measured.any(axis)  # (W,) or (H,)
        groups = _joined_places(measured.shape[axis], int(lines.sum()))
        if groups and bool((measured == lines.unsqueeze(axis)).all()):
            places = ifftc(kspace, dim=axis + 1).movedim(axis + 1, 1)  # (C, N, lines)
            found.append(_quietest(places[..., lines].abs().flatten(1), groups))
    return torch.stack(found).amin()


def _quietest(size: Tensor, groups: list[Tensor]) -> Tensor:
    """Noise of one sample from magnitudes ``(C, M)``, in the quietest groups of positions."""
    alive = size[(size > 0).any(1)]
    if not groups or not len(alive):
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


def _joined_places(length: int, lines: int) -> list[Tensor]:
    """Groups of at least `LEAST` of the positions ``(n,)`` of a readout by lines, end to end.

    Args:
        length: length N of the readout.
        lines: number of them; the positions are those of an array ``(N, lines)``.
    """
    edge = math.ceil(READOUT_EDGE * length)
    step = math.ceil(LEAST / max(lines, 1))  # places a group
    return [
        torch.arange(place * lines, (place + step) * lines)
        for place in range(edge, length - edge - step + 1, step)
        if lines
    ]


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
    check_bins(sinogram)
    size = torch.diff(sinogram, n=ORDER, dim=-1).abs()  # (B, 1, V, R - 4)
    average = F.avg_pool1d(sinogram[:, 0], ORDER + 1, stride=1)[:, None]  # of the same rays
    inside = average > AIR * average.amax((1, 2, 3), keepdim=True)
    median = torch.stack(list(map(_median_inside, size, inside)))
    # the coefficients are binomial; the sum of their squares scales the variance
    return median / (NORMAL_MEDIAN * math.sqrt(math.comb(2 * ORDER, ORDER)))


def check_bins(sinogram: Tensor) -> None:
    """Raise a ValueError for a sinogram with too few bins for a fourth difference."""
    if sinogram.shape[-1] <= ORDER:
        raise ValueError(
            f"expected sinograms of at least {ORDER + 1} bins, to estimate their noise, got "
            f"{sinogram.shape[-1]}; sinograms are (views, bins)"
        )


def _median_inside(values: Tensor, inside: Tensor) -> Tensor:
    """Median of the positive values `inside`; of all positive ones if there are too few inside."""
    chosen = values[inside & (values > 0)]
    positive = chosen if len(chosen) >= LEAST else values[values > 0]
    return positive.median() if len(positive) else values.new_zeros(())

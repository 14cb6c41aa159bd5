"""Noise of the rays of a sinogram, as a function of their line integrals."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from operators.noise import LEAST, NORMAL_MEDIAN, ORDER, check_bins

GROUPS = 12  # of rays of similar line integrals, each with its own level of noise
QUIETEST = 1e-3  # of the largest level: no ray counts as quieter


def ray_noise(sinogram: Tensor) -> Tensor:
    """Standard deviation of the noise of each ray, by its line integral, from the sinogram alone.

    The more of a beam is absorbed the noisier is the logarithm of what is left: with I_0 photons a
    ray and electronic noise of s counts, the variance at the line integral p is
    exp(p) / I_0 + s^2 exp(2 p) / I_0^2. Its logarithm is a convex, increasing function of p in any
    unit of p, and so the estimate is the largest such function below what groups of rays with
    similar p show: the median magnitude of their fourth differences along the detector, as
    neighbouring rays differ by little but noise. Where they do differ, at the object's edge, the
    groups beside have the say. Equal noise of all rays is found as such.

    p is averaged over five bins, so that the noise of a ray is not told by its own noise.
    Differences that are exactly 0 (padded detectors, missing views) are left out.

    Args:
        sinogram: real ``(B, 1, views, bins)`` line integrals.

    Returns:
        ``(B, 1, views, bins)`` in units of `sinogram`, above 0; 0 everywhere in a sample that has
        fewer than `operators.noise.LEAST` differences other than 0.

    Raises:
        ValueError: fewer than 5 bins, too few for a fourth difference.
    """
    check_bins(sinogram)
    return torch.stack([_sample_noise(sample) for sample in sinogram])


def _sample_noise(sinogram: Tensor) -> Tensor:
    """Noise of one sample ``(1, views, bins)``."""
    size = torch.diff(sinogram, n=ORDER, dim=-1).abs()  # (1, V, R - 4)
    integral = _averaged(sinogram)  # (1, V, R)
    there = size > 0
    size, at = size[there], integral[..., ORDER // 2 : -(ORDER // 2)][there]  # (N,)
    if len(size) < LEAST:
        return torch.zeros_like(sinogram)
    groups = at.argsort().tensor_split(min(GROUPS, len(at) // LEAST))
    levels = np.array([float(size[group].median()) for group in groups])
    # the coefficients are binomial; the sum of their squares scales the variance
    levels /= NORMAL_MEDIAN * math.sqrt(math.comb(2 * ORDER, ORDER))
    positions = np.array([float(at[group].median()) for group in groups])
    logs = convex_below(positions, np.log(np.maximum(levels, QUIETEST * levels.max())))
    found = np.exp(np.interp(integral.cpu().numpy(), positions, logs))
    return torch.from_numpy(found).to(sinogram)


def _averaged(sinogram: Tensor) -> Tensor:
    """Means over five neighbouring bins, the first and the last repeated: ``(1, V, R)``."""
    half = ORDER // 2
    return F.avg_pool1d(F.pad(sinogram, (half, half), mode="replicate"), ORDER + 1, stride=1)


def convex_below(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest convex, increasing function that is nowhere above the points (x, y), at x.

    Args:
        x: ``(N,)``, increasing.
        y: ``(N,)``.

    Source: A. M. Andrew, Inf. Process. Lett. 9 (1979) 216-219 (the lower hull of sorted points).
    """
    y = np.where(np.arange(len(y)) < y.argmin(), y.min(), y)  # increasing
    hull: list[int] = []
    for k in range(len(x)):
        while len(hull) > 1 and _is_above(x, y, hull[-2], hull[-1], k):
            hull.pop()
        hull.append(k)
    return np.interp(x, x[hull], y[hull])


def _is_above(x: NDArray, y: NDArray, a: int, b: int, c: int) -> bool:
    """Whether point b is on or above the line from a to c."""
    return (y[b] - y[a]) * (x[c] - x[a]) >= (y[c] - y[a]) * (x[b] - x[a])

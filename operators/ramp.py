"""Angular weights of views, and a ramp-like approximate inverse of A A^T for tomography."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.batch import expand

COARSE = 2 + 1e-6  # times the median gap between views: wider ones are missing data


def angular_weights(angles_deg: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """Angle in radians that each view covers: half the gaps to its two neighbours.

    Views at the same angle (modulo `period`) share their weight. A gap wider than twice the median
    is missing data rather than a coarse step, and counts as the median.

    Args:
        angles_deg: ``(V,)`` angles of the views in degrees.
        period: angle in degrees after which views repeat: 180 for a parallel beam, 360 for a fan.

    Returns:
        ``(V,)`` float64.
    """
    _, gaps, position, counts = _gaps(angles_deg, period)
    gaps = np.where(gaps > COARSE * np.median(gaps), np.median(gaps), gaps)
    weights = (gaps + np.roll(gaps, 1)) / 2 / counts
    return np.deg2rad(weights[position])  # (V,)


def missing_arcs(angles_deg: NDArray[np.float64], period: float) -> list[tuple[float, float]]:
    """Arcs that no view covers, by the rule of `angular_weights`: start and width in degrees.

    Views cover half a median gap on either side.
    """
    angles, gaps, _, _ = _gaps(angles_deg, period)
    usual = float(np.median(gaps))
    return [
        (float(angle) + usual / 2, float(gap) - usual)
        for angle, gap in zip(angles, gaps, strict=True)
        if gap > COARSE * usual
    ]


def _gaps(angles_deg: NDArray[np.float64], period: float) -> tuple[NDArray, ...]:
    """The different angles, the gaps to the next ones, each view's number, and their counts."""
    # Rounded so that 180 and 0 degrees coincide.
    folded = np.round(np.mod(angles_deg, period), 9) % period
    angles, position, counts = np.unique(folded, return_inverse=True, return_counts=True)
    return angles, np.diff(angles, append=angles[0] + period), position, counts


def padded_length(num_bins: int) -> int:
    """Power of 2 to which views of `num_bins` bins are zero-padded before a convolution."""
    return 2 ** math.ceil(math.log2(max(2 * num_bins, 64)))


def gram_spectrum(
    weights: NDArray[np.float64], spacing: float, num_bins: int, length: float
) -> Tensor:
    """Approximate eigenvalues of A A^T by view and frequency f along the detector.

    By the Fourier slice theorem, a view shares high frequencies with no other view if there are
    few; A A^T is then the length of the rays. Near frequency 0 the views overlap, and A A^T is
    1 / (w d f), the inverse of the ramp filter.

    Args:
        weights: w, ``(V,)`` angle in radians that each view covers.
        spacing: d, distance of the bins in pixels at the centre of rotation.
        num_bins: number of bins per view.
        length: length of a ray through the image in pixels.

    Returns:
        ``(V, padded_length(num_bins) // 2 + 1)`` float64, above 0.
    """
    size = padded_length(num_bins)
    bins = torch.arange(size // 2 + 1, dtype=torch.float64).clamp(min=0.5)
    overlap = 1 / (torch.from_numpy(weights)[:, None] * bins / size)  # (V, F)
    return overlap.clamp(min=length / min(spacing, 1.0))


def gram_inverse(spectrum: Tensor, regularization: Tensor) -> Callable[[Tensor], Tensor]:
    """Preconditioner r -> F^-1 (spectrum + regularization)^-1 F r, for `operators.dual.solve_dual`.

    F is the Fourier transform of the zero-padded views along the detector. With a regularization
    d of each ray it is T F^-1 (spectrum + d0)^-1 F T, d0 the geometric mean of d and
    T^2 = (g + d0) / (g + d) with g the length of a ray: exact where all d are equal, and at high
    frequencies where d varies slowly.

    Args:
        spectrum: ``(V, F)`` from `gram_spectrum`.
        regularization: ``(1,)`` or ``(B,)``, or one of each ray ``(1 or B, 1, V, R)``; 0 or more.

    Returns:
        A symmetric, positive definite map on sinograms ``(B, 1, V, R)``.
    """
    if regularization.ndim == 1:
        return lambda r: _filtered(r, 1 / (spectrum.to(r) + expand(regularization, r)))
    rays = regularization.double()
    level = rays.log().flatten(1).mean(1).exp()  # (1 or B,)
    length = spectrum.amin()
    scale = torch.sqrt((length + expand(level, rays)) / (length + rays)).to(regularization)
    inner = gram_inverse(spectrum, level.to(regularization))
    return lambda r: scale * inner(scale * r)


def _filtered(r: Tensor, gain: Tensor) -> Tensor:
    """Sinograms ``(B, 1, V, R)``, each frequency along the detector times its `gain`."""
    size = 2 * (gain.shape[-1] - 1)
    return torch.fft.irfft(torch.fft.rfft(r, n=size) * gain, n=size)[..., : r.shape[-1]]

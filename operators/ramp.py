"""The ramp filter's part in tomography: what each view stands for, and an inverse of A A^T."""

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.batch import expand


def angular_weights(angles_deg: NDArray[np.float64], period: float) -> NDArray[np.float64]:
    """The angle in radians that each view stands for: half the gaps to its neighbours.

    Views at the same angle (modulo `period`) share it. Gaps above twice the median are missing
    data, not coarse steps, and count as the median.
    """
    # Rounded so that 180 degrees and 0 fall together.
    folded = np.round(np.mod(angles_deg, period), 9) % period
    angles, position, counts = np.unique(folded, return_inverse=True, return_counts=True)
    gaps = np.diff(angles, append=angles[0] + period)  # to the next angle
    gaps = np.where(gaps > 2 * np.median(gaps), np.median(gaps), gaps)
    weights = (gaps + np.roll(gaps, 1)) / 2 / counts
    return np.deg2rad(weights[position])  # (V,)


def padded_length(num_bins: int) -> int:
    """A power of 2 that leaves room for a convolution of views with `num_bins` bins."""
    return 2 ** math.ceil(math.log2(max(2 * num_bins, 64)))


def gram_spectrum(
    weights: NDArray[np.float64], spacing: float, num_bins: int, length: float
) -> Tensor:
    """About the eigenvalues of A A^T by view and frequency along the detector.

    By the Fourier slice theorem a view of few is alone with its frequencies, where A A^T is the
    length of the rays; near frequency 0 the views overlap and it is 1 / (w d f), which the ramp
    filter of filtered back-projection takes away.

    Args:
        weights: w, the angle in radians that each view stands for, ``(V,)``.
        spacing: d, of the bins, in pixels at the centre of rotation.
        num_bins: of a view.
        length: of a ray through the image, in pixels.

    Returns:
        ``(V, padded_length(num_bins) // 2 + 1)`` float64, above 0.
    """
    size = padded_length(num_bins)
    bins = torch.arange(size // 2 + 1, dtype=torch.float64).clamp(min=0.5)
    overlap = 1 / (torch.from_numpy(weights)[:, None] * bins / size)  # (V, F)
    return overlap.clamp(min=length / min(spacing, 1.0))


def gram_inverse(spectrum: Tensor, regularization: Tensor) -> Callable[[Tensor], Tensor]:
    """r -> F^-1 (spectrum + regularization)^-1 F r along the detector, on zero-padded views.

    Symmetric and positive definite.

    Args:
        spectrum: ``(V, F)`` of `gram_spectrum`.
        regularization: ``(1,)`` or ``(B,)``, 0 or more.
    """

    def apply(r: Tensor) -> Tensor:
        """``(B, 1, V, R)`` to the same."""
        size = 2 * (spectrum.shape[-1] - 1)
        gain = 1 / (spectrum.to(r) + expand(regularization, r))  # (1 or B, 1, V, F)
        return torch.fft.irfft(torch.fft.rfft(r, n=size) * gain, n=size)[..., : r.shape[-1]]

    return apply

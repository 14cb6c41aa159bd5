"""Filtered back-projection of parallel and fan beams."""

import math

import torch
from torch import Tensor

from operators.back_projection import back_project
from operators.base import LinearOperator
from operators.fourier import filter_rows
from operators.ramp import padded_length

# Windows on the ramp as functions of frequency in cycles per bin, from 0 to 1/2.
_WINDOWS = {
    "ramp": torch.ones_like,
    "shepp-logan": torch.sinc,
    "cosine": lambda frequency: torch.cos(math.pi * frequency),
    "hann": lambda frequency: (1 + torch.cos(2 * math.pi * frequency)) / 2,
}


def fbp(operator: LinearOperator, sinogram: Tensor, *, filter: str = "ramp") -> Tensor:
    """Filtered back-projection of a parallel or fan beam.

    Each view is zero-padded, convolved with the band-limited ramp (sampled in space, which keeps
    the mean right) and interpolated at each pixel. Views are weighted by the angle that each
    covers, so that they may be spaced unequally and the image has the right scale. A gap wider
    than twice the median counts as missing data. A fan beam should cover a full turn, as no
    short-scan weights are applied.

    Args:
        operator: the geometry, `ParallelBeamCT` or `FanBeamCT`.
        sinogram: ``(B, 1, num_views, num_bins)`` float32 or float64.
        filter: "ramp", "shepp-logan", "cosine" or "hann", from sharp to smooth.

    Returns:
        ``(B, 1, H, W)``, in the precision of `sinogram`.

    Raises:
        ValueError: an unknown filter, or a wrong shape.
        TypeError: an operator of another kind, or another dtype.

    Source: A. C. Kak, M. Slaney, Principles of Computerized Tomographic Imaging (1988), section
    3.3 (parallel), 3.4.2 (fan beam with a flat detector); the kernel is equation 3.61.
    """
    if not hasattr(operator, "bin_of_pixels"):
        raise TypeError(f"fbp: expected ParallelBeamCT or FanBeamCT, got {type(operator).__name__}")
    if filter not in _WINDOWS:
        raise ValueError(f"fbp: expected a filter of {', '.join(_WINDOWS)}, got {filter!r}")
    operator._check(sinogram, operator.range_shape, operator.range_complex, "fbp")

    sinogram = sinogram * operator.bin_weights.to(sinogram)
    views = _ramp_filter(sinogram, filter) / operator.centre_spacing
    angles = torch.from_numpy(operator.view_weights).to(sinogram)  # (V,)
    views = views * angles[:, None]  # (B, 1, V, R)
    return back_project(views, operator.size, operator.bin_of_pixels)


def _ramp_filter(sinogram: Tensor, filter: str) -> Tensor:
    """The views convolved with the windowed ramp kernel, for bins of unit spacing."""
    num_bins = sinogram.shape[-1]
    length = padded_length(num_bins)
    bins = torch.arange(length, dtype=torch.float64, device=sinogram.device)
    distance = torch.minimum(bins, length - bins)
    kernel = torch.where(distance % 2 == 1, -1 / (math.pi * distance) ** 2, 0.0)
    kernel[0] = 0.25
    frequency = torch.arange(length // 2 + 1, device=sinogram.device).double() / length
    return filter_rows(sinogram, kernel, _WINDOWS[filter](frequency))  # (B, 1, V, R)

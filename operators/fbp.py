"""Filtered back-projection of parallel and fan beams."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

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

LARGEST_ANGLE = 0.99 * math.pi  # between two rays that leave a source in front of it


def fbp(operator: LinearOperator, sinogram: Tensor, *, filter: str = "ramp") -> Tensor:
    """Filtered back-projection of a parallel or fan beam.

    Each view is zero-padded, convolved with the band-limited ramp (sampled in space, which keeps
    the mean right) and interpolated at each pixel. Views are weighted by the angle that each
    covers, so that they may be spaced unequally and the image has the right scale. A gap wider
    than twice the median counts as missing data. What a fan beam measures twice, in a full turn or
    a short scan, is weighted so that each line counts once (`operators.redundancy`).

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
    3.3 (parallel), 3.4.1 (fan beam with equal angles), 3.4.2 (with a flat detector); the kernel is
    equation 3.61, for equal angles times that of equation 3.88.
    """
    if not hasattr(operator, "bin_of_pixels"):
        raise TypeError(f"fbp: expected ParallelBeamCT or FanBeamCT, got {type(operator).__name__}")
    if filter not in _WINDOWS:
        raise ValueError(f"fbp: expected a filter of {', '.join(_WINDOWS)}, got {filter!r}")
    operator._check(sinogram, operator.range_shape, operator.range_complex, "fbp")

    weighted = sinogram * torch.from_numpy(operator.fbp_weights).to(sinogram)  # (B, 1, V, R)
    left, right = operator.fbp_padding
    views = F.pad(weighted, (left, right))  # (B, 1, V, left + R + right)
    views = _ramp_filter(views, filter, operator.bin_angle) / operator.centre_spacing

    def bin_of_pixels(view: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        position, weight = operator.bin_of_pixels(view, x, y)
        return position + left, weight

    return back_project(views, operator.size, bin_of_pixels)


def _ramp_filter(sinogram: Tensor, filter: str, bin_angle: float) -> Tensor:
    """The views convolved with the windowed ramp kernel, for bins of unit spacing.

    With equal angles between the rays, the kernel at the angle a is that of a straight detector
    times (a / sin a)^2.
    """
    num_bins = sinogram.shape[-1]
    length = padded_length(num_bins)
    bins = torch.arange(length, dtype=torch.float64, device=sinogram.device)
    distance = torch.minimum(bins, length - bins)
    kernel = torch.where(distance % 2 == 1, -1 / (math.pi * distance) ** 2, 0.0)
    kernel[0] = 0.25
    if bin_angle:
        angle = (distance * bin_angle).clamp(max=LARGEST_ANGLE)  # the rest is padding
        kernel = kernel / torch.sinc(angle / math.pi).square()
    frequency = torch.arange(length // 2 + 1, device=sinogram.device).double() / length
    return filter_rows(sinogram, kernel, _WINDOWS[filter](frequency))  # (B, 1, V, R)

"""Pixel-driven back-projection: each pixel interpolates in every view."""

from collections.abc import Callable

import torch
from torch import Tensor

# (view, x, y of the pixels) -> fractional bin that each pixel projects to, and the weight of each
# pixel in that view (None: all 1); all are float64 (H * W,).
BinOfPixels = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor | None]]


def back_project(sinogram: Tensor, shape: tuple[int, int], bin_of_pixels: BinOfPixels) -> Tensor:
    """Pixel-driven back-projection: the sum over views of the linearly interpolated sinogram.

    A view adds nothing to pixels that project beyond the centres of its outermost bins. This
    discretises the adjoint, but is not the exact transpose of a projector.

    Args:
        sinogram: ``(B, 1, num_views, num_bins)`` real.
        shape: image height and width.
        bin_of_pixels: function of the view's number and the pixels' coordinates that returns the
            fractional bin and the weight of each pixel (see `BinOfPixels`).

    Returns:
        ``(B, 1, H, W)``.
    """
    batch, _, num_views, num_bins = sinogram.shape
    x, y = _pixel_centres(shape, sinogram.device)
    image = sinogram.new_zeros(batch, x.numel())  # (B, H * W)
    for view in range(num_views):
        position, weight = bin_of_pixels(view, x, y)
        inside = (position >= 0) & (position <= num_bins - 1)
        weight = inside if weight is None else inside * weight
        position = position.clamp(0, num_bins - 1)
        lower = position.long()  # (H * W,)
        upper = (lower + 1).clamp(max=num_bins - 1)
        fraction = (position - lower).to(sinogram.dtype)
        row = sinogram[:, 0, view]  # (B, num_bins)
        values = torch.lerp(row[:, lower], row[:, upper], fraction)  # (B, H * W)
        image = image + values * weight.to(sinogram.dtype)
    return image.reshape(batch, 1, *shape)  # (B, 1, H, W)


def _pixel_centres(shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """x (to the right) and y (upwards) of each pixel, from the image's centre: ``(H * W,)``."""
    height, width = shape
    y = (height - 1) / 2 - torch.arange(height, dtype=torch.float64, device=device)
    x = torch.arange(width, dtype=torch.float64, device=device) - (width - 1) / 2
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return grid_x.flatten(), grid_y.flatten()

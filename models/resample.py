"""Anti-aliased resampling by 2 with a small FIR filter, in plain PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F

FIR_TAPS = (1.0, 3.0, 3.0, 1.0)  # binomial low-pass of NCSN++ (Song et al., ICLR 2021, appendix H)


def _kernel(x: Tensor, gain: float) -> Tensor:
    """The 2-D filter, repeated for each channel: ``(C, 1, 4, 4)``, with the sum `gain`."""
    taps = torch.tensor(FIR_TAPS, dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps)
    kernel = kernel * (gain / kernel.sum())
    return kernel.expand(x.shape[1], 1, -1, -1)  # (C, 1, 4, 4)


def low_pass(x: Tensor, padding: int, stride: int = 1) -> Tensor:
    """Each channel low-pass filtered: ``(B, C, H, W)`` to ``(B, C, H', W')``.

    Args:
        x: ``(B, C, H, W)``.
        padding: pixels of zero padding on every side.
        stride: keep every `stride`-th pixel.
    """
    return F.conv2d(x, _kernel(x, 1.0), stride=stride, padding=padding, groups=x.shape[1])


def downsample2(x: Tensor) -> Tensor:
    """Downsampling by 2, ``(B, C, H, W)`` to ``(B, C, H/2, W/2)``: low-pass, every second pixel."""
    return low_pass(x, padding=1, stride=2)


def upsample2(x: Tensor) -> Tensor:
    """Upsampling by 2, ``(B, C, H, W)`` to ``(B, C, 2H, 2W)``: zeros inserted, then low-pass."""
    kernel = _kernel(x, 4.0)  # a gain of 4 compensates for the inserted zeros
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])


def average2(x: Tensor) -> Tensor:
    """Means of 2 x 2 pixels, ``(B, C, H, W)`` to ``(B, C, H/2, W/2)``."""
    return F.avg_pool2d(x, 2)


def repeat2(x: Tensor) -> Tensor:
    """Every pixel repeated 2 x 2 times, ``(B, C, H, W)`` to ``(B, C, 2H, 2W)``."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")

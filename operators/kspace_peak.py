"""Position of the peak of k-space, which is off the origin if the echo was not centred."""

import torch
from torch import Tensor

PROMINENT = 10  # times the median energy; pure noise stays below 5


def find_peak(kspace: Tensor) -> tuple[tuple[int, int], float]:
    """Row and column of the peak of one slice's k-space, and its prominence.

    Energy is summed over coils and over 3 x 3 positions, so that a single spike has little weight.

    Args:
        kspace: complex ``(C, H, W)``, 0 where not measured.

    Returns:
        (row, column), and the peak's energy divided by the median over measured positions: from
        `PROMINENT` on the peak is significant. If k-space is all zero, ``(H // 2, W // 2)`` and 0.
    """
    energy = kspace.abs().double().square().sum(0)  # (H, W)
    measured = energy > 0
    if not measured.any():
        return (energy.shape[0] // 2, energy.shape[1] // 2), 0.0
    near = sum(torch.roll(energy, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    row, column = divmod(int(near.argmax()), energy.shape[1])
    return (row, column), float(near.max() / near[measured].median())


def centre_peak(kspace: Tensor, peak: tuple[int, int]) -> Tensor:
    """K-space ``(..., H, W)`` rolled so that `peak` (row, column) is at ``(H // 2, W // 2)``.

    In image space this is a phase ramp: magnitudes and relative phases of coils do not change.
    """
    height, width = kspace.shape[-2:]
    return torch.roll(kspace, (height // 2 - peak[0], width // 2 - peak[1]), (-2, -1))

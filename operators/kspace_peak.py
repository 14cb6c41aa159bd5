"""Where k-space has its peak: at the origin, or beside it where the echo was not in the middle."""

import torch
from torch import Tensor

PROMINENT = 10  # times the median position: noise alone stays below 5


def find_peak(kspace: Tensor) -> tuple[tuple[int, int], float]:
    """Row and column of the peak of one slice, and how far it stands out.

    Energy is summed over coils and over 3 x 3 positions, so that no single spike decides.

    Args:
        kspace: complex ``(C, H, W)``, 0 where not measured.

    Returns:
        (row, column), and the peak's energy over that of the median measured position: from
        `PROMINENT` on it is no chance. The centre ``(H // 2, W // 2)`` and 0 for zeros alone.
    """
    energy = kspace.abs().double().square().sum(0)  # (H, W)
    measured = energy > 0
    if not measured.any():
        return (energy.shape[0] // 2, energy.shape[1] // 2), 0.0
    near = sum(torch.roll(energy, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    row, column = divmod(int(near.argmax()), energy.shape[1])
    return (row, column), float(near.max() / near[measured].median())


def centre_peak(kspace: Tensor, peak: tuple[int, int]) -> Tensor:
    """``(..., H, W)`` rolled so that `peak` comes to ``(H // 2, W // 2)``.

    In image space a phase ramp: magnitudes and the relation between coils stay as they are.
    """
    height, width = kspace.shape[-2:]
    return torch.roll(kspace, (height // 2 - peak[0], width // 2 - peak[1]), (-2, -1))

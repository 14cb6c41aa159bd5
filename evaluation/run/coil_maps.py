"""Coil sensitivity maps from the centre of undersampled k-space."""

import torch
from torch import Tensor

from datasets.coil_maps import CALIB_WIDTH, LEAST_WIDTH
from operators.espirit import acs_width, espirit_maps
from operators.espirit_sets import espirit_sets
from operators.kspace_peak import PROMINENT, centre_peak, find_peak


def estimate_maps(kspace: Tensor, *, sets: int = 1) -> Tensor:
    """ESPIRiT maps from the fully measured centre of one slice's k-space.

    Args:
        kspace: complex ``(C, H, W)``, 0 where not measured.
        sets: number of sets of maps, see `operators.espirit_sets`.

    Returns:
        ``(C, H, W)``, of several sets ``(S, C, H, W)``; zeros if k-space is 0.

    Raises:
        ValueError: a measured centre that is too small, or inconsistent at every pixel.
    """
    if not kspace.any():
        return torch.zeros_like(kspace)
    centred = for_calibration(kspace)
    width = calibration_width(centred)
    maps = (
        espirit_maps(centred, calib_width=width)
        if sets == 1
        else espirit_sets(centred, calib_width=width, sets=sets)
    )
    # a slice of noise alone has none, and is 0
    if not maps.any() and find_peak(kspace)[1] >= PROMINENT:
        raise ValueError(
            f"expected coil maps from the central {width} x {width} of k-space, which ESPIRiT "
            "finds inconsistent at every pixel"
        )
    return maps


def calibration_width(kspace: Tensor) -> int:
    """Side of the central square of k-space ``(C, H, W)`` that maps are estimated from.

    Raises:
        ValueError: less than `LEAST_WIDTH` of it is measured.
    """
    width = min(CALIB_WIDTH, acs_width(kspace))
    if width < LEAST_WIDTH:
        raise ValueError(
            f"expected the central {LEAST_WIDTH} x {LEAST_WIDTH} of k-space to be measured, for "
            f"coil maps, got {width} x {width}"
        )
    return width


def for_calibration(kspace: Tensor) -> Tensor:
    """k-space ``(C, H, W)`` for calibration: rolled where its peak lies far beside the origin.

    Coil maps do not change by that. It stays where less would be left to calibrate with.
    """
    peak, prominence = find_peak(kspace)
    rolled = centre_peak(kspace, peak)
    beside = max(abs(p - n // 2) for p, n in zip(peak, kspace.shape[-2:], strict=True))
    far = prominence >= PROMINENT and beside > CALIB_WIDTH // 4
    return rolled if far and acs_width(rolled) >= LEAST_WIDTH else kspace

"""Coil sensitivity maps from the fully measured centre of k-space: ESPIRiT (sigpy)."""

import numpy as np
import torch
from torch import Tensor

from operators.masks.sampling import center_slice

FAINT = 0.01  # of the strongest coil's energy: less may be noise or a coil that is switched off
KERNEL_WIDTH = 6


def espirit_maps(
    kspace: Tensor,
    *,
    calib_width: int = 24,
    kernel_width: int | None = None,
    threshold: float = 0.02,
    crop: float = 0.95,
) -> Tensor:
    """Coil sensitivity maps estimated by ESPIRiT from the central (ACS) square of k-space.

    At each pixel the maps are the first eigenvector of the ESPIRiT operator, so that
    sum_c |S_c|^2 = 1; they are 0 where its eigenvalue is not above `crop`. The map of a reference
    coil is real and positive, so that an image reconstructed with the maps has the phase of that
    coil. The reference is the first coil with at least 1 % of the strongest coil's energy in the
    calibration square, as a silent coil has no phase. Computed on the CPU.

    Args:
        kspace: complex ``(C, H, W)`` or ``(B, C, H, W)``, centred, 0 where not measured.
        calib_width: side of the calibration square, in positions of k-space.
        kernel_width: side of the ESPIRiT kernel, in positions of k-space; None: `KERNEL_WIDTH`, and
            less for a narrow calibration square, in which there are too few positions of a large
            kernel to tell the coils apart (all maps would be 0 at a width of 8).
        threshold: singular values of the calibration matrix that are kept, relative to the
            largest one.
        crop: eigenvalue, from 0 to 1, up to which a pixel counts as background.

    Returns:
        complex64 maps of the shape and on the device of `kspace`.

    Raises:
        ValueError: a wrong shape or width, or a calibration square that is not fully measured.
        TypeError: k-space is not complex.

    Source: M. Uecker et al., Magn. Reson. Med. 71 (2014) 990-1001, in sigpy's implementation.
    """
    if kspace.ndim not in (3, 4):
        raise ValueError(
            f"expected kspace of shape (C, H, W) or (B, C, H, W), got {tuple(kspace.shape)}"
        )
    if not kspace.is_complex():
        raise TypeError(f"expected complex kspace, got {kspace.dtype}")
    kernel_width = choose_kernel(calib_width) if kernel_width is None else kernel_width
    check_calibration(kspace, calib_width, kernel_width)
    samples = kspace if kspace.ndim == 4 else kspace[None]  # (B, C, H, W)
    maps = torch.stack(
        [_sample_maps(sample, calib_width, kernel_width, threshold, crop) for sample in samples]
    )  # (B, C, H, W)
    return (maps if kspace.ndim == 4 else maps[0]).to(kspace.device)


def _sample_maps(
    kspace: Tensor, calib_width: int, kernel_width: int, threshold: float, crop: float
) -> Tensor:
    from sigpy.mri.app import EspiritCalib  # imports numba: seconds, so only where needed

    first = _reference(kspace, calib_width)
    order = [first, *(c for c in range(len(kspace)) if c != first)]  # sigpy refers to coil 0
    # The background may contain exact zeros, whose phase is undefined; it is cropped anyway.
    with np.errstate(divide="ignore", invalid="ignore"):
        maps = EspiritCalib(
            kspace[order].detach().cpu().to(torch.complex64).numpy(),
            calib_width=calib_width,
            kernel_width=kernel_width,
            thresh=threshold,
            crop=crop,
            show_pbar=False,
        ).run()
    maps = np.nan_to_num(maps, nan=0.0, posinf=0.0, neginf=0.0)
    return torch.from_numpy(maps[np.argsort(order)])  # (C, H, W)


def _reference(kspace: Tensor, calib_width: int) -> int:
    """Index of the first coil of ``(C, H, W)`` that is not silent in the calibration square."""
    energy = _center(kspace, calib_width).abs().double().square().sum((-2, -1))  # (C,)
    return int((energy >= FAINT * energy.max()).nonzero()[0])


def acs_width(kspace: Tensor) -> int:
    """Side of the largest fully measured central square of k-space.

    Args:
        kspace: complex ``(C, H, W)`` or ``(B, C, H, W)``, 0 where not measured.
    """
    measured = (kspace != 0).any(-3)  # (H, W) or (B, H, W)
    measured = measured.reshape(-1, *kspace.shape[-2:]).all(0)  # (H, W)
    width = 0
    while width < min(measured.shape) and _center(measured, width + 1).all():
        width += 1
    return width


def _center(values: Tensor, width: int) -> Tensor:
    rows, columns = (center_slice(n, width) for n in values.shape[-2:])
    return values[..., rows, columns]


def choose_kernel(calib_width: int) -> int:
    """Side of a kernel that the calibration square has enough positions of."""
    return min(KERNEL_WIDTH, max(3, 2 * calib_width // 5))


def read_centre(kspace: Tensor, width: int) -> tuple[Tensor, int]:
    """Calibration square ``(C, width, width)`` of ``(C, H, W)``, and the reference coil."""
    return _center(kspace, width), _reference(kspace, width)


def check_calibration(kspace: Tensor, calib_width: int, kernel_width: int) -> None:
    """Raise a ValueError for widths that do not fit, or a square that is not fully measured."""
    if not 1 <= kernel_width <= calib_width <= min(kspace.shape[-2:]):
        raise ValueError(
            "expected kernel_width <= calib_width <= the sides of k-space, got "
            f"{kernel_width}, {calib_width} and {tuple(kspace.shape[-2:])}"
        )
    if not (_center(kspace, calib_width) != 0).any(-3).all():
        raise ValueError(
            f"expected the central {calib_width} x {calib_width} of kspace to be fully measured, "
            f"got a square of {acs_width(kspace)}; lower calib_width or measure more lines"
        )

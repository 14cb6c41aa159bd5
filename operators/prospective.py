"""Sampling mask of prospectively undersampled data, from the zeros of k-space."""

import warnings

import torch
from torch import Tensor

COMPLETE = 0.9  # fraction of nonzero positions from which a line counts as wholly measured
ONE_SIDED = 1 / 8  # smallest fraction of an axis that partial Fourier imaging leaves out


def recover_mask(kspace: Tensor, *, per_sample: bool = False) -> Tensor:
    """Sampling mask of k-space: positions where any coil (and any slice) is not exactly 0.

    If whole lines were sampled, a line with a few stray zeros counts as measured over its whole
    length, except for margins where all lines are zero. Such a zero-padded margin counts as not
    measured, and a reconstruction fills it like any other gap; crop it beforehand to avoid that.

    Args:
        kspace: complex ``(C, H, W)`` or ``(B, C, H, W)``, 0 where not measured, the origin at
            ``(H // 2, W // 2)``.
        per_sample: whether to return one mask per sample instead of one for all of them (the
            slices of a volume share one).

    Returns:
        bool ``(H, W)``, or ``(B, 1, H, W)`` if `per_sample`.

    Raises:
        ValueError: a wrong shape, NaN or infinity, or only zeros.

    Warns:
        UserWarning: there are no zeros, the origin is not measured, lines are zero-padded, or one
            side is missing (partial Fourier).
    """
    if kspace.ndim not in (3, 4):
        raise ValueError(
            f"expected kspace of shape (C, H, W) or (B, C, H, W), got {tuple(kspace.shape)}"
        )
    if not torch.isfinite(kspace).all():
        raise ValueError("expected finite kspace, got NaN or infinity")
    if per_sample and kspace.ndim == 3:
        raise ValueError("expected kspace of shape (B, C, H, W) for per_sample, got (C, H, W)")
    measured = (kspace != 0).any(-3)  # (H, W) or (B, H, W)
    if measured.ndim == 3 and not per_sample:
        measured = measured.any(0)  # (H, W)
    masks = []
    for sample in measured if per_sample else measured[None]:
        if not sample.any():
            raise ValueError("expected kspace with measured positions, got nothing but zeros")
        mask, readout = _fill_lines(sample)
        for message in _doubts(mask, readout):
            warnings.warn(message, stacklevel=2)
        masks.append(mask)
    return torch.stack(masks)[:, None] if per_sample else masks[0]  # (B, 1, H, W) or (H, W)


def _fill_lines(measured: Tensor) -> tuple[Tensor, int | None]:
    """The mask ``(H, W)`` without stray zeros, and the axis along which lines run (or None)."""
    for axis in (0, 1):
        lines = measured.any(axis, keepdim=True)
        readout = measured.any(1 - axis, keepdim=True)
        first, last = _bounds(readout.flatten())
        filled = lines & readout  # (H, W)
        complete = measured.sum(axis, keepdim=True) >= COMPLETE * readout.sum()
        if readout.sum() == last - first + 1 and complete[lines].all():
            return filled, axis
    return measured, None


def _doubts(mask: Tensor, readout: int | None) -> list[str]:
    """Warnings about unusual properties of a mask ``(H, W)``."""
    doubts = []
    if mask.all():
        doubts.append(
            "kspace has no zeros: it was fully measured, or what was not measured holds noise; "
            "set that to 0"
        )
    if not mask[mask.shape[0] // 2, mask.shape[1] // 2]:
        doubts.append(
            "the origin of kspace at (H // 2, W // 2) was not measured; use torch.fft.fftshift "
            "where it lies in a corner"
        )
    for axis, (name, size) in enumerate(zip(("rows", "columns"), mask.shape, strict=True)):
        first, last = _bounds(mask.any(1 - axis))
        before, after = first, size - 1 - last
        if axis == readout and before + after > 0:
            doubts.append(
                f"lines hold data in {name} {first} to {last} of {size} only and are zero-padded "
                "elsewhere; the rest counts as not measured"
            )
        elif abs(before - after) >= ONE_SIDED * size:
            doubts.append(
                f"kspace is empty in the first {before} and the last {after} of {size} {name}: "
                "partial Fourier? The rest counts as not measured"
            )
    return doubts


def _bounds(used: Tensor) -> tuple[int, int]:
    index = used.nonzero()
    return int(index[0]), int(index[-1])

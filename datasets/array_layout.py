"""Layouts of arrays of a user's measurement: which axes are slices, coils, rows, columns, views."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from datasets.sample import DataError
from datasets.trajectory import Trajectory, kspace_layout

KSPACE, SINOGRAM = "kspace", "sinogram"
GATHERED = 4  # ratio of the concentration of energy along k-space axes to that along coils
LAYOUT = (
    "complex k-space (H, W), (coils, H, W), (slices, H, W) or (slices, coils, H, W), or a real "
    "sinogram (views, bins) or (slices, views, bins)"
)


class Layout(NamedTuple):
    """Layout of an array: its full shape, a function (array, index) -> slice, and notes."""

    shape: tuple[int, ...]
    read: Callable[[np.ndarray, int], np.ndarray]
    notes: list[str]


def trajectory_layout(
    path: Path, data: h5py.Dataset | np.ndarray, trajectory: Trajectory, first_axis: str
) -> Layout:
    """Layout of k-space along a trajectory, (slices, coils, lines, positions).

    Args:
        path: the file, for errors.
        data: k-space with the axes of the trajectory last, in either order if there is one line.
        trajectory: the trajectory.
        first_axis: "slices" if a single axis in front is that of slices, else "coils".

    Raises:
        DataError: real numbers, or another shape than the trajectory's.
    """
    if data.dtype.kind != "c":
        raise DataError(
            f"{path}: expected complex k-space along the trajectory, got {data.dtype} of shape "
            f"{tuple(data.shape)}"
        )
    lines, count = trajectory.positions.shape[:2]
    stored = (count, lines) if trajectory.swapped else (lines, count)
    if lines == 1 and tuple(data.shape[-2:]) not in (stored, stored[::-1]):
        stored = (count,)
    elif lines == 1:
        stored = tuple(data.shape[-2:])
    slices, coils = kspace_layout(path, tuple(data.shape), stored, first_axis)
    several = data.ndim - len(stored) == 2 or (data.ndim > len(stored) and slices > 1)

    def read(array: np.ndarray, index: int) -> np.ndarray:
        part = np.asarray(array[index] if several else array[()])
        part = part.reshape(coils, *stored)
        part = part.swapaxes(-1, -2) if trajectory.swapped else part
        return part.astype(np.complex64).reshape(coils, lines, count)

    return Layout((slices, coils, lines, count), read, list(trajectory.notes))


def grid_layout(path: Path, kind: str, data: h5py.Dataset | np.ndarray, first_axis: str) -> Layout:
    """Layout of k-space on the grid, (slices, coils, H, W), or of sinograms, (slices, views, bins).

    Args:
        path: the file, for errors.
        kind: `KSPACE` or `SINOGRAM`.
        data: the array.
        first_axis: of three axes, the first: "slices" or "coils" of k-space, "views" or "slices" of
            sinograms.

    Raises:
        DataError: another dtype or number of axes (`LAYOUT`).
    """
    shape, ranks = tuple(data.shape), (2, 3, 4) if kind == KSPACE else (2, 3)
    if data.dtype.kind not in ("c" if kind == KSPACE else "fiu"):
        remedy = ""
        if kind == KSPACE and 2 in shape:
            remedy = (
                f"; join real and imaginary part (axis {shape.index(2)}): "
                "kspace = real + 1j * imaginary"
            )
        raise DataError(
            f"{path}: expected {LAYOUT}, got {kind} {data.dtype} of shape {shape}{remedy}"
        )
    if len(shape) not in ranks or 0 in shape:
        raise DataError(f"{path}: expected {LAYOUT}, got {kind} {data.dtype} of shape {shape}")
    number = np.complex64 if kind == KSPACE else np.float32
    rank = 3 if kind == KSPACE else 2  # of a slice
    notes: list[str] = []
    last = kind == KSPACE and len(shape) > 2 and coils_are_last(data)
    if last:
        notes.append(
            f"k-space has the shape {shape}, and its last axis does not look like one of k-space: "
            f"taken as {shape[-1]} coils"
        )
        shape = (*shape[:-3], shape[-1], *shape[-3:-1])
    elif kind == KSPACE and (len(shape) == 2 or (len(shape) == 3 and first_axis == "slices")):
        shape = (*shape[:-2], 1, *shape[-2:])  # (slices, 1, H, W) or (1, H, W)
    several = len(shape) > rank
    views_first = kind == SINOGRAM and several and first_axis == "views"
    if views_first:
        shape = (shape[1], shape[0], shape[2])
    full = shape if several else (1, *shape)

    def read(array: np.ndarray, index: int) -> np.ndarray:
        where = (slice(None), index) if views_first else index
        part = np.asarray(array[where] if several else array[()])
        part = np.moveaxis(part, -1, 0) if last else part
        return part.astype(number).reshape(full[1:])

    return Layout(full, read, notes)


def coils_are_last(data: h5py.Dataset | np.ndarray) -> bool:
    """Whether k-space ``(..., A, B, D)`` is (H, W, coils), judged from the middle slice.

    Energy is concentrated around the origin along the axes of k-space, and spread over coils. The
    test requires D to be less than A and B.
    """
    if not data.shape[-1] < min(data.shape[-3:-1]):
        return False
    part = np.asarray(data[len(data) // 2] if len(data.shape) > 3 else data[()])
    first, _, last = (gathered(part, axis) for axis in range(3))
    return bool(first > GATHERED * last)


def gathered(array: np.ndarray, axis: int) -> float:
    """How far energy is concentrated along an axis: its largest over its mean."""
    energy = np.square(np.abs(np.nan_to_num(array).astype(np.complex128)))
    profile = energy.sum(axis=tuple(i for i in range(array.ndim) if i != axis))
    return float(profile.max() / profile.mean()) if profile.any() else 1.0

"""K-space along trajectories: their arrays, their units, and which axis the readout is."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datasets.sample import DataError

SHAPES = "complex (lines, positions), or real (lines, positions, 2)"
BEYOND = 1e-3  # relative excess over a unit's extent that is rounding
TURN = 0.05  # relative distance of the extent from pi, within which positions are in radians
PER_VIEW = "cycles per field of view"
COILS_LAST = "; move the coils forward: numpy.moveaxis(kspace, -1, 0)"


class Trajectory(NamedTuple):
    """Positions of k-space in cycles per pixel.

    Attributes:
        positions: float64 ``(L, N, 2)`` of L lines (spokes, interleaves), along image rows and
            columns.
        swapped: whether the array had the lines last.
        image_shape: rows and columns of the image if the unit tells them.
        notes: remarks on what was taken for granted.
    """

    positions: np.ndarray
    swapped: bool
    image_shape: tuple[int, int] | None
    notes: list[str]


def read_trajectory(
    path: Path, array: np.ndarray, matrix: tuple[int, int] | None = None
) -> Trajectory:
    """Trajectory of an array in any of the units in use.

    The first coordinate, or the real part, is along the image's rows, the second along its columns.
    Lines are neighbours along the axis of the longer steps. The unit follows from the largest
    coordinate: up to 0.5 are cycles per pixel, up to pi radians per pixel, and larger ones cycles
    per field of view, from -N/2 to N/2 of an image of N pixels.

    Args:
        path: the file, for errors.
        array: `SHAPES`; also ``(positions,)`` of one line, the coordinates first, as ``(2, ...)``,
            and a third coordinate that is 0.
        matrix: rows and columns of the field of view in pixels; None: unknown.

    Raises:
        DataError: another shape, values that are not finite, or no unit that fits.
    """
    places = _coordinates(path, array)  # (..., 2)
    if not np.isfinite(places).all():
        raise DataError(f"{path}: expected a finite trajectory, got NaN or infinity in it")
    places = places.reshape(-1, *places.shape[-2:])  # one line: (1, N, 2)
    swapped = _step(places, 0) < _step(places, 1)
    places = np.ascontiguousarray(places.swapaxes(0, 1)) if swapped else places
    scaled, image_shape, notes = _in_cycles_per_pixel(path, places, matrix)
    return Trajectory(scaled, swapped, image_shape, notes)


def _coordinates(path: Path, array: np.ndarray) -> np.ndarray:
    """Real float64 ``(..., 2)`` with one or two axes before the last."""
    array = np.asarray(array)
    if array.dtype.kind == "c":
        array = array.squeeze()
        if array.ndim in (1, 2) and array.size:
            return np.stack([array.real, array.imag], axis=-1).astype(np.float64)
    elif array.dtype.kind in "fiu" and array.size:
        array = array.squeeze() if array.ndim > 3 else array
        last = array.ndim in (2, 3) and array.shape[-1] in (2, 3)
        if not last and array.ndim in (2, 3) and array.shape[0] in (2, 3):
            array, last = np.moveaxis(array, 0, -1), True
        if last:
            if array.shape[-1] == 3 and array[..., 2].any():
                raise DataError(
                    f"{path}: expected a trajectory in a plane, got one of three coordinates whose "
                    "third is not 0; transform stacks of slices along it first"
                )
            return array[..., :2].astype(np.float64)
    raise DataError(
        f"{path}: expected a trajectory {SHAPES}, got {array.dtype} of shape {array.shape}"
    )


def _step(places: np.ndarray, axis: int) -> float:
    """Median distance of neighbours along an axis of ``(L, N, 2)``; infinite for one."""
    steps = np.linalg.norm(np.diff(places, axis=axis), axis=-1)
    return float(np.median(steps)) if steps.size else math.inf


def _in_cycles_per_pixel(
    path: Path, places: np.ndarray, matrix: tuple[int, int] | None
) -> tuple[np.ndarray, tuple[int, int] | None, list[str]]:
    """Positions in cycles per pixel, the image's shape if they tell it, and notes."""
    extent = float(np.abs(places).max())
    if extent == 0:
        raise DataError(f"{path}: expected a trajectory through k-space, got zeros")
    if extent <= 0.5 * (1 + BEYOND):
        return places.clip(-0.5, 0.5), matrix, []
    if abs(extent / math.pi - 1) <= TURN and extent <= math.pi * (1 + BEYOND):
        note = f"the trajectory reaches {extent:.4g}: taken as radians per pixel"
        return (places / (2 * math.pi)).clip(-0.5, 0.5), matrix, [note]
    if extent < 4 or _step(places, 1) > 1 + BEYOND:
        raise DataError(
            f"{path}: expected a trajectory in cycles per pixel (up to 0.5), radians per pixel (up "
            f"to pi) or {PER_VIEW} (up to N / 2, in steps of at most 1 along a line), got "
            f"positions up to {extent:.4g} in steps of {_step(places, 1):.3g}; multiply positions "
            "in 1/m or 1/mm by the size of a pixel"
        )
    side = 2 * math.ceil(extent * (1 - BEYOND))
    shape = matrix or (side, side)
    if extent > max(shape) / 2 * (1 + BEYOND):
        raise DataError(
            f"{path}: expected a trajectory up to half of the image's {max(shape)} pixels, in "
            f"{PER_VIEW}, got up to {extent:.4g}; set data.image_size to {side} or more"
        )
    notes = [f"the trajectory reaches {extent:.4g}: taken as {PER_VIEW} of {shape[0]} x {shape[1]}"]
    return (places / np.array(shape)).clip(-0.5, 0.5), shape, notes


def kspace_layout(
    path: Path, shape: tuple[int, ...], lines: tuple[int, ...], first_axis: str
) -> tuple[int, int]:
    """Numbers of slices and coils of k-space along a trajectory.

    Args:
        path: the file, for errors.
        shape: of k-space, ``(..., *lines)`` with the coils, or the slices and the coils, in front.
        lines: shape of the trajectory as stored, without its coordinates.
        first_axis: "slices" if a single axis in front is that of slices, else "coils".

    Raises:
        DataError: the shapes do not match.
    """
    front = shape[: len(shape) - len(lines)]
    if shape[len(front) :] != lines or len(front) > 2:
        last = shape[: len(lines)] == lines and len(shape) == len(lines) + 1
        raise DataError(
            f"{path}: expected k-space (coils, {', '.join(map(str, lines))}) along the trajectory, "
            f"or (slices, coils, ...), got the shape {shape}" + (COILS_LAST if last else "")
        )
    if len(front) == 1:
        return (front[0], 1) if first_axis == "slices" else (1, front[0])
    return front if front else (1, 1)

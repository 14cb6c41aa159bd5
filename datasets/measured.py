"""A user's own measurement: k-space or sinograms whose slices are read on demand, from arrays."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from datasets.array_layout import KSPACE, SINOGRAM, grid_layout, trajectory_layout
from datasets.sample import DataError
from datasets.trajectory import read_trajectory

EXTRAS = ("mask", "sens_maps", "angles")  # further arrays that a file may hold
ALONG = "trajectory"  # likewise, of k-space that is along one


@dataclass(frozen=True)
class Measured:
    """Measurement in its own unit, whose slices are read on demand.

    Attributes:
        path: the file.
        kind: `KSPACE` or `SINOGRAM`.
        shape: (slices, coils, H, W), or (slices, coils, lines, positions) with a `trajectory`, or
            (slices, views, bins).
        read_slice: index -> ``(coils, H, W)`` complex64 or ``(views, bins)`` float32, as stored.
        extras: the arrays named in `EXTRAS` that the file holds.
        image_shape: rows and columns of the image by the file; None for the whole image.
        voxel_size: row, column and slice spacing in mm; None if unknown.
        notes: remarks on anything unusual.
        whitening: ``(coils, coils)`` that the measured coils were multiplied by, and maps of theirs
            have to be; None: they are as measured.
        trajectory: float64 ``(lines, positions, 2)`` along rows and columns of the image, in cycles
            per pixel from -1/2 to 1/2; None: k-space is on the grid.
        geometry: of a sinogram what the file says: fields of ``config.operator`` (lengths in mm).
    """

    path: Path
    kind: str
    shape: tuple[int, ...]
    read_slice: Callable[[int], np.ndarray]
    extras: dict[str, np.ndarray] = field(default_factory=dict)
    image_shape: tuple[int, int] | None = None
    voxel_size: tuple[float, float, float] | None = None
    notes: list[str] = field(default_factory=list)
    whitening: np.ndarray | None = None
    trajectory: np.ndarray | None = None
    geometry: dict[str, float | str] = field(default_factory=dict)

    def read(self, index: int) -> np.ndarray:
        """Slice number `index`, from 0: ``(coils, H, W)`` or ``(views, bins)``.

        Raises:
            DataError: the slice cannot be read, or has NaN or infinite values.
        """
        values = self.read_slice(index)
        bad = int((~np.isfinite(values)).sum())
        if bad:
            raise DataError(
                f"{self.path.name}:{index}: expected finite values, got {bad} NaN or infinite of "
                f"{values.size}; repair the file, or leave the slice out with data.slices"
            )
        return values


class Request(NamedTuple):
    """What `measured_files.open_measurement` was asked for; its arguments of the same names."""

    path: Path
    first_axis: str
    trajectory: np.ndarray | None
    matrix: tuple[int, int] | None


def measured_array(
    kind: str,
    data: np.ndarray,
    extras: dict[str, np.ndarray],
    *,
    trajectory: np.ndarray | None = None,
    matrix: tuple[int, int] | None = None,
) -> Measured:
    """Measurement of an array in memory.

    Args:
        kind: `KSPACE` or `SINOGRAM`; also the name of the measurement.
        data: array with one of the shapes of `array_layout.LAYOUT`; k-space with three axes is
            (coils, H, W).
        extras: the arrays named in `EXTRAS` that exist.
        trajectory: of k-space, see `measured_files.open_measurement`.
        matrix: likewise.

    Raises:
        DataError: another shape or dtype.
    """
    return of_arrays(Request(Path(kind), "", trajectory, matrix), kind, data, extras)


def of_arrays(
    how: Request,
    name: str,
    data: np.ndarray,
    extras: Mapping[str, np.ndarray],
    geometry: Mapping | None = None,
    notes: Sequence[str] = (),
) -> Measured:
    """Measurement of arrays in memory, or of a mapped file.

    Args:
        how: what was asked for.
        name: name of the measurement; of another name than `KSPACE` and `SINOGRAM`, complex numbers
            are k-space, real ones a sinogram.
        data: the measurement.
        extras: the arrays named in `EXTRAS`, `ALONG`, and ``image_shape``, that exist.
        geometry: of a sinogram, see `Measured`.
        notes: remarks on the file.

    Raises:
        DataError: another shape or dtype.
    """
    by_type = KSPACE if data.dtype.kind == "c" else SINOGRAM
    kind = name if name in (KSPACE, SINOGRAM) else by_type
    extras = dict(extras)
    shape = extras.pop("image_shape", None)
    shape = None if shape is None else read_shape(how.path, shape)
    return assemble(
        how,
        kind,
        data,
        extras,
        lambda: nullcontext(data),
        "coils",
        shape,
        geometry=geometry,
        notes=notes,
    )


def assemble(
    how: Request,
    kind: str,
    data: h5py.Dataset | np.ndarray,
    extras: dict[str, np.ndarray],
    again: Callable,
    first_axis: str,
    image_shape: tuple[int, int] | None = None,
    voxel_size: tuple[float, float, float] | None = None,
    *,
    geometry: Mapping | None = None,
    notes: Sequence[str] = (),
) -> Measured:
    """Measurement of an array, whose slices are read from what the context ``again()`` gives.

    Args:
        how: what was asked for.
        kind: `KSPACE` or `SINOGRAM`.
        data: the array, of which shape and dtype count.
        extras: the arrays named in `EXTRAS`, and `ALONG`, that exist.
        again: makes a context with the array, open to be read.
        first_axis: meaning of the first axis if it was not asked for.
        image_shape: rows and columns of the image, if known.
        voxel_size: row, column and slice spacing in mm, if known.
        geometry: of a sinogram, see `Measured`.
        notes: remarks on the file.

    Raises:
        DataError: another shape or dtype, or a trajectory that does not fit.
    """
    path, trajectory = how.path, extras.pop(ALONG, None)
    first_axis = how.first_axis or first_axis
    if how.trajectory is not None:
        trajectory = how.trajectory
    if kind == KSPACE and trajectory is not None:
        found = read_trajectory(path, trajectory, how.matrix or image_shape)
        axis = "coils" if how.first_axis != "slices" else "slices"
        layout = trajectory_layout(path, data, found, axis)
        image_shape = image_shape or found.image_shape
    elif trajectory is not None:
        raise DataError(f"{path}: expected a trajectory with k-space, got it with a sinogram")
    else:
        found, layout = None, grid_layout(path, kind, data, first_axis)

    def read(index: int) -> np.ndarray:
        with again() as array:
            return layout.read(array, index)

    return Measured(
        path,
        kind,
        layout.shape,
        read,
        extras,
        image_shape,
        voxel_size,
        notes=[*notes, *layout.notes],
        trajectory=None if found is None else found.positions,
        geometry=dict(geometry or {}),
    )


def read_shape(path: Path, values: np.ndarray) -> tuple[int, int]:
    """Rows and columns from a file's ``image_shape``; a DataError if it is no pair of sizes."""
    numbers = [int(value) for value in np.ravel(values)]
    if len(numbers) != 2 or min(numbers) < 1:
        raise DataError(f"{path}: expected 'image_shape' as rows and columns, got {numbers}")
    return numbers[0], numbers[1]

"""Files of BART (``.cfl`` with ``.hdr``), read and written in this project's order of axes.

A file holds complex64 numbers, the first of 16 dimensions fastest; ``.hdr`` names their lengths:
0 to 2 are k-space or image, 3 coils, 4 sets of coil maps, 13 slices. A trajectory is ``(3,
positions, lines)`` in cycles per field of view, k-space along it ``(1, positions, lines, coils)``.
BART's Cartesian k-space has its origin in the middle, as this project's.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from datasets.bad_input import reading
from datasets.files import write_atomically
from datasets.sample import DataError

SUFFIXES = (".cfl", ".hdr")
COIL, MAPS, SLICE = 3, 4, 13
DIMENSIONS = 16
ITEM = np.dtype("<c8")


def read_cfl(path: Path) -> np.ndarray:
    """Array of a BART file, memory-mapped: complex64 with its 16 dimensions (or more), in order.

    Args:
        path: the ``.cfl`` or the ``.hdr``.

    Raises:
        DataError: one of the two is missing or broken, or the data are shorter or longer than the
            header says.
    """
    data, header = path.with_suffix(".cfl"), path.with_suffix(".hdr")
    for file in (data, header):
        if not file.is_file():
            raise DataError(f"{file}: not found; BART's files are pairs of .cfl and .hdr")
    with reading(header, "a BART header with '# Dimensions' and a line of lengths"):
        lines = header.read_text().splitlines()
        sizes = lines[next(i for i, s in enumerate(lines) if s.startswith("# Dimensions")) + 1]
        shape = tuple(int(size) for size in sizes.split())
        if not shape or min(shape) < 1:
            raise ValueError(f"lengths {shape}")
    shape += (1,) * (DIMENSIONS - len(shape))
    with reading(data, "an intact .cfl file"):
        wanted, size = math.prod(shape) * ITEM.itemsize, data.stat().st_size
        if size != wanted:
            trimmed = tuple(n for n in shape if n > 1)
            raise ValueError(f"{size} bytes where {header.name} says {wanted}, of {trimmed}")
        return np.memmap(data, dtype=ITEM, mode="r", shape=shape, order="F")


def write_cfl(path: Path, array: np.ndarray) -> None:
    """Write an array with BART's dimensions, in their order, as ``.cfl`` and ``.hdr``.

    Args:
        path: path of either file.
        array: numbers; trailing dimensions of length 1 may be left out.
    """
    shape = (*array.shape, *(1,) * (DIMENSIONS - array.ndim))
    header = f"# Dimensions\n{' '.join(map(str, shape))}\n"
    content = np.asarray(array, dtype=ITEM).tobytes(order="F")
    write_atomically(path.with_suffix(".cfl"), content)
    write_atomically(path.with_suffix(".hdr"), header)


def kspace_from_bart(path: Path, array: np.ndarray, *, along: bool = False) -> np.ndarray:
    """K-space in this project's order: ``(slices, coils, H, W)``, a view.

    Args:
        path: the file, for errors.
        array: of `read_cfl`.
        along: whether it is along a trajectory: ``(slices, coils, positions, lines)``.

    Raises:
        DataError: k-space of three dimensions, or further dimensions.
    """
    shape = array.shape
    _check_rest(path, shape, (0, 1, 2, COIL, SLICE))
    if along:
        if shape[0] != 1:
            raise DataError(
                f"{path}: expected k-space along a trajectory, (1, positions, lines, coils), got "
                f"the dimensions {_trimmed(shape)}"
            )
        plane = (1, 2)
    else:
        if min(shape[:3]) > 1:
            raise DataError(
                f"{path}: expected k-space of slices, got three encoded dimensions {shape[:3]}; "
                "transform one that is fully measured (bart fft -i -u 1) and make it that of "
                "slices (bart transpose 0 13)"
            )
        plane = tuple(d for d in range(3) if shape[d] > 1)
        plane = (*plane, *(d for d in range(3) if d not in plane))[:2]
        plane = tuple(sorted(plane))
    return _ordered(array, (SLICE, COIL, *plane))


def maps_from_bart(path: Path, array: np.ndarray) -> np.ndarray:
    """Coil maps ``(slices, coils, H, W)`` of an array of `read_cfl`, a view.

    Raises:
        DataError: several sets of maps, or further dimensions.
    """
    if array.shape[MAPS] > 1:
        raise DataError(
            f"{path}: expected one set of coil maps, got {array.shape[MAPS]}; take the first (bart "
            "slice 4 0), or leave the maps out: two sets are estimated where they are needed"
        )
    return kspace_from_bart(path, array)


def trajectory_from_bart(path: Path, array: np.ndarray) -> np.ndarray:
    """Trajectory ``(positions, lines, 3)`` of an array of `read_cfl`, in BART's unit.

    Raises:
        DataError: another first dimension than 3, or further dimensions.
    """
    if array.shape[0] != 3:
        raise DataError(
            f"{path}: expected a trajectory (3, positions, lines), got the dimensions "
            f"{_trimmed(array.shape)}"
        )
    _check_rest(path, array.shape, (0, 1, 2))
    return np.ascontiguousarray(_ordered(array, (1, 2, 0)).real)


def kspace_to_bart(kspace: np.ndarray, *, along: bool = False) -> np.ndarray:
    """K-space or coil maps ``(coils, H, W)`` or ``(slices, coils, H, W)`` in BART's dimensions.

    Args:
        kspace: complex.
        along: whether it is along a trajectory, ``(..., lines, positions)``.
    """
    kspace = kspace if kspace.ndim == 4 else kspace[None]
    # (S, C, 1, N, L), or (S, C, H, W, 1)
    kspace = kspace.swapaxes(-1, -2)[:, :, None] if along else kspace[..., None]
    array = np.moveaxis(kspace, (2, 3, 4, 1, 0), (0, 1, 2, 3, 4))
    return array.reshape(*array.shape[:4], *(1,) * (SLICE - COIL - 1), array.shape[4])


def trajectory_to_bart(trajectory: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Trajectory in BART's unit and dimensions, ``(3, positions, lines)``.

    Args:
        trajectory: real ``(lines, positions, 2)`` in cycles per pixel.
        shape: rows and columns of the image in pixels.
    """
    places = np.moveaxis(np.asarray(trajectory) * np.asarray(shape), (0, 1, 2), (2, 1, 0))
    return np.concatenate([places, np.zeros_like(places[:1])])


def _ordered(array: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """View with some dimensions, in that order; all others have length 1."""
    rest = [d for d in range(array.ndim) if d not in axes]
    moved = array.transpose(*axes, *rest)
    return moved.reshape(moved.shape[: len(axes)])


def _check_rest(path: Path, shape: tuple[int, ...], known: Sequence[int]) -> None:
    others = {d: n for d, n in enumerate(shape) if n > 1 and d not in known}
    if others:
        raise DataError(
            f"{path}: expected dimensions {', '.join(map(str, known))} only, got "
            + ", ".join(f"{n} along dimension {d}" for d, n in others.items())
            + "; choose one of them (bart slice) or average them (bart avg)"
        )


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    last = max((d for d, n in enumerate(shape) if n > 1), default=0)
    return shape[: last + 1]

"""Reading of HDF5 files with errors that name the file and the remedy."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import h5py
import numpy as np

from datasets.bad_input import reading
from datasets.compressed import check_claim
from datasets.sample import DataError
from datasets.system import READ_AHEAD, advise

# No slice of these data is nearly as large, but a corrupt header may claim any size.
LARGEST_SIDE = 16384


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Context with an HDF5 file open for reading.

    Files are opened for each read (of one or several slices) and not kept open, because open
    handles do not survive the fork of a loader's worker.

    Raises:
        DataError: the file is missing, unreadable, truncated or corrupt (also while reading), or
            refers to other files.
    """
    with reading(path, "an intact HDF5 file"), h5py.File(path, "r") as file:
        status = os.stat(path)
        _check_alone(path, status.st_mtime_ns, status.st_size, status.st_ino)
        yield file


@lru_cache(maxsize=4096)
def _check_alone(path: Path, *_version: int) -> None:
    """Reject a file that takes data from others, which hashes and time stamps would not cover.

    Raises:
        DataError: the file has an external link, external storage or a virtual data set.
    """
    with h5py.File(path, "r") as file:

        def points_out(name: bytes, link) -> bytes | None:
            return name if link.type >= h5py.h5l.TYPE_EXTERNAL else None

        def lies_outside(name: bytes) -> bytes | None:
            opened = h5py.h5o.open(file.id, name)
            if not isinstance(opened, h5py.h5d.DatasetID):
                return None
            how = opened.get_create_plist()
            outside = how.get_external_count() or how.get_layout() == h5py.h5d.VIRTUAL
            return name if outside else None

        name = file.id.links.visit(points_out, info=True) or h5py.h5o.visit(file.id, lies_outside)
    if name is not None:
        raise DataError(
            f"{path}: expected data in the file itself, got '{name.decode(errors='replace')}', "
            "which points at other files; copy everything into one (h5repack, or h5py's copy with "
            "expand_external=True)"
        )


def volume_shape(file: h5py.File, path: Path, key: str, remedy: str = "") -> tuple[int, int, int]:
    """Shape (slices, height, width) of the real three-dimensional data set `key`.

    Args:
        file: the open file.
        path: its path, for errors.
        key: name of the data set.
        remedy: appended to the error if there is no such data set.

    Raises:
        DataError: there is no such data set, it has another rank or no slices, or is not real.
    """
    remedy = remedy or "check that data.root points at the right data set"
    data = get_array(file, path, key, remedy)
    if data.ndim != 3 or data.dtype.kind not in "fiu":
        raise DataError(
            f"{path}: expected '{key}' real, of shape (slices, height, width), got {data.dtype} "
            f"of shape {data.shape}; check that data.root points at the right data set"
        )
    return data.shape


def get_array(file: h5py.File, path: Path, key: str, remedy: str) -> h5py.Dataset:
    """Data set `key` of a file, after checking that it exists and has a plausible size.

    Args:
        file: the open file.
        path: its path, for errors.
        key: name of the data set.
        remedy: appended to the error if there is no such data set.

    Raises:
        DataError: the data set is missing, empty, or implausibly large.
    """
    if key not in file or not isinstance(file[key], h5py.Dataset):
        raise DataError(f"{path}: expected a data set '{key}', got {sorted(file)}; {remedy}")
    data = file[key]
    if 0 in data.shape or not data.shape or max(data.shape) > LARGEST_SIDE:
        raise DataError(
            f"{path}: expected '{key}' of 1 to {LARGEST_SIDE} elements an axis, got shape "
            f"{data.shape}; probably corrupt, copy or download it again"
        )
    with reading(path, f"an array '{key}' that the file can hold"):
        check_claim(path, data.nbytes)
    return data


def read_array(file: h5py.File, path: Path, key: str) -> np.ndarray:
    """Content of the data set `key`.

    Args:
        file: the open file.
        path: its path, for errors.
        key: name of the data set.

    Raises:
        DataError: the data set is missing, empty, or implausibly large.
    """
    return get_array(file, path, key, "check the file")[()]


def read_slices(data: h5py.Dataset, indices: Sequence[int]) -> list[np.ndarray]:
    """Slices ``data[i]`` for some indices; contiguous ones are read at once."""
    first, last = min(indices), max(indices)
    if last - first + 1 != len(indices):
        return [data[i] for i in indices]
    block = data[first : last + 1]
    _read_ahead(data, last + 1, len(indices))
    return [block[i - first] for i in indices]


def _read_ahead(data: h5py.Dataset, first: int, count: int) -> None:
    """Ask the system to fetch the next slices from the disk in the background."""
    start = data.id.get_offset()  # None for chunked data sets
    count = min(count, len(data) - first)
    if start is not None and count > 0:
        size = data.nbytes // len(data)
        handle = data.file.id.get_vfd_handle()
        advise(handle, start + first * size, count * size, READ_AHEAD)

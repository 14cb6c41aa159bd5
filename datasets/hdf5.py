"""Reading HDF5 files so that every failure names the file and the remedy."""

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

# No slice of these data is nearly as large; a corrupt header can claim any size.
LARGEST_SIDE = 16384


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """`path` open for reading, for the length of a ``with`` block.

    Opened at each read (of several slices, if asked for together) rather than kept: open handles
    do not survive the fork of a loader's worker.

    Raises:
        DataError: missing, unreadable, truncated or corrupt, at opening or while reading; or it
            points at other files.
    """
    with reading(path, "an intact HDF5 file"), h5py.File(path, "r") as file:
        status = os.stat(path)
        _check_alone(path, status.st_mtime_ns, status.st_size, status.st_ino)
        yield file


@lru_cache(maxsize=4096)
def _check_alone(path: Path, *_version: int) -> None:
    """Refuse a file that takes data from others: hashes and time stamps are of this one alone.

    Raises:
        DataError: an external link, external storage or a virtual data set in it.
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
    """Shape of the real three-dimensional data set `key`.

    Raises:
        DataError: no such key (`remedy` is appended), wrong rank, no slices, or not real numbers.
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
    """The data set `key`, checked to be there and of a sensible size.

    Raises:
        DataError: it is not there, empty, or larger than slices are; `remedy` is appended.
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
    """All of the data set `key`; errors as of `get_array`."""
    return get_array(file, path, key, "check the file")[()]


def read_slices(data: h5py.Dataset, indices: Sequence[int]) -> list[np.ndarray]:
    """The slices ``data[i]``; neighbours are read at once."""
    first, last = min(indices), max(indices)
    if last - first + 1 != len(indices):
        return [data[i] for i in indices]
    block = data[first : last + 1]
    _read_ahead(data, last + 1, len(indices))
    return [block[i - first] for i in indices]


def _read_ahead(data: h5py.Dataset, first: int, count: int) -> None:
    """Have the system fetch the next slices from the disk while these are worked on."""
    start = data.id.get_offset()  # None where slices lie in chunks
    count = min(count, len(data) - first)
    if start is not None and count > 0:
        size = data.nbytes // len(data)
        handle = data.file.id.get_vfd_handle()
        advise(handle, start + first * size, count * size, READ_AHEAD)

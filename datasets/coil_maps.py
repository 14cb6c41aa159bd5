"""Coil sensitivity maps, estimated once per slice and stored in the cache folder."""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from datasets.cache_folder import cache_folder, writing_cache
from datasets.files import write_atomically
from datasets.sample import DataError
from operators.espirit import acs_width, espirit_maps

VERSION = 2  # raise it when the estimate changes
CALIB_WIDTH = 24  # the default of espirit_maps; smaller if less of the centre was measured
LEAST_WIDTH = 8  # several 6 x 6 kernels have to fit


def cached_coil_maps(
    path: Path, index: int, crop: object, kspace: Tensor, key: str, cache_dir: str
) -> Tensor:
    """ESPIRiT maps of one slice, from the cache if they are there.

    Args:
        path: the file of the k-space; its path, size and time identify the maps in the cache.
        index: index of the slice.
        crop: crop of the k-space, which also identifies the maps.
        kspace: complex ``(C, H, W)``.
        key: key of the slice, for errors.
        cache_dir: see `cache_folder`.

    Returns:
        complex64 ``(C, H, W)``.

    Raises:
        DataError: the centre of k-space was not measured, or the cache cannot be written.
    """
    status = path.stat()
    parts = (VERSION, path.resolve(), status.st_size, status.st_mtime_ns, crop, CALIB_WIDTH)
    digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    folder = cache_folder(cache_dir, path.parent) / "coil_maps" / f"{path.stem}-{digest}"
    stored = folder / f"{index}.npz"
    maps = _load(stored, tuple(kspace.shape))
    if maps is None:
        width = min(CALIB_WIDTH, acs_width(kspace))
        if width < LEAST_WIDTH:
            raise DataError(
                f"{key}: expected the central {LEAST_WIDTH} x {LEAST_WIDTH} of k-space to be "
                f"measured, for coil maps, got {width} x {width}; leave the file out"
            )
        maps = espirit_maps(kspace, calib_width=width)
        content = io.BytesIO()
        np.savez(content, maps=maps.numpy())  # with a checksum, unlike .npy
        with writing_cache(stored):
            write_atomically(stored, content.getvalue())
    return maps


def _load(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    """Maps from disk; None if there are no usable ones."""
    try:
        with np.load(path, allow_pickle=False) as file:
            maps = file["maps"]
    except Exception:  # damaged files raise anything; the maps are then estimated again
        return None
    usable = maps.shape == shape and maps.dtype == np.complex64
    return torch.from_numpy(maps) if usable else None

"""Coil sensitivity maps, estimated once a slice and kept in the cache folder."""

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

VERSION = 2  # of what is stored; raise it when the estimate changes
CALIB_WIDTH = 24  # of the centre of k-space: espirit_maps' own default, less if less was measured
LEAST_WIDTH = 8  # a 6 x 6 kernel has to fit in several times


def cached_coil_maps(
    path: Path, index: int, crop: object, kspace: Tensor, key: str, cache_dir: str
) -> Tensor:
    """ESPIRiT maps ``(C, H, W)`` complex64 of one slice's k-space ``(C, H, W)``.

    Args:
        path: the file that k-space is from; with its size and time, it tells whether maps on
            disk are of this k-space.
        index: of the slice.
        crop: how k-space was cropped, another part of what tells.
        kspace: complex.
        key: of the slice, for errors.
        cache_dir: see `cache_folder`.

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
    """Maps from disk; None if there are none that can be used."""
    try:
        with np.load(path, allow_pickle=False) as file:
            maps = file["maps"]
    except Exception:  # damaged files raise anything: they are made again
        return None
    usable = maps.shape == shape and maps.dtype == np.complex64
    return torch.from_numpy(maps) if usable else None

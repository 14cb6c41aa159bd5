"""Compressed files: their checksums are compared, and sizes that they cannot have refused."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

# deflate shrinks 1032-fold at most; a corrupt header can claim an array of any size
LARGEST_RATIO = 1032
BLOCK = 2**20  # bytes that are read at a time behind an array


def check_claim(path: Path, claimed: int) -> None:
    """Raise a ValueError if a file is too small to hold the bytes that it claims to hold."""
    size = path.stat().st_size
    if claimed > LARGEST_RATIO * max(size, 1):
        raise ValueError(f"a header that claims {claimed} bytes in a file of {size}")


def read_voxels(path: Path, image) -> np.ndarray:
    """The array of a NIfTI file that nibabel has opened as `image`.

    A compressed file is read to its end, where its checksum stands; nibabel stops before it.

    Raises:
        ValueError: it claims a size that it cannot have.
        OSError, EOFError, zlib.error: damaged.
    """
    count = int(np.prod(image.shape, dtype=object))
    check_claim(path, count * image.get_data_dtype().itemsize)
    if path.suffix.lower() != ".gz":
        return np.asarray(image.dataobj)
    with gzip.open(path) as file:
        array = np.asarray(type(image).from_stream(file).dataobj)
        while file.read(BLOCK):
            pass
    return array


def check_picture(path: Path) -> None:
    """Compare the checksums of a PNG file, some of which its decoder skips.

    Other formats have none.

    Raises:
        OSError, SyntaxError: damaged.
    """
    with Image.open(path) as picture:
        if picture.format == "PNG":
            picture.verify()

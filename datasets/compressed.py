"""Reading of compressed files with checks of their checksums and claimed sizes."""

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

# largest compression ratio of deflate; a corrupt header may claim an array of any size
LARGEST_RATIO = 1032
BLOCK = 2**20  # number of bytes read at a time behind an array


def check_claim(path: Path, claimed: int) -> None:
    """Raise a ValueError if a file is too small for the number of bytes that it claims to hold."""
    size = path.stat().st_size
    if claimed > LARGEST_RATIO * max(size, 1):
        raise ValueError(f"a header that claims {claimed} bytes in a file of {size}")


def read_voxels(path: Path, image) -> np.ndarray:
    """Array of a NIfTI file that nibabel has opened as `image`.

    A compressed file is read to its end, where its checksum is; nibabel stops before it.

    Raises:
        ValueError: the header claims an impossible size.
        OSError, EOFError, zlib.error: the file is damaged.
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
    """Verify all checksums of a PNG file, some of which the decoder skips.

    Other formats have no checksums and are not checked.

    Raises:
        OSError, SyntaxError: the file is damaged.
    """
    with Image.open(path) as picture:
        if picture.format == "PNG":
            picture.verify()

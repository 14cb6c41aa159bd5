"""Reading of NIfTI files with one grey volume each; needs nibabel, from the extra `io`."""

from pathlib import Path
from typing import Any

import numpy as np

from datasets.bad_input import reading, require
from datasets.compressed import read_voxels
from datasets.sample import DataError

NIFTI = (".nii", ".nii.gz")
GZIP = b"\x1f\x8b"


def is_nifti(path: Path) -> bool:
    """Whether a file has a suffix of NIfTI."""
    return path.name.lower().endswith(NIFTI)


def open_nifti(path: Path) -> tuple[Any, tuple[int, int, int]]:
    """`nibabel` image of a file, whose voxels are not read yet, and its shape (i, j, k).

    A file with two axes is a volume of one slice; a fourth and further axes must have length 1.

    Raises:
        DataError: the file is not a NIfTI file of one real volume, or nibabel is missing.
    """
    nibabel = require("nibabel")
    with reading(path, "a NIfTI volume"):
        _check_ending(path)
        image = nibabel.load(path)
        shape = tuple(image.shape) + (1,) * (3 - len(image.shape))
        if 0 in shape:
            raise ValueError(f"a shape of {shape}")
        if set(shape[3:]) - {1}:
            raise DataError(
                f"{path}: expected one volume, got a shape of {shape}: a series over time, or "
                "several contrasts; take out one, e.g. nibabel.load(path).slicer[..., 0], or "
                "leave the file out"
            )
        if image.get_data_dtype().kind not in "fiu":
            raise DataError(
                f"{path}: expected one real number a voxel, got {image.get_data_dtype()}; save "
                "the magnitude (of colours: grey levels), or leave the file out"
            )
    return image, shape[:3]


def read_nifti(path: Path) -> tuple[np.ndarray, Any]:
    """Volume ``(i, j, k)`` of a file, rescaled by its header, and its `nibabel` image.

    Raises:
        DataError: the file is not an intact NIfTI file of one real volume, or nibabel is missing.
    """
    image, shape = open_nifti(path)
    with reading(path, "an intact NIfTI volume"):
        return read_voxels(path, image).reshape(shape), image


def _check_ending(path: Path) -> None:
    """Raise a DataError if a compressed file has no suffix .gz, as nibabel relies on the suffix."""
    with path.open("rb") as file:
        compressed = file.read(len(GZIP)) == GZIP
    if compressed and not path.name.lower().endswith(".gz"):
        raise DataError(f"{path}: is compressed by gzip, but not named so; rename it to .nii.gz")

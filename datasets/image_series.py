"""A NIfTI file, DICOM file or DICOM series as a stack of slices that can be written back."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets.bad_input import reading, require
from datasets.dicom import is_dicom, read_dicom
from datasets.dicom_stacks import (
    describe_stacks,
    find_dicom,
    group_by_series,
    read_slice,
    split_stacks,
)
from datasets.nifti import is_nifti, read_nifti
from datasets.sample import DataError
from datasets.volume import AXES

CANONICAL = np.array([[0, 1], [1, 1], [2, 1]])  # nibabel's orientation (right, anterior, superior)


@dataclass(frozen=True)
class ImageSeries:
    """Stack of slices in the unit of the file.

    Attributes:
        images: float32 ``(n, H, W)``; of NIfTI files oriented as in `datasets.volume.Volumes`, of
            DICOM as stored.
        keys: keys of the slices, such as ``"t1.nii.gz:12"`` or ``"0012.dcm"``.
        files: files that were read, for DICOM one per slice.
        volume: geometry of the NIfTI file; None for DICOM.
    """

    images: np.ndarray
    keys: list[str]
    files: tuple[Path, ...]
    volume: "NiftiVolume | None"


@dataclass(frozen=True)
class NiftiVolume:
    """Geometry of the slices in a NIfTI file.

    Attributes:
        header: `nibabel.Nifti1Header` of the file.
        affine: ``(4, 4)`` affine of the file, from voxels to mm.
        axis: axis across the slices: 0, 1 or 2 for (right, anterior, superior).
        shape: shape of the array in the file, three axes.
    """

    header: Any
    affine: np.ndarray
    axis: int
    shape: tuple[int, int, int]

    @property
    def orientation(self) -> np.ndarray:
        """Anatomical axis and direction (1 or -1) of each axis of the array: ``(3, 2)``."""
        return require("nibabel").orientations.io_orientation(self.affine)

    def slices(self, array: np.ndarray) -> np.ndarray:
        """Slices ``(n, H, W)`` of the file's array ``(i, j, k)``."""
        volume = require("nibabel").orientations.apply_orientation(array, self.orientation)
        images = np.moveaxis(volume, self.axis, 0)  # (n, two of right, anterior, superior)
        return np.ascontiguousarray(images.transpose(0, 2, 1)[:, ::-1, ::-1])

    def array(self, images: np.ndarray) -> np.ndarray:
        """Array with the axes of the file from slices ``(n, H, W)``, the inverse of `slices`."""
        orientations = require("nibabel").orientations
        volume = np.moveaxis(images[:, ::-1, ::-1].transpose(0, 2, 1), 0, self.axis)
        back = orientations.ornt_transform(CANONICAL, self.orientation)
        return np.ascontiguousarray(orientations.apply_orientation(volume, back))

    def shift(self, numbers: range) -> np.ndarray:
        """Affine from the voxels of some slices, given by their numbers, to those of the file."""
        matrix = np.eye(4)
        j = int(np.flatnonzero(self.orientation[:, 0] == self.axis)[0])
        along = self.orientation[j, 1] > 0
        matrix[j, j] = numbers.step if len(numbers) > 1 else 1
        matrix[j, 3] = numbers[0] if along else self.shape[j] - 1 - numbers[-1]
        return matrix


def is_image_path(path: Path) -> bool:
    """Whether `path` is a NIfTI file, a DICOM file (by its first bytes) or a folder."""
    return path.is_dir() or is_nifti(path) or is_dicom(path)


def open_images(path: Path, *, axis: str = "") -> ImageSeries:
    """Slices of a NIfTI file, a DICOM file, or the only DICOM series in or below a folder.

    Args:
        path: file or folder.
        axis: NIfTI only: "axial" (also for ""), "coronal" or "sagittal", by the orientation in the
            header. DICOM slices are read as stored, in order along their normal.

    Raises:
        DataError: nothing is readable, there are several series, or slices have different sizes or
            values that are not finite.
    """
    if path.is_dir() or not is_nifti(path):
        if axis:
            raise DataError(f"{path}: expected no data.axis for DICOM, got '{axis}'; set it to ''")
        return _open_dicom(path)
    return _open_nifti(path, axis or "axial")


def _open_nifti(path: Path, axis: str) -> ImageSeries:
    if axis not in AXES:
        raise DataError(f"unknown data.axis '{axis}'; known: {', '.join(AXES)}")
    array, image = read_nifti(path)
    with reading(path, "a NIfTI volume with an orientation"):
        volume = NiftiVolume(image.header, image.affine, AXES[axis], array.shape)
        slices = volume.slices(array.astype(np.float32))
    keys = [f"{path.name}:{i}" for i in range(len(slices))]
    return ImageSeries(_finite(slices, path), keys, (path,), volume)


def _open_dicom(path: Path) -> ImageSeries:
    files = _series(path) if path.is_dir() else (path,)
    images = [read_dicom(file) for file in files]
    for file, image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                f"{file}: expected a slice of {images[0].shape} as in {files[0]}, got "
                f"{image.shape}; take it out of the series"
            )
    root = path if path.is_dir() else path.parent
    keys = [file.relative_to(root).as_posix() for file in files]
    return ImageSeries(_finite(np.stack(images), path), keys, files, None)


def _series(folder: Path) -> tuple[Path, ...]:
    """Files of the only stack in or below `folder`, ordered along the normal of the slices."""
    images = [read_slice(folder / name) for name in find_dicom(folder)]
    series = group_by_series(image for image in images if image is not None)
    stacks = {
        f"{' of series ' + uid if len(series) > 1 else ''}{label}": stack
        for uid, slices in series.items()
        for label, stack in split_stacks(slices).items()
    }
    if len(stacks) != 1:
        what = f"{len(series)} series" if len(series) != 1 else f"{len(stacks)} stacks of a series"
        raise DataError(
            f"{folder}: expected the files of one DICOM series, got {what}"
            f"{': ' if stacks else ''}{describe_stacks(stacks)}; give a folder with one of them, "
            "or a file"
        )
    return tuple(image.path for image in next(iter(stacks.values())))


def _finite(images: np.ndarray, path: Path) -> np.ndarray:
    bad = np.flatnonzero(~np.isfinite(images).all((1, 2)))
    if len(bad):
        raise DataError(
            f"{path}: expected finite values, got NaN or infinite ones in slices "
            f"{bad[:8].tolist()}; repair the file"
        )
    return images

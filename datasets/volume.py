"""Slices of volumes in NIfTI files or DICOM series, along an anatomical axis.

Needs nibabel, and pydicom for DICOM, from the extra `io`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from datasets.bad_input import Skips, reading, require
from datasets.compressed import check_claim
from datasets.dicom import parse_window, read_dicom, read_header
from datasets.dicom_stacks import (
    SUFFIXES,
    DicomSlice,
    find_dicom,
    group_by_series,
    read_slice,
    split_stacks,
)
from datasets.discovery import find_files
from datasets.fit import check_fit, check_size, fit_square
from datasets.nifti import NIFTI, is_nifti, open_nifti, read_nifti
from datasets.sample import DataError, Sample, make_sample
from datasets.slices import SliceDataset, check_normalize, choose_slices
from datasets.splits import (
    check_root,
    check_split,
    folder_split,
    known_people,
    read_split_list,
    seeded_split,
)

AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # axis of an array (right, anterior, superior)


@dataclass(frozen=True)
class VolumeSource:
    """Files of one volume: a NIfTI file, or the slices of a DICOM stack in order."""

    name: str
    files: tuple[Path, ...]
    shape: tuple[int, int, int]  # along (right, anterior, superior)


@dataclass(frozen=True)
class Found:
    """Volumes in the folder of the data: the files of each, and the identity of its person."""

    files: dict[str, tuple[Path, ...]]
    identities: dict[str, str]


class Volumes(SliceDataset):
    """Slices of volumes, each scaled to [0, 1]; made by `open_volume`.

    Items are `Sample` without extras, in radiological view: anterior (or superior) up, the
    patient's right on the left, in sagittal slices the nose on the left. Pixels are not resampled
    to equal spacing. The last volume read is kept in memory; for training, ``data.cache=disk``
    avoids reading a volume for each slice.
    """

    def __init__(
        self,
        slices: Sequence[tuple[VolumeSource, int]],
        *,
        axis: int,
        image_size: int | None,
        fit: str,
        window: tuple[float, float] | None,
        percentiles: tuple[float, float] | None,
        normalize: str,
        skipped: Sequence[str] = (),
    ):
        super().__init__(slices, normalize=normalize, skipped=skipped)
        self.axis = axis
        self.image_size = image_size
        self.fit = fit
        self.window = window
        self.percentiles = percentiles

    @property
    def files(self) -> list[Path]:
        """Files of all volumes, each once."""
        return [path for source in super().files for path in source.files]

    def read(self, source: VolumeSource, indices: Sequence[int]) -> list[Sample]:
        """Samples of some slices of one volume."""
        volume, bounds = self.volume(source), self.bounds(source)
        samples = []
        for index in indices:
            image = np.take(volume, index, axis=self.axis).T[::-1, ::-1]  # (H, W)
            image = fit_square(np.ascontiguousarray(image), self.image_size, self.fit)
            samples.append(make_sample(image, f"{source.name}:{index}", bounds=bounds))
        return samples

    def volume(self, source: VolumeSource) -> np.ndarray:
        """Volume (right, anterior, superior), float32, clipped to its window or percentiles."""
        times = tuple(path.stat().st_mtime_ns for path in source.files if path.exists())
        return _load_clipped(source, times, self.window, self.percentiles)


def open_volume(
    root: str | Path,
    split: str,
    *,
    image_size: int | None = None,
    axis: str = "axial",
    slices: str = "all",
    window: str = "",
    percentiles: str = "",
    fit: str = "pad",
    normalize: str = "slice",
    split_seed: int = 0,
    split_list: str = "",
    skip_bad: bool = False,
) -> Volumes:
    """Data set of the volumes of a split in or below `root`, each of whose headers is checked.

    NIfTI files (``.nii``, ``.nii.gz``) are used if there are any, otherwise DICOM files (``.dcm``,
    ``.ima``, and others with DICOM's magic bytes). A DICOM volume is a stack of parallel slices of
    one series, echo and part (see `dicom_stacks.split_stacks`). It is named after its folder and,
    if the folder has several, a ``#`` and what distinguishes it. Phase, real and imaginary parts
    are left out if there are magnitudes. Folders ``train``, ``val`` and ``test`` below `root` are
    the splits; otherwise volumes are split by `split_seed`, with those of a person together (DICOM:
    PatientID; see `splits.seeded_split`).

    Args:
        root: folder of the data.
        split: "train", "val" or "test".
        image_size: side in pixels of the square images; None or 0 keeps the size of slices.
        axis: "axial", "coronal" or "sagittal", by the orientation in the header.
        slices: slices of each volume, from inferior, posterior or left, see
            `slices.choose_slices`.
        window: "LEVEL,WIDTH" in the unit of the file (CT: Hounsfield) to clip to; "" for none.
        percentiles: "LOW,HIGH", from 0 to 100, of each volume to clip to; "" for none.
        fit: how slices become square, see `fit.fit_square`.
        normalize: whether to scale over each "slice" or its "volume" (after clipping).
        split_seed: chooses the volumes of a split if there are no folders for it.
        split_list: path of a text file of names (paths relative to `root`; for DICOM names as
            above, where "." is `root` itself).
        skip_bad: whether to skip volumes that cannot be used.

    Raises:
        DataError: nothing usable is found, a volume cannot be read as requested, or nibabel or
            pydicom is missing.
    """
    check_split(split)
    check_fit(fit)
    check_normalize(normalize)
    if axis not in AXES:
        raise DataError(f"unknown data.axis '{axis}'; known: {', '.join(AXES)}")
    bounds, percents = parse_window(window), _parse_percentiles(percentiles)
    folder, skips = check_root(root), Skips(skip_bad)
    require("nibabel")
    found = _find_nifti(folder)
    if not found.files:
        found = _find_stacks(folder, skips)
    if not found.files:
        reason = f"; left out: {skips.reasons[0]}" if skips.reasons else ""
        raise DataError(
            f"{root}: expected {', '.join(NIFTI + SUFFIXES)} files in it or below, got none; set "
            f"data.root to their folder{reason}"
        )
    items: list[tuple[VolumeSource, int]] = []
    for name in _split_names(folder, found, split, split_seed, split_list, skips):
        with skips.guard():
            files = found.files[name]
            source = VolumeSource(name, files, _shape(files))
            plane = tuple(n for i, n in enumerate(source.shape) if i != AXES[axis])
            check_size(files[0], plane, image_size, fit)
            count = source.shape[AXES[axis]]
            items += [(source, i) for i in choose_slices(slices, count, files[0])]
    if not items:
        raise DataError(f"{root}: every volume was left out: {skips.reasons[0]}")
    return Volumes(
        items,
        axis=AXES[axis],
        image_size=image_size,
        fit=fit,
        window=bounds,
        percentiles=percents,
        normalize=normalize,
        skipped=skips.reasons,
    )


def _find_nifti(folder: Path) -> Found:
    return Found({name: (folder / name,) for name in find_files(folder, NIFTI)}, {})


def _find_stacks(folder: Path, skips: Skips) -> Found:
    """DICOM stacks by name."""
    by_folder: dict[str, list[DicomSlice]] = {}
    for name in find_dicom(folder):
        with skips.guard():
            image = read_slice(folder / name)
            if image is not None:
                _check_place(image)
                parent = Path(name).parent.as_posix()
                by_folder.setdefault(parent, []).append(image)
    stacks: dict[str, tuple[DicomSlice, ...]] = {}
    for parent, images in by_folder.items():
        series = group_by_series(images)
        for uid, slices in series.items():
            name = f"{parent}#{uid}" if len(series) > 1 else parent
            with skips.guard():
                stacks |= {name + label: stack for label, stack in split_stacks(slices).items()}
    stacks = _only_magnitudes(stacks, skips)
    return Found(
        {name: tuple(image.path for image in stack) for name, stack in stacks.items()},
        {name: stack[0].person for name, stack in stacks.items()},
    )


def _check_place(image: DicomSlice) -> None:
    if image.position is None:
        raise DataError(
            f"{image.path}: expected a DICOM slice with position and orientation "
            "(ImagePositionPatient, ImageOrientationPatient), got none, as of screenshots and "
            "scanned documents; take it out"
        )


def _only_magnitudes(
    stacks: dict[str, tuple[DicomSlice, ...]], skips: Skips
) -> dict[str, tuple[DicomSlice, ...]]:
    """The stacks without phase, real and imaginary parts, if there are magnitudes."""
    kept = {name: stack for name, stack in stacks.items() if stack[0].part == "magnitude"}
    if not kept:
        return stacks
    for name, stack in stacks.items():
        if name not in kept:
            skips.leave_out(f"{name}: {len(stack)} slices of the {stack[0].part}, not magnitude")
    return kept


def _split_names(
    folder: Path, found: Found, split: str, seed: int, split_list: str, skips: Skips
) -> list[str]:
    names = sorted(found.files)
    if split_list:
        stems = {name.removesuffix(".gz").removesuffix(".nii"): name for name in names}
        known = stems | {name: name for name in names}
        return [known[name] for name in read_split_list(split_list, split, known, skips)]
    # the name of a DICOM stack is its folder
    paths = {f"{name}/" if found.identities else name: name for name in names}
    by_folder = folder_split(list(paths), split, folder)
    if by_folder is not None:
        return [paths[path] for path in by_folder]
    people = known_people(found.identities, folder)
    return seeded_split(names, split, seed, folder, people=people)


def _shape(files: tuple[Path, ...]) -> tuple[int, int, int]:
    """Shape (right, anterior, superior) of a volume, from headers only.

    Raises:
        DataError: the volume is not three-dimensional, or implausibly large for the file.
    """
    nibabel = require("nibabel")
    if is_nifti(files[0]):
        image, shape = open_nifti(files[0])
        with reading(files[0], "a NIfTI volume"):
            affine = image.affine
            claimed = int(np.prod(shape, dtype=object)) * image.get_data_dtype().itemsize
            check_claim(files[0], claimed)
    else:
        header = read_header(files[0])
        with reading(files[0], "a DICOM slice with position and orientation"):
            shape = (len(files), int(header.Rows), int(header.Columns))
            affine = _dicom_affine(files)
    with reading(files[0], "a volume with an orientation"):
        axes = nibabel.orientations.io_orientation(affine)[:, 0]
        return tuple(shape[list(axes).index(i)] for i in range(3))


@lru_cache(maxsize=1)
def _load_clipped(
    source: VolumeSource,
    times: tuple[int, ...],
    window: tuple[float, float] | None,
    percentiles: tuple[float, float] | None,
) -> np.ndarray:
    """Volume (right, anterior, superior), float32; `times` of its files are a key of the cache."""
    volume = _load(source.files)
    if percentiles and np.isfinite(volume).all():  # the error for NaN comes with the slice
        window = tuple(np.percentile(volume, percentiles))
    return volume if window is None else np.clip(volume, *map(np.float32, window))


def _load(files: tuple[Path, ...]) -> np.ndarray:
    nibabel = require("nibabel")
    if is_nifti(files[0]):
        volume, image = read_nifti(files[0])
        affine = image.affine
    else:
        volume, affine = _stack_series(files), _dicom_affine(files)
    orientation = nibabel.orientations.io_orientation(affine)
    oriented = nibabel.orientations.apply_orientation(volume, orientation)
    return np.ascontiguousarray(oriented, dtype=np.float32)


def _stack_series(files: tuple[Path, ...]) -> np.ndarray:
    slices = [read_dicom(path) for path in files]
    for path, image in zip(files, slices, strict=True):
        if image.shape != slices[0].shape:
            raise DataError(
                f"{path}: expected a slice of {slices[0].shape} as in {files[0]}, got "
                f"{image.shape}; take it out of the series"
            )
    return np.stack(slices)  # (slices, rows, columns)


def _dicom_affine(files: tuple[Path, ...]) -> np.ndarray:
    """Affine from (slice, row, column) to (right, anterior, superior), without offset.

    DICOM's x and y point to the patient's left and back.
    """
    header = read_header(files[0])
    with reading(files[0], "a DICOM slice with position and orientation"):
        along_row, along_column = np.split(_vector(header.ImageOrientationPatient), 2)
        affine = np.eye(4)
        affine[:3, :3] = np.stack([_normal(header), along_column, along_row], axis=1)
    affine[:2] *= -1
    return affine


def _normal(header) -> np.ndarray:
    return np.cross(*np.split(_vector(header.ImageOrientationPatient), 2))


def _vector(values) -> np.ndarray:
    return np.array([float(value) for value in values])


def _parse_percentiles(text: str) -> tuple[float, float] | None:
    if not text:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 100:
        raise DataError(f"expected data.percentiles as LOW,HIGH such as 1,99, got '{text}'")
    return low, high

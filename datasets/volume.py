"""Volumes as NIfTI files or DICOM series: slices along an anatomical axis.

Needs nibabel, and for DICOM pydicom: the extra `io`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from datasets.bad_input import Skips, reading, require
from datasets.compressed import check_claim, read_voxels
from datasets.dicom import parse_window, read_dicom, read_header
from datasets.fit import check_fit, check_size, fit_square
from datasets.image_folder import find_files
from datasets.sample import DataError, Sample, make_sample
from datasets.slices import SliceDataset, check_normalize, choose_slices
from datasets.splits import SPLITS, check_root, check_split, read_split_list, seeded_split

NIFTI, DICOM = (".nii", ".nii.gz"), (".dcm", ".ima")
AXES = {"sagittal": 0, "coronal": 1, "axial": 2}  # of an array along (right, anterior, superior)


@dataclass(frozen=True)
class VolumeSource:
    """The files of one volume: a NIfTI file, or the slices of a DICOM series in order."""

    name: str
    files: tuple[Path, ...]
    shape: tuple[int, int, int]  # along (right, anterior, superior)


class Volumes(SliceDataset):
    """Slices of volumes, each scaled to [0, 1]; made by `open_volume`.

    Items are `Sample`, without extras, seen as radiologists do: anterior (or superior) up, the
    patient's right on the left, in sagittal slices the nose on the left. Pixels stay as they are:
    no correction of their spacing. The last volume read is kept in memory; for training,
    ``data.cache=disk`` spares reading a volume for each slice.
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
        """Every file that is read, once."""
        return [path for source in super().files for path in source.files]

    def read(self, source: VolumeSource, indices: Sequence[int]) -> list[Sample]:
        """The samples of some slices of one volume."""
        volume, bounds = self.volume(source), self.bounds(source)
        samples = []
        for index in indices:
            image = np.take(volume, index, axis=self.axis).T[::-1, ::-1]  # (H, W)
            image = fit_square(np.ascontiguousarray(image), self.image_size, self.fit)
            samples.append(make_sample(image, f"{source.name}:{index}", bounds=bounds))
        return samples

    def volume(self, source: VolumeSource) -> np.ndarray:
        """A volume along (right, anterior, superior), clipped to its window."""
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
    """Find the volumes of a split anywhere below `root` and check each one's header.

    NIfTI files (``.nii``, ``.nii.gz``) count where there are any, else DICOM series (``.dcm``,
    ``.ima``; a series is told by its SeriesInstanceUID and named after its folder). With folders
    ``train``, ``val``, ``test`` in `root` these are the splits; otherwise volumes are split by
    `split_seed`.

    Args:
        root: folder of the data.
        split: "train", "val" or "test".
        image_size: side of the square that slices become; None or 0 keeps their size.
        axis: "axial", "coronal" or "sagittal", by the header's orientation.
        slices: of each volume, from inferior, posterior or left, see `slices.choose_slices`.
        window: "LEVEL,WIDTH" in the file's unit (CT: Hounsfield) to clip to; "": all.
        percentiles: "LOW,HIGH", 0 to 100, of each volume's values to clip to; "": all.
        fit: how slices become square, see `fit.fit_square`.
        normalize: "slice" or "volume", scaled over what (after clipping).
        split_seed: chooses the volumes of a split where folders do not.
        split_list: path of a text file of names (paths below `root`; DICOM: of the folder).
        skip_bad: leave out volumes that cannot be used.

    Raises:
        DataError: nothing usable is found, a volume cannot give what is asked, or nibabel or
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
    found = _find_nifti(folder) or _find_series(folder, skips)
    if not found:
        raise DataError(
            f"{root}: expected {', '.join(NIFTI + DICOM)} files in it or below, got none; set "
            "data.root to their folder"
        )
    items: list[tuple[VolumeSource, int]] = []
    for name in _split_names(folder, sorted(found), split, split_seed, split_list, skips):
        with skips.guard():
            source = VolumeSource(name, found[name], _shape(found[name]))
            plane = tuple(n for i, n in enumerate(source.shape) if i != AXES[axis])
            check_size(found[name][0], plane, image_size, fit)
            count = source.shape[AXES[axis]]
            items += [(source, i) for i in choose_slices(slices, count, found[name][0])]
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


def _find_nifti(folder: Path) -> dict[str, tuple[Path, ...]]:
    names = [n for n in find_files(folder, (".nii", ".gz")) if n.lower().endswith(NIFTI)]
    return {name: (folder / name,) for name in names}


def _find_series(folder: Path, skips: Skips) -> dict[str, tuple[Path, ...]]:
    """DICOM series by name, their files along the slices' normal."""
    series: dict[tuple[str, str], list[tuple[float, Path]]] = {}
    for name in find_files(folder, DICOM):
        with skips.guard():
            path, header = folder / name, read_header(folder / name)
            with reading(path, "a DICOM slice with position and orientation"):
                where = float(_normal(header) @ _vector(header.ImagePositionPatient))
                parent = path.parent.relative_to(folder).as_posix()
                uid = str(header.SeriesInstanceUID)
                series.setdefault((parent, uid), []).append((where, path))
    folders = [parent for parent, _ in series]
    found = {}
    for (parent, uid), slices in series.items():
        name = f"{parent}#{uid}" if folders.count(parent) > 1 else parent
        found[name] = tuple(path for _, path in sorted(slices))
    return found


def _split_names(
    folder: Path, names: list[str], split: str, seed: int, split_list: str, skips: Skips
) -> list[str]:
    if split_list:
        stems = {name.removesuffix(".gz").removesuffix(".nii"): name for name in names}
        known = stems | {name: name for name in names}
        return [known[name] for name in read_split_list(split_list, split, known, skips)]
    if not all((folder / name).is_dir() for name in ("train", "val")):
        return seeded_split(names, split, seed, folder)
    chosen = [name for name in names if name.split("/")[0] == split]
    if not chosen:
        there = [name for name in SPLITS if (folder / name).is_dir()]
        raise DataError(
            f"{folder}: expected volumes in its folder '{split}', got none (folders: {there}); "
            "use another split, add the folder, or name the volumes with data.split_list"
        )
    return chosen


def _shape(files: tuple[Path, ...]) -> tuple[int, int, int]:
    """Shape along (right, anterior, superior), from headers alone.

    Raises:
        DataError: not three-dimensional, or implausibly large for the file.
    """
    nibabel = require("nibabel")
    if files[0].name.lower().endswith(NIFTI):
        with reading(files[0], "a NIfTI volume"):
            image = nibabel.load(files[0])
            shape, affine = _three_axes(image.shape), image.affine
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


def _three_axes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The first three axes, if the others are of length 1."""
    if len(shape) < 3 or 0 in shape or set(shape[3:]) - {1}:
        raise ValueError(f"a shape of {shape}; take out series over time, they are not volumes")
    return tuple(shape[:3])


@lru_cache(maxsize=1)
def _load_clipped(
    source: VolumeSource,
    times: tuple[int, ...],
    window: tuple[float, float] | None,
    percentiles: tuple[float, float] | None,
) -> np.ndarray:
    """A volume along (right, anterior, superior), float32; `times` of its files tell versions."""
    volume = _load(source.files)
    if percentiles and np.isfinite(volume).all():  # the error for NaN comes with the slice
        window = tuple(np.percentile(volume, percentiles))
    return volume if window is None else np.clip(volume, *map(np.float32, window))


def _load(files: tuple[Path, ...]) -> np.ndarray:
    nibabel = require("nibabel")
    if files[0].name.lower().endswith(NIFTI):
        with reading(files[0], "an intact NIfTI volume"):
            image = nibabel.load(files[0])
            volume = read_voxels(files[0], image).reshape(_three_axes(image.shape))
            if volume.dtype.kind not in "fiu":
                raise ValueError(f"numbers of type {volume.dtype}")
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
    """(slice, row, column) to (right, anterior, superior), for directions only: no offset.

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

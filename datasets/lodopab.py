"""LoDoPaB-CT: chest slices from the public ``ground_truth_*.hdf5`` files, as downloaded.

A file holds `data` (slices, 362, 362) float32 with up to 128 slices: linear attenuation divided by
81.35858 / m, in [0, 1] (water 0.246). Leuschner et al. 2021, "LoDoPaB-CT, a benchmark dataset for
low-dose computed tomography reconstruction".
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from skimage.transform import resize

from datasets.bad_input import Skips, reading
from datasets.discovery import find_files
from datasets.hdf5 import open_hdf5, read_slices, volume_shape
from datasets.sample import DataError, Sample, make_sample
from datasets.slices import SliceDataset, check_normalize, choose_slices
from datasets.splits import check_root, check_split, files_by_name, first_number

IMAGE_KEY = "data"
PATIENTS = "patient_ids_rand_{}.csv"  # list of patients of a part
# attenuation in 1 / m of water, of air, and of 3071 HU, WATER + 3.071 (WATER - AIR), by which the
# files' values are divided (Leuschner et al. 2021)
WATER, AIR, LARGEST = 20.0, 0.02, 81.35858
FILE_SLICES = 128  # number of slices of every file but the last
PARTS = {"train": "train", "val": "validation", "test": "test"}  # split -> part of the file name


class LoDoPaB(SliceDataset):
    """Slices of LoDoPaB files, upright, each scaled to [0, 1]; made by `open_lodopab`.

    Items are `Sample` without extras. The slices in the files lie on their side; they are rotated
    by -90 degrees (clockwise) as in the study, which puts the patient's left on the left.
    """

    is_stack = False  # a file has slices of several patients
    hounsfield = (1000 * LARGEST / (WATER - AIR), -1000 * WATER / (WATER - AIR))

    def __init__(
        self,
        slices: Sequence[tuple[Path, int]],
        *,
        image_size: int | None = None,
        normalize: str = "slice",
        skipped: Sequence[str] = (),
        people: Mapping[str, str] | None = None,
    ):
        super().__init__(slices, normalize=normalize, skipped=skipped)
        self.image_size = image_size
        self.people = dict(people or {})

    def read(self, source: Path, indices: Sequence[int]) -> list[Sample]:
        """Samples of some slices of one file."""
        with open_hdf5(source) as file:
            images = read_slices(file[IMAGE_KEY], indices)
            bounds = self.bounds(source)
        return [
            make_sample(self._upright(image), f"{source.name}:{index}", bounds=bounds)
            for image, index in zip(images, indices, strict=True)
        ]

    def volume(self, source: Path) -> np.ndarray:
        """All slices of a file as stored: ``(slices, 362, 362)``."""
        with open_hdf5(source) as file:
            return file[IMAGE_KEY][()]

    def _upright(self, image: np.ndarray) -> np.ndarray:
        image = np.rot90(image, k=-1)  # (H, W)
        if self.image_size and image.shape[0] != self.image_size:
            return resize(image, (self.image_size, self.image_size), anti_aliasing=True)
        return image


def open_lodopab(
    root: str | Path,
    split: str,
    *,
    image_size: int | None = None,
    subset: str = "",
    slices: str = "all",
    normalize: str = "slice",
    skip_bad: bool = False,
) -> LoDoPaB:
    """Data set of the files of a split in or below `root`, each of which is checked.

    A file has slices of several patients. If the archive's lists of patients are also below `root`
    (``patient_ids_rand_{train,validation,test}.csv``, one number per slice, in the order of the
    files), they give the data set's `people`, the units of confidence intervals. The public splits
    are by patient in any case.

    Args:
        root: folder with ``ground_truth_{train,validation,test}_*.hdf5`` in or below it.
        split: "train", "val" ("validation" in file names) or "test".
        image_size: side in pixels to resize to, anti-aliased; None or 0 keeps 362.
        subset: "first:N": only the first N files of the split by name; "" for all.
        slices: slices of each file, see `slices.choose_slices`.
        normalize: whether to scale over each "slice" or its "volume" (a file of 128 slices, which
            are of several patients).
        skip_bad: whether to skip files that cannot be used.

    Raises:
        DataError: nothing is found, or a file cannot be read as requested.
    """
    check_split(split)
    check_normalize(normalize)
    number = first_number(subset, "files")
    skips = Skips(skip_bad)
    folder, pattern = check_root(root), f"ground_truth_{PARTS[split]}_*.hdf5"
    found = [folder / name for name in find_files(folder, (".hdf5",))]
    paths = files_by_name([p for p in found if fnmatch(p.name, pattern)], skips).values()
    if not paths:
        raise DataError(
            f"{root}: expected files {pattern} in it or below, got none; set data.root to the "
            "folder of the unpacked archives"
        )
    if len(paths) < number:
        raise DataError(
            f"{root}: expected at least {number} files {pattern} for data.subset '{subset}', got "
            f"{len(paths)}; ask for fewer, or complete the download"
        )
    items: list[tuple[Path, int]] = []
    for path in list(paths)[: number or None]:
        with skips.guard():
            count = _check_file(path, image_size)
            items += [(path, index) for index in choose_slices(slices, count, path)]
    if not items:
        raise DataError(f"{root}: every file of split '{split}' was left out: {skips.reasons[0]}")
    return LoDoPaB(
        items,
        image_size=image_size,
        normalize=normalize,
        skipped=skips.reasons,
        people=_people(check_root(root), PARTS[split], items),
    )


def _people(folder: Path, part: str, items: Sequence[tuple[Path, int]]) -> dict[str, str]:
    """Key -> patient from the archive's list; empty if there is no list."""
    lists = find_files(folder, (PATIENTS.format(part),))
    if not lists:
        return {}
    path = folder / lists[0]
    with reading(path, "a list of numbers, one per line"):
        numbers = np.loadtxt(path, dtype=int, ndmin=1)
    places = [(source, i, FILE_SLICES * _number(source) + i) for source, i in items]
    missing = [f"{source.name}:{i}" for source, i, place in places if place >= len(numbers)]
    if missing:
        raise DataError(
            f"{path}: expected a number for each slice, got {len(numbers)}, none for {missing[0]}; "
            "copy the archive's list again, or take it out"
        )
    return {f"{source.name}:{i}": f"patient {numbers[place]}" for source, i, place in places}


def _number(path: Path) -> int:
    """Number of a file in its split, such as 12 for ``ground_truth_train_012.hdf5``."""
    return int(re.sub(r"\D", "", path.stem.rpartition("_")[2]) or 0)


def _check_file(path: Path, image_size: int | None) -> int:
    """Number of slices of a file; a DataError if the file cannot be used."""
    with open_hdf5(path) as file:
        count, height, width = volume_shape(file, path, IMAGE_KEY)
    if height != width or height < (image_size or 1):
        raise DataError(
            f"{path}: expected square slices of at least {image_size or 1} pixels, got "
            f"{height} x {width}; set data.image_size to at most {min(height, width)}"
        )
    return count

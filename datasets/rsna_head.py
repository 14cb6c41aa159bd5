"""RSNA intracranial haemorrhage: head CT slices, from the original DICOM files or a PNG export.

The public archive holds ``stage_2_train/ID_*.dcm`` and ``stage_2_test/ID_*.dcm``, with one slice of
512 x 512 per file. Flanders et al. 2020, "Construction of a machine learning dataset through
collaboration: the RSNA 2019 brain CT hemorrhage challenge".
"""

import logging
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from datasets.bad_input import Skips, require
from datasets.dicom import check_dicom, parse_window, read_dicom, read_patient
from datasets.discovery import find_files
from datasets.image_folder import ImageFolder, check_pictures
from datasets.parallel import map_items
from datasets.sample import DataError
from datasets.slices import check_normalize
from datasets.splits import (
    check_root,
    check_split,
    known_people,
    read_split_list,
    seeded_split,
)

log = logging.getLogger(__name__)

BRAIN_WINDOW = "40,80"  # level and width in Hounsfield units
TEST_FOLDER = re.compile(r"(?:.*/)?stage_\d_test(?:_images)?/.*")


def open_rsna_head(
    root: str | Path,
    split: str,
    *,
    image_size: int | None = None,
    window: str = BRAIN_WINDOW,
    normalize: str = "slice",
    split_seed: int = 0,
    split_list: str = "",
    skip_bad: bool = False,
) -> ImageFolder:
    """Data set of the slices of a split in or below `root`, whose file types are checked.

    DICOM files are used if there are any, otherwise png files (an export, whose window is kept).
    Files in a folder ``stage_*_test`` are the test split, and the others are divided into train and
    val; without such a folder all are divided by `split_seed`. All slices of a patient by the DICOM
    headers are in one split, except for patients in both folders, of which a warning is logged. PNG
    files do not name patients: give a `split_list` for a clean separation.

    Args:
        root: folder of the data set.
        split: "train", "val" or "test".
        image_size: side in pixels to resize to, anti-aliased; None or 0 keeps the size.
        window: "LEVEL,WIDTH" in Hounsfield units to which DICOM values are clipped.
        normalize: "slice" to scale over each slice, or "volume" (DICOM only) to map the bounds of
            the window to 0 and 1.
        split_seed: chooses the files of a split if there are no folders for it.
        split_list: path of a text file of names (paths relative to `root`, or file names).
        skip_bad: whether to skip files that cannot be used.

    Raises:
        DataError: nothing usable is found, or pydicom is missing.
    """
    check_split(split)
    check_normalize(normalize)
    folder, skips, bounds = check_root(root), Skips(skip_bad), parse_window(window, BRAIN_WINDOW)
    names, dicom = find_files(folder, (".dcm",)), True
    if not names:
        names, dicom = find_files(folder, (".png",)), False
    if not names:
        raise DataError(
            f"{root}: expected .dcm or .png files in it or below, got none; set data.root to the "
            "folder of the unpacked archive"
        )
    people = _people(folder, names) if dicom else {}
    names = _split_names(folder, names, split, split_seed, split_list, skips, people)
    if not dicom:
        if normalize != "slice":
            raise DataError(f"{root}: PNG exports have no window; set data.normalize to slice")
        names = check_pictures(folder, names, image_size, "resize", skips)
        return ImageFolder(folder, names, image_size=image_size, skipped=skips.reasons)
    require("pydicom")  # before a long search for bad files
    names = _check_files(folder, names, skips)
    return ImageFolder(
        folder,
        names,
        image_size=image_size,
        read=partial(read_windowed, bounds=bounds),
        bounds=bounds if normalize == "volume" else None,
        skipped=skips.reasons,
        people={name: people[name] for name in names if name in people},
        hounsfield=(1.0, 0.0),
    )


def read_windowed(path: Path, *, bounds: tuple[float, float]) -> np.ndarray:
    """Slice in Hounsfield units, clipped to `bounds`: float32 ``(H, W)``."""
    return np.clip(read_dicom(path, fix_wrapped=True), *map(np.float32, bounds))


def _people(folder: Path, names: list[str]) -> dict[str, str]:
    """File -> person, if the headers distinguish people."""
    require("pydicom")
    found: dict[str, str] = {}
    read = partial(_read_patients, folder, names)
    for part in map_items(read, len(names), label="reading patients"):
        found |= part
    return known_people(found, folder)


def _read_patients(folder: Path, names: list[str], items: Sequence[int]) -> dict[str, str]:
    return {names[i]: read_patient(folder / names[i]) for i in items}


def _split_names(
    folder: Path,
    names: list[str],
    split: str,
    seed: int,
    split_list: str,
    skips: Skips,
    people: dict[str, str],
) -> list[str]:
    if split_list:
        by_name = {Path(name).name: name for name in names} | {name: name for name in names}
        chosen = read_split_list(split_list, split, by_name, skips)
        return [by_name[name] for name in chosen]
    held_out = [name for name in names if TEST_FOLDER.fullmatch(name)]
    tested = {people[name] for name in held_out if name in people}
    both = {people[name] for name in set(names) - set(held_out) if people.get(name) in tested}
    if both:
        log.warning(
            "%s: %d patients are in the archive's training and test folders", folder, len(both)
        )
    if held_out and split == "test":
        return held_out
    others = sorted(set(names) - set(held_out))
    if not held_out:
        return seeded_split(others, split, seed, folder, people=people)
    val = set(seeded_split(others, "val", seed, folder, people=people))
    return [name for name in others if (name in val) == (split == "val")]


def _check_files(folder: Path, names: list[str], skips: Skips) -> list[str]:
    good = []
    for name in names:
        with skips.guard():
            check_dicom(folder / name)
            good.append(name)
    if not good:
        raise DataError(f"{folder}: every file was left out: {skips.reasons[0]}")
    return good

"""Images of the study in small: those that the priors are fitted to, and the test sets.

`write_inputs` makes folders of small pictures out of a folder of data:

    photos_cc/{train,val}/*.png        photographs
    mr_t1_people.h5                    T1, a data set (slices, H, W) a person
    mr_people/*_{FLAIR,T2W}.nii.gz     other contrasts, names begin with the person
    ct_lung.h5                         chest CT in Hounsfield units, (slices, H, W) a series
    ct_people/PERSON/VIEW_*.dcm        chest CT, single slices: axial, coronal, sagittal

or, for a trial, out of the embedded samples. Test pictures are tests/SET/PERSON_SLICE.png.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from configs.small_study import IMAGES, SIDE
from datasets import create_dataset
from datasets.dicom import read_dicom
from datasets.files import locked, replacing, write_atomically
from datasets.fit import centre_crop, fit_square
from datasets.nifti import read_nifti
from datasets.sample import DataError

Picture = tuple[str, np.ndarray | Path]  # name without suffix, and (H, W) or the file of a picture

VALIDATION_PHOTOS = 42  # of photos_cc/val; the others are tested
PHOTO_SIDE = 224  # pixels to which the shorter side of a test photograph is scaled, then cropped
BRAIN_SLICES = (3, 4, 5, 6)  # the others are empty, or damaged
BRAIN_TRAIN, BRAIN_VAL, BRAIN_TEST = range(27), range(27, 30), range(30, 45)
BRAIN_TEST_SLICES = (4, 6)
AIR_TO_BONE = (-1000.0, 1000.0)  # Hounsfield units
CT_TRAIN, CT_VAL = 2, 1  # people of ct_people, the first by name; the others are tested
NEEDED = ("photos_cc", "mr_t1_people.h5", "mr_people", "ct_lung.h5", "ct_people")
DONE = "source.txt"


def write_inputs(out: Path, folder: Path | None) -> None:
    """Write all pictures to `out`, unless that is done.

    Args:
        out: folder of the pictures.
        folder: the data, see above; None for the embedded samples.

    Raises:
        DataError: data are missing or unreadable, or `out` was made of others.
    """
    source = "embedded samples" if folder is None else "folder of data"
    with locked(out / "lock"):
        if (out / DONE).is_file():
            found = (out / DONE).read_text().strip()
            if found != source:
                raise DataError(f"{out}: expected pictures of the {source}, got those of {found}")
            return
        check_folder(folder)
        sets = embedded_sets() if folder is None else folder_sets(folder)
        for place, pictures in sets.items():
            for name, picture in pictures:
                write_picture(out / place / f"{name}.png", picture)
        write_atomically(out / DONE, f"{source}\n")


def check_folder(folder: Path | None) -> None:
    """Raise a DataError that names what a folder of data lacks."""
    lacking = [] if folder is None else [n for n in NEEDED if not (folder / n).exists()]
    if lacking:
        raise DataError(
            f"{folder}: expected {', '.join(NEEDED)}, got no {', '.join(lacking)}; give "
            "--data=FOLDER or set DATA (docs/small_study.md says what they are)"
        )


def folder_sets(folder: Path) -> dict[str, Iterable[Picture]]:
    """Place below the inputs -> pictures, out of a folder of data."""
    photos = {s: sorted((folder / "photos_cc" / s).glob("*.png")) for s in ("train", "val")}
    people = sorted(p for p in (folder / "ct_people").iterdir() if p.is_dir())
    train, val = people[:CT_TRAIN], people[CT_TRAIN : CT_TRAIN + CT_VAL]
    test = people[CT_TRAIN + CT_VAL :]
    held_out, tested = photos["val"][:VALIDATION_PHOTOS], photos["val"][VALIDATION_PHOTOS:]
    brains = list(brain(folder, BRAIN_TRAIN, BRAIN_SLICES))
    return {
        "natural/train": links(evenly(photos["train"], IMAGES)),
        "natural/val": links(held_out),
        "photos/train": links(photos["train"]),
        "photos/val": links(held_out),
        "brain/train": evenly(brains, IMAGES),
        "brain/val": brain(folder, BRAIN_VAL, BRAIN_SLICES),
        "chest/train": [*lung(folder / "ct_lung.h5"), *chest(train, "axial")],
        "chest/val": chest(val, "axial"),
        "tests/brain_t1": brain(folder, BRAIN_TEST, BRAIN_TEST_SLICES),
        "tests/brain_flair": other_contrast(folder, "FLAIR"),
        "tests/brain_t2": other_contrast(folder, "T2W"),
        "tests/chest_ct": chest(test, "axial"),
        "tests/chest_views": [*chest(test, "coronal", 1), *chest(test, "sagittal", 1)],
        "tests/photos": (photograph(path) for path in tested),
    }


def brain(folder: Path, people: Iterable[int], slices: Iterable[int]) -> Iterator[Picture]:
    """T1 slices of some people."""
    with h5py.File(folder / "mr_t1_people.h5") as file:
        for person in people:
            for i in slices:
                yield f"person{person:02d}_{i}", square(file[f"person{person:02d}"][i])


def other_contrast(folder: Path, contrast: str) -> Iterator[Picture]:
    """Two slices a person of FLAIR or T2, a tenth of the volume below and above its middle."""
    for path in sorted((folder / "mr_people").glob(f"*_{contrast}.nii.gz")):
        volume, _ = read_nifti(path)  # (left, posterior, superior)
        middle, step = volume.shape[2] // 2, max(volume.shape[2] // 10, 1)
        for i in (middle + step, middle - step):
            yield f"{path.name.split('_')[0]}_{i}", square(volume[:, :, i].T)


def lung(path: Path) -> Iterator[Picture]:
    """All slices of a file of series."""
    with h5py.File(path) as file:
        for name in sorted(file):
            for i, image in enumerate(file[name]):
                yield f"{name.replace('_', '-')}_{i}", square(np.clip(image, *AIR_TO_BONE))


def chest(people: Iterable[Path], view: str, most: int | None = None) -> Iterator[Picture]:
    """The first `most` slices of a view of some people."""
    for folder in people:
        for i, path in enumerate(sorted(folder.glob(f"{view}_*.dcm"))[:most]):
            yield f"{folder.name}_{view}{i}", square(np.clip(read_dicom(path), *AIR_TO_BONE))


def photograph(path: Path) -> Picture:
    """A test photograph, at a scale in the middle of those of training."""
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L"), dtype=np.float64)
    return f"{path.stem.replace('_', '-')}_0", centre_crop(
        fit_square(grey, PHOTO_SIDE, "resize"), SIDE
    )


def links(paths: Iterable[Path]) -> list[Picture]:
    """Pictures that are files."""
    return [(path.stem, path) for path in paths]


def evenly(items: list, count: int) -> list:
    """So many items, evenly spaced; all if there are fewer."""
    return [items[i * len(items) // count] for i in range(count)] if len(items) > count else items


def square(image: np.ndarray) -> np.ndarray:
    """An image ``(SIDE, SIDE)``, padded to a square with its smallest value."""
    return fit_square(np.asarray(image, dtype=np.float64), SIDE, "pad")


def embedded_sets() -> dict[str, Iterable[Picture]]:
    """Place below the inputs -> pictures, out of the embedded samples."""
    sets = {}
    for prior, subset in (("brain", "brain"), ("chest", "ct"), ("natural", "natural")):
        for split in ("train", "val"):
            sets[f"{prior}/{split}"] = embedded(subset, split, 12)
    sets |= {f"photos/{split}": sets[f"natural/{split}"] for split in ("train", "val")}
    tests = {"brain_t1": "brain", "chest_ct": "ct", "photos": "natural"}
    return sets | {f"tests/{name}": embedded(s, "test", 6) for name, s in tests.items()}


def embedded(subset: str, split: str, most: int) -> list[Picture]:
    """The first embedded slices, named after their people."""
    data = {"name": "samples", "subset": subset}
    if subset == "brain":
        data |= {"image_size": SIDE, "fit": "resize"}
    dataset = create_dataset(data, split)
    found = []
    for i in range(min(most, len(dataset))):
        image = dataset[i].image[0].double().numpy()
        if subset == "natural":
            image = centre_crop(fit_square(image, PHOTO_SIDE, "resize"), PHOTO_SIDE)
        person = getattr(dataset, "people", {}).get(dataset.keys[i], f"picture{i}")
        image = image if subset == "natural" and split != "test" else square(image)
        found.append((f"{person.replace('_', '-')}_{i}", image))
    return found


def write_picture(path: Path, picture: np.ndarray | Path) -> None:
    """Write an image as a 16-bit PNG file, its range as 0 to 65535, or a link to its file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(picture, Path):
        path.unlink(missing_ok=True)
        os.symlink(picture.resolve(), path)
        return
    low, high = float(picture.min()), float(picture.max())
    if not low < high:
        raise DataError(f"{path.stem}: expected an image, got the constant {low:g}")
    levels = np.round((picture - low) / (high - low) * 65535).astype(np.uint16)
    with replacing(path) as file:
        Image.fromarray(levels).save(file, format="PNG")

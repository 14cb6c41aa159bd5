"""The small real data sets in the repository; ``samples/README.md`` documents their origin."""

import logging
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

import numpy as np
import skimage
import torch
from torch.utils.data import Dataset

from datasets.bad_input import Skips
from datasets.fit import check_size, fit_square
from datasets.hdf5 import open_hdf5, read_slices, volume_shape
from datasets.image_folder import ImageFolder, check_pictures
from datasets.sample import DataError, Sample, make_sample
from datasets.slices import SliceDataset
from datasets.splits import check_split

log = logging.getLogger(__name__)

SAMPLES = Path(__file__).parent / "samples"
SUBSETS = ("brain", "ct", "natural")
OLD_NAMES = {"head_ct": "ct"}  # still understood
# subset -> folder of a split, and the name of the images in its files: those of brain are fastMRI's
PLACES = {"brain": ("brain/singlecoil_{}", "reconstruction_rss"), "ct": ("ct/{}", "image")}
LESIONS = "lesions"

# Photographs and micrographs in the scikit-image package (no download); the smallest has a shorter
# side of 300 pixels. Drawings, text, blurred and tiny pictures are left out.
NATURAL = {
    "train": (
        "astronaut.png",
        "brick.png",
        "cell.png",
        "coins.png",
        "grass.png",
        "gravel.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "moon.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "retina.jpg",
    ),
    "val": ("camera.png", "coffee.png"),
    "test": ("chelsea.png", "rocket.jpg"),
}

T = TypeVar("T")


class People(SliceDataset):
    """Embedded slices of several people, each scaled to [0, 1]; made by `open_samples`.

    Items are `Sample`. With `lesions` their extras hold ``"lesions"``, bool ``(1, H, W)``: whether
    a pixel is inside a lesion; all False in slices without a mask.

    Args:
        slices: (file, index) of each item.
        people: person by key of the item.
        key: name of the images in the files.
        image_size: side in pixels; None or 0 keeps the size of the file.
        fit: how to get there, see `fit.fit_square`.
        lesions: whether items have lesion masks.
        hounsfield: factor and offset from the files' values to Hounsfield units, if they are CT.
    """

    is_stack = False  # a few slices of each person, apart from each other
    extras_at_source = True  # a disk cache leaves the masks in the files

    def __init__(
        self,
        slices: Sequence[tuple[Path, int]],
        people: dict[str, str],
        *,
        key: str,
        image_size: int | None,
        fit: str,
        lesions: bool,
        hounsfield: tuple[float, float] | None = None,
    ):
        super().__init__(slices)
        self.hounsfield = hounsfield
        self.people, self.key, self.lesions = people, key, lesions
        self.image_size, self.fit = image_size, fit

    def read(self, source: Path, indices: Sequence[int]) -> list[Sample]:
        """Samples of some slices of one file."""
        with open_hdf5(source) as file:
            images = read_slices(file[self.key], indices)
            masks = [np.zeros(image.shape) for image in images]
            if LESIONS in file:
                masks = read_slices(file[LESIONS], indices)
        return [
            make_sample(
                fit_square(image.astype(np.float64), self.image_size, self.fit),
                f"{source.name}:{index}",
                {LESIONS: self._resize(mask)} if self.lesions else {},
            )
            for image, mask, index in zip(images, masks, indices, strict=True)
        ]

    def _resize(self, mask: np.ndarray) -> torch.Tensor:
        fitted = fit_square(mask.astype(np.float64), self.image_size, self.fit)
        return torch.from_numpy(fitted > 0.5)[None]  # (1, H, W)


def open_samples(
    split: str, *, subset: str = "brain", image_size: int | None = None, fit: str = ""
) -> Dataset:
    """Embedded data set; people's slices alternate, so that the first few are of all of them.

    Args:
        split: "train", "val" or "test", by person.
        subset: "brain" (MRI of FLAIR, T1 and T2 contrast, 256 x 256, with lesion masks), "ct" (of
            chest and abdomen, 320 x 320, train 256 x 256, in Hounsfield units) or "natural"
            (photographs of several sizes, read as a folder of pictures).
        image_size: side in pixels, to which brain is cropped, ct resized, and natural resized
            and cropped (at most 300); None or 0 keeps the native size.
        fit: brain only: "resize" (anti-aliased, see `fit.fit_square`) instead of cropping.

    Raises:
        DataError: an unknown split or subset, options that exclude each other, or an image size
            that the subset cannot have.
    """
    check_split(split)
    if subset in OLD_NAMES:
        log.warning("data.subset '%s' is now '%s': other people", subset, OLD_NAMES[subset])
        subset = OLD_NAMES[subset]
    if fit not in ("", "resize"):
        raise DataError(
            f"unknown data.fit '{fit}' of the samples; known: '' (brain is cropped), resize"
        )
    if fit and subset != "brain":
        raise DataError(f"subset '{subset}' is resized anyway; set data.fit to ''")
    if subset in PLACES:
        way = fit or ("crop" if subset == "brain" else "resize")
        return _open_people(subset, split, image_size, way)
    if subset == "natural":
        root = Path(skimage.__file__).parent / "data"
        names = check_pictures(root, NATURAL[split], image_size, "resize", Skips(False))
        return ImageFolder(root, names, image_size=image_size)
    raise DataError(f"unknown subset '{subset}' of the samples; known: {', '.join(SUBSETS)}")


def _open_people(subset: str, split: str, image_size: int | None, fit: str) -> People:
    """The slices of all files of a split; a DataError if they cannot have the size."""
    folder, key = PLACES[subset]
    volumes: dict[str, list[list[tuple[Path, int]]]] = {}  # of each person
    people = {}
    for path in sorted((SAMPLES / folder.format(split)).glob("*.h5")):
        with open_hdf5(path) as file:
            count, *shape = volume_shape(file, path, key)
            person = str(file.attrs["patient_id"])
        check_size(path, tuple(shape), image_size, fit)
        items = [(path, index) for index in range(count)]
        volumes.setdefault(person, []).append(items)
        people |= {f"{path.name}:{index}": person for _, index in items}
    slices = _alternate([_alternate(own) for own in volumes.values()])
    return People(
        slices,
        people,
        key=key,
        image_size=image_size,
        fit=fit,
        lesions=subset == "brain",
        hounsfield=(1.0, 0.0) if subset == "ct" else None,
    )


def _alternate(groups: Sequence[Sequence[T]]) -> list[T]:
    """The first of each group, then the second of each, and so on."""
    rounds = zip_longest(*groups)
    return [item for items in rounds for item in items if item is not None]

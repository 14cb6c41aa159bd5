"""The small real data sets in the repository; ``samples/README.md`` documents their origin.

They are read by the same classes as the full data sets.
"""

from collections.abc import Sequence
from pathlib import Path

import skimage
from torch.utils.data import Dataset

from datasets.bad_input import Skips
from datasets.fastmri import open_fastmri
from datasets.fit import check_size, fit_square
from datasets.image_folder import ImageFolder, check_pictures
from datasets.lodopab import open_lodopab
from datasets.parallel import fetch
from datasets.sample import DataError, Sample, make_sample
from datasets.splits import check_split

SAMPLES = Path(__file__).parent / "samples"
SUBSETS = ("brain", "head_ct", "natural")

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


class Resized(Dataset):
    """Data set whose images, without extras, are resized to `image_size` pixels per side.

    Items are `Sample`: the image is resized in its original unit, then scaled to [0, 1].
    """

    def __init__(self, dataset: Dataset, image_size: int):
        self.dataset = dataset
        self.image_size = image_size

    @property
    def keys(self) -> list[str]:
        """Keys of the original data set."""
        return self.dataset.keys

    @property
    def files(self) -> list[Path]:
        """Every file that is read."""
        return self.dataset.files

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, i: int) -> Sample:
        return self.__getitems__([i])[0]

    def __getitems__(self, items: Sequence[int]) -> list[Sample]:
        return [self._shrink(sample) for sample in fetch(self.dataset, items)]

    def _shrink(self, sample: Sample) -> Sample:
        low, high = sample.scale
        image = sample.image[0].numpy() * (high - low) + low  # (H, W)
        return make_sample(fit_square(image, self.image_size, "resize"), sample.key)


def open_samples(
    split: str,
    *,
    subset: str = "brain",
    image_size: int | None = None,
    fit: str = "",
    load_kspace: bool = False,
) -> Dataset:
    """Embedded data set.

    Args:
        split: "train", "val" or "test".
        subset: "brain" (T1 MRI 256 x 256, read as fastMRI), "head_ct" (362 x 362, read as LoDoPaB)
            or "natural" (photographs of several sizes, read as a folder of pictures).
        image_size: side in pixels, to which brain is cropped, head_ct resized, and natural resized
            and cropped (at most 300); None or 0 keeps the native size.
        fit: brain only: "resize" (anti-aliased, see `fit.fit_square`) instead of cropping.
        load_kspace: brain, val and test only: whether to also read the simulated k-space.

    Raises:
        DataError: an unknown split or subset, options that exclude each other, or an image size
            that the subset cannot have.
    """
    check_split(split)
    if load_kspace and subset != "brain":
        raise DataError(f"subset '{subset}' has no k-space; set data.load_kspace to False")
    _check_fit(fit, subset, load_kspace)
    if subset == "brain":
        root = SAMPLES / "brain"
        if fit and image_size:
            return _shrunk(open_fastmri(root, split), image_size)
        return open_fastmri(root, split, image_size=image_size, load_kspace=load_kspace)
    if subset == "head_ct":
        return open_lodopab(SAMPLES / "head_ct", split, image_size=image_size)
    if subset == "natural":
        root = Path(skimage.__file__).parent / "data"
        names = check_pictures(root, NATURAL[split], image_size, "resize", Skips(False))
        return ImageFolder(root, names, image_size=image_size)
    raise DataError(f"unknown subset '{subset}' of the samples; known: {', '.join(SUBSETS)}")


def _check_fit(fit: str, subset: str, load_kspace: bool) -> None:
    if fit not in ("", "resize"):
        raise DataError(
            f"unknown data.fit '{fit}' of the samples; known: '' (brain is cropped), resize"
        )
    if fit and subset != "brain":
        raise DataError(f"subset '{subset}' is resized anyway; set data.fit to ''")
    if fit and load_kspace:
        raise DataError(
            "the simulated k-space is that of the whole image, not of a resized one; set "
            "data.load_kspace to False or data.fit to ''"
        )


def _shrunk(dataset: Dataset, image_size: int) -> Resized:
    check_size(dataset.files[0], tuple(dataset[0].image.shape[1:]), image_size, "resize")
    return Resized(dataset, image_size)

"""Folders of pictures, among them CelebA-HQ, as grey images."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from datasets.bad_input import Skips, reading
from datasets.compressed import check_picture
from datasets.discovery import find_files
from datasets.fit import check_fit, check_size, fit_square
from datasets.sample import DataError, Sample, make_sample
from datasets.splits import (
    check_root,
    check_split,
    first_number,
    folder_split,
    read_split_list,
    seeded_split,
)

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp")
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # red, green, blue: ITU-R BT.601-2
PICTURE = "a picture that can be decoded"
PHOTOMETRIC, BITS = 262, 258  # TIFF tags
WHITE_IS_ZERO = 0


class ImageFolder(Dataset):
    """Grey pictures, each scaled to [0, 1]; made by `open_image_folder`.

    Items are `Sample` without extras; the scale is in grey levels of the file (usually 0 to 255).
    Colours are converted to unrounded luma (ITU-R 601-2), opacity is ignored, and only the first
    page is read. Pictures are oriented by EXIF; in WhiteIsZero TIFF files values are inverted, so
    that large means bright.

    Args:
        root: folder of the pictures.
        names: paths relative to `root`, which are also the keys.
        image_size: side in pixels of the square images; None or 0 keeps the size.
        fit: how images become square, see `fit.fit_square`.
        read: function that reads a file as ``(H, W)``; None for `read_grey`.
        bounds: values that become 0 and 1; None for the range of each picture.
        skipped: reasons of what was left out of the data set.
        people: name -> person, as far as known.
        hounsfield: factor and offset from the files' values to Hounsfield units, if they are CT.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        *,
        image_size: int | None = None,
        fit: str = "resize",
        read: Callable[[Path], np.ndarray] | None = None,
        bounds: tuple[float, float] | None = None,
        skipped: Sequence[str] = (),
        people: Mapping[str, str] | None = None,
        hounsfield: tuple[float, float] | None = None,
    ):
        self.root = root
        self.names = list(names)
        self.image_size = image_size
        self.fit = fit
        self.read = read or read_grey
        self.bounds = bounds
        self.skipped = list(skipped)
        self.people = dict(people or {})
        self.hounsfield = hounsfield

    @property
    def keys(self) -> list[str]:
        """Keys of the items: paths relative to the root, such as ``"train/0001.jpg"``."""
        return list(self.names)

    @property
    def files(self) -> list[Path]:
        """Files of the items."""
        return [self.root / name for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Sample:
        image = fit_square(self.read(self.root / self.names[i]), self.image_size, self.fit)
        return make_sample(image, self.names[i], bounds=self.bounds)


def read_grey(path: Path) -> np.ndarray:
    """Grey levels of a picture in the range of the file (8 or 16 bits): float32 ``(H, W)``.

    The picture is oriented by EXIF, and larger values are brighter.

    Raises:
        DataError: the file cannot be decoded, or is larger than Pillow's limit.
    """
    with reading(path, PICTURE):
        check_picture(path)
    with _open(path) as picture:
        inverted = _is_inverted(picture)
        bits = picture.getexif().get(BITS, 0)
        picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("1", "L", "F") or picture.mode.startswith("I"):
            grey = np.asarray(picture, dtype=np.float32)
            full = grey.max() + grey.min() if picture.mode == "F" else np.float32(2**bits - 1)
            return full - grey if inverted else grey
        return np.asarray(picture.convert("RGB"), dtype=np.float32) @ LUMA


def _is_inverted(picture: Image.Image) -> bool:
    """Whether white is 0 in Pillow's array, as Pillow inverts 8-bit files, but not 16-bit ones."""
    white_is_zero = picture.getexif().get(PHOTOMETRIC) == WHITE_IS_ZERO
    return picture.format == "TIFF" and white_is_zero and picture.mode.startswith(("I", "F"))


@contextmanager
def _open(path: Path) -> Iterator[Image.Image]:
    """Context with an open picture that turns any error into a DataError."""
    with reading(path, PICTURE):
        try:
            with Image.open(path) as picture:
                yield picture
        except Image.DecompressionBombError as error:
            raise DataError(
                f"{path}: expected a picture of at most {2 * Image.MAX_IMAGE_PIXELS} pixels, got "
                f"more ({error}); make it smaller or take it out"
            ) from None


def open_image_folder(
    root: str | Path,
    split: str,
    *,
    image_size: int | None = None,
    fit: str = "resize",
    split_seed: int = 0,
    split_list: str = "",
    skip_bad: bool = False,
) -> ImageFolder:
    """Data set of the pictures of a split in or below `root`, each of which is checked to open.

    If there are folders ``train`` and ``val`` (and ``test``; also ``training``,
    ``DIV2K_valid_HR``) below `root`, they are the splits; otherwise all pictures are split by
    `split_seed`.

    Args:
        root: folder of the pictures (jpg, png, tif, webp, bmp); hidden files are ignored.
        split: "train", "val" or "test".
        image_size: side in pixels of the square images; None or 0 keeps the size of each.
        fit: how pictures become square, see `fit.fit_square`.
        split_seed: chooses the pictures of a split if there are no folders for it.
        split_list: path of a text file of names (paths relative to `root`), see
            `splits.read_split_list`.
        skip_bad: whether to skip pictures that cannot be used.

    Raises:
        DataError: nothing usable is found, a file is not a picture, or one is too small.
    """
    check_split(split)
    check_fit(fit)
    folder, skips = check_root(root), Skips(skip_bad)
    names = find_files(folder, SUFFIXES)
    if not names:
        raise DataError(
            f"{root}: expected pictures ({', '.join(SUFFIXES)}) in it or below, got none; "
            "set data.root to their folder"
        )
    if split_list:
        names = read_split_list(split_list, split, names, skips)
    else:
        by_folder = folder_split(names, split, folder)
        names = by_folder or seeded_split(names, split, split_seed, folder)
    names = check_pictures(folder, names, image_size, fit, skips)
    return ImageFolder(folder, names, image_size=image_size, fit=fit, skipped=skips.reasons)


def open_celeba_hq(
    root: str | Path,
    split: str,
    *,
    image_size: int | None = None,
    subset: str = "",
    split_seed: int = 0,
    split_list: str = "",
    skip_bad: bool = False,
) -> ImageFolder:
    """Data set of CelebA-HQ's 30 000 jpg files in or below `root`.

    Only jpg files are used, as the public CelebAMask-HQ archive also holds png masks.

    Args:
        root: folder of the unpacked archive.
        split: "train", "val" or "test".
        image_size: side in pixels of the square images; None or 0 keeps the size of each.
        subset: "first:N": the N pictures with the smallest numbers are the training split, and the
            others are divided; "" to divide all.
        split_seed: chooses the pictures of a split, unless there is a `split_list`.
        split_list: path of a text file of names (paths relative to `root`), see
            `splits.read_split_list`.
        skip_bad: whether to skip pictures that cannot be used.

    Raises:
        DataError: nothing usable is found, a file is not a picture, or one is too small; an unknown
            subset, or one beside a `split_list`.
    """
    check_split(split)
    number = first_number(subset, "pictures")
    if number and split_list:
        raise DataError("expected data.subset or data.split_list, got both; leave one at ''")
    folder, skips = check_root(root), Skips(skip_bad)
    names = find_files(folder, (".jpg", ".jpeg"))
    if not names:
        raise DataError(
            f"{root}: expected CelebA-HQ's jpg files in it or below, got none; set data.root to "
            "the unpacked archive, or data.name to image_folder for files of another format"
        )
    if split_list:
        names = read_split_list(split_list, split, names, skips)
    elif number:
        names = _first_pictures(names, split, number, split_seed, folder)
    else:
        names = seeded_split(names, split, split_seed, folder)
    names = check_pictures(folder, names, image_size, "resize", skips)
    return ImageFolder(folder, names, image_size=image_size, skipped=skips.reasons)


def check_pictures(
    folder: Path, names: Sequence[str], image_size: int | None, fit: str, skips: Skips
) -> list[str]:
    """Names of the pictures that can be opened and are large enough.

    Args:
        folder: folder of the pictures.
        names: paths relative to `folder`.
        image_size: required size in pixels; None or 0 for any.
        fit: how pictures become square, see `fit.fit_square`.
        skips: record of the unusable ones.

    Raises:
        DataError: a picture is unusable (unless skipping is allowed), or none is left.
    """
    good = []
    for name in names:
        with skips.guard():
            with _open(folder / name) as picture:
                width, height = picture.size  # reads the header only
            check_size(folder / name, (height, width), image_size, fit)
            good.append(name)
    if not good:
        raise DataError(f"{folder}: every picture was left out: {skips.reasons[0]}")
    return good


def _first_pictures(
    names: Sequence[str], split: str, number: int, seed: int, folder: Path
) -> list[str]:
    """Names of a split of which the training part is the `number` pictures first by number."""
    numbers = {name: re.findall(r"\d+", Path(name).stem) for name in names}
    ordered = sorted(names, key=lambda name: ([int(n) for n in numbers[name]], name))
    if len(ordered) < number:
        raise DataError(
            f"{folder}: expected at least {number} pictures for data.subset 'first:{number}', got "
            f"{len(ordered)}; ask for fewer, or complete the download"
        )
    if split == "train":
        return ordered[:number]
    return seeded_split(ordered[number:], split, seed, folder)

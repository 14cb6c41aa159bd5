"""What all kinds of input share."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from torch import Tensor

import configs
from configs.reconstruct import get_config
from datasets.bad_input import reading
from datasets.image_series import ImageSeries
from evaluation.own.holdout import HoldOut
from operators.inverse_problem import InverseProblem

OF_A_MASK = ("operator.acceleration", "operator.center_fraction")
# fields that only some inputs read
ONLY = {
    "validate": ("k-space", "a sinogram"),
    "choose": ("k-space", "a sinogram"),
    "data.first_axis": ("k-space",),
    "data.mask": ("k-space",),
    "data.sens_maps": ("k-space",),
    "data.map_sets": ("k-space",),
    "data.image_size": ("k-space", "a sinogram"),
    "data.angles": ("a sinogram",),
    "data.axis": ("images",),
    "data.window": ("images",),
    "operator.name": ("images",),
    "operator.keywords": ("images",),
    "operator.mask": ("k-space", "images"),
    "operator.num_views": ("images",),
    "operator.end_angle": ("a sinogram", "images"),
    "operator.geometry": ("a sinogram",),
    "operator.detector": ("a sinogram",),
    "operator.pixel_size": ("a sinogram",),
    "operator.bin_spacing": ("a sinogram",),
    "operator.centre_offset": ("a sinogram",),
    "operator.source_distance": ("a sinogram",),
    "operator.detector_distance": ("a sinogram",),
}


@dataclass
class Input:
    """What all inputs have.

    Attributes:
        kind: "k-space", "a sinogram" or "images".
        numbers: the chosen slices, as the file counts them.
        keys: their names.
        unit: of the reconstruction.
        direct: what the reconstruction without a prior is called.
        facts: what was found in the file, for the summary.
        notes: what looks unusual.
        series: images: what they were read from.
        voxel_size: mm (row, column, slice), where known.
        sources: the files of the input.
        others: further files that the config names.
        is_complex: whether the images are.
        largest_batch: slices that fit into one problem at most; None: any number.
    """

    kind: str
    numbers: range
    keys: list[str]
    unit: str
    direct: str
    sources: tuple[Path, ...]
    others: tuple[Path, ...] = ()
    facts: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    series: ImageSeries | None = None
    voxel_size: tuple[float, float, float] | None = None
    is_complex: bool = False
    largest_batch: int | None = None

    def problem(self, items: Sequence[int]) -> InverseProblem:
        """The batch of the chosen slices `items`, counted from 0."""
        raise NotImplementedError

    def holdout(self, item: int, part: float, seed: int) -> HoldOut:
        """The chosen slice `item` with a part of its measurement left out.

        Args:
            item: counted from 0.
            part: of the measured lines, points or views.
            seed: of what is left out, with the slice's key.

        Raises:
            ValueError: nothing can be left out, or this input has no parts.
        """
        raise ValueError(
            f"validate leaves parts of k-space or of a sinogram out, the input is {self.kind}; "
            "leave it at 0"
        )

    def truth(self, item: int) -> np.ndarray | None:
        """The image ``(H, W)`` in its unit, where the measurement is simulated."""
        return None

    def finish(self, images: Tensor) -> Tensor:
        """Restored images ``(B, 1, H, W)`` in the shape that is asked for."""
        return images


def digest(files: Sequence[Path]) -> str:
    """A hash of the contents of files, in their order."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def check_fields(config: ConfigDict, kind: str) -> None:
    """Raise a ValueError for a field that is set and that this kind of input does not read."""
    given = configs.flatten(config.to_dict())
    neutral = configs.flatten(get_config().to_dict())
    for name, kinds in ONLY.items():
        if kind not in kinds and given[name] != neutral[name]:
            raise ValueError(
                f"{name} is for {' and '.join(kinds)}, the input is {kind}; leave it at "
                f"{neutral[name]!r}"
            )


def check_without_effect(config: ConfigDict, names: Sequence[str], reason: str) -> None:
    """Raise a ValueError for a field out of `names` that is set, though `reason` makes it idle."""
    given = configs.flatten(config.to_dict())
    for name in names:
        if given[name] not in (None, ""):
            raise ValueError(f"{name}={given[name]} has no effect: {reason}")


def choose_shape(
    text: str, asked: tuple[int, int] | None, largest: Sequence[int]
) -> tuple[int, int]:
    """Rows and columns of the result: `text`, else what the file asks for, else all."""
    if not text:
        shape = asked or tuple(largest)
        return min(shape[0], largest[0]), min(shape[1], largest[1])
    sides = text.split(",")
    if not all(side.strip().isdecimal() for side in sides) or len(sides) > 2 or "0" in sides:
        raise ValueError(f"expected data.image_size as N or HEIGHT,WIDTH in pixels, got '{text}'")
    return int(sides[0]), int(sides[-1])


def centre(values: Tensor, shape: tuple[int, int]) -> Tensor:
    """The central ``(..., H, W)``; sides that are not longer stay."""
    for axis, wanted in zip((-2, -1), shape, strict=True):
        size = values.shape[axis]
        if wanted < size:
            values = values.narrow(axis, (size - wanted) // 2, wanted)
    return values


def load_array(path: str, what: str) -> np.ndarray:
    """The array of an .npy file; a DataError that names `what`, the field, where there is none."""
    with reading(Path(path), f"an .npy file for {what}"):
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an .npz file")
    return array


def hash_masks(masks: Tensor) -> str:
    """Of ``(n, H, W)`` bool: SHA-256 of the packed bits."""
    return hashlib.sha256(np.packbits(masks.numpy()).tobytes()).hexdigest()

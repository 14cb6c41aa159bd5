"""The interface of all kinds of input of `reconstruct`, and checks that they share."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from torch import Tensor

import configs
from configs.reconstruct import get_config
from datasets import bart
from datasets.bad_input import reading
from datasets.image_series import ImageSeries
from evaluation.own.holdout import HoldOut
from operators import LinearOperator
from operators.inverse_problem import InverseProblem

OF_A_MASK = ("operator.acceleration", "operator.center_fraction")
ALONG = "k-space along a trajectory"
OF_KSPACE = ("k-space", ALONG)
# fields that only some inputs read
ONLY = {
    "validate": (*OF_KSPACE, "a sinogram"),
    "choose": (*OF_KSPACE, "a sinogram"),
    "data.first_axis": (*OF_KSPACE, "a sinogram"),
    "data.trajectory": (ALONG,),
    "data.mask": ("k-space",),
    "data.sens_maps": OF_KSPACE,
    "data.map_sets": ("k-space",),
    "data.image_size": (*OF_KSPACE, "a sinogram"),
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
    """A user's measurement or images, opened and checked; the base of each kind of input.

    Attributes:
        kind: "k-space", "k-space along a trajectory", "a sinogram", "images" or "measurements".
        numbers: numbers of the chosen slices in the file.
        keys: names of the chosen slices.
        unit: unit of the reconstruction, in words.
        direct: name of the reconstruction without a prior, such as "zero-filled".
        sources: files of the input.
        others: further files that the config names.
        facts: properties of the file for the summary.
        notes: unusual properties of the file, to warn of.
        series: image series that images were read from; None for measurements.
        voxel_size: (row, column, slice) in mm, if known.
        is_complex: whether the reconstructed images are complex.
        largest_batch: largest number of slices in one inverse problem; None: any number.
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

    @property
    def doubtful_noise(self) -> bool:
        """Whether the estimate of the noise is worth a check by prediction, where it is not asked
        for: of k-space that was not measured in lines of the grid from end to end.
        """
        return False

    def problem(self, items: Sequence[int]) -> InverseProblem:
        """Inverse problem of a batch of slices.

        Args:
            items: numbers of the slices among the chosen ones, from 0.
        """
        raise NotImplementedError

    def holdout(self, item: int, part: float, seed: int) -> HoldOut:
        """Measurement of a slice of which a part is left out, to be predicted from the rest.

        Args:
            item: number of the slice among the chosen ones, from 0.
            part: fraction of the measured lines, points or views that is left out.
            seed: seed of the choice, together with the slice's key.

        Raises:
            ValueError: nothing can be left out, or this kind of input has no parts.
        """
        raise ValueError(
            f"validate leaves parts of k-space or of a sinogram out, the input is {self.kind}; "
            "leave it at 0"
        )

    def first_operator(self) -> LinearOperator:
        """Operator with the sampling of the first chosen slice; it need not have its coil maps."""
        raise NotImplementedError

    def truth(self, item: int) -> np.ndarray | None:
        """True image ``(H, W)`` in its own unit if the measurement is simulated, otherwise None.

        Args:
            item: number of the slice among the chosen ones, from 0.
        """
        return None

    def finish(self, images: Tensor) -> Tensor:
        """Reconstructed images in the shape that the result should have.

        Args:
            images: ``(B, 1, H, W)`` in the unit of the measurement.
        """
        return images


def digest(files: Sequence[Path]) -> str:
    """SHA-256 of the contents of files, in their order, as a hexadecimal text."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def check_fields(config: ConfigDict, kind: str) -> None:
    """Raise a ValueError if a field is set that this kind of input does not read.

    Args:
        config: config with the fields of configs/reconstruct.py.
        kind: kind of the input, see `Input`.
    """
    given = configs.flatten(config.to_dict())
    neutral = configs.flatten(get_config().to_dict())
    for name, kinds in ONLY.items():
        if kind not in kinds and given[name] != neutral[name]:
            raise ValueError(
                f"{name} is for {' and '.join(kinds)}, the input is {kind}; leave it at "
                f"{neutral[name]!r}"
            )


def check_without_effect(config: ConfigDict, names: Sequence[str], reason: str) -> None:
    """Raise a ValueError if one of some fields is set although it has no effect.

    Args:
        config: config with the fields of configs/reconstruct.py.
        names: dotted names of the fields.
        reason: why they have no effect, for the error.
    """
    given = configs.flatten(config.to_dict())
    for name in names:
        if given[name] not in (None, ""):
            raise ValueError(f"{name}={given[name]} has no effect: {reason}")


def choose_shape(
    text: str, asked: tuple[int, int] | None, largest: Sequence[int]
) -> tuple[int, int]:
    """Rows and columns of the result.

    Args:
        text: ``data.image_size``, "N" or "HEIGHT,WIDTH"; "" takes `asked`, or else `largest`.
        asked: shape that the file asks for, if it does.
        largest: largest possible rows and columns of `asked` and of the default.

    Raises:
        ValueError: `text` has another form.
    """
    if not text:
        shape = asked or tuple(largest)
        return min(shape[0], largest[0]), min(shape[1], largest[1])
    sides = text.split(",")
    if not all(side.strip().isdecimal() for side in sides) or len(sides) > 2 or "0" in sides:
        raise ValueError(f"expected data.image_size as N or HEIGHT,WIDTH in pixels, got '{text}'")
    return int(sides[0]), int(sides[-1])


def centre(values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Central part of images ``(..., H, W)``, cropped to `shape` along sides that are longer."""
    for axis, wanted in zip((-2, -1), shape, strict=True):
        size = values.shape[axis]
        if wanted < size:
            values = values.narrow(axis, (size - wanted) // 2, wanted)
    return values


def read_maps(path: str) -> np.ndarray:
    """Coil maps ``(..., C, H, W)`` of an .npy file, or of a BART file.

    Raises:
        DataError: see `load_array` and `datasets.bart.maps_from_bart`.
    """
    return _array_or_bart(path, "data.sens_maps", bart.maps_from_bart)


def read_positions(path: str) -> np.ndarray:
    """Trajectory of an .npy file, or of a BART file, see `datasets.trajectory`.

    Raises:
        DataError: see `load_array` and `datasets.bart.trajectory_from_bart`.
    """
    return _array_or_bart(path, "data.trajectory", bart.trajectory_from_bart)


def _array_or_bart(path: str, what: str, from_bart: Callable[..., np.ndarray]) -> np.ndarray:
    if Path(path).suffix in bart.SUFFIXES:
        return from_bart(Path(path), bart.read_cfl(Path(path)))
    return load_array(path, what)


def load_array(path: str, what: str) -> np.ndarray:
    """Array of an .npy file.

    Args:
        path: path of the file.
        what: name of the field that names it, for the error.

    Raises:
        DataError: there is no such file, or it is not an .npy file of plain numbers.
    """
    with reading(Path(path), f"an .npy file for {what}"):
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an .npz file")
    return array


def hash_masks(masks: Tensor) -> str:
    """SHA-256 of the packed bits of masks ``(n, H, W)``, bool, as a hexadecimal text."""
    return hashlib.sha256(np.packbits(masks.numpy()).tobytes()).hexdigest()

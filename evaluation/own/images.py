"""Images as the input of `reconstruct`: a measurement of them is simulated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict

from configs.reconstruct import get_config
from datasets.dicom import is_hounsfield, parse_window, read_header
from datasets.export import check_sources
from datasets.image_series import ImageSeries, open_images
from datasets.sample import DataError
from datasets.slices import choose_slices
from evaluation.own.base import Input, check_fields, check_without_effect, hash_masks
from evaluation.show.windows import HU
from operators import LinearOperator
from operators.create import create_operator, fields_of
from operators.inverse_problem import InverseProblem, image_problem


@dataclass
class ImageInput(Input):
    """Slices of images, a measurement of which is simulated.

    Attributes:
        operator: measurement model.
        images: ``(n, H, W)`` chosen slices.
    """

    operator: LinearOperator | None = None
    images: np.ndarray | None = None  # (n, H, W)

    def problem(self, items: Sequence[int]) -> InverseProblem:
        """Inverse problem of a batch of slices without noise, which share one mask or geometry.

        Args:
            items: numbers of the slices among the chosen ones, from 0.
        """
        images = torch.from_numpy(self.images[list(items)])[:, None]  # (B, 1, H, W)
        return image_problem(self.operator, images)

    def first_operator(self) -> LinearOperator:
        """Operator of all slices."""
        return self.operator

    def truth(self, item: int) -> np.ndarray:
        """The slice ``(H, W)`` itself, clipped to the window.

        Args:
            item: number of the slice among the chosen ones, from 0.
        """
        return self.images[item]


def open_image_series(path: Path, config: ConfigDict) -> ImageInput:
    """Input of images in NIfTI or DICOM, checked.

    Args:
        path: a file, or a folder of DICOM files.
        config: config with the fields of configs/reconstruct.py.

    Raises:
        DataError, ValueError: unreadable or unfit images, or a field that images do not have.
    """
    check_fields(config, "images")
    series = open_images(path, axis=config.data.axis)
    numbers = choose_slices(config.data.slices, len(series.images), path)
    images = series.images[numbers.start : numbers.stop : numbers.step]
    window = parse_window(config.data.window)
    if window:
        images = np.clip(images, *map(np.float32, window))
    if images.max() == images.min():
        raise DataError(f"{path}: expected images, got the constant {images.max():g}")
    if series.volume is None:
        check_sources([series.files[number] for number in numbers])
    shape = images.shape[1:]
    neutral = get_config().operator
    fields = {k: v for k, v in config.operator.items() if v != neutral[k]}
    name = fields.setdefault("name", _default_operator(series))
    known = fields_of(name)
    others = [f"operator.{k}" for k in fields if k not in ("name", "keywords", *known)]
    check_without_effect(config, others, f"{name} is simulated, which reads {', '.join(known)}")
    operator = create_operator(fields, shape, seed=config.seed, keys=())
    if operator.domain_complex:
        raise ValueError(
            f"expected operator.name of real images, such as mri or ct, got {name}, which measures "
            "complex ones; evaluation.evaluate simulates it, with a phase"
        )
    return ImageInput(
        kind="images",
        numbers=numbers,
        keys=[series.keys[number] for number in numbers],
        unit=_unit(series),
        direct=operator.direct_name,
        sources=series.files,
        facts={"simulated": name, **_facts(operator), "image_shape": list(shape)},
        series=series,
        operator=operator,
        images=np.ascontiguousarray(images),
    )


def _facts(operator: LinearOperator) -> dict:
    """Properties of the simulated measurement, for the summary."""
    facts = {k: v for k, v in operator.facts().items() if k not in ("operator", "angles_deg")}
    if operator.acceleration is not None:
        facts["mask_sha256"] = hash_masks(operator.sampled()[None])
        facts["effective_acceleration"] = [round(operator.acceleration, 3)]
    return facts


def _unit(series: ImageSeries) -> str:
    """Unit of the images: Hounsfield units, where all files say so."""
    if series.volume is None and all(is_hounsfield(read_header(file)) for file in series.files):
        return HU
    return "of the images"


def _default_operator(series: ImageSeries) -> str:
    if series.volume is not None:
        return "mri"
    return "ct" if read_header(series.files[0]).get("Modality") == "CT" else "mri"

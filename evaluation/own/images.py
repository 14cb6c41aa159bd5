"""Images, of which a measurement is simulated."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ml_collections import ConfigDict

from datasets.dicom import parse_window, read_header
from datasets.export import check_sources
from datasets.image_series import ImageSeries, open_images
from datasets.sample import DataError
from datasets.slices import choose_slices
from evaluation.own.base import (
    DEFAULT_MASK,
    OF_A_MASK,
    Input,
    check_fields,
    check_without_effect,
    draw_mask,
    hash_masks,
    simulated,
)
from operators import LinearOperator, ParallelBeamCT, SingleCoilMRI
from operators.ct import few_view_angles
from operators.masks import effective_acceleration
from operators.problem import Problem, image_problem


@dataclass
class ImageInput(Input):
    """Slices of images, of which a measurement is simulated."""

    operator: LinearOperator | None = None
    images: np.ndarray | None = None  # (n, H, W)

    def problem(self, items: Sequence[int]) -> Problem:
        """Without noise; one mask or geometry for all slices."""
        images = torch.from_numpy(self.images[list(items)])[:, None]  # (B, 1, H, W)
        return image_problem(self.operator, images)

    def truth(self, item: int) -> np.ndarray:
        """The slice, clipped to the window."""
        return self.images[item]


def open_image_series(path: Path, config: ConfigDict) -> ImageInput:
    """NIfTI or DICOM at `path`, checked; errors as `open_input`."""
    check_fields(config, "images")
    series = open_images(path, axis=config.data.axis)
    numbers = choose_slices(config.data.slices, len(series.images), path)
    images = series.images[numbers.start : numbers.stop]
    window = parse_window(config.data.window)
    if window:
        images = np.clip(images, *map(np.float32, window))
    if images.max() == images.min():
        raise DataError(f"{path}: expected images, got the constant {images.max():g}")
    if series.volume is None:
        check_sources([series.files[number] for number in numbers])
    shape = images.shape[1:]
    name = config.operator.name or _default_operator(series)
    if name == "ct":
        idle = ("operator.mask", *OF_A_MASK)
        check_without_effect(config, idle, "CT is simulated; set operator.name=mri for a mask")
        num_views = simulated(config, "operator.num_views")
        angles = few_view_angles(num_views, config.operator.end_angle or 180.0)
        operator: LinearOperator = ParallelBeamCT(shape, angles)
        facts = {"simulated": "ct", "views": len(angles)}
    elif name == "mri":
        idle = ("operator.num_views", "operator.end_angle")
        check_without_effect(config, idle, "MRI is simulated; set operator.name=ct for views")
        mask = draw_mask(config, shape)
        operator = SingleCoilMRI(mask)
        facts = {
            "simulated": "mri",
            "mask": config.operator.mask or DEFAULT_MASK,
            "mask_sha256": hash_masks(mask[None]),
            "effective_acceleration": [round(effective_acceleration(mask), 3)],
        }
    else:
        raise ValueError(f"expected operator.name mri or ct, got {name!r}")
    return ImageInput(
        kind="images",
        numbers=numbers,
        keys=[series.keys[number] for number in numbers],
        unit="of the images",
        direct="FBP" if name == "ct" else "zero-filled",
        sources=series.files,
        facts={**facts, "image_shape": list(shape)},
        series=series,
        operator=operator,
        images=np.ascontiguousarray(images),
    )


def _default_operator(series: ImageSeries) -> str:
    if series.volume is not None:
        return "mri"
    return "ct" if read_header(series.files[0]).get("Modality") == "CT" else "mri"

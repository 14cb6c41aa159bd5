"""Conversion of images of any shape to squares."""

from pathlib import Path

import numpy as np
from skimage.transform import resize

from datasets.sample import DataError

FITS = ("resize", "crop", "pad")


def fit_square(image: np.ndarray, size: int | None, fit: str) -> np.ndarray:
    """Square image ``(size, size)`` made from an image ``(H, W)``.

    Args:
        image: real ``(H, W)``, not smaller than `size` (see `check_size`).
        size: side in pixels; None or 0 returns the image unchanged.
        fit: "resize" (anti-aliased to a shorter side of `size`, then cropped), "crop" (without
            resizing) or "pad" (to a square with the smallest value, then resized).
    """
    if not size:
        return image
    if fit == "pad":
        image = _pad_to_square(image)
    shorter = min(image.shape)
    if fit != "crop" and shorter != size:
        shape = [max(size, round(n * size / shorter)) for n in image.shape]
        image = resize(image, shape, anti_aliasing=True)
    return centre_crop(image, size)


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Central ``(..., size, size)`` of an image ``(..., H, W)`` that is not smaller."""
    top, left = ((n - size) // 2 for n in image.shape[-2:])
    return image[..., top : top + size, left : left + size]


def check_fit(fit: str) -> None:
    """Raise a DataError if `fit` is not one of `FITS`."""
    if fit not in FITS:
        raise DataError(f"unknown data.fit '{fit}'; known: {', '.join(FITS)}")


def check_size(path: Path, shape: tuple[int, ...], size: int | None, fit: str) -> None:
    """Raise a DataError if an image of `shape` would have to be enlarged to `size`."""
    side = max(shape) if fit == "pad" else min(shape)
    if side < (size or 1):
        raise DataError(
            f"{path}: expected at least {size} pixels a side, got {shape[1]} x {shape[0]}; "
            "set a smaller data.image_size or take the picture out"
        )


def _pad_to_square(image: np.ndarray) -> np.ndarray:
    side = max(image.shape)
    pad = [((side - n) // 2, (side - n + 1) // 2) for n in image.shape]
    return np.pad(image, pad, constant_values=image.min())
